//! The network of sandboxes, against test hosts in namespaces of their own.

mod clients;
pub(crate) mod lab;
mod probes;
mod session;
