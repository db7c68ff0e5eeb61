//! Small set of requests that the rest of the crate makes to object storage, below one prefix.
//!
//! Everything that arbitrates (rules, manifests, log, `begin`, `condemned`) is one create-only PUT. A lost answer to
//! such a PUT is ambiguous, and S3 answers a concurrent one with 409: both are settled by reading back what is there.
//! Every create-only object is therefore unmistakably its writer's.
//!
//! Invariants, each a test below:
//! * `create_never_overwrites`.
//! * `an_object_larger_than_allowed_is_refused_before_it_is_read`.
//!
//! Cancel-safety: each call is one request (create: two); dropped half-way it may or may not have happened.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

mod config;
mod error;

pub use config::{ConfigError, ConnectError, RepositoryConfig};
pub use error::{StoreError, StoreFault};

/// What came of a create-only PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is there now, with our content; perhaps by an earlier try whose answer was lost.
    Ours,
    /// It was there before, with other content.
    Theirs(Bytes),
}

/// An object store and the prefix below which every key lives.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The clients of object_store print their configuration, keys included, in Debug; their Display does not.
        write!(f, "Store({} {:?})", self.inner, self.prefix)
    }
}

impl Store {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { inner, prefix: prefix.to_owned() }
    }

    /// The same store, one level down.
    pub(crate) fn below(&self, name: &str) -> Self {
        let prefix = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Self { inner: Arc::clone(&self.inner), prefix }
    }

    fn path(&self, key: &str) -> Path {
        let full = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::from(full)
    }

    /// Reads a whole object of at most `limit` bytes.
    pub(crate) async fn get(&self, key: &str, limit: u64) -> Result<Bytes, StoreError> {
        let failed = |source| StoreError::new("read", key, source);
        let answer = self.inner.get(&self.path(key)).await.map_err(failed)?;
        let size = answer.meta.size;
        if size > limit {
            return Err(StoreError::size("read", key));
        }
        let bytes = answer.bytes().await.map_err(failed)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(StoreError::size("read", key)) }
    }

    /// Like [`Self::get`], with `None` for an object that does not exist.
    pub(crate) async fn find(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
        match self.get(key, limit).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads exactly `range`.
    pub(crate) async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let failed = |source| StoreError::new("read", key, source);
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let answer = self.inner.get_opts(&self.path(key), options).await.map_err(failed)?;
        if answer.range != range {
            return Err(StoreError::size("read", key));
        }
        let bytes = answer.bytes().await.map_err(failed)?;
        let exact = bytes.len() as u64 == range.end - range.start;
        if exact { Ok(bytes) } else { Err(StoreError::size("read", key)) }
    }

    /// Writes an object whose name nobody else can have chosen.
    pub(crate) async fn put(&self, key: &str, content: Bytes) -> Result<(), StoreError> {
        let result = self.inner.put(&self.path(key), PutPayload::from(content)).await;
        result.map(drop).map_err(|source| StoreError::new("write", key, source))
    }

    /// Writes an object only if there is none of that name.
    pub(crate) async fn create(&self, key: &str, content: Bytes) -> Result<Created, StoreError> {
        const TRIES: usize = 3;
        let path = self.path(key);
        let mut last = None;
        for _ in 0..TRIES {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.inner.put_opts(&path, PutPayload::from(content.clone()), options).await {
                Ok(_) => return Ok(Created::Ours),
                Err(
                    error @ (object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }
                    | object_store::Error::NotModified { .. }),
                ) => last = Some(error),
                Err(source) => return Err(StoreError::new("create", key, source)),
            }
            // 412, or 409 when another PUT was under way and may yet have failed: look.
            match self.find(key, u64::MAX).await? {
                Some(there) if there == content => return Ok(Created::Ours),
                Some(there) => return Ok(Created::Theirs(there)),
                None => {}
            }
        }
        let source = last.expect("the loop ends only after such an error");
        Err(StoreError::new("create", key, source))
    }

    /// Names of all objects below `folder` (without it), sorted.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let failed = |source| StoreError::new("list", folder, source);
        let root = self.path(folder);
        let mut names: Vec<String> = self
            .inner
            .list(Some(&root))
            .map_ok(|meta| {
                let full = meta.location.as_ref();
                full.strip_prefix(root.as_ref()).unwrap_or(full).trim_start_matches('/').to_owned()
            })
            .try_collect()
            .await
            .map_err(failed)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Names of the folders directly below the prefix, sorted.
    pub(crate) async fn folders(&self) -> Result<Vec<String>, StoreError> {
        let failed = |source| StoreError::new("list", "repository", source);
        let root = Path::from(self.prefix.as_str());
        let prefix = if self.prefix.is_empty() { None } else { Some(&root) };
        let answer = self.inner.list_with_delimiter(prefix).await.map_err(failed)?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let mut names: Vec<String> = answer.common_prefixes.iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Deletes an object; one that does not exist is fine.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.inner.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(StoreError::new("delete", key, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn create_never_overwrites() {
        let store = Store::new(Arc::new(InMemory::new()), "p");
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        assert_eq!(store.create("k", one.clone()).await.unwrap(), Created::Ours);
        assert_eq!(store.create("k", one.clone()).await.unwrap(), Created::Ours, "a repeated answer");
        assert_eq!(store.create("k", two).await.unwrap(), Created::Theirs(one.clone()));
        assert_eq!(store.get("k", 3).await.unwrap(), one);
    }

    #[tokio::test]
    async fn an_object_larger_than_allowed_is_refused_before_it_is_read() {
        let store = Store::new(Arc::new(InMemory::new()), "");
        store.put("k", Bytes::from_static(b"four")).await.unwrap();
        assert_eq!(store.get("k", 3).await.unwrap_err().fault, StoreFault::Size);
    }

    #[tokio::test]
    async fn keys_are_listed_below_their_folder() {
        let store = Store::new(Arc::new(InMemory::new()), "").below("a").below("b");
        for key in ["log/2/1", "log/1/2", "logs/1"] {
            store.put(key, Bytes::new()).await.unwrap();
        }
        assert_eq!(store.list("log").await.unwrap(), ["1/2", "2/1"]);
        assert_eq!(store.folders().await.unwrap(), ["log", "logs"]);
        store.delete("log/1/2").await.unwrap();
        store.delete("log/1/2").await.unwrap();
        assert_eq!(store.find("log/1/2", 1).await.unwrap(), None);
    }
}
