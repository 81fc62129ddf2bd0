//! Token counts and times, as the protocol names them.

use std::ops::AddAssign;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cost, EventBody, Money};
use crate::clock::Timestamp;

/// Tokens of one model request, or summed over many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens that no cache served.
    pub input_tokens: u64,
    /// Generated tokens, thinking included.
    pub output_tokens: u64,
    /// Prompt tokens written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Prompt tokens read from the cache.
    pub cache_read_input_tokens: u64,
}

impl Usage {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = [self.input_tokens, self.output_tokens, self.cache_creation_input_tokens];
        counts.into_iter().fold(self.cache_read_input_tokens, u64::saturating_add)
    }

    /// Tokens that the model was given, from a cache or not.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.total().saturating_sub(self.output_tokens)
    }

    /// The share of them that a cache served, in thousandths; nothing if there were none.
    #[must_use]
    pub fn cache_hit_permille(&self) -> Option<u64> {
        let read = u128::from(self.cache_read_input_tokens);
        let share = (read * 1000).checked_div(self.prompt().into())?;
        Some(u64::try_from(share).unwrap_or(1000))
    }

    /// The counts and the share as JSON, for the owner's eyes; clients of the protocol see its own fields alone.
    #[must_use]
    pub fn with_hit_rate(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("counts are JSON");
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
        let rate = self.cache_hit_permille().map(|permille| permille as f64 / 1000.0);
        value["cache_hit_rate"] = rate.into();
        value
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_creation_input_tokens =
            self.cache_creation_input_tokens.saturating_add(other.cache_creation_input_tokens);
        self.cache_read_input_tokens =
            self.cache_read_input_tokens.saturating_add(other.cache_read_input_tokens);
    }
}

/// What a session used up to some moment, in the shape of `session.usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSnapshot {
    /// See [`Usage::input_tokens`].
    pub input_tokens: u64,
    /// See [`Usage::output_tokens`].
    pub output_tokens: u64,
    /// See [`Usage::cache_read_input_tokens`].
    pub cache_read_input_tokens: u64,
    /// See [`Usage::cache_creation_input_tokens`].
    pub cache_creation: CacheCreation,
    /// The sum of list prices.
    pub list_cost: Money,
    /// Time in which the session worked.
    #[serde(rename = "active_seconds", with = "seconds")]
    pub active_ms: u64,
    /// Calls of tools that run outside of the sandbox.
    pub server_tool_use: ServerToolUse,
}

/// Prompt tokens written to a cache, by how long it keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCreation {
    /// The only kind that casemate asks for.
    pub ephemeral_5m_input_tokens: u64,
    /// Never asked for.
    pub ephemeral_1h_input_tokens: u64,
}

/// Calls of the tools of the web.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerToolUse {
    /// Searches.
    pub web_search_requests: u64,
    /// Pages.
    pub web_fetch_requests: u64,
}

impl std::ops::AddAssign for ServerToolUse {
    fn add_assign(&mut self, other: Self) {
        self.web_search_requests += other.web_search_requests;
        self.web_fetch_requests += other.web_fetch_requests;
    }
}

impl UsageSnapshot {
    /// From what was counted.
    #[must_use]
    pub fn new(usage: Usage, cost: Cost, active_ms: u64, web: ServerToolUse) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_input_tokens: usage.cache_read_input_tokens,
            cache_creation: CacheCreation {
                ephemeral_5m_input_tokens: usage.cache_creation_input_tokens,
                ephemeral_1h_input_tokens: 0,
            },
            list_cost: cost.rounded(),
            active_ms,
            server_tool_use: web,
        }
    }
}

/// Milliseconds as seconds with three decimals.
mod seconds {
    use super::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::cast_precision_loss, reason = "exact below nine million years")]
    pub(super) fn serialize<S: Serializer>(millis: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(*millis as f64 / 1000.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates, and no time is negative"
    )]
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        f64::deserialize(from).map(|seconds| (seconds * 1000.0).round() as u64)
    }
}

/// How long a session has worked: a fold over its status events. Time in which no process drove it does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// The sum of what is over.
    pub active_ms: u64,
    /// Since when it works.
    pub running_since: Option<Timestamp>,
    /// When it last did something by itself.
    pub last_fact_at: Option<Timestamp>,
}

impl Activity {
    /// Takes the next event in.
    pub fn apply(&mut self, at: Timestamp, body: &EventBody) {
        use EventBody as E;
        match body {
            E::StatusRunning {} => {
                self.running_since.get_or_insert(at);
            }
            E::StatusIdle { .. } | E::StatusRescheduled {} | E::StatusTerminated {} => {
                self.stop(at);
            }
            E::Resumed {} if self.running_since.is_some() => {
                self.stop(self.last_fact_at.unwrap_or(at));
                self.running_since = Some(at);
            }
            // What clients say moves nothing: they may say it while nobody works.
            E::UserMessage { .. } | E::UserInterrupt { .. } | E::SystemMessage { .. } => return,
            _ => {}
        }
        self.last_fact_at = Some(at);
    }

    fn stop(&mut self, at: Timestamp) {
        self.active_ms = self.total_ms(at);
        self.running_since = None;
    }

    /// How long it has worked by `now`.
    #[must_use]
    pub fn total_ms(&self, now: Timestamp) -> u64 {
        let current = self.running_since.map_or(0, |since| millis_between(since, now));
        self.active_ms.saturating_add(current)
    }
}

/// From one moment to a later one; nothing if the clock went back.
#[must_use]
pub fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
}
