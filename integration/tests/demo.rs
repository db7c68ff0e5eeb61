//! `make demo-single` and `make demo-zones` as tests: the longest ones, and those that say most. They need root for disks that
//! vanish and for zones.

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

#[test]
fn the_demo_of_three_zones_ends_well_as_root() -> Result<()> {
    run(command(env!("CARGO_BIN_EXE_holdfast-demo")).arg("zones"))?;
    Ok(())
}
