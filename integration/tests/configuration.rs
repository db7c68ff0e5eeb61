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
    // The example names files that this machine does not have; `check-config` looks at the credentials.
    let example = example.context("docs/configuration.md has no example")?;
    fs::write(&file, example.replace("/etc/holdfast", &scratch.path().display().to_string()))?;
    fs::write(scratch.path().join("s3.toml"), "access_key_id = \"a\"\nsecret_access_key = \"b\"\n")?;
    run(command(installation::own("holdfastd")?).args(["check-config", "--config"]).arg(&file))?;
    Ok(())
}
