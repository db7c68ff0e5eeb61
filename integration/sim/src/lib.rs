//! Whole clusters in virtual time: the product's own decisions, over engines, disks, a network, a clock and an object store that
//! are plain structs.
//!
//! A history is one thread, one queue of events and one seed: the same seed is the same history, to the last event. Faults
//! are drawn from it in advance, happen at once to a cluster under writes and under commands of operators, and end. After
//! every step safety is checked, and after the last fault the cluster has to become whole again.
//!
//! * `world`: the queue. `chance`: the seed. `faults`: what goes wrong. `check`: what must hold.
//! * `engine`, `log`, `net`, `store`: what is simulated.
//! * `node`, `coordinator`: who decides, by `holdfast-agent-decide`, `holdfast-replication` and `holdfast-orchestrator`.
//! * [`Mutant`]: shortcuts that the histories have to find unsafe, lest they prove nothing.
//!
//! Not here: how a real engine does what is asked of it (`holdfast-engine` and its tests), the product's processes and files
//! (`holdfast-integration`).

mod chance;
mod check;
mod coordinator;
mod counts;
mod engine;
mod faults;
mod log;
mod mutant;
mod net;
mod node;
mod store;
mod world;

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub use counts::Counts;
pub use mutant::Mutant;
use world::World;

/// What of a history is not its seed.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The shortcut that is taken.
    pub mutant: Option<Mutant>,
    /// Whether what happens is written down.
    pub trace: bool,
    /// An agent dies at one in so many of the points between two of its steps, while faults last.
    pub cut_one_in: u64,
    /// Zones of the nodes, a letter each, with k and a weight that counts for nothing here; drawn when not given.
    pub layout: Option<(&'static [u8], u32, u64)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mutant: None, trace: false, cut_one_in: 200, layout: None }
    }
}

/// How a history went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What must not have happened.
    pub violation: Option<String>,
    /// How often what happened.
    pub counts: Counts,
    /// What happened, a line each, if it was written down.
    pub trace: Vec<String>,
}

/// Runs the history of `seed`.
#[must_use]
pub fn run(seed: u64, settings: Settings) -> Outcome {
    let mut world = World::new(seed, settings);
    world.run();
    Outcome {
        violation: world.oracle.violation.take(),
        counts: world.counts,
        trace: world.trace.lines.take().unwrap_or_default(),
    }
}

/// How many histories went.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Histories that were run.
    pub histories: u64,
    /// All their counts.
    pub counts: Counts,
    /// The lowest seed that was found to fail, and how.
    pub failed: Option<(u64, String)>,
}

/// Runs `many` histories from seed `first` on, on all cores, until one of them fails as `wanted`.
#[must_use]
pub fn run_many(
    first: u64,
    many: u64,
    settings: Settings,
    wanted: impl Fn(&str) -> bool + Send + Sync,
) -> Summary {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(0);
    let all = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Summary::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= many {
                        break;
                    }
                    let outcome = run(first + at, settings);
                    own.histories += 1;
                    own.counts.take_in(&outcome.counts);
                    if let Some(violation) = outcome.violation.filter(|violation| wanted(violation)) {
                        next.store(many, Ordering::Relaxed);
                        own.failed.get_or_insert((first + at, violation));
                    }
                }
                let mut all = all.lock().expect("no thread panics while it adds");
                all.histories += own.histories;
                all.counts.take_in(&own.counts);
                let first = all.failed.take().into_iter().chain(own.failed).min();
                all.failed = first;
            });
        }
    });
    all.into_inner().expect("no thread panics while it adds")
}
