//! Makes the file system on a claimed blank device, and erases an occupied one with consent.
//!
//! Order, and what a crash after each step leaves behind:
//! 1. clear remains of an unfinished format, where there are any: still unfinished, by its stamp.
//! 2. write the stamp "formatting", while the device is held exclusively: unfinished, and provably ours.
//! 3. mkfs: unfinished, whatever mkfs had written.
//! 4. read the superblock back through the held descriptor; check that the device is the same.
//! 5. write the stamp "formatted": ours. The identity record follows at the first mount; see `mount`.
//!
//! Two at once: the second cannot claim the device while the first holds it or mkfs runs. Erasing clears both ends
//! before the first stamp; a crash in between leaves a foreign device and a used token, so it takes another look.
//!
//! Invariants: `tests/devices/format.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use holdfast_model::ByteCount;
use holdfast_model::volume::{DeviceId, Filesystem, VolumeIdentity};
use holdfast_storage_io::buffer::AlignedBuf;

use crate::content::{self, Ends};
use crate::device::{Held, HoldError};
use crate::probe::{Blank, Claimed, Occupied, Ours};
use crate::stamp::{self, Stamp, Step};
use crate::superblock::{self, Superblock, SuperblockState};
use crate::sysfs::Sysfs;
use crate::tool::{Mkfs, ToolError};
use crate::wipe::{WipeError, WipeToken};

const PORTION: usize = 1 << 20;

/// Why a device was not formatted. What had been written by then is recognised as ours and unfinished.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Too small for the file system.
    #[error("{device} is too small for {filesystem}: it needs {least} at least")]
    TooSmall {
        /// The device.
        device: Box<DeviceId>,
        /// What was to be made.
        filesystem: Filesystem,
        /// How big it must be.
        least: ByteCount,
    },
    /// It cannot be held, or is another device by now.
    #[error("hold device for formatting")]
    Hold(#[from] HoldError),
    /// It cannot be written.
    #[error("{op} on {device}")]
    Write {
        /// What was being done.
        op: &'static str,
        /// The device.
        device: Box<DeviceId>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// mkfs failed.
    #[error("make file system on {device}")]
    Mkfs {
        /// The device.
        device: Box<DeviceId>,
        /// How.
        #[source]
        source: ToolError,
    },
    /// What mkfs made is not what was asked for.
    #[error("file system on {device} is not the one that was made: {found}")]
    NotAsMade {
        /// The device.
        device: Box<DeviceId>,
        /// What is there instead.
        found: String,
    },
}

/// Why a device was not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The token does not allow it.
    #[error("check consent to erase")]
    Consent(#[from] WipeError),
    /// It cannot be written, or is another device by now.
    #[error("erase device")]
    Format(#[from] FormatError),
}

/// The smallest device that `filesystem` is made on: mkfs.xfs wants 300 MiB, and ours leaves some at the end.
#[must_use]
pub const fn least(filesystem: Filesystem) -> ByteCount {
    match filesystem {
        Filesystem::Xfs => ByteCount::mib(304),
        Filesystem::Ext4 => ByteCount::mib(64),
    }
}

impl Claimed<Blank> {
    /// Makes `filesystem` on the device, for the member that `identity` names.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn format(
        mut self,
        filesystem: Filesystem,
        identity: VolumeIdentity,
        sysfs: &Sysfs,
    ) -> Result<Claimed<Ours>, FormatError> {
        let device = self.held.id.clone();
        let least = least(filesystem);
        if device.size < least {
            return Err(FormatError::TooSmall { device: Box::new(device), filesystem, least });
        }
        let mut stamp = self.stamp_for(identity);
        self.held.verify(sysfs)?;
        let writer = self.held.writer()?;
        if self.state.remains {
            clear_ends(&writer, &self.held, Clear::AllButStamp)?;
        }
        write_stamp(&writer, &self.held, &stamp)?;
        drop(writer);

        let mkfs = Mkfs {
            filesystem,
            uuid: stamp.identity.fs_uuid,
            label: stamp::label(stamp.identity.fs_uuid),
            size: stamp::fs_size(device.size.bytes()),
        };
        self.held.verify(sysfs)?;
        self.held.share();
        mkfs.run(self.held.writer()?)
            .map_err(|source| FormatError::Mkfs { device: Box::new(device.clone()), source })?;
        self.held.verify(sysfs)?;
        let writer = self.held.writer()?;
        writer.sync_all().map_err(writing("sync", &self.held))?;
        check_made(&self.held, &mkfs, &stamp)?;
        stamp.step = Step::Formatted;
        write_stamp(&writer, &self.held, &stamp)?;
        Ok(Claimed { held: self.held, state: Ours { stamp } })
    }

    /// Completes the identity with what only the device and the derivation know.
    fn stamp_for(&self, mut identity: VolumeIdentity) -> Stamp {
        identity.fs_uuid = stamp::fs_uuid(&identity.cluster, &identity.node, identity.incarnation);
        identity.serials = vec![self.held.id.serial.clone()];
        identity.cluster_id = None;
        Stamp { step: Step::Formatting, device_size: self.held.id.size, identity }
    }
}

impl Claimed<Occupied> {
    /// Clears both ends of the device, with consent that names it and what it holds. The token must have been
    /// redeemed, so that it cannot be used again.
    ///
    /// # Errors
    /// [`EraseError`]; nothing was written unless it is a `Write`.
    pub fn erase(self, consent: &WipeToken, sysfs: &Sysfs) -> Result<Claimed<Blank>, EraseError> {
        let content = self.fingerprint().map_err(reading(&self.held))?;
        consent.check(&self.held.id, content)?;
        self.held.verify(sysfs).map_err(FormatError::from)?;
        let writer = self.held.writer().map_err(FormatError::from)?;
        clear_ends(&writer, &self.held, Clear::All)?;
        Ok(Claimed { held: self.held, state: Blank { remains: false } })
    }
}

fn check_made(held: &Held, mkfs: &Mkfs, stamp: &Stamp) -> Result<(), FormatError> {
    let not_as_made = |found| FormatError::NotAsMade { device: Box::new(held.id.clone()), found };
    let ends = Ends::read(&held.plain, held.id.size.bytes(), content::OWN_LEN).map_err(reading(held))?;
    let made = Superblock {
        filesystem: mkfs.filesystem,
        uuid: mkfs.uuid,
        label: mkfs.label.clone(),
        size: mkfs.size,
        state: SuperblockState::Sound,
    };
    match superblock::read(&ends) {
        Some(found) if found == made => {}
        found => return Err(not_as_made(format!("{found:?}"))),
    }
    match stamp::read(&ends) {
        Ok(Some(found)) if found == *stamp => Ok(()),
        Ok(_) | Err(_) => Err(not_as_made("mkfs wrote over the stamp".to_owned())),
    }
}

fn write_stamp(writer: &File, held: &Held, stamp: &Stamp) -> Result<(), FormatError> {
    let bytes = AlignedBuf::copy_of(&stamp::encode(stamp));
    writer.write_all_at(&bytes, stamp::offset(held.id.size.bytes())).map_err(writing("write stamp", held))?;
    writer.sync_all().map_err(writing("sync stamp", held))
}

/// What of the ends is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clear {
    /// Everything.
    All,
    /// All but the stamp of ours, which must outlive the remains that it vouches for.
    AllButStamp,
}

fn clear_ends(writer: &File, held: &Held, what: Clear) -> Result<(), FormatError> {
    let size = held.id.size.bytes();
    let stamp_at = stamp::offset(size);
    let len = content::END_LEN;
    let ranges = match what {
        Clear::All => vec![(0, len), (size - len, size)],
        Clear::AllButStamp => vec![(0, len), (size - len, stamp_at), (stamp_at + stamp::LEN as u64, size)],
    };
    let zeros = AlignedBuf::zeroed(PORTION);
    for (from, to) in ranges {
        let mut at = from;
        while at < to {
            let n = usize::try_from(to - at).unwrap_or(PORTION).min(PORTION);
            writer.write_all_at(&zeros[..n], at).map_err(writing("clear", held))?;
            at += n as u64;
        }
    }
    writer.sync_all().map_err(writing("sync", held))
}

fn writing(op: &'static str, held: &Held) -> impl FnOnce(io::Error) -> FormatError {
    let device = Box::new(held.id.clone());
    move |source| FormatError::Write { op, device, source }
}

fn reading(held: &Held) -> impl FnOnce(io::Error) -> FormatError {
    writing("read back", held)
}
