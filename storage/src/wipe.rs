//! Consent to erase what is on a device: a token that says exactly what was looked at.
//!
//! A token is issued after a look (`volume plan`), names the device and the content that was seen, expires, and is
//! good once: redeeming removes its file, durably, before anything is erased. Tokens are kept in a directory off
//! the volume that only root may write, so that nobody can consent in the operator's name.
//!
//! Invariants: `a_token_is_good_once`, `an_expired_token_is_refused`,
//! `a_token_for_another_device_or_content_is_refused`.
//!
//! Not here: erasing. See `format`. The wall clock: callers pass it in.

use std::path::{Path, PathBuf};

use holdfast_model::record::{self, RecordError, RecordKind};
use holdfast_model::volume::DeviceId;
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};

const KIND: RecordKind = RecordKind { tag: *b"wipe", version: 1, name: "wipe token" };
const LIMIT: u64 = 16 << 10;

/// How long a token is good, in milliseconds.
pub const VALID_FOR_MS: u64 = 10 * 60 * 1000;

/// Names a token; 128 random bits in hex. This is what the operator repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// Not 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wipe token {0:?} is not valid: use the 32 hex digits that `holdfast volume plan` printed")]
pub struct ParseTokenIdError(String);

impl TokenId {
    /// From 128 random bits.
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TokenId {
    type Error = ParseTokenIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let shape =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        if shape { Ok(Self(text)) } else { Err(ParseTokenIdError(text)) }
    }
}
impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

/// A digest of what a device holds: its ends and a fixed sample of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(uuid::Uuid);

impl Fingerprint {
    pub(crate) const fn new(digest: uuid::Uuid) -> Self {
        Self(digest)
    }
}

/// What was looked at and may be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeToken {
    /// Names it.
    pub id: TokenId,
    /// The device.
    pub device: DeviceId,
    /// What it held.
    pub fingerprint: Fingerprint,
    /// Wall clock, milliseconds since 1970.
    pub expires_unix_ms: u64,
}

/// Why consent was refused.
#[derive(Debug, thiserror::Error)]
pub enum WipeError {
    /// Never issued, or used.
    #[error("wipe token {id} is unknown or was used: look again with `holdfast volume plan`")]
    Unknown {
        /// The token.
        id: String,
    },
    /// Too old.
    #[error("wipe token {id} expired: look again with `holdfast volume plan`")]
    Expired {
        /// The token.
        id: String,
    },
    /// It is for another device.
    #[error("wipe token {id} is for {expected}, not for {found}")]
    OtherDevice {
        /// The token.
        id: String,
        /// What was looked at.
        expected: Box<DeviceId>,
        /// What is there.
        found: Box<DeviceId>,
    },
    /// The device has been written since.
    #[error(
        "content of {device} changed since wipe token {id} was issued: look again with `holdfast volume plan`"
    )]
    OtherContent {
        /// The token.
        id: String,
        /// The device.
        device: Box<DeviceId>,
    },
    /// The file of the token is damaged.
    #[error("read wipe token {id}")]
    Record {
        /// The token.
        id: String,
        /// How.
        #[source]
        source: RecordError,
    },
    /// The token directory does not answer as it should.
    #[error("access wipe tokens")]
    Io(#[from] IoError),
}

/// The tokens that were issued and not used.
#[derive(Debug, Clone)]
pub struct TokenStore {
    root: Root,
}

impl TokenStore {
    /// Opens the directory, making it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`WipeError::Io`].
    pub fn open(dir: &Path) -> Result<Self, WipeError> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(dir).map_err(IoError::at("make directory", dir))?;
        Ok(Self { root: Root::open(dir)? })
    }

    /// Keeps a token; durable when it returns.
    ///
    /// # Errors
    /// [`WipeError::Io`].
    pub fn issue(&self, token: &WipeToken) -> Result<(), WipeError> {
        Ok(self.root.replace(&file_name(&token.id), &record::encode(KIND, token), 0o600)?)
    }

    /// Takes a token out, for good: when it returns, the token is used, whatever happens next.
    ///
    /// # Errors
    /// [`WipeError`]; an expired token is removed too.
    pub fn redeem(&self, id: &TokenId, now_unix_ms: u64) -> Result<WipeToken, WipeError> {
        let name = || id.as_str().to_owned();
        let unknown = || WipeError::Unknown { id: name() };
        // Of two that redeem at once, one renames.
        let used = PathBuf::from(format!("used-{}", id.as_str()));
        match self.root.rename(&file_name(id), &used) {
            Err(err) if err.is_not_found() => return Err(unknown()),
            renamed => renamed?,
        }
        self.root.sync_dir(Path::new(""))?;
        let bytes = self.root.read(&used, LIMIT)?.ok_or_else(unknown)?;
        self.root.remove_file(&used)?;
        let token: WipeToken =
            record::decode(KIND, &bytes).map_err(|source| WipeError::Record { id: name(), source })?;
        if now_unix_ms >= token.expires_unix_ms {
            return Err(WipeError::Expired { id: name() });
        }
        Ok(token)
    }
}

impl WipeToken {
    /// Refuses if the token is not for this device holding this content.
    ///
    /// # Errors
    /// [`WipeError`]: `OtherDevice` or `OtherContent`.
    pub fn check(&self, device: &DeviceId, content: Fingerprint) -> Result<(), WipeError> {
        let id = self.id.as_str().to_owned();
        let same_device = self.device.serial == device.serial
            && self.device.diskseq == device.diskseq
            && self.device.size == device.size;
        if !same_device {
            let (expected, found) = (Box::new(self.device.clone()), Box::new(device.clone()));
            return Err(WipeError::OtherDevice { id, expected, found });
        }
        if self.fingerprint != content {
            return Err(WipeError::OtherContent { id, device: Box::new(device.clone()) });
        }
        Ok(())
    }
}

fn file_name(id: &TokenId) -> PathBuf {
    PathBuf::from(format!("wipe-{}", id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::ByteCount;

    fn token() -> WipeToken {
        let device = DeviceId {
            path: "/dev/nvme1n1".into(),
            model: "m".to_owned(),
            serial: "S1".to_owned(),
            diskseq: 4,
            size: ByteCount::gib(1),
        };
        let fingerprint = Fingerprint::new(uuid::Uuid::from_u128(1));
        WipeToken { id: TokenId::from_random(7), device, fingerprint, expires_unix_ms: 1000 }
    }

    #[test]
    fn a_token_is_good_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = TokenStore::open(&dir.path().join("tokens")).unwrap();
        store.issue(&token()).unwrap();
        assert_eq!(store.redeem(&token().id, 999).unwrap(), token());
        assert!(matches!(store.redeem(&token().id, 999), Err(WipeError::Unknown { .. })));
    }

    #[test]
    fn an_expired_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = TokenStore::open(dir.path()).unwrap();
        store.issue(&token()).unwrap();
        assert!(matches!(store.redeem(&token().id, 1000), Err(WipeError::Expired { .. })));
    }

    #[test]
    fn a_token_for_another_device_or_content_is_refused() {
        let token = token();
        token.check(&token.device, token.fingerprint).unwrap();
        let other = DeviceId { diskseq: 5, ..token.device.clone() };
        assert!(matches!(token.check(&other, token.fingerprint), Err(WipeError::OtherDevice { .. })));
        let changed = Fingerprint::new(uuid::Uuid::from_u128(2));
        assert!(matches!(token.check(&token.device, changed), Err(WipeError::OtherContent { .. })));
    }

    #[test]
    fn only_hex_names_a_token() {
        let id = TokenId::from_random(7);
        assert_eq!(TokenId::try_from(String::from(id.clone())), Ok(id));
        for bad in ["", "../../etc/passwd", &"A".repeat(32), &"f".repeat(31)] {
            assert!(TokenId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
