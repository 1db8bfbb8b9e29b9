//! The format of cluster stack releases: names, versions, and what lies in a release folder.
//!
//! Everything here is knowledge about the format. Nothing fetches, unpacks, renders or applies, and no name of a
//! provider occurs. The only module that touches the disk is [`content`], which reads the small text files of a
//! folder that is already there.
//!
//! ```text
//! tag of a release ──> name ──┐
//!                             ├──> content: the checked release
//! release folder ──> metadata, addon_stages (yaml)
//! ```

pub mod addon_stages;
pub mod content;
pub mod invalid;
pub mod metadata;
pub mod name;
pub mod version;
pub mod yaml;

pub use addon_stages::{AddonStages, Hook};
pub use content::{Addon, ReleaseContent};
pub use invalid::ReleaseInvalid;
pub use metadata::Metadata;
pub use name::{ParseNameError, ReleaseName};
pub use version::{Channel, KubernetesMinor, Newest, Version, newest};
