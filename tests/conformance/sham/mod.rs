//! A whole provider written straight onto the messages of the contract, beside and without the SDK, whose backend is in memory.
//!
//! It is here to be wrong on demand: each [`Fault`] breaks one rule. Without a fault it keeps them all, so the suite is not
//! only judged by providers that share code with each other.

mod backend;
mod download;
mod faults;
mod hooks;
mod names;
mod process;
mod rpc;
mod service;
mod validate;
mod work;

pub use faults::Fault;
pub use process::{Handle, Process};

/// `Target.config`, secrets and release files that this provider understands.
pub const SAMPLE: &str = r#"
targets:
  good:
    config: {endpoint: "memory://here"}
    secrets: {token: "good-${CANARY}"}
  wrongCredentials:
    config: {endpoint: "memory://here"}
    secrets: {token: "bad-${CANARY}"}
  otherCredentials:
    config: {endpoint: "memory://here"}
    secrets: {token: "good-other-${CANARY}"}
  refusing:
    config: {endpoint: "memory://refusing"}
    secrets: {token: "good-${CANARY}"}
  silent:
    config: {endpoint: "memory://silent"}
    secrets: {token: "good-${CANARY}"}
  elsewhere:
    config: {endpoint: "memory://there"}
    secrets: {token: "good-${CANARY}"}
artifacts:
- {kind: http, format: raw}
- {kind: http, format: qcow2}
- {kind: http, format: container}
- {kind: oci, format: container}
- {kind: oci, format: raw}
markerPrefix: "sham_"
nodeImages:
- release: {provider: sham, stackName: scs, kubernetesVersion: v1.33.4, nodeImageVersion: v1}
  content: |
    images:
    - {name: "ubuntu-${RUN}", url: "${URL}", digest: "${DIGEST}", size: ${SIZE}}
    - {name: "flatcar-${RUN}", url: "${URL}", digest: "${DIGEST}", size: ${SIZE}}
  names: ["ubuntu-${RUN}", "flatcar-${RUN}"]
- about: ociTag
  release: {provider: sham, stackName: scs, kubernetesVersion: v1.33.4}
  content: "images: [{name: tagged, reference: '${REPOSITORY}:${TAG}'}]"
  names: [tagged]
- about: missingTag
  release: {provider: sham, stackName: scs, kubernetesVersion: v1.33.4}
  content: "images: [{name: tagged, reference: '${REPOSITORY}:${MISSING_TAG}'}]"
"#;
