//! Who calls: the names in a caller's certificate, and whether one of them is let in.
//!
//! The authority alone is not enough: in a cluster it signs for many workloads, and whoever is let in hands over
//! credentials and deletes images.

use std::sync::Arc;

use proto::{ProviderError, Reason};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// Without TLS: anybody.
    Anybody,
    /// With these DNS and URI names in its certificate.
    Named(Arc<[String]>),
}

impl Peer {
    /// The peer that showed this certificate, which has been verified.
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let names = certificates
            .and_then(<[_]>::first)
            .and_then(|leaf| X509Certificate::from_der(leaf).ok())
            .map(|(_, leaf)| names(&leaf))
            .unwrap_or_default();
        Self::Named(names.into())
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

/// Who is let in.
#[derive(Debug, Clone)]
pub(super) struct Allowed(Arc<[String]>);

impl Allowed {
    pub(super) fn new(identities: &[String]) -> Self {
        Self(identities.into())
    }

    /// Whether the peer is let in.
    pub(super) fn check(&self, peer: Option<&Peer>) -> Result<(), ProviderError> {
        let names = match peer {
            Some(Peer::Anybody) => return Ok(()),
            Some(Peer::Named(names)) => names,
            None => return Err(ProviderError::internal_bug("the connection has no peer")),
        };
        if names.iter().any(|name| self.0.contains(name)) {
            return Ok(());
        }
        let shown = if names.is_empty() {
            "no DNS or URI name".to_owned()
        } else {
            format!("\"{}\"", names.join("\", \""))
        };
        Err(ProviderError::new(
            Reason::CallerNotAuthorized,
            format!("the client certificate has {shown}, which --allow-identity does not name"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_let_in() {
        let allowed = Allowed::new(&["core.a.svc".to_owned(), "spiffe://a/core".to_owned()]);
        let named = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            allowed.check(Some(&Peer::Named(names.into())))
        };
        assert_eq!(named(&["other", "core.a.svc"]), Ok(()));
        assert_eq!(named(&["spiffe://a/core"]), Ok(()));
        for names in [&["core.a.svc.evil"][..], &["a.svc"], &[]] {
            let refused = named(names).expect_err("not named");
            assert_eq!(refused.reason(), Some(Reason::CallerNotAuthorized));
        }
        assert_eq!(allowed.check(Some(&Peer::Anybody)), Ok(()));
        assert!(allowed.check(None).is_err());
    }
}
