//! What goes wrong around a node, on real parts: stalled and failing disks, dead agents and workers, object stores that
//! are away, hang or are damaged. Each scenario ends with the node serving, or saying why not. Needs root.

mod bootstrap;
mod end_of_replay;
mod restore;
mod stage;
mod stall;
mod store;
mod volume;
