//! What members answer to somebody who is no agent and no command line of ours, but a shell with `grpcurl`.

use anyhow::Result;

use super::Cluster;
use crate::installation;
use crate::node::Node;
use crate::process::run;
use crate::zones::Zone;

fn agent(node: &Node) -> String {
    format!("{}:{}", node.placement.address(), node.grpc)
}

impl Cluster {
    /// Runs the script of docs/failover-by-hand.md once, as it is shown there, somewhere in `zone`. Returns the certificate
    /// that it prints.
    ///
    /// # Errors
    /// It is refused, or fails; the message is the script's.
    pub fn fail_over_by_hand(&self, zone: Zone) -> Result<String> {
        let script = installation::workspace().join("docs/examples/failover.sh");
        let authority = &self.site(zone)?.node.authority;
        let mut failover = self.zones.command(zone, script);
        failover.env("GRPCURL", installation::grpcurl()?);
        failover.env("HOLDFAST_CA", authority.join("ca.pem"));
        failover.env("HOLDFAST_CERT", authority.join("ops.pem"));
        failover.env("HOLDFAST_KEY", authority.join("ops.key"));
        failover.args(self.sites().map(|site| agent(&site.node)));
        run(&mut failover)
    }
}
