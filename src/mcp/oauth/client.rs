//! Requests to an MCP server that carry a token where there is a login: a refusal gets another token and the request is
//! repeated, at most twice.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, StatusCode};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};
use sse_stream::Sse;

use super::discover::Challenge;
use super::{Held, Login, NoToken};
use crate::limits::MCP_MESSAGE_BYTES;

/// The client of one MCP server.
#[derive(Clone)]
pub(crate) struct Authorized {
    pub(crate) client: Client,
    pub(crate) login: Option<Arc<Login>>,
}

type Outcome<T> = Result<T, StreamableHttpError<reqwest::Error>>;
type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// How a server refuses a token.
enum Refusal {
    /// There is none, or it is not taken.
    Unknown(Challenge),
    /// It does not reach far enough.
    Narrow(Challenge),
}

impl Refusal {
    fn of<T>(outcome: &Outcome<T>) -> Option<Self> {
        match outcome.as_ref().err()? {
            StreamableHttpError::AuthRequired(refused) => {
                Some(Self::Unknown(Challenge::parse(&refused.www_authenticate_header)))
            }
            StreamableHttpError::InsufficientScope(refused) => {
                Some(Self::Narrow(Challenge::parse(&refused.www_authenticate_header)))
            }
            // Without a word about how.
            StreamableHttpError::UnexpectedServerResponse(words)
                if words.starts_with("HTTP 401") =>
            {
                Some(Self::Unknown(Challenge::default()))
            }
            StreamableHttpError::Client(error)
                if error.status() == Some(StatusCode::UNAUTHORIZED) =>
            {
                Some(Self::Unknown(Challenge::default()))
            }
            _ => None,
        }
    }
}

impl Authorized {
    async fn asked<T, F>(&self, mut ask: impl FnMut(Option<String>) -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        let Some(login) = &self.login else { return ask(None).await };
        let mut held = login.held().await;
        let (mut renewed, mut widened) = (false, false);
        loop {
            let outcome = ask(value(held.as_ref())).await;
            let said = held.as_ref().map(|held| held.number);
            held = match (Refusal::of(&outcome), said) {
                (Some(Refusal::Unknown(refused)), _) if !renewed => {
                    renewed = true;
                    Some(login.renew(said, &refused).await.map_err(failed)?)
                }
                (Some(Refusal::Unknown(_)), Some(said)) => {
                    login.refused(said).await;
                    return outcome;
                }
                (Some(Refusal::Narrow(refused)), Some(_)) if !widened => {
                    widened = true;
                    match login.widen(said, &refused).await.map_err(failed)? {
                        Some(wider) => Some(wider),
                        None => return outcome,
                    }
                }
                _ => return outcome,
            }
        }
    }
}

fn value(held: Option<&Held>) -> Option<String> {
    held.map(|held| held.value.clone())
}

fn failed(why: NoToken) -> StreamableHttpError<reqwest::Error> {
    StreamableHttpError::Io(io::Error::other(why))
}

impl StreamableHttpClient for Authorized {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
    ) -> Outcome<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, token, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _token: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Outcome<StreamableHttpPostResponse> {
        let ask = |token| {
            let (uri, message) = (Arc::clone(&uri), message.clone());
            let (session, headers) = (session.clone(), headers.clone());
            self.client
                .post_message_with_response_limits(uri, message, session, token, headers, limits)
        };
        Box::pin(self.asked(ask)).await
    }

    /// The end of a session is worth no login.
    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _token: Option<String>,
        headers: Headers,
    ) -> Outcome<()> {
        let held = match &self.login {
            Some(login) => login.current().await,
            None => None,
        };
        self.client.delete_session(uri, session, value(held.as_ref()), headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        token: Option<String>,
        headers: Headers,
    ) -> Outcome<Events> {
        let most = MCP_MESSAGE_BYTES;
        self.get_stream_with_max_sse_event_size(uri, session, last, token, headers, most).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        _token: Option<String>,
        headers: Headers,
        most: usize,
    ) -> Outcome<Events> {
        let ask = |token| {
            let (uri, session) = (Arc::clone(&uri), session.clone());
            let (last, headers) = (last.clone(), headers.clone());
            self.client.get_stream_with_max_sse_event_size(uri, session, last, token, headers, most)
        };
        Box::pin(self.asked(ask)).await
    }
}
