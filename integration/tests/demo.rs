//! `make demo-single` as a test: the longest one, and the one that says most. Needs root for disks that vanish.

use anyhow::Result;
use holdfast_integration::process::{command, run};

#[test]
fn the_demo_of_one_node_ends_well_as_root() -> Result<()> {
    run(command(env!("CARGO_BIN_EXE_holdfast-demo")).arg("single"))?;
    Ok(())
}
