//! The Messages API, of Anthropic itself and of the local servers that speak it.
//!
//! Owns: the request's JSON (`request`), the stream's meaning (`decode`), the address and the headers.
//! Does not: retry, or read keys from anywhere.
//! Invariant: `temperature` and `top_p` are never sent; newer models refuse them.

mod decode;
mod request;

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::decode::AnthropicDecoder;
use super::failure::Asked;
use super::http::{Http, Post, Secret, key_header};
use super::transcript::Transcript;
use super::{DeltaStream, Model, Request};

/// The only version that the protocol has had.
const VERSION: &str = "2023-06-01";

/// A server that speaks the Messages API, for one conversation.
#[derive(Debug)]
pub struct Anthropic {
    http: Arc<Http>,
    provider: String,
    url: String,
    key: Option<Secret>,
    transcript: Mutex<Transcript>,
}

impl Anthropic {
    /// The server at `base_url`, which may end in `/`, `/v1` or neither.
    #[must_use]
    pub fn new(http: Arc<Http>, provider: &str, base_url: &str, key: Option<Secret>) -> Self {
        let (provider, url) = (provider.to_owned(), messages_url(base_url));
        Self { http, provider, url, key, transcript: Mutex::default() }
    }

    fn headers(&self) -> Result<HeaderMap, super::ModelError> {
        let version = HeaderName::from_static("anthropic-version");
        let mut headers = HeaderMap::from_iter([(version, HeaderValue::from_static(VERSION))]);
        if let Some(key) = &self.key {
            let value = key_header(&self.provider, "", key)?;
            headers.insert(HeaderName::from_static("x-api-key"), value);
        }
        Ok(headers)
    }
}

fn messages_url(base: &str) -> String {
    let base = base.trim_end_matches('/');
    let base = base.strip_suffix("/messages").unwrap_or(base);
    let base = base.strip_suffix("/v1").unwrap_or(base);
    format!("{base}/v1/messages")
}

impl Model for Anthropic {
    fn stream(&self, request: Request) -> DeltaStream {
        let asked = Asked { provider: self.provider.clone(), model: request.model.clone() };
        let decoder = AnthropicDecoder::new(&self.provider, &request.model);
        // A transcript that was left half written says where it ends, and is cut there.
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        let post = self.headers().map(|headers| Post {
            url: self.url.clone(),
            headers,
            body: request::body(&request, &mut transcript),
            asked,
            key: self.key.clone(),
        });
        Arc::clone(&self.http).stream(post, decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::messages_url;

    #[test]
    fn a_base_url_is_taken_with_or_without_its_tail() {
        for base in ["http://h", "http://h/", "http://h/v1", "http://h/v1/", "http://h/v1/messages"]
        {
            assert_eq!(messages_url(base), "http://h/v1/messages", "{base}");
        }
        assert_eq!(messages_url("https://h/proxy/v1"), "https://h/proxy/v1/messages");
    }
}
