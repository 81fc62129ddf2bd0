//! The host's side of a session's network: the only way out of a sandbox, for what the policy names.
//!
//! Owns: the policy ([`policy`]), which addresses may be dialled ([`address`]).
//! Does not: know sessions, the store, models, or what runs in the sandbox.
//! Invariants: no name is looked up before the policy allows it; the address that was checked is the one that is dialled;
//! whatever is refused is said, with the rule and the smallest change that would allow it; there is no fallback.
//! How to add a rule: a case in `policy.rs` with its words for the person who reads the refusal.

pub mod address;
pub mod policy;
