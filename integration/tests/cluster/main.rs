//! Clusters in zones: real daemons, engines, disks, load balancers and object storage. Needs root.
//!
//! * [`alone`]: the stage itself, with a node in one zone only.
//!
//! With three, each row of the fault matrix that needs a real engine, with failover by command; each ends whole and with an
//! audit ([`stage::play`]):
//! * [`crash`]: processes end or stand still.
//! * [`partition`]: links are cut.
//! * [`disks`]: disks vanish, fill up, fail and hang.
//! * [`waiters`]: the primary ends while commits wait.
//! * [`by_hand`]: a failover that no agent coordinates.
//! * [`vouched`]: a failover on somebody's word.
//! * [`clients`]: how clients find the primary and its followers.
//! * [`rewound`]: a deposed primary with a tail comes back as who it is.
//! * [`steps`]: an agent dies between two steps of a protocol.
//!
//! [`whole`]: three nodes from nothing, and a switchover. [`restored`]: every node is lost after reigns of every kind.

mod alone;
mod by_hand;
mod clients;
mod crash;
mod disks;
mod partition;
mod restored;
mod rewound;
mod stage;
mod steps;
mod vouched;
mod waiters;
mod whole;
