//! Why the operator does not run.

use std::{io, path::PathBuf};

use crate::{
    lease::{GO_OPERATOR_LEASE, LeaseError},
    servers::ServerError,
    source::SourceError,
    store::StoreError,
};

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The kubeconfig is not there or not valid.
    #[error("failed to read the kubeconfig {path:?}")]
    ReadKubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// Neither a kubeconfig nor a pod's account.
    #[error("failed to find a management cluster: give --kubeconfig, KUBECONFIG, or run in a pod")]
    FindCluster(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("failed to make a client for the management cluster")]
    MakeClient(#[source] kube::Error),
    /// A port is taken.
    #[error(transparent)]
    Serve(#[from] ServerError),
    /// The renderer's place is not known.
    #[error("failed to find the renderer beside this program")]
    FindRenderer(#[source] io::Error),
    /// The renderer does not work.
    #[error("failed to start the renderer")]
    TryRenderer(#[source] crate::helm::RenderError),
    /// The process has no TLS.
    #[error("failed to prepare the download of chart dependencies")]
    PrepareDependencies(#[source] reqwest::Error),
    /// The process has no TLS.
    #[error("failed to prepare sources of releases")]
    PrepareSources(#[source] SourceError),
    /// The cache cannot be used.
    #[error("failed to open the release store")]
    OpenStore(#[source] StoreError),
    /// The Go operator works on the same objects.
    #[error(
        "the Go operator holds its lease \"{GO_OPERATOR_LEASE}\" in namespace \"{namespace}\" (\"{holder}\"): scale it down first"
    )]
    MeetGoOperator {
        /// Namespace of its lease.
        namespace: String,
        /// Who it is.
        holder: String,
    },
    /// The lease cannot be had.
    #[error(transparent)]
    Lead(#[from] LeaseError),
    /// Another replica leads now.
    #[error("lost the lease: another replica may lead, this one ends")]
    LoseLease,
    /// The API server does not tell what it serves.
    #[error("failed to ask the management cluster for its kinds")]
    Discover(#[source] kube::Error),
    /// Signals cannot be listened to.
    #[error("failed to listen to signals")]
    Signals(#[source] io::Error),
}
