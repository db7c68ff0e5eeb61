//! Another user's rights on files, for a while. Only in processes with a single thread: the C library changes the ids of all
//! threads at once, and so would this.

use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};

use super::spec::RunAs;

/// Runs `f` with another user's rights on files, then becomes root again; as whoever it is without a user. The supplementary
/// groups stay that user's, which takes nothing from root.
///
/// # Errors
/// When the ids cannot be changed. After an error the process must end: whose rights it has is not known.
pub(crate) fn with_rights_of<T>(user: Option<&RunAs>, f: impl FnOnce() -> T) -> nix::Result<T> {
    let Some(user) = user else { return Ok(f()) };
    let (uid, gid) = (Uid::effective(), Gid::effective());
    setgroups(&groups(user))?;
    setegid(Gid::from_raw(user.gid))?;
    seteuid(Uid::from_raw(user.uid))?;
    let result = f();
    seteuid(uid)?;
    setegid(gid)?;
    Ok(result)
}

/// All supplementary groups of a user.
pub(crate) fn groups(user: &RunAs) -> Vec<Gid> {
    user.groups.iter().copied().map(Gid::from_raw).collect()
}
