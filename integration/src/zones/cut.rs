//! What does not get through between zones: dropped on the bridge, without a word to either side, as a broken network
//! does. Connections that exist hang; they go on after healing as TCP's patience allows.
//!
//! Only IP is dropped: that zones still know each other's hardware addresses keeps a one-way cut one-way.

use std::fmt::Write as _;

use super::Zone;

/// Longest packet of TCP over IPv4 without payload: two headers of 20 bytes and 40 bytes of options, and some more.
const NO_PAYLOAD_BYTES_MAX: u32 = 92;

/// One cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing gets from or to this zone.
    Off(Zone),
    /// Nothing gets from either of two zones to the other.
    Between(Zone, Zone),
    /// Nothing gets from one zone to another; everything gets back.
    OneWay {
        /// Where it is sent.
        from: Zone,
        /// Where it does not arrive.
        to: Zone,
    },
    /// What clients in `from` say to the TCP port `port` in `to` does not arrive; what they hear does, and that they heard
    /// it too: the connection stays up. Of a replica this cuts off the acks.
    Said {
        /// Where the clients are.
        from: Zone,
        /// Where the server is.
        to: Zone,
        /// The server's port.
        port: u16,
    },
}

/// The whole of the bridge's rules, in the language of `nft`; replaces what was there in one step.
pub(super) fn rules(cuts: &[Cut]) -> String {
    // Deleting what is not there fails, so it is made first.
    let mut rules = String::from("table bridge cuts\ndelete table bridge cuts\ntable bridge cuts {\n");
    rules.push_str("chain forward {\ntype filter hook forward priority 0; policy accept;\n");
    for cut in cuts {
        match *cut {
            Cut::Off(zone) => {
                for other in Zone::ALL.into_iter().filter(|other| *other != zone) {
                    drop_all(&mut rules, zone, other);
                    drop_all(&mut rules, other, zone);
                }
            }
            Cut::Between(one, other) => {
                drop_all(&mut rules, one, other);
                drop_all(&mut rules, other, one);
            }
            Cut::OneWay { from, to } => drop_all(&mut rules, from, to),
            Cut::Said { from, to, port } => {
                let said = format!("{} tcp dport {port}", way(from, to));
                // The last packet of whatever is written at once has the first mark; the others are long.
                line(&mut rules, &format!("{said} tcp flags & psh == psh drop"));
                line(&mut rules, &format!("{said} ip length > {NO_PAYLOAD_BYTES_MAX} drop"));
            }
        }
    }
    rules + "}\n}\n"
}

fn drop_all(rules: &mut String, from: Zone, to: Zone) {
    line(rules, &format!("{} ether type {{ ip, ip6 }} drop", way(from, to)));
}

fn way(from: Zone, to: Zone) -> String {
    format!("iifname {:?} oifname {:?}", from.name(), to.name())
}

fn line(rules: &mut String, rule: &str) {
    writeln!(rules, "{rule}").expect("a string takes all text");
}
