//! Errors of the protocol: which status, which words, in which shape. Every refusal is made here.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::runtime::files::FileError;
use crate::runtime::resources::ResourceError;
use crate::runtime::skills::SkillError;
use crate::runtime::{AttachmentError, RuntimeError, StoreError};

/// A refusal, or a failure of our own, as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    details: Option<Value>,
}

/// What every handler returns.
pub type Answer = Result<Response, ApiError>;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), details: None }
    }

    /// 400: the request makes no sense; the message names the field and what it must be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 for one field: `path: problem`.
    pub fn field(path: &str, problem: impl std::fmt::Display) -> Self {
        Self::invalid(format!("{path}: {problem}"))
    }

    /// 401.
    pub fn authentication(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }

    /// 403.
    pub fn permission(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// 404 for a thing of that kind: `agent`, `session`.
    pub fn no_such(kind: &str, id: &str) -> Self {
        // What was asked for may be anything at all.
        let id: String = id.chars().take(80).collect();
        Self::not_found(format!("there is no {kind} `{id}`"))
    }

    /// 405: the path is there, but not for this method.
    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            "this path does not take this method",
        )
    }

    /// 409. The official clients repeat a 409 unless told not to: this says not to.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict_error", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// 503: the server stops, or cannot take more; asking again later helps.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message)
    }

    /// 507: the disk is full.
    pub fn no_space(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "api_error", message)
    }

    /// 500: ours to mend.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message)
    }

    /// The same about a field of a field: what stands before the colon is below `path`.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.message = format!("{path}.{}", self.message);
        self
    }

    /// The same with the path of a field before its words.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        Self { message: format!("{path}: {}", self.message), ..self }
    }

    /// The same with `details.error_code`, which clients can tell apart.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.details = Some(json!({ "error_code": code }));
        self
    }

    /// The status on the wire.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole response.
    #[must_use]
    pub fn render(&self, request_id: &str) -> Response {
        let mut error = json!({ "type": self.kind, "message": self.message });
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        let body = json!({ "type": "error", "error": error, "request_id": request_id });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::CONFLICT {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Leaves the error beside an empty response: whoever knows the request's id renders it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NoSession { session } => Self::no_such("session", session.as_str()),
            StoreError::NoRecord { id } => Self::not_found(format!("there is no `{id}`")),
            StoreError::StaleRecord { id, .. } => {
                Self::conflict(format!("{id} was changed by somebody else meanwhile"))
            }
            StoreError::ArchivedRecord { id } => Self::invalid(format!("`{id}` is archived")),
            StoreError::RecordInUse { id, session } => {
                Self::conflict(format!("`{id}` is in use by the session `{session}`"))
            }
            StoreError::EventTooLarge { .. } | StoreError::TooManyEvents { .. } => {
                Self::too_large(error.to_string())
            }
            StoreError::Ended { session } => RuntimeError::Terminated(session.clone()).into(),
            StoreError::Closed => Self::overloaded("the server is stopping"),
            StoreError::DiskFull { .. } => Self::no_space("the disk of the server is full"),
            error => Self::internal(format!("the server could not {error}")),
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Full { .. } => Self::no_space("the disk of the server is full"),
            FileError::TooLarge { most } => {
                Self::too_large(format!("file: it has more than {most} bytes"))
            }
            FileError::Io { .. } => Self::internal(format!("the server could not {error}")),
        }
    }
}

impl From<SkillError> for ApiError {
    fn from(error: SkillError) -> Self {
        let text = error.to_string();
        match error {
            SkillError::Refused(_) => Self::field("files", text),
            SkillError::TooLarge => Self::too_large(format!("files: {text}")),
            SkillError::NameTaken { .. } => Self::conflict(text).code("skill_name_taken"),
            SkillError::OtherName { .. } => Self::field("files", text),
            SkillError::NoSkill(_) | SkillError::NoVersion { .. } => Self::not_found(text),
            SkillError::OnlyVersion(_) => Self::invalid(text),
            SkillError::File(error) => error.into(),
        }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Store(error) => error.into(),
            RuntimeError::NoSession(id) => Self::no_such("session", id.as_str()),
            RuntimeError::BudgetCreateOnly => {
                Self::invalid(error.to_string()).code("budget_create_only")
            }
            RuntimeError::BudgetNotRaised => {
                Self::invalid(error.to_string()).code("budget_not_raised")
            }
            RuntimeError::File(error) => error.into(),
            RuntimeError::Skill(error) => error.into(),
            error @ RuntimeError::Attachment { source: AttachmentError::NoFile(_), .. } => {
                Self::not_found(error.to_string())
            }
            RuntimeError::Resource(
                error @ (ResourceError::NoFile(_) | ResourceError::NoResource(_)),
            ) => Self::not_found(error.to_string()),
            error @ (RuntimeError::Disk(_) | RuntimeError::Drive(_) | RuntimeError::Door(_)) => {
                Self::internal(format!("the server could not go on: {error}"))
            }
            error => Self::invalid(error.to_string()),
        }
    }
}
