//! The command line: words in, words out.
//!
//! Owns: the flags and their help ([`args`]), what people and scripts see ([`render`], [`output`], [`terminal`]), exit
//! codes and hints ([`failure`]), completions and manual pages ([`completions`]).
//! Does not: decide what a session does next, know SQL, vendors or Linux, read the environment or the clock.
//! Invariants: standard output is data and standard error is talk; only `output` writes to either; text from models and
//! tools passes through [`terminal::neutralise`] on its way to a person; an exit code is made in `failure` alone.
//! How to add a command: its arguments in `args`, a snapshot of its help, a file of its own, an arm in the dispatch.

pub mod args;
pub mod completions;
pub mod failure;
pub mod output;
pub mod render;
pub mod terminal;
