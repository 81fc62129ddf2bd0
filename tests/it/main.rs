//! The one integration binary. A file in this directory that is not named here fails `tidy`.

mod wire;
