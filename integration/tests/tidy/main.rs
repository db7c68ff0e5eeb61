//! What no compiler or linter checks: who may depend on whom, how sources look, and that documented invariants have
//! their tests. Every test names all offenders at once.

mod architecture;
mod dependencies;
mod sources;

/// Fails with one offender a line.
fn none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}
