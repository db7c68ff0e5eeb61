//! Documented invariants have their tests: those of docs/architecture.md and those that modules open with.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use holdfast_integration::installation;

use crate::none;
use crate::sources::sources;

/// Names of all functions of the repository: a test is one of them.
fn functions() -> Result<BTreeSet<String>> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut names = BTreeSet::new();
    for source in sources()? {
        for (at, word) in source.text.match_indices("fn ") {
            let name: String =
                source.text[at + word.len()..].chars().take_while(|letter| is_name(*letter)).collect();
            names.insert(name);
        }
    }
    Ok(names)
}

/// What stands between backticks and could be the name of a test: a sentence has three words at least. A path before
/// the name is left out.
fn quoted_names(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2).map(|word| word.rsplit("::").next().unwrap_or(word));
    let is_name = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    quoted.filter(|word| is_name(word) && word.matches('_').count() >= 2).collect()
}

#[test]
fn every_invariant_of_the_architecture_names_a_test_that_exists() -> Result<()> {
    let file = installation::workspace().join("docs/architecture.md");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let functions = functions()?;
    let mut offenders = Vec::new();
    let mut invariants = 0;
    for item in items_below_invariants(&text) {
        invariants += 1;
        let names = quoted_names(&item);
        if !names.iter().any(|name| functions.contains(*name)) {
            offenders.push(format!("no test of: {}", item.chars().take(80).collect::<String>()));
        }
    }
    none("invariants without a test", offenders);
    assert!(invariants > 0, "docs/architecture.md lists no invariants below a heading that says so");
    Ok(())
}

/// List items and table rows below headings with the word "invariants", each as one line.
fn items_below_invariants(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("invariants");
        } else if !inside || line.starts_with("|-") || line.starts_with("| -") {
        } else if line.starts_with("- ") || line.starts_with("* ") || line.starts_with("| I") {
            items.push(line.to_owned());
        } else if let Some(item) = items.last_mut().filter(|_| line.starts_with("  ")) {
            item.push_str(line);
        }
    }
    items.retain(|item| !item.to_lowercase().starts_with("| invariant"));
    items
}

#[test]
fn every_invariant_that_a_module_opens_with_is_a_test() -> Result<()> {
    let functions = functions()?;
    let mut offenders = Vec::new();
    for source in sources()? {
        let docs = source.text.lines().take_while(|line| line.starts_with("//!"));
        let block =
            docs.skip_while(|line| !line.contains("nvariant")).take_while(|line| !line.contains("Not here"));
        for line in block {
            let missing = quoted_names(line).into_iter().take(1).filter(|_| line.starts_with("//! * `"));
            let missing = missing.filter(|name| !functions.contains(*name));
            offenders.extend(missing.map(|name| format!("{}: {name}", source.path.display())));
        }
    }
    none("invariants whose test does not exist", offenders);
    Ok(())
}

#[test]
fn an_item_may_run_over_several_lines() {
    let text = "## Invariants\n- one\n  `a_b_c`\n| I2 | two | `d_e_f` |\n## Else\n- three\n";
    assert_eq!(items_below_invariants(text), ["- one  `a_b_c`", "| I2 | two | `d_e_f` |"]);
}
