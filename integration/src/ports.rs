//! Free TCP ports on loopback.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Below what Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`, 32768 and above unless somebody changed it): a
/// server that connects to itself before it has bound all of its ports would else take one of them.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// `N` different ports that were free a moment ago.
///
/// Another process may take one before it is used; tests that start servers are rare enough for that to be noise, and
/// a server that cannot bind says so at once.
///
/// # Errors
/// So many are not free.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let anywhere = RandomState::new().hash_one(N);
    let first = usize::try_from(anywhere % RANGE.len() as u64).expect("within the range");
    // All are held until all are known, so that they differ.
    let mut held = RANGE.cycle().skip(first).take(RANGE.len()).filter_map(|port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some((port, listener))
    });
    let held: Vec<(u16, TcpListener)> = held.by_ref().take(N).collect();
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    ports.try_into().ok().with_context(|| format!("{N} free ports in {RANGE:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ports_of_one_call_differ() -> anyhow::Result<()> {
        let ports: [u16; 20] = super::free()?;
        assert_eq!(BTreeSet::from(ports).len(), 20);
        Ok(())
    }
}
