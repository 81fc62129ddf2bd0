//! A session (only its previews here; the rest is written elsewhere at the same time).

mod previews;

pub use previews::{Preview, Previews};
