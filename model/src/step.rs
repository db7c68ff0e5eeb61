//! The steps of what changes who may write: between each two of them a node may die, and goes on from what is on its disks.
//!
//! Each is told when it is done, as a `tracing` event of [`TARGET`] at DEBUG, with its name in the field [`FIELD`]: with
//! `HOLDFAST_LOG=info,holdfast::step=debug` an agent's log shows where a change of the primary or of the members stands. Some
//! steps belong to more than one protocol: whoever follows another primary first holds still, as if it were recruited.
//!
//! Invariants, each a test in `integration/tests/cluster`:
//! * `an_agent_may_die_after_each_step_of_a_recruit_as_root`, and so on for each protocol: nothing that was acked is lost, and
//!   the cluster becomes whole.
//!
//! Not here: what a step does; see where it is told.

use std::fmt;

/// The target of the events.
pub const TARGET: &str = "holdfast::step";
/// The field that holds the name.
pub const FIELD: &str = "step";

/// A step that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(&'static str);

impl Step {
    /// What events call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A protocol as a module: a constant for each of its steps, and all of them in order.
macro_rules! protocol {
    ($(#[$about:meta])* $protocol:ident { $($(#[$done:meta])* $step:ident = $name:literal,)+ }) => {
        $(#[$about])*
        pub mod $protocol {
            use super::Step;

            $($(#[$done])* pub const $step: Step = Step(concat!(stringify!($protocol), ".", $name));)+

            /// In the order in which they are done.
            pub const ALL: &[Step] = &[$($step),+];
        }
    };
}

protocol! {
    /// A member takes part in nothing below a term any more, and tells how far its log goes.
    recruit {
        /// The promise is on the volume.
        PROMISED = "promised",
        /// No upstream is configured any more, in the files and in force.
        DETACHED = "detached",
        /// Nothing is received, and replay was seen asleep for the first time.
        ASLEEP = "asleep",
        /// Replay was seen paused, and was not told to go on yet.
        PAUSED = "paused",
        /// All that was received is applied, and the position is read.
        STILL = "still",
        /// Nothing is left but to answer.
        REPORTED = "reported",
    }
}

protocol! {
    /// A member that wrote becomes one that does not.
    step_down {
        /// Its engine was told to stop at once.
        STOPPED = "stopped",
        /// Its data directory is a standby's; the engine was not started yet.
        STANDBY = "standby",
    }
}

protocol! {
    /// A recruited member begins the term.
    promote {
        /// The volume says that this member reigns in the term.
        RECORDED = "recorded",
        /// The numbers below the term are taken.
        PREPARED = "prepared",
        /// The engine was asked, and may still recover.
        ASKED = "asked",
        /// The engine writes on the timeline of the term.
        BEGUN = "begun",
        /// The term's first rule is in its log.
        MARKED = "marked",
        /// That was seen acked.
        ACKED = "acked",
    }
}

protocol! {
    /// What is in force on an engine that writes.
    gate {
        /// Whoever may attach has a login and a slot; the files were not written yet.
        ADMITTED = "admitted",
        /// The files of a closed gate and its ack list are written; the engine has not read them yet.
        CLOSED_WRITTEN = "closed_written",
        /// They are in force.
        CLOSED = "closed",
        /// The files of an open gate are written.
        OPEN_WRITTEN = "open_written",
        /// They are in force.
        OPEN = "open",
    }
}

protocol! {
    /// A member receives from a primary.
    follow {
        /// The primary's term is promised, by one that was not recruited for it.
        PROMISED = "promised",
        /// The volume does not say any more that this member reigns.
        RESIGNED = "resigned",
        /// The primary's rules are known, and who follows it is told to.
        ORDERED = "ordered",
        /// The own log is part of the primary's.
        JUDGED = "judged",
        /// The files that name the upstream are written; the engine has not read them yet.
        WRITTEN = "written",
        /// They are in force.
        LOADED = "loaded",
        /// It is seen to receive.
        STREAMS = "streams",
    }
}

protocol! {
    /// A primary changes its rule.
    change {
        /// What an operator wants is in the database.
        REMEMBERED = "remembered",
        /// The change is begun; nothing of it is in force.
        BEGUN = "begun",
        /// The ack list is in force on every stream.
        ENFORCED = "enforced",
        /// The rule is in the log.
        WRITTEN = "written",
        /// It was seen acked, and holds; it was not written once more yet.
        HOLDS = "holds",
        /// It was, and that was seen acked too.
        CONFIRMED = "confirmed",
    }
}

protocol! {
    /// A primary sees that a member can ack no more.
    expel {
        /// Its login is taken away.
        LOCKED_OUT = "locked_out",
        /// Its connections are gone.
        GONE = "gone",
        /// Its slot is dropped.
        FORGOTTEN = "forgotten",
    }
}

protocol! {
    /// A copy of a diverged member's data is brought back, and takes its place.
    rewind {
        /// The copy is made.
        COPIED = "copied",
        /// It was brought back, and would start as a standby.
        REWOUND = "rewound",
        /// The volume says that its server replays.
        RECORDED = "recorded",
        /// It is whole, and the data directory says that it is replaced.
        MARKED = "marked",
        /// The volume says that the copy takes the place.
        WHOLE = "whole",
        /// It has.
        TAKEN = "taken",
    }
}

protocol! {
    /// A node coordinates another primary; what follows a step was not asked of anybody yet.
    coordinate {
        /// The candidate is near.
        NEAR = "near",
        /// The primary's gate is closed.
        CLOSED = "closed",
        /// Nobody needs to be asked any more whether members may be recruited.
        AGREED = "agreed",
        /// Enough are recruited, and one of them is chosen.
        CHOSEN = "chosen",
        /// The chosen one has begun the term.
        BEGUN = "begun",
        /// It is over.
        ENDED = "ended",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_steps_have_the_same_name() {
        let protocols = [
            recruit::ALL,
            step_down::ALL,
            rewind::ALL,
            promote::ALL,
            gate::ALL,
            follow::ALL,
            change::ALL,
            expel::ALL,
            coordinate::ALL,
        ];
        let all = protocols.concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(step_down::STANDBY.to_string(), "step_down.standby");
    }
}
