//! Reads the `[repository]` part of the configuration and connects to what it names.
//!
//! Connecting opens no connection yet: the first request does. Secrets live in [`Credentials`], which prints nothing
//! of itself.
//!
//! Invariants, each a test below:
//! * `secrets_are_never_printed`.
//! * `every_mistake_is_reported_at_once_with_its_field`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};

use super::Store;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds one request, a pack of 32 MiB included: 256 KiB/s is the slowest link that still works.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(128);
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES_MAX: usize = 6;

/// Where the repository is, as configured. Holds no secret, so that it may be handed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// `s3://bucket/prefix`, `file:///dir` or `memory:` (tests only: gone with the process).
    pub url: String,
    /// S3 endpoint if it is not AWS; `http://` is allowed when written so.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// S3 region; `us-east-1` if absent.
    #[serde(default)]
    pub region: Option<String>,
    /// TOML file with `access_key_id` and `secret_access_key`; without it the instance's own role is used.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

/// Where it is, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    S3 { bucket: String, prefix: String },
    Directory { path: PathBuf },
    Memory,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("repository.{field}: {problem}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Why no connection could be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration is wrong; every mistake in it.
    #[error("repository configuration is not valid: {}", list(.0))]
    Config(Vec<ConfigError>),
    /// The credentials file cannot be read.
    #[error("read credentials file {}", path.display())]
    ReadCredentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credentials file is not what it should be. Its parser's message is left out: it quotes the file.
    #[error(
        "credentials file {} is not valid: it needs access_key_id = \"..\" and secret_access_key = \"..\"",
        path.display()
    )]
    ParseCredentials {
        /// The file.
        path: PathBuf,
    },
    /// The directory of a `file://` repository cannot be made.
    #[error("create repository directory {}", path.display())]
    MakeDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client library refused.
    #[error("set up the object storage client")]
    Client(#[source] object_store::Error),
}

fn list(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// An access key with its secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl RepositoryConfig {
    /// Checks every field without touching the network or a file.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        let place = self.place().map_err(|error| errors.push(error)).ok();
        let is_s3 = matches!(place, Some(Place::S3 { .. }));
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("https://")
            && !endpoint.starts_with("http://")
        {
            let problem = format!("{endpoint:?} must start with https:// or http://");
            errors.push(ConfigError { field: "endpoint", problem });
        }
        let s3_only = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
        ];
        for (field, given) in s3_only {
            if place.is_some() && !is_s3 && given {
                errors.push(ConfigError { field, problem: "only s3:// repositories have one".to_owned() });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn place(&self) -> Result<Place, ConfigError> {
        let bad = |problem: &str| ConfigError { field: "url", problem: format!("{:?} {problem}", self.url) };
        if self.url == "memory:" {
            return Ok(Place::Memory);
        }
        if let Some(path) = self.url.strip_prefix("file://") {
            let path = PathBuf::from(path);
            let plain = path.is_absolute() && path.components().all(|c| c.as_os_str() != "..");
            return if plain { Ok(Place::Directory { path }) } else { Err(bad("needs an absolute path")) };
        }
        let Some(rest) = self.url.strip_prefix("s3://") else {
            return Err(bad("is none of s3://bucket/prefix, file:///dir and memory:"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let bucket_shape = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if !bucket_shape {
            return Err(bad("needs a bucket name of 3 to 63 of a-z, 0-9, '-' and '.'"));
        }
        let prefix = prefix.trim_end_matches('/');
        let prefix_shape = prefix.is_empty()
            || prefix.split('/').all(|part| {
                !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                    && part != "."
                    && part != ".."
            });
        if !prefix_shape {
            return Err(bad("needs a prefix of words of letters, digits, '-', '_' and '.', joined by '/'"));
        }
        Ok(Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Makes the client. Reads the credentials file; opens no connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(crate) fn connect(&self) -> Result<Store, ConnectError> {
        self.validate().map_err(ConnectError::Config)?;
        match self.place().map_err(|error| ConnectError::Config(vec![error]))? {
            Place::Memory => Ok(Store::new(Arc::new(InMemory::new()), "")),
            Place::Directory { path } => {
                std::fs::create_dir_all(&path)
                    .map_err(|source| ConnectError::MakeDirectory { path: path.clone(), source })?;
                let store = LocalFileSystem::new_with_prefix(path).map_err(ConnectError::Client)?;
                Ok(Store::new(Arc::new(store.with_fsync(true)), ""))
            }
            Place::S3 { bucket, prefix } => Ok(Store::new(self.s3(&bucket)?, &prefix)),
        }
    }

    fn s3(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, ConnectError> {
        let client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(path) = &self.credentials_file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConnectError::ReadCredentials { path: path.clone(), source })?;
            let credentials: Credentials = toml::from_str(&text)
                .map_err(|_quotes_secrets| ConnectError::ParseCredentials { path: path.clone() })?;
            builder = builder
                .with_access_key_id(credentials.access_key_id)
                .with_secret_access_key(credentials.secret_access_key);
            if let Some(token) = credentials.session_token {
                builder = builder.with_token(token);
            }
        }
        Ok(Arc::new(builder.build().map_err(ConnectError::Client)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> RepositoryConfig {
        RepositoryConfig { url: url.to_owned(), ..RepositoryConfig::default() }
    }

    #[test]
    fn urls_are_read_by_their_scheme() {
        let s3 =
            |bucket: &str, prefix: &str| Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        assert_eq!(config("s3://backups").place(), Ok(s3("backups", "")));
        assert_eq!(config("s3://backups/a/b/").place(), Ok(s3("backups", "a/b")));
        assert_eq!(config("file:///srv/x").place(), Ok(Place::Directory { path: "/srv/x".into() }));
        assert_eq!(config("memory:").place(), Ok(Place::Memory));
        for bad in
            ["", "backups", "s3://", "s3://ab", "s3://Bucket", "s3://backups/../x", "file://x", "gs://b"]
        {
            assert!(config(bad).place().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_field() {
        let wrong = RepositoryConfig {
            url: "file:///srv".to_owned(),
            endpoint: Some("host:1".to_owned()),
            region: Some("r".to_owned()),
            credentials_file: None,
        };
        let fields: Vec<_> = wrong.validate().unwrap_err().iter().map(|error| error.field).collect();
        assert_eq!(fields, ["endpoint", "endpoint", "region"]);
    }

    #[test]
    fn secrets_are_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s3.toml");
        std::fs::write(&path, "access_key_id = \"AKIDHUSH\"\nsecret_access_key = \"hush\" oops").unwrap();
        let config = RepositoryConfig { credentials_file: Some(path.clone()), ..config("s3://backups") };
        let error = config.connect().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");

        std::fs::write(&path, "access_key_id = \"AKIDHUSH\"\nsecret_access_key = \"hush\"").unwrap();
        let store = config.connect().unwrap();
        assert!(!format!("{store:?} {config:?}").contains("hush"));
    }
}
