//! An endpoint: how it is reached, what does the work, and what is to be said of it. The router and the description are
//! made of the same table, so that neither has what the other lacks.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use serde_json::Value;

use super::App;
use super::schema::{self, Schema};

/// One method of one path.
#[derive(Clone)]
pub struct Endpoint {
    /// In lower case.
    pub method: &'static str,
    /// With the names of its parts: `/v1/agents/{agent_id}`.
    pub path: &'static str,
    /// Its name, such as `agents.create`: that of the clients' method.
    pub operation: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What may stand after the `?`.
    pub query: Vec<Param>,
    /// What is sent.
    pub body: Body,
    /// What comes back.
    pub answer: Answer,
    handler: MethodRouter<App>,
}

/// A parameter of a query. A list is named with its brackets.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it can be.
    pub schema: Value,
}

/// What an endpoint is sent.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Schema),
    /// A form with files.
    Multipart(Schema),
}

/// What an endpoint answers with, if all is well.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// One thing.
    Json(Schema),
    /// A list with `next_page`.
    Page(Schema),
    /// A list with `next_page` and `prev_page`.
    TwoWayPage(Schema),
    /// Events, as long as the client stays.
    Stream(Schema),
    /// A file.
    Bytes,
    /// Text of that type.
    Text(&'static str),
}

impl Endpoint {
    fn new(
        method: &'static str,
        path: &'static str,
        operation: &'static str,
        handler: MethodRouter<App>,
    ) -> Self {
        Self {
            method,
            path,
            operation,
            summary: "",
            query: Vec::new(),
            body: Body::None,
            answer: Answer::Text("text/plain"),
            handler,
        }
    }

    /// One that looks.
    pub fn get<H, T>(path: &'static str, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Self::new("get", path, operation, routing::get(handler))
    }

    /// One that makes or changes.
    pub fn post<H, T>(path: &'static str, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Self::new("post", path, operation, routing::post(handler))
    }

    /// One that removes.
    pub fn delete<H, T>(path: &'static str, operation: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Self::new("delete", path, operation, routing::delete(handler))
    }

    /// Says what it does.
    #[must_use]
    pub fn about(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// Says what may stand after the `?`.
    #[must_use]
    pub fn query(self, params: impl IntoIterator<Item = Param>) -> Self {
        Self { query: params.into_iter().collect(), ..self }
    }

    /// Says what it is sent.
    #[must_use]
    pub fn takes(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// Says what comes back.
    #[must_use]
    pub fn answers(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    /// Its path in a description: there, a name that may have slashes in it looks like any other.
    #[must_use]
    pub fn described_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// The names in its path.
    pub fn path_params(&self) -> impl Iterator<Item = &'static str> {
        let parts = self.path.split('/').filter_map(|part| part.strip_prefix('{'));
        parts.filter_map(|part| part.trim_start_matches('*').strip_suffix('}'))
    }
}

/// The router of a table.
pub(super) fn router(endpoints: Vec<Endpoint>) -> Router<App> {
    endpoints
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.handler))
}

impl Param {
    /// One of that name.
    #[must_use]
    pub fn new(name: &'static str, about: &'static str, schema: Value) -> Self {
        Self { name, about, schema }
    }

    /// `limit` and `page` of a list.
    #[must_use]
    pub fn page(most: u64) -> [Self; 2] {
        [
            Self::new("limit", "At most so many entries.", schema::between(1, most)),
            Self::new("page", "The `next_page` of the page before.", schema::string()),
        ]
    }

    /// Archived ones too.
    #[must_use]
    pub fn include_archived() -> Self {
        Self::new("include_archived", "Archived ones too.", schema::boolean())
    }

    /// A bound of the creation time, such as `created_at[gte]`.
    #[must_use]
    pub fn created_at(name: &'static str) -> Self {
        Self::new(name, "Only what was created on that side of this time.", schema::time())
    }
}
