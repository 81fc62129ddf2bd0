//! `casemate serve`, as any HTTP client sees it.

mod files;
mod server;
mod transport;

pub(crate) use server::Server;
