//! Whether a call may run, and how that was found.

use serde::{Deserialize, Serialize};

/// The user's answer to a tool call that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// Run it.
    Allow,
    /// Do not.
    Deny,
}

/// What the permission policy says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Run it.
    Allow,
    /// Wait for a confirmation.
    Ask,
    /// Refuse it.
    Deny,
}

/// How the policy came to its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Evaluation {
    /// The tool is always allowed.
    AlwaysAllow,
    /// The tool always asks.
    AlwaysAsk,
    /// Each call is judged by itself.
    Auto {
        /// The judgement.
        evaluated_permission: Judgement,
    },
}

/// What was judged of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Judgement {
    /// Run it.
    Allow,
    /// Wait for a confirmation.
    Ask {
        /// Why.
        reason_code: ReasonCode,
    },
    /// Refuse it.
    Deny {
        /// Why.
        reason_code: ReasonCode,
    },
}

/// Why a call was judged so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Nobody could tell.
    Indeterminate,
    /// It could do much harm.
    HighRisk,
}
