//! The nodes of a cluster and their members.

use holdfast_model::Member;
use holdfast_model::peer::Part;
use holdfast_model::status::Gate;

use super::{or_dash, with_header};
use crate::company::{Heard, NodeLine, Votes};

/// One line for each node, as it takes part, and below what needs more words.
pub(super) fn nodes(lines: &[NodeLine]) -> String {
    let rows = lines.iter().map(|line| {
        vec![
            line.node.to_string(),
            line.zone.to_string(),
            or_dash(line.member.as_ref()),
            or_dash(line.part.as_ref().map(word)),
            or_dash(line.gate.as_ref().map(Gate::word)),
            or_dash(line.rule),
            or_dash(line.position.as_ref()),
            heard(&line.heard),
        ]
    });
    let table = with_header(&["NODE", "ZONE", "MEMBER", "PART", "GATE", "RULE", "POSITION", "HEARD"], rows);
    with_notes(table, lines)
}

/// One line for each member: who votes.
#[must_use]
pub fn members(lines: &[NodeLine]) -> String {
    let rows = lines.iter().map(|line| {
        vec![
            line.node.to_string(),
            line.zone.to_string(),
            or_dash(line.member.as_ref()),
            votes(line.votes).to_owned(),
            or_dash(line.part.as_ref().map(word)),
            heard(&line.heard),
        ]
    });
    with_notes(with_header(&["NODE", "ZONE", "MEMBER", "VOTES", "PART", "HEARD"], rows), lines)
}

/// What a node takes part in, in full.
pub(super) fn part(part: &Part) -> String {
    let more = detail(part).map(|detail| format!(": {detail}")).unwrap_or_default();
    match part {
        Part::Writes { streams, .. } => format!("writes, received by {}{more}", by(streams.keys())),
        Part::None
        | Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. } => format!("{}{more}", word(part)),
    }
}

fn by<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let nodes: Vec<&str> = members.map(|member| member.node.as_str()).collect();
    if nodes.is_empty() { "nobody".to_owned() } else { nodes.join(", ") }
}

fn word(part: &Part) -> String {
    match part {
        Part::None => "none".to_owned(),
        Part::Writes { .. } => "writes".to_owned(),
        Part::Follows { primary, streaming: true } => format!("follows {}", primary.node),
        Part::Follows { primary, streaming: false } => format!("would follow {}", primary.node),
        Part::Recruited { term } => format!("recruited for {term}"),
        Part::Waits { .. } => "waits".to_owned(),
        Part::Rewinds { primary } => format!("rewinds onto {}", primary.node),
        Part::Diverged { .. } => "diverged".to_owned(),
    }
}

fn detail(part: &Part) -> Option<&str> {
    match part {
        Part::Writes { change, .. } => change.as_deref(),
        Part::Waits { why } | Part::Diverged { why } => Some(why),
        Part::None | Part::Follows { .. } | Part::Recruited { .. } | Part::Rewinds { .. } => None,
    }
}

const fn votes(votes: Votes) -> &'static str {
    match votes {
        Votes::Primary => "primary",
        Votes::Full => "yes",
        Votes::Log => "log only",
        Votes::No => "no",
    }
}

fn heard(heard: &Heard) -> String {
    match heard {
        Heard::Here => "here".to_owned(),
        Heard::Ago { ms } => format!("{}.{} s ago", ms / 1000, ms % 1000 / 100),
        Heard::Never => "never".to_owned(),
        Heard::Unclaimed => "-".to_owned(),
    }
}

fn with_notes(mut text: String, lines: &[NodeLine]) -> String {
    let notes = lines.iter().flat_map(|line| {
        let told = line.part.as_ref().and_then(|part| detail(part).map(|detail| (word(part), detail)));
        let told = told.map(|(word, detail)| format!("{} {word}: {detail}", line.node));
        let failing = line.failing.as_ref().map(|why| format!("{} does not answer: {why}", line.node));
        let lost = (line.heard == Heard::Unclaimed).then(|| {
            let member = or_dash(line.member.as_ref());
            format!("{member} is in the rule, and no node says to be it: its disk may be lost")
        });
        [told, failing, lost].into_iter().flatten()
    });
    for (at, note) in notes.enumerate() {
        text.push_str(if at == 0 { "\n\n" } else { "\n" });
        text.push_str(&note);
    }
    text
}
