//! `casemate serve`, as any HTTP client sees it.

mod events;
mod files;
mod server;
mod sessions;
mod stream;
mod threads;
mod transport;

pub(crate) use server::Server;
