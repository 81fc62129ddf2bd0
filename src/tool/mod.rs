//! The built-in tools: what the model sees of them, and how they run inside of the guest.

pub mod inside;
