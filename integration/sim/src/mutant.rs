//! Shortcuts that a cluster could take, each of which loses something. The histories have to find that out: a simulation
//! that finds nothing wrong with them proves nothing about the protocol.

/// One shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A replaced disk gets the incarnation of the one that was lost.
    SameIncarnation,
    /// The longest log wins, whatever rules are in it.
    ChooseByLength,
    /// A promise is lost with the agent that made it.
    PromiseInMemory,
    /// Log is shipped as soon as the primary has flushed it.
    ShipUnacked,
    /// The gate opens once the marker is written.
    OpenBeforeAcked,
    /// After a start or a promotion the newest rule in the log counts alone, acked or not.
    ListFromUnackedMarker,
    /// The recruited are taken for all voters there are.
    WithoutU,
    /// A recruited standby goes on receiving.
    ReceiveAfterRecruit,
    /// A voter acks under a rule that names it before that rule is acked.
    WidenBeforeAcked,
    /// A member whose log left the chain is rewound where it is, to a checkpoint before the fork at first, and recruited as it
    /// is meanwhile.
    RewindInPlace,
    /// A rule is said to start where the timeline before began to end, although that timeline never had a rule.
    StartAtRulelessReign,
}
