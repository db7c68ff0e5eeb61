//! Which body does which job.

use super::Role;
use super::job::JobBody;

/// The body of a role's jobs; none for `volume`, which does no jobs.
pub(super) fn of(role: Role) -> Option<Box<dyn JobBody>> {
    match role {
        Role::Volume | Role::Backup | Role::Restore | Role::Ship => None,
    }
}
