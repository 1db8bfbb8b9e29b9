//! Addresses in the form that Go programs take them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where a server listens, or that it does not.
///
/// `:9440` means all interfaces, `0` and the empty text mean off, as in the Go operator (controller-runtime).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// The server is not started.
    Off,
    /// All interfaces, with both IP versions where the machine has both.
    AllInterfaces(u16),
    /// One address.
    Address(SocketAddr),
    /// A host name, resolved when the server starts.
    Host(String, u16),
}

impl BindAddress {
    /// What to try to bind, in this order; empty if off.
    pub(super) fn candidates(&self) -> Vec<(String, u16)> {
        match self {
            Self::Off => Vec::new(),
            // The first takes both versions; it fails on machines without IPv6.
            Self::AllInterfaces(port) => {
                vec![
                    (Ipv6Addr::UNSPECIFIED.to_string(), *port),
                    (Ipv4Addr::UNSPECIFIED.to_string(), *port),
                ]
            }
            Self::Address(address) => vec![(address.ip().to_string(), address.port())],
            Self::Host(host, port) => vec![(host.clone(), *port)],
        }
    }
}

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected \":<port>\", \"<address>:<port>\" or \"0\" for off";
        if text.is_empty() || text == "0" {
            return Ok(Self::Off);
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let port: u16 = port
            .parse()
            .map_err(|error| format!("port \"{port}\": {error}; {EXPECTED}"))?;
        if host.is_empty() {
            return Ok(Self::AllInterfaces(port));
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            // "::1:80" has no single meaning.
            return if address.is_ipv6() && bare.is_none() {
                Err(format!(
                    "an IPv6 address stands in brackets, as in \"[::1]:{port}\""
                ))
            } else {
                Ok(Self::Address(SocketAddr::new(address, port)))
            };
        }
        let name = |host: &str| {
            host.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        };
        if name(host) && !host.starts_with(['-', '.']) {
            return Ok(Self::Host(host.to_owned(), port));
        }
        Err(EXPECTED.to_owned())
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("0"),
            Self::AllInterfaces(port) => write!(f, ":{port}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("0", BindAddress::Off),
            ("", BindAddress::Off),
            (":8081", BindAddress::AllInterfaces(8081)),
            (
                "127.0.0.1:0",
                BindAddress::Address(([127, 0, 0, 1], 0).into()),
            ),
            (
                "[::1]:9440",
                BindAddress::Address((Ipv6Addr::LOCALHOST, 9440).into()),
            ),
            (
                "localhost:8080",
                BindAddress::Host("localhost".to_owned(), 8080),
            ),
        ] {
            assert_eq!(text.parse::<BindAddress>().unwrap(), expected, "{text}");
            if !text.is_empty() {
                assert_eq!(expected.to_string(), text);
            }
        }
    }

    #[test]
    fn nonsense_addresses_say_what_is_expected() {
        for text in [
            "8080",
            ":",
            ":port",
            ":99999",
            "::1:80",
            "http://host:80",
            "a b:80",
            "-x:80",
            "127.0.0.1",
        ] {
            let error = text.parse::<BindAddress>().unwrap_err();
            assert!(
                error.contains("expected") || error.contains("brackets"),
                "{text}: {error}"
            );
        }
    }
}
