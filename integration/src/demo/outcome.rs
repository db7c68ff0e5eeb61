//! Judges the demo: what was lost, whether that is what the design allows, and how the outage divides into phases.
//!
//! Invariants, each a test below:
//! * `a_loss_from_before_the_window_fails`: log is shipped each second, so an older ack must have survived.
//! * `an_id_that_is_there_twice_fails`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::acked::Audit;
use crate::logs::{Level, Line};
use crate::timeline::seconds;

/// Acks this young when the disk vanished may be lost while there is no second node: a second between two shipments,
/// and the time that one takes.
pub const LOSS_WINDOW: Duration = Duration::from_secs(2);

/// Judges an audit after the disk vanished at `vanished`.
///
/// # Errors
/// More was lost than may be, or something is there that must not be.
pub fn judge(audit: &Audit, vanished: Instant) -> Result<()> {
    ensure!(
        audit.repeated.is_empty(),
        "ids that are there more than once: {}",
        ranges(audit.repeated.iter().copied())
    );
    ensure!(audit.invented.is_empty(), "ids that nobody wrote: {}", ranges(audit.invented.iter().copied()));
    let too_old = audit.lost.iter().filter(|ack| vanished.saturating_duration_since(ack.at) > LOSS_WINDOW);
    let too_old = ranges(too_old.map(|ack| ack.id));
    ensure!(
        too_old.is_empty(),
        "acked more than {} before the disk vanished, and lost: {too_old}",
        seconds(LOSS_WINDOW)
    );
    Ok(())
}

/// The loss in words: every lost id, and how old the oldest was when the disk vanished.
#[must_use]
pub fn loss(audit: &Audit, vanished: Instant) -> String {
    let Some(oldest) = audit.lost.first() else {
        return format!("{} ids acked, none lost", audit.acked);
    };
    let age = vanished.saturating_duration_since(oldest.at);
    let lost = ranges(audit.lost.iter().map(|ack| ack.id));
    let (count, acked) = (audit.lost.len(), audit.acked);
    format!(
        "{acked} ids acked, {count} lost, the oldest acked {} before the disk vanished: {lost}",
        seconds(age)
    )
}

/// `1-4, 7, 9-10`.
fn ranges(ids: impl Iterator<Item = i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let shown = ranges.iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        },
    );
    shown.collect::<Vec<_>>().join(", ")
}

/// What the agent itself said from `since` on (the engine's own lines are left out), each line with its distance from
/// `since`.
#[must_use]
pub fn told_since(lines: &[Line], since: SystemTime) -> String {
    table(told(lines, since))
}

/// The same of several agents, by name, in the order in which it was said.
#[must_use]
pub fn told_by_all_since(agents: &[(String, Vec<Line>)], since: SystemTime) -> String {
    let by = |(name, lines): &(String, Vec<Line>)| {
        told(lines, since).map(|(after, said)| (after, format!("{name}  {said}"))).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = agents.iter().flat_map(by).collect();
    all.sort_by_key(|(after, _)| *after);
    table(all.into_iter())
}

fn told(lines: &[Line], since: SystemTime) -> impl Iterator<Item = (Duration, String)> {
    let ours = lines.iter().filter(|line| line.level >= Level::Info && line.target.starts_with("holdfast"));
    ours.filter_map(move |line| {
        let after = line.at()?.duration_since(since).ok()?;
        let loud = if line.level >= Level::Warn {
            format!("{:?}: ", line.level).to_lowercase()
        } else {
            String::new()
        };
        Some((after, format!("{loud}{}", line.shown())))
    })
}

/// When something was first said by any of several agents, in milliseconds since `since`: the phases of what happened.
#[must_use]
pub fn first_said_ms(agents: &[(String, Vec<Line>)], since: SystemTime) -> BTreeMap<String, u64> {
    let mut first = BTreeMap::new();
    for (after, said) in agents.iter().flat_map(|(_, lines)| told(lines, since)) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        first.entry(said).and_modify(|known: &mut u64| *known = ms.min(*known)).or_insert(ms);
    }
    first
}

fn table(told: impl Iterator<Item = (Duration, String)>) -> String {
    let mut table = String::new();
    for (after, said) in told {
        writeln!(table, "{:>9}  {said}", seconds(after)).expect("a string takes all text");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acked::Ack;

    fn audit(vanished: Instant, lost_ages_ms: &[u64]) -> Audit {
        let ack = |(id, age): (i64, &u64)| Ack { id, at: vanished - Duration::from_millis(*age) };
        let lost = (1..).zip(lost_ages_ms).map(ack).collect();
        Audit { acked: 100, lost, repeated: vec![], invented: vec![], unknown_found: 0 }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(100)
    }

    #[test]
    fn a_loss_within_the_window_is_listed_and_passes() {
        let vanished = later();
        let audit = audit(vanished, &[900, 500, 100]);
        judge(&audit, vanished).expect("all are young");
        assert_eq!(
            loss(&audit, vanished),
            "100 ids acked, 3 lost, the oldest acked 0.90 s before the disk vanished: 1-3"
        );
    }

    #[test]
    fn a_loss_from_before_the_window_fails() {
        let vanished = later();
        let failure = judge(&audit(vanished, &[5000, 100]), vanished).expect_err("one is too old");
        assert_eq!(failure.to_string(), "acked more than 2.00 s before the disk vanished, and lost: 1");
    }

    #[test]
    fn an_id_that_is_there_twice_fails() {
        let vanished = later();
        let audit = Audit { repeated: vec![7], ..audit(vanished, &[]) };
        judge(&audit, vanished).expect_err("it was applied twice");
    }

    fn line(at: &str, level: Level, message: &str) -> Line {
        let target = "holdfast_agent::gate".to_owned();
        let (timestamp, message) = (format!("2026-01-01T00:00:{at}Z"), message.to_owned());
        Line { timestamp, level, target, message, fields: serde_json::Map::new() }
    }

    #[test]
    fn what_several_agents_said_is_told_in_the_order_of_time() {
        let since = humantime::parse_rfc3339("2026-01-01T00:00:01Z").unwrap();
        let first = vec![line("00.5", Level::Info, "before"), line("03.0", Level::Warn, "disk unsafe")];
        let second = vec![line("02.0", Level::Info, "gate changed"), line("04.0", Level::Debug, "quiet")];
        assert_eq!(
            told_by_all_since(&[("n1".to_owned(), first), ("n2".to_owned(), second)], since),
            "   1.00 s  n2  gate changed\n   2.00 s  n1  warn: disk unsafe\n"
        );
    }

    #[test]
    fn neighbours_are_shown_as_a_range() {
        assert_eq!(ranges([1, 2, 3, 7, 9, 10].into_iter()), "1-3, 7, 9-10");
    }
}
