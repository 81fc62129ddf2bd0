//! A token: what an authorization server gave, and when it has to be renewed.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::limits::{MCP_TOKEN_BYTES, MCP_TOKEN_MARGIN};

/// Said to the server with every request. It is never shown: there is no `Debug`.
pub(super) struct Token {
    pub(super) value: String,
    /// What it can be renewed with.
    pub(super) refresh: Option<String>,
    /// When to renew it.
    due: Option<Instant>,
    /// Which one it is of those that this process got for the server.
    pub(super) number: u64,
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    token_type: String,
    expires_in: Option<Value>,
    refresh_token: Option<String>,
}

impl Token {
    /// Reads an answer of a token endpoint. The error has nothing of the answer in it.
    pub(super) fn parse(body: &[u8], number: u64, now: Instant) -> Result<Self, &'static str> {
        let given: Given = serde_json::from_slice(body)
            .map_err(|_| "its answer to the request for a token is none")?;
        if !given.token_type.eq_ignore_ascii_case("bearer") {
            return Err("it gives tokens of another kind than `Bearer`");
        }
        let is_plain = |token: &str| {
            (1..=MCP_TOKEN_BYTES).contains(&token.len())
                && token.bytes().all(|b| b.is_ascii_graphic())
        };
        if !is_plain(&given.access_token) {
            return Err("its token cannot be said");
        }
        let lifetime = given.expires_in.as_ref().and_then(seconds).map(Duration::from_secs);
        let due = lifetime.and_then(|time| now.checked_add(time - MCP_TOKEN_MARGIN.min(time / 10)));
        let refresh = given.refresh_token.filter(|token| is_plain(token));
        Ok(Self { value: given.access_token, refresh, due, number })
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }
}

/// Some servers write a number as a text.
fn seconds(given: &Value) -> Option<u64> {
    given.as_u64().or_else(|| given.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let check = |expires_in: Value, before: u64, due_at: Option<u64>| {
            let body =
                json!({"access_token": "t", "token_type": "bearer", "expires_in": expires_in});
            let now = Instant::now();
            let token =
                Token::parse(body.to_string().as_bytes(), 1, now).unwrap_or_else(|e| panic!("{e}"));
            assert!(!token.is_due(now + Duration::from_secs(before)), "{body}");
            if let Some(due) = due_at {
                assert!(token.is_due(now + Duration::from_secs(due)), "{body}");
            }
        };
        check(Value::Null, 1_000_000, None);
        check(json!(3600), 3569, Some(3570));
        check(json!(10), 8, Some(9));
        check(json!("10"), 8, Some(9));
        check(json!(-1), 1_000_000, None);
        check(json!(u64::MAX), 1_000_000, None);
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_quoted() {
        let check = |body: Value, expected: &str| {
            let Err(wrong) = Token::parse(body.to_string().as_bytes(), 1, Instant::now()) else {
                panic!("{body} is taken");
            };
            assert!(wrong.contains(expected), "{wrong}");
        };
        check(json!("secret"), "is none");
        check(json!({"access_token": "secret"}), "is none");
        check(json!({"access_token": 7, "token_type": "Bearer"}), "is none");
        check(json!({"access_token": "a", "token_type": "DPoP"}), "another kind");
        check(json!({"access_token": "a\r\nb", "token_type": "Bearer"}), "cannot be said");
        check(json!({"access_token": "", "token_type": "Bearer"}), "cannot be said");
        check(
            json!({"access_token": "a".repeat(MCP_TOKEN_BYTES + 1), "token_type": "Bearer"}),
            "cannot be said",
        );
    }
}
