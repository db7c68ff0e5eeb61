//! The physical replication slot that keeps log on disk until it was shipped: without it the server recycles segments
//! at each checkpoint, and an object store that is away for a while would leave a gap for ever.
//!
//! The primary has one, and each server that follows it, as far behind as the primary says that it has shipped: whoever is
//! promoted ships what is missing first. A slot on a standby is made, held and advanced as on a primary, up to where it has
//! replayed, and goes on through a promotion. No base and no rewind brings it along.
//!
//! How much it may hold back is capped by `max_slot_wal_keep_size`; beyond that the server drops what the slot needs,
//! the shipper finds a gap, and the slot is dead: it is made anew.
//!
//! Invariants:
//! * `the_slot_for_shipping_holds_log_until_it_was_shipped` and `a_slot_that_was_lost_by_its_cap_is_made_anew` in
//!   `tests/slots.rs`.
//! * `a_promoted_follower_still_has_the_log_that_was_not_shipped` in `tests/replication/keep.rs`.

use holdfast_model::Lsn;
use tokio_postgres::types::PgLsn;

use super::{Session, SessionError};

/// The slot's name. Slots are not part of a backup: a restored server has none until it is made again.
const SLOT: &str = "holdfast_ship";

impl Session {
    /// Makes the slot if it is not there, or was lost by its cap; it holds log from the last checkpoint on.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ensure_ship_slot(&self) -> Result<(), SessionError> {
        let lost = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
            WHERE slot_name = $1::name AND wal_status = 'lost'";
        self.rows("drop a lost slot for shipping", lost, &[&SLOT]).await?;
        let sql = "SELECT pg_create_physical_replication_slot($1::name, true) \
            WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::name)";
        let made = self.within("make the slot for shipping", self.client().query(sql, &[&SLOT])).await?;
        drop(made);
        Ok(())
    }

    /// Lets go of log before `shipped`. Going back, or to where it is, changes nothing; a server in recovery goes no further
    /// than it has replayed.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn advance_ship_slot(&self, shipped: Lsn) -> Result<(), SessionError> {
        let sql = "SELECT pg_replication_slot_advance(slot_name, $2) FROM pg_replication_slots \
            WHERE slot_name = $1::name AND restart_lsn < $2";
        let shipped = PgLsn::from(shipped.offset());
        let moved = self
            .within("advance the slot for shipping", self.client().query(sql, &[&SLOT, &shipped]))
            .await?;
        drop(moved);
        Ok(())
    }
}
