//! Faults: what the operator does when processes, networks, releases or users misbehave.

mod garbage;
mod ground;
mod killed;
mod late_inputs;
mod late_kinds;
mod leaders;
mod outage;
mod process;
mod scope;
mod slow_sources;
mod specs;
mod store;
