//! A session: what its log says, what comes next, and the loop that does it.
//!
//! ```text
//!            commit(facts + intent)             perform
//!   next_step ────────────────────▶ the log ────────────▶ facts ──┐
//!      ▲                              │ apply                     │
//!      └──────────── Session ◀────────┘◀──────────────────────────┘
//! ```
//!
//! The driver asks [`next_step`](step::next_step) what to do in the light of the facts it holds, commits those facts
//! together with the step's *intent* (`model_request_start`, `tool_started`, the idle group) in one append, and only
//! then performs the step, which yields new facts. So a tool call costs two commits: its intent rides with the answer
//! that asked for it, its result with the start of the next request.
//!
//! Owns: the fold ([`state`]), the policy of the loop ([`step`]), the prompt ([`prompt`]), repair after a crash
//! ([`recover`]), the driver.
//! Does not: serve clients (`runtime`), know SQL, vendor JSON or namespaces.
//! Invariants: `state`, `context`, `compact`, `step`, `notes`, `repetition`, `prompt`, `fit`, `skills`, `recover`, `offers`,
//! `lineage` and `rewind` are pure; nothing is done before its intent is committed; state
//! changes only by [`Session::apply`], in log order.
//! How to add a step: a variant of [`step::Step`], its arm in `intent`, its performer in the driver, a crash-sweep case.

mod absent;
mod attached;
mod beginning;
pub mod call;
pub(crate) mod compact;
pub mod context;
mod definition;
mod disk;
mod dispatch;
mod driver;
mod files;
mod fit;
mod guest;
mod interrupt;
mod journal;
mod judge;
pub mod lineage;
mod links;
mod made;
mod mcp;
mod network;
mod notes;
pub mod offers;
mod previews;
pub mod prompt;
pub mod recover;
mod repetition;
pub mod rewind;
mod sample;
pub mod skills;
pub mod state;
pub mod step;
mod web;

#[cfg(test)]
mod tests;

pub use absent::{Asker, Question, Replies, Reply};
pub use attached::{Attached, AttachedFiles};
pub use definition::Definition;
pub use driver::{
    DriveError, Driver, HandOut, Interrupt, Judge, JudgeModel, Launched, Launcher, Parts, Sandboxed,
};
pub use previews::{Placed, Preview, Previews};
pub use state::Session;
