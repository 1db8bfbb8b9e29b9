//! Reasons of conditions: one word for what to do about it. `docs/conditions.md` has a line on each for users.

/// All is well.
pub const READY: &str = "Ready";
/// Nothing was looked at yet.
pub const PENDING: &str = "Pending";
/// Somebody paused the object: remove the annotation.
pub const PAUSED: &str = "Paused";
/// Nobody paused the object.
pub const NOT_PAUSED: &str = "NotPaused";
/// Still used: the message names the users.
pub const IN_USE: &str = "InUse";
/// Nothing keeps the object.
pub const NOT_BLOCKED: &str = "NotBlocked";
/// The object is going away.
pub const DELETING: &str = "Deleting";

/// The release's files are on their way.
pub const DOWNLOADING: &str = "Downloading";
/// The release's files are in the store.
pub const DOWNLOADED: &str = "Downloaded";
/// The source does not answer: network, proxy, or a fault there.
pub const SOURCE_UNAVAILABLE: &str = "SourceUnavailable";
/// The source refuses, or is set up wrongly: look at `spec.source` and its Secret.
pub const SOURCE_REFUSED: &str = "SourceRefused";
/// The source has no such release: publish it, or take it out of `spec.versions`.
pub const RELEASE_NOT_FOUND: &str = "ReleaseNotFound";
/// The release's author must mend the release.
pub const RELEASE_INVALID: &str = "ReleaseInvalid";
/// A chart dependency cannot be had.
pub const DEPENDENCY_UNAVAILABLE: &str = "DependencyUnavailable";
/// The operator itself is in trouble: disk, renderer, API server.
pub const OPERATOR_TROUBLE: &str = "OperatorTrouble";
/// No `ClusterStack` wants the release: delete it, or make one.
pub const NO_CLUSTER_STACK: &str = "NoClusterStack";

/// `noProvider` is set: node images are somebody else's work.
pub const NO_PROVIDER: &str = "NoProvider";
/// Neither `noProvider` nor `providerRef` is set: set one.
pub const NEEDS_PROVIDER_REF: &str = "NeedsProviderRef";
/// No provider integration serves the stack's provider: install one.
pub const NO_PROVIDER_INTEGRATION: &str = "NoProviderIntegration";
/// The class chart waits for the node images.
pub const WAITING_FOR_IMAGES: &str = "WaitingForImages";

/// All objects are applied.
pub const APPLIED: &str = "Applied";
/// Objects are being applied.
pub const APPLYING: &str = "Applying";
/// Objects were changed by somebody, and the policy is to report it.
pub const DRIFTED: &str = "Drifted";
/// An object is there already and is not ours: remove or rename it.
pub const CONFLICT: &str = "Conflict";
/// An object may not change under its name: the author must give it another one.
pub const IMMUTABLE_CHANGED: &str = "ImmutableChanged";
/// The API server or a webhook refuses an object.
pub const REFUSED: &str = "Refused";
/// The `ClusterClass` is applied, and Cluster API has not accepted it yet.
pub const CLASS_NOT_READY: &str = "ClusterClassNotReady";

/// At least one release is usable.
pub const AVAILABLE: &str = "Available";
/// No release is usable yet.
pub const NOT_AVAILABLE: &str = "NotAvailable";
/// The releases are those that are wanted.
pub const SYNCED: &str = "Synced";
/// Releases are being made or removed.
pub const SYNCING: &str = "Syncing";
/// The source was listed.
pub const LISTED: &str = "Listed";
/// The source is not listed, because `autoSubscribe` is off.
pub const NOT_SUBSCRIBED: &str = "NotSubscribed";
/// Versions of the channel have no order, so none is the newest: list them in `spec.versions`.
pub const UNORDERED: &str = "Unordered";
/// Nothing is wanted: the source has no release of the channel, and `spec.versions` is empty.
pub const NO_RELEASE: &str = "NoRelease";

/// Cluster API has not looked at the newest state of the `ClusterClass` yet; does its manager run?
pub const CLASS_NOT_OBSERVED: &str = "ClassNotObserved";
/// Cluster API cannot work out the variables of the `ClusterClass`; its author must act.
pub const CLASS_VARIABLES_NOT_READY: &str = "ClassVariablesNotReady";

/// The release has objects of kinds that this management cluster does not know; install what brings them.
pub const KIND_NOT_SERVED: &str = "KindNotServed";
/// The operator lacks rights on objects of the release; give it a role.
pub const FORBIDDEN: &str = "Forbidden";
/// Cluster API refuses every `ClusterClass`; switch its feature `ClusterTopology` on.
pub const CLUSTER_TOPOLOGY_DISABLED: &str = "ClusterTopologyDisabled";
/// Cluster API calls no hooks, which the addon stages of the release need; switch its feature `RuntimeSDK` on.
pub const RUNTIME_SDK_DISABLED: &str = "RuntimeSDKDisabled";
