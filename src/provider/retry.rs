//! Which failures are worth another try, how long to wait for it, and what to call them in the log. Pure.

use std::time::Duration;

use super::ModelError;
use crate::event::ErrorKind;
use crate::limits::{MODEL_BACKOFF, MODEL_BACKOFF_MAX, RETRY_AFTER_MAX};

/// What to do about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    Retry {
        /// How long the server asks to wait at least.
        after: Option<Duration>,
    },
    /// The same request would fail in the same way.
    Fatal,
}

/// Messages of a 500 that blame the request: the same request fails again (llama.cpp).
const HOPELESS: [&str; 4] = [
    "is not supported",
    "' is required",
    "failed to parse tool call arguments",
    "failed to parse messages",
];

/// Types of errors within a stream that blame the request.
const BLAMES_REQUEST: [&str; 3] = ["invalid_request_error", "not_found_error", "request_too_large"];

/// Whether to try again.
#[must_use]
pub fn verdict(error: &ModelError) -> Verdict {
    match error {
        ModelError::MissingKey { .. }
        | ModelError::Auth { .. }
        | ModelError::Billing { .. }
        | ModelError::UnknownModel { .. }
        | ModelError::ContextTooLong { .. }
        | ModelError::Protocol { .. }
        | ModelError::TooLarge { .. }
        | ModelError::Script { .. }
        | ModelError::Unsupported { .. } => Verdict::Fatal,
        // A certificate that is not trusted now will not be in a second.
        ModelError::Connect { reason, .. } if reason.contains("certificate") => Verdict::Fatal,
        ModelError::Connect { .. }
        | ModelError::Timeout { .. }
        | ModelError::EmptyAnswer
        | ModelError::BrokenStream { .. } => Verdict::Retry { after: None },
        ModelError::Status { status, kind, message, retry_after_ms, .. } => {
            let after = retry_after_ms.map(Duration::from_millis);
            let too_far = after.is_some_and(|after| after > RETRY_AFTER_MAX);
            if passes(*status, kind, message) && !too_far {
                Verdict::Retry { after }
            } else {
                Verdict::Fatal
            }
        }
    }
}

fn passes(status: u16, kind: &str, message: &str) -> bool {
    let message = message.to_lowercase();
    match status {
        200 => !BLAMES_REQUEST.contains(&kind),
        408 | 409 | 429 => true,
        500..=599 => !HOPELESS.iter().any(|phrase| message.contains(phrase)),
        _ => false,
    }
}

/// How long to wait after the `attempt`th failure, counted from 1. `jitter` is between 0 and 1 and spreads callers over
/// the second half of the wait; what the server asked for is never undercut.
#[must_use]
pub fn backoff(attempt: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = MODEL_BACKOFF.saturating_mul(1 << doublings).min(MODEL_BACKOFF_MAX);
    let spread = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    match retry_after {
        Some(asked) => asked.min(RETRY_AFTER_MAX).max(spread),
        None => spread,
    }
}

/// What the log calls the error.
#[must_use]
pub fn error_kind(error: &ModelError) -> ErrorKind {
    match error {
        ModelError::Billing { .. } => ErrorKind::BillingError,
        ModelError::Status { status, kind, .. } => match (status, kind.as_str()) {
            (429, _) | (200, "rate_limit_error") => ErrorKind::ModelRateLimitedError,
            (503 | 529, _) | (_, "overloaded_error") => ErrorKind::ModelOverloadedError,
            _ => ErrorKind::ModelRequestFailedError,
        },
        // It was compacted before it is told.
        ModelError::ContextTooLong { .. } => ErrorKind::CompactionLimitReachedError,
        ModelError::MissingKey { .. }
        | ModelError::Auth { .. }
        | ModelError::UnknownModel { .. }
        | ModelError::Connect { .. }
        | ModelError::Timeout { .. }
        | ModelError::BrokenStream { .. }
        | ModelError::Protocol { .. }
        | ModelError::TooLarge { .. }
        | ModelError::EmptyAnswer
        | ModelError::Script { .. }
        | ModelError::Unsupported { .. } => ErrorKind::ModelRequestFailedError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Verdict = Verdict::Retry { after: None };

    fn status(status: u16, kind: &str, message: &str) -> ModelError {
        let provider = "p".to_owned();
        let (kind, message) = (kind.to_owned(), message.to_owned());
        ModelError::Status { provider, status, kind, message, retry_after_ms: None }
    }

    #[test]
    fn verdicts_and_kinds_by_status() {
        use ErrorKind as K;
        use Verdict::Fatal;
        for (error, expected, kind) in [
            (status(408, "", ""), AGAIN, K::ModelRequestFailedError),
            (status(409, "", ""), AGAIN, K::ModelRequestFailedError),
            (status(429, "rate_limit_error", ""), AGAIN, K::ModelRateLimitedError),
            (status(500, "api_error", ""), AGAIN, K::ModelRequestFailedError),
            (status(502, "", ""), AGAIN, K::ModelRequestFailedError),
            (status(503, "", ""), AGAIN, K::ModelOverloadedError),
            (status(529, "overloaded_error", ""), AGAIN, K::ModelOverloadedError),
            (status(200, "overloaded_error", ""), AGAIN, K::ModelOverloadedError),
            (status(200, "", "CUDA error"), AGAIN, K::ModelRequestFailedError),
            (status(200, "invalid_request_error", ""), Fatal, K::ModelRequestFailedError),
            (status(400, "invalid_request_error", ""), Fatal, K::ModelRequestFailedError),
            (status(404, "", ""), Fatal, K::ModelRequestFailedError),
            (status(301, "", ""), Fatal, K::ModelRequestFailedError),
            (
                status(500, "server_error", "image input is not supported - hint"),
                Fatal,
                K::ModelRequestFailedError,
            ),
            (
                status(500, "server_error", "'messages' is required"),
                Fatal,
                K::ModelRequestFailedError,
            ),
            (
                status(500, "server_error", "Failed to parse tool call arguments as JSON"),
                Fatal,
                K::ModelRequestFailedError,
            ),
        ] {
            assert_eq!(verdict(&error), expected, "{error:?}");
            assert_eq!(error_kind(&error), kind, "{error:?}");
        }
    }

    #[test]
    fn an_untrusted_certificate_is_fatal_and_a_refused_connection_is_not() {
        let connect = |reason: &str| ModelError::Connect { url: "u".into(), reason: reason.into() };
        assert_eq!(verdict(&connect("invalid peer certificate: UnknownIssuer")), Verdict::Fatal);
        assert_eq!(verdict(&connect("connection refused")), AGAIN);
    }

    #[test]
    fn a_wait_beyond_the_bound_is_fatal() {
        for (ms, expected) in [
            (300_000, Verdict::Retry { after: Some(Duration::from_secs(300)) }),
            (300_001, Verdict::Fatal),
        ] {
            let mut error = status(429, "", "");
            if let ModelError::Status { retry_after_ms, .. } = &mut error {
                *retry_after_ms = Some(ms);
            }
            assert_eq!(verdict(&error), expected);
        }
    }

    #[test]
    fn waits_double_within_bounds_and_never_undercut_the_server() {
        let ms = Duration::from_millis;
        for (attempt, asked, jitter, expected) in [
            (1, None, 1.0, ms(500)),
            (1, None, 0.0, ms(250)),
            (2, None, 1.0, ms(1000)),
            (5, None, 1.0, ms(8000)),
            (7, None, 1.0, ms(30_000)),
            (u32::MAX, None, 1.0, ms(30_000)),
            (0, None, 7.0, ms(500)),
            (1, Some(ms(2000)), 0.0, ms(2000)),
            (7, Some(ms(2000)), 1.0, ms(30_000)),
            (1, Some(ms(9_000_000)), 1.0, ms(300_000)),
        ] {
            assert_eq!(backoff(attempt, asked, jitter), expected, "{attempt} {asked:?} {jitter}");
        }
    }
}
