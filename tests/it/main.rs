//! The one integration binary. A file in this directory that is not named here fails `tidy`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]
#![expect(clippy::print_stderr, reason = "a test says what it lacks")]

mod aimock;
mod api;
mod cli;
mod crash;
mod disk;
mod egress;
mod faults;
mod mcp;
mod oauth;
mod packages;
mod profiles;
mod real_model;
mod repositories;
mod sandbox;
mod session;
mod skills;
mod support;
mod tidy;
mod tls;
mod web;
mod wire;
