//! What the operator sees of Cluster API: its real manager, its real webhooks, its kinds in both API versions.

mod preflight;
mod views;
