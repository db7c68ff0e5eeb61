//! What can be typed. Meanings are documented here once: `--help` and the shell completions come from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use holdfast_model::{ClusterId, ClusterName, NodeName, Zone};
use holdfast_proto::identity::Role;
use holdfast_proto::request::VerdictKind;

use crate::endpoint::Endpoint;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  tried and failed
  2  wrong usage, or a request that is not valid
  3  refused: something is missing first, and the message says what would resolve it
  4  no agent could be reached
  5  the certificate is missing, not accepted, or lacks a role";

/// Asks a holdfast agent.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Whom to ask, and as whom
    #[command(flatten)]
    pub access: Access,
    /// Print JSON, one document a line, and no progress bars
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to ask, and as whom.
#[derive(Debug, Args)]
pub struct Access {
    /// Where agents are; the first that answers is asked. Default: https://127.0.0.1:7430
    #[arg(long, env = "HOLDFAST_ENDPOINTS", value_delimiter = ',', global = true, value_name = "URL")]
    pub endpoint: Vec<Endpoint>,
    /// Certificates of the authorities that agents must chain to
    #[arg(long, env = "HOLDFAST_CA", global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate
    #[arg(long, env = "HOLDFAST_CERT", global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "HOLDFAST_KEY", global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those that ask an agent
    #[command(flatten)]
    Ask(Ask),
    /// Make certificates for development and small sites
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Commands that ask an agent.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show what a node knows about itself
    Status {
        /// Go on and show each change
        #[arg(long)]
        watch: bool,
    },
    /// Say why clients may not write, and which single and double faults would stop writes now
    Explain,
    /// Look at disks, format them, wipe them
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Make the first member of a new cluster
    Bootstrap(BootstrapArgs),
    /// Take and look at backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Rebuild a node without data from its repository
    Restore {
        /// Which backup; the newest complete one when not given
        #[arg(long)]
        backup: Option<String>,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
    /// Show how far the log is shipped, and what of it is kept
    Log,
    /// Look at long work
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Start and stop the database engine
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Make another member the primary, because the primary is gone
    Failover(FailoverArgs),
    /// Make another node's member the primary while the primary serves
    Switchover {
        /// The node that is to have the primary
        #[arg(long)]
        to: NodeName,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
    /// Look at members, remove them, admit them
    #[command(subcommand)]
    Member(MemberCommand),
}

/// Whether to follow long work.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Begin the work and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
}

/// A device as it was seen, by the words of `holdfast volume plan`.
#[derive(Debug, Clone, Args)]
pub struct SeenArgs {
    /// The node that it is in
    #[arg(long)]
    pub node: NodeName,
    /// Its serial
    #[arg(long)]
    pub serial: String,
    /// Its sequence number
    #[arg(long)]
    pub diskseq: u64,
    /// What was seen on it: blank, ours, stale, theirs, foreign, sick or gone
    #[arg(long)]
    pub verdict: VerdictKind,
}

/// `holdfast volume ..`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Say what each disk is and what would be done with it; writes nothing
    Plan,
    /// Format a blank disk; the node looks again and refuses anything else
    Format {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        seen: SeenArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
    /// Erase a disk: without --token says what would be lost and prints a token, with it erases
    Wipe {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        seen: SeenArgs,
        /// From the same command without it; good once and for a short time
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
}

/// `holdfast bootstrap`.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// The name of the cluster, as consent to make a new one
    #[arg(long)]
    pub token: String,
    /// The id to give the cluster; the node draws one when not given
    #[arg(long)]
    pub cluster_id: Option<ClusterId>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
    pub wait: Wait,
}

/// `holdfast backup ..`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Take a backup
    Create {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
    /// List complete backups, newest first
    List {
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one backup
    Show {
        /// Its id
        id: String,
    },
}

/// `holdfast operation ..`.
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List work under way and lately ended
    List,
    /// Follow one piece of work to its end
    Watch {
        /// Its id
        id: String,
    },
}

/// `holdfast engine ..`.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Let the engine run
    Start,
    /// Stop the engine and keep it stopped
    Stop,
}

/// `holdfast failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// A zone to prefer among members that hold the same; more than one: the best first
    #[arg(long, value_name = "ZONE")]
    pub prefer_zone: Vec<Zone>,
    /// Do not ask members whether they miss the primary: you vouch that it is gone, which counts once and for five minutes
    #[arg(long, requires = "why")]
    pub without_votes: bool,
    /// How that is known; kept in the agent's ledger and in the repository
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
    pub wait: Wait,
}

/// `holdfast member ..`.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List members: who votes, and what each takes part in
    List,
    /// Take a node's member out: it votes no more, and may not receive log
    Remove {
        /// The node
        node: NodeName,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
    /// Let a node's member in: it may receive log, and votes once it has caught up
    Admit {
        /// The node
        node: NodeName,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a doc comment here would replace the help of the command")]
        wait: Wait,
    },
}

/// `holdfast certs ..`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a certificate authority for one cluster
    Init {
        /// Folder to make it in: ca.pem and ca.key
        #[arg(long)]
        dir: PathBuf,
        /// The cluster
        #[arg(long)]
        cluster: ClusterName,
        /// How many days it holds
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
    },
    /// Issue a certificate for a node or a person; never overwrites one
    Issue(IssueArgs),
}

/// `holdfast certs issue`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("whom").required(true).args(["node", "user"])))]
pub struct IssueArgs {
    /// Folder of the authority; the certificate goes there as NAME.pem and NAME.key
    #[arg(long)]
    pub dir: PathBuf,
    /// A node
    #[arg(long, requires = "zone")]
    pub node: Option<NodeName>,
    /// Where the node stands
    #[arg(long, requires = "node")]
    pub zone: Option<Zone>,
    /// Names and addresses that the node is reached by, besides its name and this machine's loopback
    #[arg(long, requires = "node", value_delimiter = ',')]
    pub address: Vec<String>,
    /// The node may not coordinate: it can still be recruited and promoted, but recruits and promotes nobody
    #[arg(long, requires = "node")]
    pub no_promote: bool,
    /// A person or program
    #[arg(long, conflicts_with_all = ["zone", "address", "no_promote"])]
    pub user: Option<NodeName>,
    /// What the person may do: observe, operate, promote, restore, destroy; none includes another
    #[arg(long, requires = "user", value_delimiter = ',', default_values = ["observe"])]
    pub roles: Vec<Role>,
    /// How many days it holds
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    pub days: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_certificate_is_for_a_node_or_a_user_and_never_both() {
        let parse =
            |args: &str| Cli::try_parse_from(format!("holdfast certs issue --dir d {args}").split(' '));
        parse("--node n1 --zone a").unwrap();
        parse("--node n1 --zone a --no-promote").unwrap();
        parse("--user ops --roles observe,destroy").unwrap();
        for bad in [
            "--days 3",
            "--node n1",
            "--node n1 --zone a --user ops",
            "--user ops --zone a",
            "--user ops --no-promote",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_leaves_out_the_votes_says_why() {
        let parse = |args: &str| Cli::try_parse_from(format!("holdfast failover{args}").split(' '));
        for good in ["", " --prefer-zone b --prefer-zone c", " --without-votes --why burnt"] {
            parse(good).unwrap();
        }
        assert!(parse(" --without-votes").is_err());
    }

    #[test]
    fn exit_codes_are_in_the_help() {
        let help = Cli::command().render_help().to_string();
        for code in 0..=5 {
            assert!(help.contains(&format!("\n  {code}  ")), "exit code {code}");
        }
    }
}
