//! What a real API server accepts and rejects: the rules of our kinds, and the admission policy.

mod admission;
mod cluster_addon;
mod cluster_stack;
mod cluster_stack_release;
mod go_operator;
mod kind;
mod kubectl;
