//! What members answer to somebody who is no agent and no command line of ours, but a shell with `grpcurl`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;
use crate::installation;
use crate::node::{CLUSTER, Node};
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

    /// Makes one call of `service/method` to the agent of `zone`, aimed at its member as it is now; `more` goes with it.
    ///
    /// # Errors
    /// It is refused, or fails; the message is that of grpcurl.
    pub fn call(&self, zone: Zone, method: &str, more: Value) -> Result<String> {
        let (node, seen) = (&self.site(zone)?.node, self.site(zone)?.seen()?);
        let identity = seen.volume.identity.context("a member has a volume")?;
        let mut request = more;
        request["target"] = json!({
            "requestId": format!("by-hand-{}", method.replace('/', "-")),
            "cluster": CLUSTER,
            "node": seen.node,
            "incarnation": identity.incarnation,
            "term": seen.rule.map(|rule| rule.id.term),
        });
        let mut call = self.zones.command(zone, installation::grpcurl()?);
        call.arg("-cacert").arg(node.authority.join("ca.pem"));
        call.arg("-cert").arg(node.authority.join("ops.pem")).arg("-key").arg(node.authority.join("ops.key"));
        call.arg("-max-time").arg("10").arg("-d").arg(request.to_string());
        run(call.arg(agent(node)).arg(format!("holdfast.v1.{method}")))
    }
}
