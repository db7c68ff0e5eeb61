//! Free TCP ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// `N` different ports that were free a moment ago.
///
/// Another process may take one before it is used; tests that start servers are rare enough for that to be noise, and
/// a server that cannot bind says so at once.
///
/// # Errors
/// The kernel gives none.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known, so that they differ.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a free port")?;
        *port = listener.local_addr().context("read the port")?.port();
        held.push(listener);
    }
    Ok(ports)
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
