//! The network of sandboxes, against test hosts in namespaces of their own.

mod clients;
mod lab;
mod probes;
mod session;
