//! `holdfastd`: the daemon, its root helper, its workers and the stage before an engine, in one binary.

fn main() {}
