//! Chat Completions, of OpenAI and of everything that imitates it: Ollama, llama.cpp, vLLM, LM Studio.
//!
//! Owns: the request's JSON (`request`), the stream's meaning with all its dialects (`decode`, `calls`, `think`), calls
//! that a model writes as text (`spoken`), calls as JSON that the server holds its model to (`constrained`).

mod calls;
mod constrained;
mod decode;
mod request;
mod spoken;
mod think;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use reqwest::header::{AUTHORIZATION, HeaderMap};

pub use self::decode::OpenAiDecoder;
pub use self::request::Dialect;
pub(crate) use self::request::is_vendor;
use super::failure::Asked;
use super::http::{Http, Post, Secret, key_header};
use super::transcript::Transcript;
use super::{DeltaStream, Model, ModelError, Request};

/// A server that speaks Chat Completions, for one conversation.
#[derive(Debug)]
pub struct OpenAi {
    http: Arc<Http>,
    provider: String,
    url: String,
    dialect: Dialect,
    key: Option<Secret>,
    transcript: Mutex<Transcript>,
}

impl OpenAi {
    /// The server at `base_url`, usually ending in `/v1`; a bare host gets it.
    #[must_use]
    pub fn new(http: Arc<Http>, provider: &str, base_url: &str, key: Option<Secret>) -> Self {
        let url = format!("{}/chat/completions", base(base_url));
        let dialect = Dialect::of(base_url, false);
        let provider = provider.to_owned();
        Self { http, provider, url, dialect, key, transcript: Mutex::default() }
    }

    /// The same server, which is to hold its model to calls that fit their tools.
    #[must_use]
    pub fn constrained(self) -> Self {
        let dialect = Dialect::of(&self.url, true);
        Self { dialect, ..self }
    }
}

/// Whether the server at that address can be given a PDF.
pub(crate) fn takes_documents(base_url: &str) -> bool {
    Dialect::of(base_url, false) == Dialect::OpenAi
}

/// The address under which the API's paths lie.
pub(crate) fn base(base_url: &str) -> String {
    let base = base_url.trim_end_matches('/');
    let base = base.strip_suffix("/chat/completions").unwrap_or(base);
    match base.split_once("://") {
        Some((_, rest)) if !rest.contains('/') => format!("{base}/v1"),
        _ => base.to_owned(),
    }
}

/// The `authorization` header, if there is a key.
pub(crate) fn headers(provider: &str, key: Option<&Secret>) -> Result<HeaderMap, ModelError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert(AUTHORIZATION, key_header(provider, "Bearer ", key)?);
    }
    Ok(headers)
}

impl Model for OpenAi {
    fn stream(&self, request: Request) -> DeltaStream {
        let asked = Asked { provider: self.provider.clone(), model: request.model.clone() };
        let mut decoder = OpenAiDecoder::new(&self.provider, &request.model);
        // The vendor's own server knows its models' marks: what is text there was meant as such.
        if self.dialect != Dialect::OpenAi {
            decoder = decoder.hearing(Arc::clone(&request.tools));
        }
        if self.dialect == Dialect::Constrained && !request.tools.is_empty() {
            decoder = decoder.constrained();
        }
        // A transcript that was left half written says where it ends, and is cut there.
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        let post = headers(&self.provider, self.key.as_ref()).map(|headers| Post {
            url: self.url.clone(),
            headers,
            body: request::body(&request, self.dialect, &mut transcript),
            asked,
            key: self.key.clone(),
        });
        let deltas = Arc::clone(&self.http).stream(post, decoder);
        match self.dialect {
            Dialect::Constrained => Box::pin(deltas.map(|d| d.map_err(constrained::hinted))),
            Dialect::OpenAi | Dialect::Compatible => deltas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn a_bare_host_gets_the_version() {
        for (given, expected) in [
            ("http://h:1", "http://h:1/v1"),
            ("http://h:1/", "http://h:1/v1"),
            ("http://h:1/v1/", "http://h:1/v1"),
            ("https://h/api/openai", "https://h/api/openai"),
            ("http://h/v1/chat/completions", "http://h/v1"),
        ] {
            assert_eq!(base(given), expected, "{given}");
        }
    }
}
