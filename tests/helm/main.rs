//! Our renderer is Helm.

mod parity;
