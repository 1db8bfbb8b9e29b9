//! The test bed itself: what every other test relies on.
//!
//! Most tests share one control plane; those that end one start their own.

mod audit;
mod children;
mod cluster_api;
mod containers;
mod control_plane;
mod kinds;
mod operator;
mod process;
mod scenario;
mod tools;
mod wait;
