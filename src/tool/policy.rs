//! Permission policy: may this call run? Pure.

use crate::agent::{Agent, PermissionPolicy};
use crate::event::{Evaluation, Judgement, Permission, ReasonCode};

/// What the policy says, and how it came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Run, ask or refuse.
    pub permission: Permission,
    /// Absent if no policy applies, because there is no such tool or it is disabled.
    pub evaluation: Option<Evaluation>,
}

/// Judges a call by the tool's name.
#[must_use]
pub fn evaluate(agent: &Agent, name: &str) -> Verdict {
    let verdict = |permission, evaluation| Verdict { permission, evaluation };
    match agent.grant(name).map(|grant| grant.permission_policy) {
        Some(PermissionPolicy::AlwaysAllow) => {
            verdict(Permission::Allow, Some(Evaluation::AlwaysAllow))
        }
        Some(PermissionPolicy::AlwaysAsk) => verdict(Permission::Ask, Some(Evaluation::AlwaysAsk)),
        // There is no judge: nobody can tell, so the user decides.
        Some(PermissionPolicy::Auto) => {
            let asks = Judgement::Ask { reason_code: ReasonCode::Indeterminate };
            verdict(Permission::Ask, Some(Evaluation::Auto { evaluated_permission: asks }))
        }
        None => verdict(Permission::Deny, None),
    }
}
