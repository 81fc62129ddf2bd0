//! What goes wrong with a server, in words: which kind of failure it is, and no credentials in it.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
};

use super::oauth::{Login, NoToken};
use crate::egress::dial::NotPublic;
use crate::limits::MCP_SAID_CHARS;

/// Why a server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It cannot be reached, or does not speak its protocol.
    #[error("{0}")]
    Connection(String),
    /// It wants other credentials, or some at all.
    #[error("{0}")]
    Authentication(String),
}

impl Failure {
    /// The same with something else to know.
    pub(super) fn but(self, note: &str) -> Self {
        match self {
            Self::Connection(words) => Self::Connection(format!("{words} ({note})")),
            Self::Authentication(words) => Self::Authentication(format!("{words} ({note})")),
        }
    }
}

/// Why no connection came about, and how else the server may be spoken with.
#[derive(Debug)]
pub(super) struct NotBegun {
    pub(super) failure: Failure,
    pub(super) instead: Option<Instead>,
}

/// What a server may know that does not know the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    /// The lifecycle of all but the newest version: it answers whatever it is asked, and means nothing by it.
    Initialize,
    /// The transport of before 2025: it takes no messages where its stream is.
    Events,
}

impl From<Failure> for NotBegun {
    fn from(failure: Failure) -> Self {
        Self { failure, instead: None }
    }
}

/// What must not be in any text: the values of credentials, and the tokens of a login.
#[derive(Clone, Default)]
pub(super) struct Seal {
    own: Vec<String>,
    login: Option<Arc<Login>>,
}

/// Values shorter than this are words that any text may hold.
const SHORTEST_SECRET: usize = 8;

impl Seal {
    pub(super) fn of(own: Vec<String>) -> Self {
        Self { own, login: None }
    }

    /// The tokens of a login as well.
    pub(super) fn and(self, login: Option<Arc<Login>>) -> Self {
        Self { login, ..self }
    }

    /// The text without them: servers quote what they were told.
    pub(super) fn hide(&self, text: &str) -> String {
        let got = self.login.iter().flat_map(|login| login.secrets());
        let secrets = self.own.iter().cloned().chain(got);
        let secrets = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[hidden]"))
    }

    /// A server's own words, as far as they are shown.
    pub(super) fn quote(&self, words: &str) -> String {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        // The cut comes last: the beginning of a secret is not found by the whole of it.
        let words = self.hide(words);
        let shown: String = words.chars().take(MCP_SAID_CHARS).map(plain).collect();
        let more = if words.chars().count() > MCP_SAID_CHARS { "…" } else { "" };
        format!("{}{more}", shown.trim())
    }

    /// Why no connection came about.
    pub(super) fn of_start(&self, error: &ClientInitializeError) -> NotBegun {
        let failure = self.of_handshake(error);
        let refused = ["HTTP 400", "HTTP 404", "HTTP 405"];
        let instead = match (error, &failure) {
            (ClientInitializeError::ExpectedInitResult(_), _) => Some(Instead::Initialize),
            (_, Failure::Connection(words))
                if refused.iter().any(|status| words.starts_with(status)) =>
            {
                Some(Instead::Events)
            }
            _ => None,
        };
        NotBegun { failure, instead }
    }

    fn of_handshake(&self, error: &ClientInitializeError) -> Failure {
        let of = match error {
            // The older protocol was tried last, and says more of a server that knows no other.
            ClientInitializeError::LegacyFallbackFailed { fallback, .. } => fallback,
            other => other,
        };
        match of {
            ClientInitializeError::TransportError { error, .. } => {
                self.of_transport(error.error.as_ref())
            }
            ClientInitializeError::ConnectionClosed(_) => {
                Failure::Connection("it closed the connection".to_owned())
            }
            ClientInitializeError::JsonRpcError(error) => {
                Failure::Connection(format!("it refused: {}", self.quote(&error.message)))
            }
            ClientInitializeError::NoCompatibleProtocolVersion { .. } => Failure::Connection(
                "it speaks no version of the protocol that is known here".to_owned(),
            ),
            _ => Failure::Connection("its answer is not one of the protocol".to_owned()),
        }
    }

    /// Why a request was not answered.
    pub(super) fn of_request(&self, error: &ServiceError) -> Failure {
        match error {
            ServiceError::McpError(error) => {
                Failure::Connection(format!("it refused: {}", self.quote(&error.message)))
            }
            ServiceError::TransportSend(error) => self.of_transport(error.error.as_ref()),
            ServiceError::TransportClosed => {
                Failure::Connection("the connection was closed".to_owned())
            }
            ServiceError::Timeout { timeout } => {
                Failure::Connection(format!("it said nothing for {} s", timeout.as_secs()))
            }
            ServiceError::Cancelled { .. } => {
                Failure::Connection("it cancelled the request".to_owned())
            }
            _ => Failure::Connection("its answer is not one of the protocol".to_owned()),
        }
    }

    pub(super) fn of_transport(&self, error: &(dyn Error + 'static)) -> Failure {
        let chain = || causes(error);
        let has = |is: &dyn Fn(&(dyn Error + 'static)) -> bool| chain().any(is);
        if let Some(why) = chain().find_map(|e| e.downcast_ref::<NoToken>()) {
            return Failure::Authentication(format!(
                "there is no token for it: {}",
                self.hide(&why.to_string())
            ));
        }
        let refused = match self.login {
            Some(_) => "it does not take the token that it was given",
            None => "it wants credentials: set them in `[mcp.servers]` of the configuration",
        };
        if has(&|e| e.is::<AuthRequiredError>()) {
            return Failure::Authentication(format!("401: {refused}"));
        }
        if has(&|e| e.is::<InsufficientScopeError>()) {
            return Failure::Authentication(
                "403: its credentials do not reach that far".to_owned(),
            );
        }
        if let Some(refused) = chain().find_map(|e| e.downcast_ref::<NotPublic>()) {
            return Failure::Connection(format!(
                "{refused}; name the host in `private_hosts` of `[mcp]` if it is yours"
            ));
        }
        if let Some(status) = chain().find_map(|e| e.downcast_ref::<HttpStatusError>()) {
            return Failure::Connection(format!("it answered with HTTP {}", status.status));
        }
        if let Some(error) = chain().find_map(|e| e.downcast_ref::<reqwest::Error>()) {
            return of_http(error);
        }
        let words = chain().last().map(ToString::to_string).unwrap_or_default();
        let words = words.strip_prefix("unexpected server response: ").unwrap_or(&words);
        for status in ["401", "403"] {
            if words.starts_with(&format!("HTTP {status}")) {
                return Failure::Authentication(format!("{status}: {refused}"));
            }
        }
        Failure::Connection(self.quote(words))
    }
}

/// The error, and what it came of. The transport does not say of the HTTP client's errors that they are its causes, and an
/// I/O error names the cause of what it holds as its own.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        if let Some(error) = (*error).downcast_ref::<io::Error>() {
            return error.get_ref().map(|cause| cause as &(dyn Error + 'static));
        }
        match (*error).downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            Some(StreamableHttpError::Client(cause)) => Some(cause as &(dyn Error + 'static)),
            _ => (*error).source(),
        }
    })
}

/// Without the URL, which the reader knows, and which may hold a key.
fn of_http(error: &reqwest::Error) -> Failure {
    if let Some(status) = error.status() {
        let words = format!("it answered with HTTP {}", status.as_u16());
        return match status.as_u16() {
            401 | 403 => Failure::Authentication(words),
            _ => Failure::Connection(words),
        };
    }
    let cause = causes(error).skip(1).last().map(ToString::to_string);
    let what = match () {
        () if error.is_timeout() => "it did not answer in time",
        () if error.is_connect() => "it cannot be reached",
        () if error.is_redirect() => "it redirects to another place",
        () if error.is_body() || error.is_decode() || error.is_request() => "its answer broke off",
        () => "it cannot be asked",
    };
    Failure::Connection(match cause {
        Some(cause) => format!("{what}: {cause}"),
        None => what.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_quotation() {
        let seal = Seal::of(vec!["sk-1234567890".to_owned(), "short".to_owned()]);
        assert_eq!(seal.quote("no: Bearer sk-1234567890\n"), "no: Bearer [hidden]");
        assert_eq!(seal.quote("short"), "short");
        assert_eq!(seal.quote(&"x".repeat(600)).chars().count(), MCP_SAID_CHARS + 1);
        let cut = seal.quote(&format!("{}sk-1234567890", "x".repeat(MCP_SAID_CHARS - 5)));
        assert!(!cut.contains("sk-"), "{cut}");
    }
}
