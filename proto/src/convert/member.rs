//! What members ask of one another, and what they answer.

use holdfast_model::Position;
use holdfast_replication::account::{DiscardedTail, LossCertificate};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::Attempt;

use super::{Reader, Wire, position_to_wire};
use crate::reply::{Closed, Vote};
use crate::request::{AskNear, AskVote, AwaitPosition, Close, Follow, Promote, Recruit, Reopen};
use crate::v1;

impl Wire for Attempt {
    type Message = v1::Attempt;

    fn to_wire(&self) -> v1::Attempt {
        v1::Attempt { term: self.term.number(), id: format!("{:032x}", self.id) }
    }

    fn read(reader: &mut Reader, message: v1::Attempt) -> Option<Self> {
        let term = reader.term("term", message.term);
        let id = reader.bits_128("id", &message.id);
        Some(Self { term: term?, id: id? })
    }
}

impl Wire for Report<Position> {
    type Message = v1::Report;

    fn to_wire(&self) -> v1::Report {
        v1::Report {
            member: self.member.to_string(),
            rules: self.rules.iter().map(Wire::to_wire).collect(),
            position: position_to_wire(&self.position),
            promised_before: self.promised_before.map(holdfast_model::Term::number),
        }
    }

    fn read(reader: &mut Reader, message: v1::Report) -> Option<Self> {
        let member = reader.parse("member", &message.member);
        let rules = reader.list("rules", message.rules);
        let position = reader.position("position", &message.position);
        let promised_before = reader.term_optional("promised_before", message.promised_before);
        Some(Self { member: member?, rules: rules?, position: position?, promised_before: promised_before? })
    }
}

impl Wire for Certificate<Position> {
    type Message = v1::Certificate;

    fn to_wire(&self) -> v1::Certificate {
        v1::Certificate {
            attempt: Some(self.attempt.to_wire()),
            reports: self.reports.iter().map(Wire::to_wire).collect(),
            rule: Some(self.rule.to_wire()),
            absent: self.absent.iter().map(ToString::to_string).collect(),
            chosen: self.chosen.to_string(),
            position: position_to_wire(&self.position),
        }
    }

    /// Reads what it says; whether that holds is [`Certificate::holds`].
    fn read(reader: &mut Reader, message: v1::Certificate) -> Option<Self> {
        let attempt = reader.required("attempt", message.attempt);
        let reports = reader.list("reports", message.reports);
        let rule = reader.required("rule", message.rule);
        let absent = reader.parse_list("absent", &message.absent);
        let chosen = reader.parse("chosen", &message.chosen);
        let position = reader.position("position", &message.position);
        Some(Self {
            attempt: attempt?,
            reports: reports?,
            rule: rule?,
            absent: absent?,
            chosen: chosen?,
            position: position?,
        })
    }
}

impl Wire for DiscardedTail {
    type Message = v1::DiscardedTail;

    fn to_wire(&self) -> v1::DiscardedTail {
        v1::DiscardedTail {
            member: self.member.to_string(),
            term: self.term.number(),
            start: position_to_wire(&self.start),
            end: position_to_wire(&self.end),
        }
    }

    fn read(reader: &mut Reader, message: v1::DiscardedTail) -> Option<Self> {
        let member = reader.parse("member", &message.member);
        let term = reader.term("term", message.term);
        let start = reader.position("start", &message.start);
        let end = reader.position("end", &message.end);
        Some(Self { member: member?, term: term?, start: start?, end: end? })
    }
}

impl Wire for LossCertificate {
    type Message = v1::LossCertificate;

    fn to_wire(&self) -> v1::LossCertificate {
        v1::LossCertificate {
            certificate: Some(self.certificate.to_wire()),
            at: self.at.clone(),
            revoked: self.revoked.clone(),
            established: self.established.clone(),
            discarded: self.discarded.iter().map(Wire::to_wire).collect(),
        }
    }

    fn read(reader: &mut Reader, message: v1::LossCertificate) -> Option<Self> {
        let certificate = reader.required("certificate", message.certificate);
        let discarded = reader.list("discarded", message.discarded);
        Some(Self {
            certificate: certificate?,
            at: message.at,
            revoked: message.revoked,
            established: message.established,
            discarded: discarded?,
        })
    }
}

impl Wire for AskVote {
    type Message = v1::AskVoteRequest;

    fn to_wire(&self) -> v1::AskVoteRequest {
        v1::AskVoteRequest { target: Some(self.target.to_wire()), primary: self.primary.to_string() }
    }

    fn read(reader: &mut Reader, message: v1::AskVoteRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let primary = reader.parse("primary", &message.primary);
        Some(Self { target: target?, primary: primary? })
    }
}

impl Wire for Vote {
    type Message = v1::AskVoteResponse;

    fn to_wire(&self) -> v1::AskVoteResponse {
        let vote = match self {
            Self::MissesPrimary => v1::Vote::MissesPrimary,
            Self::SeesPrimary => v1::Vote::SeesPrimary,
        };
        v1::AskVoteResponse { vote: vote.into() }
    }

    fn read(reader: &mut Reader, message: v1::AskVoteResponse) -> Option<Self> {
        reader.choice("vote", message.vote).and_then(|vote| match vote {
            v1::Vote::Unspecified => None,
            v1::Vote::MissesPrimary => Some(Self::MissesPrimary),
            v1::Vote::SeesPrimary => Some(Self::SeesPrimary),
        })
    }
}

impl Wire for AskNear {
    type Message = v1::AskNearRequest;

    fn to_wire(&self) -> v1::AskNearRequest {
        v1::AskNearRequest { target: Some(self.target.to_wire()), candidate: self.candidate.to_string() }
    }

    fn read(reader: &mut Reader, message: v1::AskNearRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let candidate = reader.parse("candidate", &message.candidate);
        Some(Self { target: target?, candidate: candidate? })
    }
}

impl Wire for Recruit {
    type Message = v1::RecruitRequest;

    fn to_wire(&self) -> v1::RecruitRequest {
        v1::RecruitRequest { target: Some(self.target.to_wire()), attempt: Some(self.attempt.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::RecruitRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let attempt = reader.required("attempt", message.attempt);
        Some(Self { target: target?, attempt: attempt? })
    }
}

impl Wire for Promote {
    type Message = v1::PromoteRequest;

    fn to_wire(&self) -> v1::PromoteRequest {
        v1::PromoteRequest {
            target: Some(self.target.to_wire()),
            certificate: Some(self.certificate.to_wire()),
        }
    }

    fn read(reader: &mut Reader, message: v1::PromoteRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let certificate = reader.required("certificate", message.certificate);
        Some(Self { target: target?, certificate: certificate? })
    }
}

impl Wire for Follow {
    type Message = v1::FollowRequest;

    fn to_wire(&self) -> v1::FollowRequest {
        v1::FollowRequest {
            target: Some(self.target.to_wire()),
            rule: Some(self.rule.to_wire()),
            attempt: Some(self.attempt.to_wire()),
        }
    }

    fn read(reader: &mut Reader, message: v1::FollowRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let rule = reader.required("rule", message.rule);
        let attempt = reader.required("attempt", message.attempt);
        Some(Self { target: target?, rule: rule?, attempt: attempt? })
    }
}

impl Wire for Close {
    type Message = v1::CloseRequest;

    fn to_wire(&self) -> v1::CloseRequest {
        v1::CloseRequest { target: Some(self.target.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::CloseRequest) -> Option<Self> {
        Some(Self { target: reader.required("target", message.target)? })
    }
}

impl Wire for Closed {
    type Message = v1::CloseResponse;

    fn to_wire(&self) -> v1::CloseResponse {
        v1::CloseResponse { position: position_to_wire(&self.position) }
    }

    fn read(reader: &mut Reader, message: v1::CloseResponse) -> Option<Self> {
        Some(Self { position: reader.position("position", &message.position)? })
    }
}

impl Wire for AwaitPosition {
    type Message = v1::AwaitPositionRequest;

    fn to_wire(&self) -> v1::AwaitPositionRequest {
        v1::AwaitPositionRequest {
            target: Some(self.target.to_wire()),
            position: position_to_wire(&self.position),
        }
    }

    fn read(reader: &mut Reader, message: v1::AwaitPositionRequest) -> Option<Self> {
        let target = reader.required("target", message.target);
        let position = reader.position("position", &message.position);
        Some(Self { target: target?, position: position? })
    }
}

impl Wire for Reopen {
    type Message = v1::ReopenRequest;

    fn to_wire(&self) -> v1::ReopenRequest {
        v1::ReopenRequest { target: Some(self.target.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::ReopenRequest) -> Option<Self> {
        Some(Self { target: reader.required("target", message.target)? })
    }
}
