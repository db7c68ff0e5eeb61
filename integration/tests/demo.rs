//! `make demo-single` as a test: the longest one, and the one that says most. Needs root for disks that vanish.

use anyhow::Result;
use holdfast_integration::process::{command, run};

fn play(postgres: &str) -> Result<()> {
    run(command(env!("CARGO_BIN_EXE_holdfast-demo")).args(["single", "--postgres", postgres]))?;
    Ok(())
}

#[test]
fn the_demo_of_one_node_ends_well_on_15_as_root() -> Result<()> {
    play("15")
}

#[test]
fn the_demo_of_one_node_ends_well_on_17_as_root() -> Result<()> {
    play("17")
}
