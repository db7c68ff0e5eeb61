//! Shortcuts: each is found unsafe, within bounds in which the protocol itself is not.

use stateright::{Checker, HasDiscoveries, Model};

use super::actions::{Bounds, Naive, Protocol};
use super::properties::{NO_ACKED_LOSS, ONE_WRITER, PREFIX, SHIPPED_STAYS};
use super::sound::{check, three_zones};

/// Finds one of `violations` when the shortcut is taken, and none when it is not.
fn finds(naive: Naive, bounds: &Bounds, violations: &[&'static str]) {
    let wanted = HasDiscoveries::AnyOf(violations.iter().copied().collect());
    let model = Protocol::new(bounds.clone(), Some(naive));
    let checker = model.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let found = violations.iter().find_map(|name| checker.discovery(name).map(|path| (*name, path)));
    let (name, path) = found.unwrap_or_else(|| panic!("{naive:?} was not found unsafe"));
    println!("{naive:?}: {name}, {} unique states\n{:?}", checker.unique_state_count(), path.into_actions());
    check(bounds.clone(), &[]);
}

#[test]
fn coming_back_under_the_same_name() {
    let bounds = Bounds { attempts: 1, losses: 1, term_max: 2, ..three_zones() };
    finds(Naive::SameName, &bounds, &[NO_ACKED_LOSS]);
}

#[test]
fn choosing_the_longest_log() {
    let bounds =
        Bounds { zones: vec![0, 1, 2, 3], voters: 4, attempts: 2, writes: 3, prompt: true, ..three_zones() };
    finds(Naive::ByLength, &bounds, &[NO_ACKED_LOSS]);
}

#[test]
fn promising_in_memory_only() {
    let bounds = Bounds { attempts: 2, crashes: 1, writes: 0, term_max: 2, coordinators: 2, ..three_zones() };
    finds(Naive::PromiseInMemory, &bounds, &[ONE_WRITER]);
}

#[test]
fn terms_made_by_a_change_of_the_rule() {
    let bounds = Bounds { attempts: 2, changes: 1, writes: 2, prompt: true, ..three_zones() };
    finds(Naive::TermsByChange, &bounds, &[NO_ACKED_LOSS, ONE_WRITER, PREFIX]);
}

#[test]
fn an_ack_list_from_a_marker_that_was_never_acked() {
    let bounds = Bounds {
        zones: vec![0, 1, 2, 3],
        attempts: 1,
        crashes: 1,
        changes: 1,
        prompt: true,
        ..three_zones()
    };
    finds(Naive::ListFromUnackedMarker, &bounds, &[NO_ACKED_LOSS]);
}

#[test]
fn a_weaker_u_that_trusts_in_knowing_the_primary() {
    let bounds = Bounds { zones: vec![0, 1, 2, 3], voters: 4, attempts: 2, prompt: true, ..three_zones() };
    finds(Naive::WeakerU, &bounds, &[NO_ACKED_LOSS]);
}

#[test]
fn rewinding_in_place_who_may_be_recruited() {
    let bounds = Bounds { attempts: 2, losses: 1, writes: 2, rewinds: 1, prompt: true, ..three_zones() };
    finds(Naive::RewindsInPlace, &bounds, &[NO_ACKED_LOSS]);
}

#[test]
fn shipping_what_is_not_acked() {
    let bounds = Bounds { attempts: 1, term_max: 2, losses: 1, restores: 1, ..three_zones() };
    finds(Naive::ShipsUnacked, &bounds, &[SHIPPED_STAYS]);
}
