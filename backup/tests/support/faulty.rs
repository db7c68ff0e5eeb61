//! An object store that fails on purpose: errors before or after a request took effect, damaged and missing objects.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every request from number `n` on (from 0) fails and has no effect: as if the process had been killed there.
    DownFrom(u64),
    /// Request number `n` takes effect and its answer is lost, as is everything after it.
    AnswerLostFrom(u64),
    /// Only request number `n` fails.
    Once(u64),
    /// Reads of keys that contain this text come back with a flipped bit, so many times.
    Flip(String, u64),
    /// Reads of keys that contain this text are cut short, so many times.
    Cut(String, u64),
    /// Keys that contain this text do not exist.
    Missing(String),
    /// Keys that contain this text do not exist, so many times.
    Gone(String, u64),
    /// Requests whose key contains this text fail.
    Down(String),
}

/// Wraps a store in memory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    inner: Arc<InMemory>,
    fault: Arc<Mutex<Fault>>,
    requests: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(InMemory::new()),
            fault: Arc::new(Mutex::new(Fault::None)),
            requests: Arc::default(),
            written: Arc::default(),
        }
    }

    /// From now on this goes wrong; counting of requests begins anew.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.requests.store(0, SeqCst);
    }

    /// Requests since the last [`Self::set`].
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    /// The store behind the faults.
    pub(crate) fn inner(&self) -> &InMemory {
        &self.inner
    }

    /// Every key.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let metas: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        metas.into_iter().map(|meta| meta.location.to_string()).collect()
    }

    fn refuse() -> Error {
        Error::Generic { store: "faulty", source: "status code: 503 on purpose".into() }
    }

    /// Counts a request; says whether it may take effect and whether its answer arrives.
    fn judge(&self, key: &str) -> (Result<()>, Result<()>) {
        let number = self.requests.fetch_add(1, SeqCst);
        let missing =
            || Error::NotFound { path: key.to_owned(), source: "missing on purpose".to_owned().into() };
        let refused = || (Err(Self::refuse()), Ok(()));
        let granted = (Ok(()), Ok(()));
        match &mut *self.fault.lock().unwrap() {
            Fault::DownFrom(n) => {
                if number >= *n {
                    refused()
                } else {
                    granted
                }
            }
            Fault::AnswerLostFrom(n) => match number.cmp(n) {
                Ordering::Less => granted,
                Ordering::Equal => (Ok(()), Err(Self::refuse())),
                Ordering::Greater => refused(),
            },
            Fault::Once(n) => {
                if number == *n {
                    refused()
                } else {
                    granted
                }
            }
            Fault::Missing(text) if key.contains(text.as_str()) => (Err(missing()), Ok(())),
            Fault::Gone(text, times) if *times > 0 && key.contains(text.as_str()) => {
                *times -= 1;
                (Err(missing()), Ok(()))
            }
            Fault::Down(text) if key.contains(text.as_str()) => refused(),
            Fault::None
            | Fault::Flip(..)
            | Fault::Cut(..)
            | Fault::Missing(_)
            | Fault::Gone(..)
            | Fault::Down(_) => granted,
        }
    }

    fn damage(&self, key: &str, bytes: Bytes) -> Bytes {
        match &mut *self.fault.lock().unwrap() {
            Fault::Flip(text, times) if *times > 0 && key.contains(text.as_str()) => {
                *times -= 1;
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                Bytes::from(bytes)
            }
            Fault::Cut(text, times) if *times > 0 && key.contains(text.as_str()) => {
                *times -= 1;
                bytes.slice(..bytes.len() / 2)
            }
            Fault::Flip(..)
            | Fault::Cut(..)
            | Fault::None
            | Fault::DownFrom(_)
            | Fault::AnswerLostFrom(_)
            | Fault::Once(_)
            | Fault::Missing(_)
            | Fault::Gone(..)
            | Fault::Down(_) => bytes,
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (effect, answer) = self.judge(at.as_ref());
        effect?;
        self.written.fetch_add(payload.content_length() as u64, SeqCst);
        let result = self.inner.put_opts(at, payload, options).await?;
        answer.map(|()| result)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (effect, answer) = self.judge(at.as_ref());
        effect.and(answer)?;
        let result = self.inner.get_opts(at, options).await?;
        let (meta, range, attributes) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let extensions = result.extensions.clone();
        let bytes = self.damage(at.as_ref(), result.bytes().await?);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        at.and_then(move |path| {
            let this = this.clone();
            async move {
                let (effect, answer) = this.judge(path.as_ref());
                effect?;
                this.inner.delete(&path).await?;
                answer.map(|()| path)
            }
        })
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (effect, answer) = self.judge(prefix.map_or("", |prefix| prefix.as_ref()));
        match effect.and(answer) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (effect, answer) = self.judge(prefix.map_or("", |prefix| prefix.as_ref()));
        effect.and(answer)?;
        self.inner.list_with_delimiter(prefix).boxed().await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
