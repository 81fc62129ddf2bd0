//! The one integration binary. A file in this directory that is not named here fails `tidy`.

mod cli;
mod crash;
mod sandbox;
mod session;
mod support;
mod tidy;
mod wire;
