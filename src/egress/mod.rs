//! The host's side of a session's network: the only way out of a sandbox, for what the policy names.
//!
//! Owns: the policy ([`policy`]), which addresses may be dialled ([`address`], [`dial`]), the messages of guest and host ([`wire`]),
//! the connections ([`Door`]), what a client may say on them ([`sniff`]), what was reached and refused ([`Report`]).
//! Does not: know sessions, the store, models, or what runs in the sandbox.
//! Invariants: no name is looked up before the policy allows it; the address that was checked is the one that is dialled;
//! whatever is refused is said, with the rule and the smallest change that would allow it; there is no fallback; the guest
//! is given no socket but one end of a pair.
//! How to add a rule: a case in `policy.rs` with its words for the person who reads the refusal. How to act on what a
//! client says (a secret put into a request): in `door.rs`, where the inspected bytes are handed on.

pub mod address;
pub mod dial;
mod door;
pub mod http;
mod ledger;
pub mod policy;
pub mod sniff;
mod tls;
pub mod wire;

pub use door::Door;
pub use ledger::{OTHER_PLACES, Report, Usage};
