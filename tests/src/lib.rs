//! The test bed: real API servers, a real Cluster API manager and the real operator, as processes on the loopback address.
//!
//! ```text
//! tools ───► etcd, kube-apiserver, … (built once from pinned Go modules)
//!   │
//! process ─► children that end with their owner
//!   │
//! control_plane ─► one etcd, a management API server with controllers, any number of workload API servers
//!   │                 ▲                ▲                 ▲
//! provider_kinds      │           cluster_api        operator
//!   CRDs without      │           Cluster API's      the real core-operator,
//!   controllers ──────┘           real manager       under its own role
//! ```
//!
//! [`github`] is a GitHub with faults on demand, for sources of releases. [`scenario`](scenario::scenario) gives a test its namespace and prints what there is when the test fails; [`eventually`] waits for facts. None of these needs a
//! container runtime, the network (once the tools are built) or root.
//!
//! For providers there are a real [`DockerEngine`], which needs root, and a real OCI [`Registry`]; their programs are the distribution's ([`packages`]), and
//! [`image`] makes what they move.

pub mod audit;
pub mod certificates;
pub mod class_status;
pub mod cluster_api;
pub mod control_plane;
pub mod delay;
pub mod docker_engine;
pub mod github;
pub mod image;
pub mod line;
pub mod manifests;
pub mod operator;
pub mod packages;
pub mod ports;
pub mod process;
pub mod provider_kinds;
pub mod python;
pub mod reference;
pub mod registry;
pub mod scenario;
pub mod stacks;
pub mod state;
pub mod tools;
pub mod usage;
pub mod wait;

pub use class_status::ClassStatus;
pub use cluster_api::ClusterApi;
pub use control_plane::{ApiServer, ControlPlane};
pub use docker_engine::DockerEngine;
pub use operator::Operator;
pub use registry::Registry;
pub use scenario::{Bed, scenario};
pub use wait::{consistently, eventually};

use rand::Rng;

/// Sets the process's TLS implementation; any number of calls are fine. Everything here that makes a client does it.
pub fn install_crypto() {
    // Fails when somebody did it before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Five lower-case letters and digits, for names that must not meet.
#[must_use]
pub fn random_word() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}
