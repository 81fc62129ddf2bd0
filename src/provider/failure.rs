//! A server's refusal to a [`ModelError`]: statuses, error bodies of every shape, `retry-after`.

use std::time::Duration;

use serde_json::Value;

use super::ModelError;
use super::repair::excerpt;
use crate::limits::MAX_SSE_LINE_BYTES;

/// Characters of a server's message that an error carries.
const MESSAGE_CHARS: usize = 600;

/// What an error body says, whatever its shape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    /// The error's type; may be empty.
    kind: String,
    /// The error's code; may be empty.
    code: String,
    /// The words.
    message: String,
}

impl ErrorBody {
    /// Reads `{"error": {type, code, message}}`, `{"error": "text"}`, `{"message": …}`, `{"detail": …}`, or plain text.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let parsed = serde_json::from_slice::<Value>(body).ok();
        parsed.and_then(|value| Self::from_value(&value)).unwrap_or_else(|| Self::plain(body))
    }

    /// Reads an error object; `None` if the value holds none.
    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        let error = match value.get("error") {
            Some(Value::Null) | None => value,
            Some(error) => error,
        };
        if let Value::String(message) = error {
            return Some(Self { message: excerpt(message, MESSAGE_CHARS), ..Self::default() });
        }
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => excerpt(text, MESSAGE_CHARS),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message = ["message", "detail", "error_description"]
            .into_iter()
            .map(|key| text(error.get(key)))
            .find(|message| !message.is_empty())?;
        let details = error.get("details").and_then(|details| details.get("error_code"));
        let code = text(error.get("code").filter(|code| !code.is_null()).or(details));
        Some(Self { kind: text(error.get("type")), code, message })
    }

    fn plain(body: &[u8]) -> Self {
        debug_assert!(body.len() <= MAX_SSE_LINE_BYTES, "bodies are read within a bound");
        let text = String::from_utf8_lossy(body);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = match words.as_str() {
            "" => "the server gave no reason".to_owned(),
            words => excerpt(words, MESSAGE_CHARS),
        };
        Self { message, ..Self::default() }
    }

    /// The HTTP status that the body names for itself, as llama.cpp does within a stream.
    pub(crate) fn own_status(&self) -> Option<u16> {
        self.code.parse().ok().filter(|status| (400..600).contains(status))
    }
}

/// Who was asked for what: the words that an error needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The provider's name.
    pub(crate) provider: String,
    /// The model's name.
    pub(crate) model: String,
}

impl Asked {
    /// The error for a refusal with `status`, or within a stream (then 200).
    pub(crate) fn refused(
        &self,
        status: u16,
        body: ErrorBody,
        retry_after: Option<Duration>,
    ) -> ModelError {
        let provider = self.provider.clone();
        let ErrorBody { kind, code, message } = body;
        let words = message.to_lowercase();
        match Subject::of(status, &kind, &code, &words) {
            Subject::Credit => ModelError::Billing { provider, message },
            Subject::Key => ModelError::Auth { provider, status, message },
            Subject::Model => {
                ModelError::UnknownModel { provider, model: self.model.clone(), message }
            }
            Subject::Length => ModelError::ContextTooLong { message },
            Subject::Other => {
                let retry_after_ms =
                    retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                ModelError::Status { provider, status, kind, message, retry_after_ms }
            }
        }
    }

    pub(crate) fn broken(&self, reason: impl Into<String>) -> ModelError {
        ModelError::BrokenStream { provider: self.provider.clone(), reason: reason.into() }
    }

    pub(crate) fn protocol(&self, format: &'static str, problem: &str, bytes: &str) -> ModelError {
        let reason = format!("{problem}: {}", excerpt(bytes, 200));
        ModelError::Protocol { provider: self.provider.clone(), format, reason }
    }
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Credit,
    Key,
    Model,
    Length,
    Other,
}

/// Words for "too long" of Anthropic, OpenAI, vLLM, llama.cpp, Ollama and LM Studio.
const TOO_LONG: [&str; 8] = [
    "prompt is too long",
    "exceed context limit",
    "maximum context length",
    "exceeds the available context size",
    "exceeds the context window",
    "exceeds the context length",
    "greater than the context length",
    "input length exceeds",
];

impl Subject {
    fn of(status: u16, kind: &str, code: &str, words: &str) -> Self {
        let names = |wanted: &[&str]| wanted.contains(&kind) || wanted.contains(&code);
        if status == 402
            || names(&["billing_error", "insufficient_quota", "billing_not_active"])
            || code.contains("spend_limit")
            || words.contains("credit balance is too low")
        {
            return Self::Credit;
        }
        if matches!(status, 401 | 403) || names(&["authentication_error", "permission_error"]) {
            return Self::Key;
        }
        let about_model = words.contains("model") && status == 404;
        if names(&["model_not_found"]) || about_model {
            return Self::Model;
        }
        // A 429 that speaks of lengths means tokens per minute.
        let too_long = TOO_LONG.iter().any(|phrase| words.contains(phrase));
        if status == 413
            || names(&["exceed_context_size_error", "context_length_exceeded"])
            || (too_long && status != 429)
        {
            return Self::Length;
        }
        Self::Other
    }
}

/// Reads how long to wait: `retry-after-ms`, or `retry-after` in seconds or as a date, which counts from the
/// response's own `date`, so that no clock but the server's matters.
pub(crate) fn retry_after(
    millis: Option<&str>,
    after: Option<&str>,
    date: Option<&str>,
) -> Option<Duration> {
    let number = |text: Option<&str>, unit: f64| {
        let number = text?.trim().parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    let until = || {
        let parse = |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok();
        let wait = parse(after?)?.timestamp().duration_since(parse(date?)?.timestamp());
        Duration::try_from(wait).ok()
    };
    number(millis, 1e-3).or_else(|| number(after, 1.0)).or_else(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &str) {
        let asked = Asked { provider: "p".into(), model: "m".into() };
        let error = asked.refused(status, ErrorBody::parse(body.as_bytes()), None);
        assert_eq!(error.to_string(), expected, "{status} {body}");
    }

    #[test]
    fn error_bodies_of_every_shape() {
        check(
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}"#,
            "p answered 429: slow",
        );
        check(
            500,
            r#"{"error":"model runner has crashed"}"#,
            "p answered 500: model runner has crashed",
        );
        check(400, r#"{"detail":"no"}"#, "p answered 400: no");
        check(502, "<html>\n <h1>Bad Gateway</h1>", "p answered 502: <html> <h1>Bad Gateway</h1>");
        check(503, "", "p answered 503: the server gave no reason");
        check(500, "{}", "p answered 500: {}");
        check(500, r#"{"error":null,"message":"x"}"#, "p answered 500: x");
    }

    #[test]
    fn what_the_refusal_is_about() {
        check(
            404,
            r#"{"error":{"message":"File Not Found","type":"not_found_error","code":404}}"#,
            "p answered 404: File Not Found",
        );
        check(
            404,
            r#"{"error":{"type":"not_found_error","message":"model: claude-9"}}"#,
            "p does not know the model `m`: model: claude-9",
        );
        check(
            404,
            r#"{"error":{"message":"model \"x\" not found, try pulling it first"}}"#,
            "p does not know the model `m`: model \"x\" not found, try pulling it first",
        );
        check(
            400,
            r#"{"error":{"code":"model_not_found","message":"none"}}"#,
            "p does not know the model `m`: none",
        );
        check(
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"long"}}"#,
            "the conversation is too long for the model: long",
        );
        check(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            "the conversation is too long for the model: prompt is too long: 210000 tokens > 200000 maximum",
        );
        check(
            500,
            r#"{"error":"input length exceeds maximum context length"}"#,
            "the conversation is too long for the model: input length exceeds maximum context length",
        );
        check(
            429,
            r#"{"error":{"message":"Request too large: maximum context length"}}"#,
            "p answered 429: Request too large: maximum context length",
        );
        check(
            429,
            r#"{"error":{"code":"insufficient_quota","message":"pay"}}"#,
            "p refused for lack of credit: pay",
        );
        check(
            429,
            r#"{"error":{"type":"rate_limit_error","message":"limit","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
            "p refused for lack of credit: limit",
        );
        check(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#,
            "p refused for lack of credit: Your credit balance is too low",
        );
        check(
            401,
            r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#,
            "p refused the API key (401): Invalid API Key",
        );
    }

    #[test]
    fn waits_in_every_notation() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (millis, after, date, seconds) in [
            (None, None, None, None),
            (Some("250"), Some("9"), None, Some(0.25)),
            (None, Some("1"), None, Some(1.0)),
            (None, Some("1.5"), None, Some(1.5)),
            (None, Some("Sun, 06 Nov 1994 08:50:07 GMT"), date, Some(30.0)),
            (None, Some("Sun, 06 Nov 1994 08:50:07 GMT"), None, None),
            (None, Some("Sun, 06 Nov 1994 08:49:07 GMT"), date, None),
            (None, Some("-5"), None, None),
            (None, Some("NaN"), None, None),
            (None, Some("soon"), date, None),
        ] {
            let expected = seconds.map(Duration::from_secs_f64);
            assert_eq!(retry_after(millis, after, date), expected, "{millis:?} {after:?}");
        }
    }
}
