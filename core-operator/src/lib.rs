//! The Cluster Stack Operator: makes releases of cluster stacks usable in a management cluster.
//!
//! The parts that a controller stands on:
//!
//! ```text
//! args, telemetry, metrics, servers, lease   the process: options, logs, probes, one leader
//! api                                        custom resources
//! release                                    names, versions and content of releases; pure
//! source                                     where releases come from: GitHub, directories
//! apply                                      rendered objects, checked and marked
//! client                                     connections to API servers
//! capi                                       Cluster API: its objects, users of releases, preflight
//! conditions, retry                          what a status says, when to look again
//! helm                                       charts -> objects, by Helm itself in processes of its own
//! store                                      chart dependencies, pinned by digest
//! ```

pub mod api;
pub mod apply;
pub mod args;
pub mod capi;
pub mod client;
pub mod commands;
pub mod conditions;
pub mod context;
pub mod controllers;
pub mod events;
pub mod helm;
pub mod jobs;
pub mod lease;
pub mod metrics;
pub mod release;
pub mod report;
pub mod retry;
pub mod run;
pub mod servers;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod wakes;
pub mod watch;
