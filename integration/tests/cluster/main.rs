//! Clusters in zones: real daemons, engines, disks, load balancers and object storage. Needs root.
//!
//! * [`alone`]: the stage itself, with a node in one zone only.

mod alone;
