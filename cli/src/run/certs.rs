//! `holdfast certs ..`: works on a folder, asks no agent.

use serde::Serialize;

use crate::args::{CertsCommand, IssueArgs};
use crate::certs::{CertFiles, Issue, init, issue};
use crate::failure::Failure;
use crate::output::Output;
use holdfast_proto::identity::Caller;

#[derive(Serialize)]
struct Made {
    cert: String,
    key: String,
}

pub(super) fn run(command: CertsCommand, output: &mut Output) -> Result<(), Failure> {
    let CertFiles { cert, key } = match command {
        CertsCommand::Init { dir, cluster, days } => init(&dir, &cluster, days)?,
        CertsCommand::Issue(args) => {
            let dir = args.dir.clone();
            issue(&dir, whom(args)?)?
        }
    };
    let made = Made { cert: cert.display().to_string(), key: key.display().to_string() };
    output.answer(&made, |made| format!("{}\n{}", made.cert, made.key))
}

fn whom(args: IssueArgs) -> Result<Issue, Failure> {
    let IssueArgs { node, zone, address: addresses, no_promote, user, roles, days, .. } = args;
    let caller = match (node, zone, user) {
        (Some(node), Some(zone), None) => Caller::Node { zone, node, promote: !no_promote },
        (None, None, Some(name)) => Caller::User { name, roles: roles.into_iter().collect() },
        _ => return Err(Failure::Usage("name a node with its zone, or a user".to_owned())),
    };
    Ok(Issue { caller, addresses, days })
}
