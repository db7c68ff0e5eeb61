//! The bucket as a person with its keys sees it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use holdfast_integration::process::{command, run};
use holdfast_integration::weed::{BUCKET, REGION, Weed};

/// Every key below `prefix`. One page of a listing is plenty for a test.
pub(crate) fn keys(store: &Weed, prefix: &str) -> Result<BTreeSet<String>> {
    let listed = curl(store, &format!("?list-type=2&prefix={prefix}%2F"), &[])?;
    let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
    Ok(keys.map(|(key, _)| key.to_owned()).collect())
}

/// Copies the objects of those names from the one cluster below `from` to the same cluster below `to`.
pub(crate) fn copy(store: &Weed, from: &str, to: &str, names: &[&str]) -> Result<()> {
    let copied = tempfile::NamedTempFile::new().context("make a file")?;
    for name in names {
        let key = keys(store, from)?.into_iter().find(|key| key.ends_with(&format!("/{name}")));
        let key = key.with_context(|| format!("no {name} below {from}"))?;
        let there = format!("{to}{}", key.trim_start_matches(from));
        curl(store, &format!("/{key}"), &["--output".as_ref(), copied.path()])?;
        curl(store, &format!("/{there}"), &["--upload-file".as_ref(), copied.path()])?;
    }
    Ok(())
}

fn curl(store: &Weed, place: &str, options: &[&Path]) -> Result<String> {
    let credentials = fs::read_to_string(store.credentials()).context("read the credentials")?;
    let values: Vec<&str> = credentials.split('"').skip(1).step_by(2).collect();
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "5", "--user"]).arg(values.join(":"));
    curl.arg("--aws-sigv4").arg(format!("aws:amz:{REGION}:s3"));
    run(curl.args(options).arg(format!("{}/{BUCKET}{place}", store.endpoint())))
}
