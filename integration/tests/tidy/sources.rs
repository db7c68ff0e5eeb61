//! How source files look.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_integration::installation;

use crate::none;

/// Longer files are split.
const LINES_MAX: usize = 500;

/// Folders that hold no sources of ours.
const NOT_OURS: [&str; 3] = ["target", ".git", ".cache"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "misc", "core"];

/// A Rust file of this repository.
pub(crate) struct Source {
    /// Relative to the checkout.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// The lines of code that run in tests: all of a file of tests, else what follows an inline module of tests.
    /// Not what is below `support/`: there the polling that replaces sleeps may live.
    fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests =
            |part: std::path::Component<'_>| ["tests", "tests.rs"].iter().any(|it| part.as_os_str() == *it);
        if self.path.components().any(|part| part.as_os_str() == "support") {
            return self.text.lines().enumerate().skip(usize::MAX);
        }
        let inline = |line: &str| line.starts_with("mod tests {");
        let first =
            if self.path.components().any(is_tests) { Some(0) } else { self.text.lines().position(inline) };
        let skipped = first.unwrap_or(usize::MAX);
        self.text.lines().enumerate().skip(skipped)
    }

    fn offence(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Every Rust file of this repository.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    collect(installation::workspace(), &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !NOT_OURS.contains(&name) {
            collect(&path, found)?;
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(installation::workspace())?.to_owned();
            found.push(Source { path, text });
        }
    }
    Ok(())
}

/// Files and lines where `offends` says so.
fn lines_where(offends: impl Fn(&Source, &str) -> bool) -> Result<Vec<String>> {
    let sources = sources()?;
    let lines =
        sources.iter().flat_map(|source| source.text.lines().enumerate().map(move |line| (source, line)));
    let offending = lines.filter(|(source, (_, line))| offends(source, line));
    Ok(offending.map(|(source, (number, _))| source.offence(number + 1)).collect())
}

#[test]
fn no_file_is_too_long() -> Result<()> {
    let lengths = sources()?.into_iter().map(|source| (source.text.lines().count(), source.path));
    let long = lengths.filter(|(lines, _)| *lines > LINES_MAX);
    none("files over 500 lines", long.map(|(lines, path)| format!("{}: {lines}", path.display())).collect());
    Ok(())
}

#[test]
fn every_file_opens_with_what_it_is_about() -> Result<()> {
    let silent = sources()?.into_iter().filter(|source| !source.text.starts_with("//! "));
    none(
        "files without module documentation",
        silent.map(|source| source.path.display().to_string()).collect(),
    );
    Ok(())
}

#[test]
fn no_test_is_ignored() -> Result<()> {
    let attribute = concat!("#[ig", "nore");
    none("ignored tests", lines_where(|_, line| line.trim_start().starts_with(attribute))?);
    Ok(())
}

#[test]
fn no_test_sleeps() -> Result<()> {
    let sleeps = [concat!("thread::", "sleep("), concat!("time::", "sleep(")];
    let sources = sources()?;
    let lines = sources.iter().flat_map(|source| source.test_lines().map(move |line| (source, line)));
    let sleeping = lines.filter(|(_, (_, line))| sleeps.iter().any(|sleep| line.contains(sleep)));
    none(
        "sleeps in tests (use `eventually`)",
        sleeping.map(|(source, (number, _))| source.offence(number)).collect(),
    );
    Ok(())
}

#[test]
fn nothing_is_left_for_later_in_comments() -> Result<()> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    none("notes for later", lines_where(|_, line| words.iter().any(|word| line.contains(word)))?);
    Ok(())
}

#[test]
fn every_module_has_a_name_that_says_what_is_inside() -> Result<()> {
    let empty = |source: &&Source| {
        let of_file = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let of_folder =
            source.path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        EMPTY_NAMES.contains(&of_file) || EMPTY_NAMES.contains(&of_folder)
    };
    let sources = sources()?;
    none(
        "empty names",
        sources.iter().filter(empty).map(|source| source.path.display().to_string()).collect(),
    );
    let declared = |_: &Source, line: &str| {
        EMPTY_NAMES.iter().any(|name| line.trim().ends_with(&format!("mod {name} {{")))
    };
    none("empty names", lines_where(declared)?);
    Ok(())
}

#[test]
fn unsafe_code_lives_in_storage_io_alone() -> Result<()> {
    let lifted = concat!("(unsafe", "_code");
    let elsewhere =
        |source: &Source, line: &str| !source.path.starts_with("storage/io") && line.contains(lifted);
    none("lifted bans on unsafe code", lines_where(elsewhere)?);
    Ok(())
}

#[test]
fn no_lint_is_switched_off_without_a_reason() -> Result<()> {
    let sources = sources()?;
    let mut offenders = Vec::new();
    for source in &sources {
        for (at, _) in source.text.match_indices("[expect(") {
            let attribute = &source.text[at..];
            let end = attribute.find(")]").unwrap_or(attribute.len());
            if !attribute[..end].contains("reason") && !in_comment_or_text(&source.text, at) {
                offenders.push(source.offence(source.text[..at].lines().count()));
            }
        }
    }
    none("expectations without a reason", offenders);
    Ok(())
}

/// Whether the line up to `at` has anything but the start of an attribute.
fn in_comment_or_text(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    !matches!(text[line..at].trim(), "#" | "#!")
}
