//! Node images of a release: the one place that changes when provider integrations arrive.

use super::status::Images;
use crate::api::ClusterStack;

/// How far the node images are that a stack's releases need.
pub(super) fn images(stack: &ClusterStack) -> Images {
    if stack.spec.no_provider {
        Images::NotNeeded
    } else if stack.spec.provider_ref.is_none() {
        Images::NeedsProviderRef
    } else {
        Images::NoProviderIntegration {
            provider: stack.spec.provider.clone(),
        }
    }
}
