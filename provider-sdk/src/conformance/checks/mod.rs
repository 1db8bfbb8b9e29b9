//! The checks themselves, a file for each group of the contract's table.

pub(super) mod adoption;
pub(super) mod delete;
pub(super) mod ensure;
pub(super) mod errors;
pub(super) mod get;
pub(super) mod health;
pub(super) mod identity;
pub(super) mod integrity;
pub(super) mod limits;
pub(super) mod list;
pub(super) mod publish;
pub(super) mod required;
pub(super) mod resolve;
pub(super) mod secrets;
pub(super) mod states;
pub(super) mod transport;
pub(super) mod validate_target;
pub(super) mod validation;
