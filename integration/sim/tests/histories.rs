//! Many histories, each of its own seed.
//!
//! `HOLDFAST_SIM_HISTORIES` says how many, and `HOLDFAST_SIM_SEED` runs the one of that seed alone and prints what happens in it.

#![expect(clippy::print_stdout, reason = "what happened how often is the test's result")]

use holdfast_sim::{Counts, Settings, run, run_many};

/// Unless the environment says otherwise.
const HISTORIES: u64 = 20_000;

#[expect(clippy::disallowed_methods, reason = "no command line reaches a test")]
fn number(name: &str) -> Option<u64> {
    let given = std::env::var(name).ok()?;
    Some(given.parse().unwrap_or_else(|err| panic!("{name} is {given:?}: {err}")))
}

/// Prints the history of `seed`, and fails if it does.
fn replay(seed: u64) {
    let outcome = run(seed, Settings { trace: true, ..Settings::default() });
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{}", outcome.counts);
    assert_eq!(outcome.violation, None, "seed {seed}");
}

/// So few histories show nothing about what happens how often.
const MANY: u64 = 5_000;

/// What has to have happened at least once in so many histories.
const SEEN: [(&str, u64); 44] = [
    ("fault: agent killed", 3),
    ("fault: engine crashed", 3),
    ("fault: machine crashed", 8),
    ("fault: disk lost", 4),
    ("fault: engine frozen", 8),
    ("fault: slow disk", 20),
    ("fault: partition", 4),
    ("fault: cut in one direction", 10),
    ("fault: slow link", 8),
    ("fault: messages lost, repeated and late", 8),
    ("fault: store away", 8),
    ("agent died between two steps", 4),
    ("messages lost", 2),
    ("messages repeated", 4),
    ("failover commanded", 1),
    ("failover done", 2),
    ("switchover commanded", 4),
    ("switchover done", 10),
    ("switchover given up", 40),
    ("coordinator gave up", 10),
    ("recruited", 1),
    ("recruit refused", 10),
    ("promoted", 1),
    ("promotion refused", 400),
    ("refused: primary not missed", 4),
    ("refused: nobody chosen", 10),
    ("chosen member silent", 100),
    ("not opened", 100),
    ("gate opened", 1),
    ("writes acked", 1),
    ("log shipped", 1),
    ("older term completed", 4),
    ("backup", 20),
    ("disk formatted", 4),
    ("restored", 3),
    ("rewind begun", 10),
    ("rewind given up", 40),
    ("rewound", 20),
    ("data given up", 400),
    ("member added", 4),
    ("member removed", 4),
    ("member held out", 40),
    ("more than k lost", 200),
    ("whole again", 2),
];

#[test]
fn no_history_loses_an_acked_write_or_leaves_a_cluster_broken() {
    if let Some(seed) = number("HOLDFAST_SIM_SEED") {
        return replay(seed);
    }
    let many = number("HOLDFAST_SIM_HISTORIES").unwrap_or(HISTORIES);
    let summary = run_many(0, many, Settings::default(), |_| true);
    println!("{} histories\n{}", summary.histories, summary.counts);
    if let Some((seed, violation)) = summary.failed {
        panic!(
            "seed {seed}: {violation}\nsee it happen: HOLDFAST_SIM_SEED={seed} cargo nextest run -p holdfast-sim \
             --no-capture no_history_loses"
        );
    }
    if many >= MANY {
        all_was_tried(&summary.counts, many);
    }
}

fn all_was_tried(counts: &Counts, histories: u64) {
    let missing: Vec<_> = SEEN.iter().filter(|(what, of)| counts.of(what) * of < histories).collect();
    assert!(missing.is_empty(), "too seldom: {missing:?} of {histories} histories\n{counts}");
    // Histories that end without a primary are for seeing that none is promoted, and are not to hide those that should have one.
    assert!(counts.of("more than k lost") * 10 < histories, "{counts}");
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..200 {
        let once = run(seed, Settings { trace: true, ..Settings::default() });
        let twice = run(seed, Settings { trace: true, ..Settings::default() });
        assert!(once.trace.len() > 20, "seed {seed}: {:?}", once.trace);
        assert!(once == twice, "seed {seed} is not one history");
    }
}
