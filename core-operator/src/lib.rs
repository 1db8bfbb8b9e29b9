//! The Cluster Stack Operator.

pub mod api;
pub mod apply;
pub mod args;
pub mod capi;
pub mod commands;
pub mod conditions;
pub mod context;
pub mod controllers;
pub mod events;
pub mod helm;
pub mod lease;
pub mod metrics;
pub mod release;
pub mod retry;
pub mod servers;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod watch;
