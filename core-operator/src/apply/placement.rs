//! Where objects of a release may lie: a release author must not get the operator's rights.

use crate::{apply::manifest::Manifest, args::ClusterKind};

/// What the operator was started with.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Namespaces beside the release's own.
    pub namespaces: Vec<String>,
    /// Cluster-scoped kinds.
    pub cluster_kinds: Vec<ClusterKind>,
}

/// An object lies where it may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// In a namespace that is not the release's.
    #[error(
        "{kind} \"{name}\" of \"{origin}\" is for namespace \"{namespace}\", but objects of a release must be in its own \
         (\"{own}\"), or in one that the operator's --allow-namespaces names"
    )]
    Namespace {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Template that it was rendered from.
        origin: String,
        /// Where it would go.
        namespace: String,
        /// Where it may go.
        own: String,
    },
    /// In no namespace.
    #[error(
        "{kind} \"{name}\" of \"{origin}\" is cluster-scoped, and the operator's --allow-cluster-kinds does not name \
         \"{kind}.{group}\""
    )]
    Cluster {
        /// Kind of the object.
        kind: String,
        /// Group of the object.
        group: String,
        /// Name of the object.
        name: String,
        /// Template that it was rendered from.
        origin: String,
    },
}

impl Allowed {
    /// Checks an object that was [placed](Manifest::place) for a release in namespace `own`.
    ///
    /// # Errors
    ///
    /// [`Misplaced`] names the object, its template, and the option that would allow it.
    pub fn check(&self, manifest: &Manifest, own: &str) -> Result<(), Misplaced> {
        let identity = manifest.identity();
        let (kind, name) = (identity.kind.clone(), identity.name.clone());
        let origin = manifest.source().to_owned();
        match &identity.namespace {
            Some(namespace) if namespace == own || self.namespaces.contains(namespace) => Ok(()),
            Some(namespace) => Err(Misplaced::Namespace {
                kind,
                name,
                origin,
                namespace: namespace.clone(),
                own: own.to_owned(),
            }),
            None if self
                .cluster_kinds
                .iter()
                .any(|allowed| allowed.kind == kind && allowed.group == identity.group) =>
            {
                Ok(())
            }
            None => Err(Misplaced::Cluster {
                kind,
                group: identity.group.clone(),
                name,
                origin,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::helm::RenderedObject;

    fn placed(namespaced: bool, namespace: Option<&str>) -> Manifest {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": namespace}});
        Manifest::check(&RenderedObject {
            source: "c/templates/a.yaml".to_owned(),
            object,
        })
        .unwrap()
        .place(namespaced, "own")
    }

    #[test]
    fn own_and_allowed_namespaces_are_fine() {
        let allowed = Allowed {
            namespaces: vec!["extra".to_owned()],
            ..Allowed::default()
        };
        assert_eq!(allowed.check(&placed(true, None), "own"), Ok(()));
        assert_eq!(allowed.check(&placed(true, Some("extra")), "own"), Ok(()));
        let error = allowed
            .check(&placed(true, Some("kube-system")), "own")
            .unwrap_err();
        assert!(error.to_string().contains("\"kube-system\""), "{error}");
    }

    #[test]
    fn cluster_scoped_kinds_must_be_allowed() {
        let none = Allowed::default();
        let error = none.check(&placed(false, None), "own").unwrap_err();
        assert!(
            error.to_string().contains("\"Thing.example.com\""),
            "{error}"
        );
        let kind = ClusterKind {
            kind: "Thing".to_owned(),
            group: "example.com".to_owned(),
        };
        let allowed = Allowed {
            cluster_kinds: vec![kind],
            ..Allowed::default()
        };
        assert_eq!(allowed.check(&placed(false, None), "own"), Ok(()));
    }
}
