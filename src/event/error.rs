//! What a `session.error` says.

use serde::{Deserialize, Serialize};

/// The error of a `session.error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The kind.
    pub r#type: ErrorKind,
    /// What happened and what to do about it.
    pub message: String,
    /// Whether the session goes on by itself.
    pub retry_status: RetryStatus,
    /// The repository that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_url: Option<String>,
    /// The MCP server that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_name: Option<String>,
}

impl ErrorDetail {
    /// One that is about neither a repository nor an MCP server.
    #[must_use]
    pub fn new(r#type: ErrorKind, message: impl Into<String>, retry_status: RetryStatus) -> Self {
        let message = message.into();
        Self { r#type, message, retry_status, repository_url: None, mcp_server_name: None }
    }
}

/// Kinds of `session.error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Nothing more is known.
    UnknownError,
    /// The model's server is overloaded.
    ModelOverloadedError,
    /// The model's server limits the rate.
    ModelRateLimitedError,
    /// The model's server refused or broke off.
    ModelRequestFailedError,
    /// The account cannot pay.
    BillingError,
    /// The turn's limit of model requests is reached, or it makes no progress.
    ToolUseLimitReachedError,
    /// The conversation fills the model's context, and no summary can make room.
    CompactionLimitReachedError,
    /// A repository's server wants another token, or one at all.
    RepositoryAuthenticationError,
    /// A repository's server, or this machine's rules, do not allow it.
    RepositoryForbiddenError,
    /// There is no such repository.
    RepositoryNotFoundError,
    /// A repository has no such branch or commit, or its place is taken.
    RepositoryCheckoutError,
    /// A repository could not be cloned.
    RepositoryCloneError,
    /// An MCP server cannot be reached, or does not speak its protocol.
    McpConnectionFailedError,
    /// An MCP server wants other credentials, or some at all.
    McpAuthenticationFailedError,
}

impl ErrorKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownError => "unknown_error",
            Self::ModelOverloadedError => "model_overloaded_error",
            Self::ModelRateLimitedError => "model_rate_limited_error",
            Self::ModelRequestFailedError => "model_request_failed_error",
            Self::BillingError => "billing_error",
            Self::ToolUseLimitReachedError => "tool_use_limit_reached_error",
            Self::CompactionLimitReachedError => "compaction_limit_reached_error",
            Self::RepositoryAuthenticationError => "repository_authentication_error",
            Self::RepositoryForbiddenError => "repository_forbidden_error",
            Self::RepositoryNotFoundError => "repository_not_found_error",
            Self::RepositoryCheckoutError => "repository_checkout_error",
            Self::RepositoryCloneError => "repository_clone_error",
            Self::McpConnectionFailedError => "mcp_connection_failed_error",
            Self::McpAuthenticationFailedError => "mcp_authentication_failed_error",
        }
    }

    /// Whether it is about something that the session was given, and not about its turn.
    #[must_use]
    pub fn is_of_resource(self) -> bool {
        match self {
            Self::RepositoryAuthenticationError
            | Self::RepositoryForbiddenError
            | Self::RepositoryNotFoundError
            | Self::RepositoryCheckoutError
            | Self::RepositoryCloneError
            | Self::McpConnectionFailedError
            | Self::McpAuthenticationFailedError => true,
            Self::UnknownError
            | Self::ModelOverloadedError
            | Self::ModelRateLimitedError
            | Self::ModelRequestFailedError
            | Self::BillingError
            | Self::ToolUseLimitReachedError
            | Self::CompactionLimitReachedError => false,
        }
    }
}

/// Whether a session goes on by itself after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RetryStatus {
    /// It tries again.
    Retrying,
    /// The turn is over; a new message starts another.
    Exhausted,
    /// The session is over.
    Terminal,
}
