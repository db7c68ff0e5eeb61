//! What docs/configuration.md shows is what `holdfastd` accepts.

use std::fs;

use anyhow::{Context, Result};
use holdfast_integration::process::{command, run};
use holdfast_integration::{Scratch, installation};

#[test]
fn the_documented_configuration_is_valid() -> Result<()> {
    let document = fs::read_to_string(installation::workspace().join("docs/configuration.md"))?;
    let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let scratch = Scratch::new()?;
    let file = scratch.path().join("holdfast.toml");
    fs::write(&file, example.context("docs/configuration.md has no example")?)?;
    run(command(installation::own("holdfastd")?).args(["check-config", "--config"]).arg(&file))?;
    Ok(())
}
