//! Which body does which job.

use super::Role;
use super::job::JobBody;
use crate::jobs::backup::BackupBody;
use crate::jobs::restore::RestoreBody;
use crate::jobs::ship::ShipBody;

/// The body of a role's jobs; none for `volume`, which does no jobs.
pub(super) fn of(role: Role) -> Option<Box<dyn JobBody>> {
    match role {
        Role::Volume => None,
        Role::Backup => Some(Box::new(BackupBody)),
        Role::Restore => Some(Box::new(RestoreBody)),
        Role::Ship => Some(Box::new(ShipBody)),
    }
}
