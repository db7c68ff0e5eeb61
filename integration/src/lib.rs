//! The harness of tests that use real parts, and the demo that is made of them.
//!
//! * [`scratch`]: a directory that takes everything in it down, also after SIGKILL of the test.
//! * [`loop_disk`]: disks that vanish, stall and fail.
//! * [`weed`]: a real S3 server. [`haproxy`]: a real load balancer.
//! * [`zones`]: three zones whose links can be cut. [`placement`]: where a program runs, there or on loopback.
//! * [`node`] and [`daemon`]: a configured `holdfastd` and its command line. [`postmaster`]: its engine's processes.
//! * [`cluster`]: three of them, in three zones, and everything that can happen to them.
//! * [`acked`]: a client that remembers what it was told was committed, and the audit of that memory.
//! * [`logs`]: a test fails on warnings that it did not expect.
//! * [`pgbench`]: the load. [`footprint`]: what the agent takes of the machine.
//! * [`timeline`], [`demo`]: what happened when, told to a person. [`bench`](mod@bench): the same as figures.
//! * [`mod@eventually`]: the one way to wait.
//!
//! Not here: anything that the product needs. Nothing depends on this crate.

pub mod acked;
pub mod bench;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod eventually;
pub mod footprint;
pub mod haproxy;
pub mod installation;
pub mod logs;
pub mod loop_disk;
pub mod node;
pub mod pgbench;
pub mod placement;
pub mod ports;
pub mod postmaster;
pub mod process;
pub mod scratch;
pub mod timeline;
pub mod weed;
pub mod zones;

pub use eventually::{eventually, throughout};
pub use scratch::Scratch;
