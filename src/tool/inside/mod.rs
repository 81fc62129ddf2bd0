//! The guest side of the tools.
