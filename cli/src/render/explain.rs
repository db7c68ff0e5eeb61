//! Why a node does what it does, and what it remembers of how it came to that.

use std::time::{Duration, UNIX_EPOCH};

use super::operation_line;
use holdfast_model::Vouch;
use holdfast_proto::reply::Explanation;
use holdfast_replication::account::{DiscardedTail, LossCertificate};

/// The last second of the year 9999: what is beyond has no date.
const CALENDAR_END_MS: u64 = 253_402_300_799_000;

/// Blockers with what would resolve them, and what would stop writes.
#[must_use]
pub fn explanation(told: &Explanation) -> String {
    let mut text = format!("gate {}\n{}", told.gate, told.reason);
    for blocker in &told.blockers {
        text.push_str(&format!("\n\nmissing     {}\nto resolve  {}", blocker.missing, blocker.resolve));
    }
    if !told.would_stop_writes.is_empty() {
        text.push_str("\n\nany of these would stop writes now:");
        for fault in &told.would_stop_writes {
            text.push_str(&format!("\n- {fault}"));
        }
    }
    for breach in &told.breaches {
        text.push_str(&format!("\n\nbreach      {}\nto resolve  {}", breach.missing, breach.resolve));
    }
    for operation in &told.refused {
        text.push_str(&format!("\n\n{}", operation_line(operation)));
    }
    if let Some(certificate) = &told.certificate {
        text.push_str(&format!("\n\n{}", decided(certificate)));
    }
    if let Some(vouch) = &told.vouch {
        text.push_str(&format!("\n\n{}", vouched(vouch)));
    }
    text
}

fn decided(loss: &LossCertificate) -> String {
    let LossCertificate { certificate, at, revoked, established, discarded } = loss;
    let mut text = format!("how the newest reign came about, at {at}\ndecided     {certificate}");
    for report in &certificate.reports {
        let rule =
            report.rules.first().map_or_else(|| "no rule".to_owned(), |rule| format!("rule {}", rule.id));
        let before = report.promised_before.map(|term| format!(", had promised term {term}"));
        let before = before.unwrap_or_default();
        text.push_str(&format!(
            "\nreported    {}: {rule}, log to {}{before}",
            report.member, report.position
        ));
    }
    for why in revoked {
        text.push_str(&format!("\nrevoked     {why}"));
    }
    text.push_str(&format!("\nestablished {established}"));
    for DiscardedTail { member, term, start, end } in discarded {
        text.push_str(&format!("\ndiscarded   log of {member} in term {term} from {start} to {end}"));
    }
    text
}

fn vouched(vouch: &Vouch) -> String {
    let Vouch { by, why, primary, term, given_unix_ms, until_unix_ms, outcome } = vouch;
    let outcome = outcome.as_deref().unwrap_or("not known");
    let (given, until) = (wall_clock(*given_unix_ms), wall_clock(*until_unix_ms));
    format!(
        "a failover without votes was begun at {given} for term {term}, on the word of {by}\n\
         gone        {primary}: {why}\n\
         counted     until {until}, once\n\
         outcome     {outcome}"
    )
}

fn wall_clock(unix_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms.min(CALENDAR_END_MS));
    humantime::format_rfc3339_seconds(at).to_string()
}
