//! Where an agent is: `https://host[:port]`. Plain HTTP is refused: there is no unverified way in.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// The port of gRPC when none is given.
pub const PORT: u16 = 7430;

/// Host and port of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {0:?} is not valid: use https://<host>[:<port>]")]
pub struct ParseEndpointError(String);

impl Endpoint {
    /// The agent on this machine.
    #[must_use]
    pub fn local() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: PORT }
    }

    /// Host and port for the resolver.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// What the agent's certificate must name.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("checked when parsed")
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseEndpointError(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !plain || ServerName::try_from(host.as_str()).is_err() {
            return Err(bad());
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(PORT) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_with_a_default_port() {
        for (given, shown) in [
            ("https://127.0.0.1:1", "https://127.0.0.1:1"),
            ("https://n1.example/", "https://n1.example:7430"),
            ("https://[::1]:2", "https://[::1]:2"),
        ] {
            assert_eq!(given.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for bad in ["", "n1", "http://n1", "https://", "https://n1/status", "https://a@n1", "https://n 1"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }
}
