//! Where requests must never go, whoever names the address.
//!
//! Link-local addresses are those of the machine's own neighbours, first of all the metadata service of a cloud, which hands
//! out credentials to whoever asks from the right place. A name is judged by the addresses to which it leads at the moment
//! of connecting, so it cannot pass as one address and be reached as another. Behind a proxy, the proxy resolves names, and
//! has to judge them; addresses in numbers are refused there, too.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Host;

/// Metadata services that are not link-local.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Which addresses may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addresses {
    /// All but link-local ones.
    All,
    /// None of this machine either.
    #[cfg(feature = "image")]
    Remote,
}

/// An address that may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forbidden {
    pub(super) address: IpAddr,
    pub(super) kind: &'static str,
}

impl Error for Forbidden {}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.address, self.kind)
    }
}

impl Addresses {
    /// Whether an address may be asked.
    pub(super) fn check(self, address: IpAddr) -> Result<(), Forbidden> {
        let forbidden = |kind| Err(Forbidden { address, kind });
        let meant = meant(address);
        let link_local = match meant {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if link_local {
            return forbidden("a link-local address");
        }
        if METADATA.contains(&meant) {
            return forbidden("the address of a metadata service");
        }
        match self {
            Self::All => Ok(()),
            // What is unspecified leads to this machine as well.
            #[cfg(feature = "image")]
            Self::Remote if meant.is_loopback() || meant.is_unspecified() => {
                forbidden("an address of the provider's own machine")
            }
            #[cfg(feature = "image")]
            Self::Remote => Ok(()),
        }
    }

    /// Whether an address in numbers may be asked; names are judged by [`Resolve`].
    pub(super) fn check_url(self, url: &Url) -> Result<(), Forbidden> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

/// IPv6 has several ways to write an address of IPv4 that end at the same machine.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.octets() {
        // The prefix of NAT64 (RFC 6052).
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => v6.to_canonical(),
    }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(addresses.permitted(found)?)
        })
    }
}

impl Addresses {
    /// Those of a name's addresses that may be asked. A name that has a forbidden one beside others is reached by the others.
    fn permitted(self, found: impl Iterator<Item = SocketAddr>) -> Result<Addrs, Forbidden> {
        let mut permitted = Vec::new();
        let mut refused = None;
        for address in found {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(forbidden) => refused = Some(forbidden),
            }
        }
        match refused {
            Some(forbidden) if permitted.is_empty() => Err(forbidden),
            _ => Ok(Box::new(permitted.into_iter())),
        }
    }
}

/// The forbidden address at the bottom of an error of the client.
pub(super) fn forbidden(error: &(dyn Error + 'static)) -> Option<Forbidden> {
    std::iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| error.downcast_ref().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_however_they_are_written() {
        for text in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://[fe80::1]/",
            "http://[febf::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://100.100.100.200/",
        ] {
            let url: Url = text.parse().unwrap();
            assert!(Addresses::All.check_url(&url).is_err(), "{text}");
        }
        for text in [
            "http://127.0.0.1/",
            "http://10.0.0.1/",
            "http://[fd00::1]/",
            "http://169.253.0.1/",
            "http://localhost/",
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(Addresses::All.check_url(&url), Ok(()), "{text}");
        }
    }

    #[cfg(feature = "image")]
    #[test]
    fn own_machine_is_forbidden_where_only_others_are_meant() {
        for text in [
            "http://127.0.0.1/",
            "http://127.8.0.1/",
            "http://[::1]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://127.1/",
        ] {
            let url: Url = text.parse().unwrap();
            assert!(Addresses::Remote.check_url(&url).is_err(), "{text}");
        }
        let other: Url = "http://10.0.0.1/".parse().unwrap();
        assert_eq!(Addresses::Remote.check_url(&other), Ok(()));
    }

    #[test]
    fn names_lead_only_to_permitted_addresses() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let both = [address("169.254.169.254"), address("192.0.2.1")];
        let permitted = Addresses::All.permitted(both.into_iter()).unwrap();
        assert_eq!(permitted.collect::<Vec<_>>(), [address("192.0.2.1")]);
        let only = [address("169.254.169.254")];
        assert!(Addresses::All.permitted(only.into_iter()).is_err());
    }
}
