//! Shortcuts: each is found unsafe within so many histories.

#![expect(clippy::print_stdout, reason = "after how many histories it was found is the test's result")]

use holdfast_sim::{Mutant, Settings, run_many};

/// Four zones, one acking voter more than a commit needs.
const FOUR: (&[u8], u32, u64) = (b"abcd", 1, 1);
const THREE: (&[u8], u32, u64) = (b"abc", 1, 1);

/// Agents die so often between two steps that rules are often left un-acked.
const CUT_ONE_IN: u64 = 50;

/// Finds that it breaks one of `invariants`: only what comes of it counts, not that a cluster stays broken.
fn is_found(mutant: Mutant, layout: (&'static [u8], u32, u64), within: u64, invariants: &[&str]) {
    let settings =
        Settings { mutant: Some(mutant), layout: Some(layout), trace: false, cut_one_in: CUT_ONE_IN };
    let summary =
        run_many(0, within, settings, |violation| invariants.iter().any(|it| violation.contains(it)));
    let found =
        summary.failed.unwrap_or_else(|| panic!("{mutant:?} was not found unsafe in {within} histories"));
    println!("{mutant:?}: {} histories, seed {}: {}", summary.histories, found.0, found.1);
}

#[test]
fn coming_back_under_the_same_incarnation() {
    is_found(Mutant::SameIncarnation, THREE, 20_000, &["(I1)", "(I2)"]);
}

#[test]
fn choosing_the_longest_log() {
    is_found(Mutant::ChooseByLength, FOUR, 20_000, &["(I1)"]);
}

#[test]
fn promising_in_memory_only() {
    is_found(Mutant::PromiseInMemory, THREE, 20_000, &["(I1)", "(I2)"]);
}

#[test]
fn shipping_log_that_is_not_acked() {
    is_found(Mutant::ShipUnacked, THREE, 20_000, &["(I13)"]);
}

#[test]
fn opening_before_the_marker_is_acked() {
    is_found(Mutant::OpenBeforeAcked, THREE, 20_000, &["(I1)", "(I13)"]);
}

#[test]
fn a_list_by_a_marker_that_was_not_acked() {
    is_found(Mutant::ListFromUnackedMarker, FOUR, 60_000, &["(I1)"]);
}

#[test]
fn promoting_without_u() {
    is_found(Mutant::WithoutU, FOUR, 20_000, &["(I1)"]);
}

#[test]
fn receiving_after_the_recruit() {
    is_found(Mutant::ReceiveAfterRecruit, THREE, 20_000, &["(I1)", "(I3)"]);
}

#[test]
fn counting_a_member_before_its_rule_is_acked() {
    is_found(Mutant::WidenBeforeAcked, FOUR, 20_000, &["(I1)", "(I7)"]);
}

#[test]
fn rewinding_in_place_what_may_still_be_recruited() {
    is_found(Mutant::RewindInPlace, THREE, 60_000, &["(I1)"]);
}

#[test]
fn a_rule_that_starts_where_a_reign_without_a_rule_ended() {
    is_found(Mutant::StartAtRulelessReign, THREE, 20_000, &["cannot be completed"]);
}
