//! What is asked of authorization servers, whose addresses are a stranger's words: which may be dialled, by which client,
//! and how much of an answer is read. No redirect is followed here.

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::NoToken;
use crate::egress::address::not_public;
use crate::environment::networking::{Host, HostRule};
use crate::limits::{MCP_OAUTH_BYTES, MCP_OAUTH_TIMEOUT, MCP_REDIRECTS};
use crate::mcp::Clients;
use crate::mcp::failure::Seal;

/// The way to the authorization servers of one MCP server.
pub(crate) struct Reach {
    /// They follow no redirects.
    pub(crate) clients: Clients,
    pub(crate) private_hosts: Vec<HostRule>,
    /// The MCP server itself.
    pub(crate) server: Url,
}

/// What a server answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Where it redirects to.
    pub(super) location: Option<Url>,
    pub(super) body: Vec<u8>,
}

impl Reach {
    /// Asks for a document; nothing if there is none. Redirects within its own origin are followed.
    pub(super) async fn document(&self, url: &Url) -> Result<Option<Vec<u8>>, NoToken> {
        let mut at = url.clone();
        for _ in 0..=MCP_REDIRECTS {
            let answer = self.get(&at).await?;
            match answer.location {
                Some(next) if next.origin() == at.origin() => at = next,
                Some(next) => {
                    return Err(NoToken::new(format!(
                        "`{}` redirects to `{}`",
                        place(&at),
                        place(&next)
                    )));
                }
                None => return Ok((answer.status == StatusCode::OK).then_some(answer.body)),
            }
        }
        Err(NoToken::new(format!("`{}` redirects without end", place(url))))
    }

    pub(super) async fn get(&self, url: &Url) -> Result<Answer, NoToken> {
        let request = self.client_for(url)?.get(url.clone());
        answer(url, request.header(ACCEPT, "application/json")).await
    }

    /// Sends a form or a document; `proof` is the value of an `Authorization` header.
    pub(super) async fn post(
        &self,
        url: &Url,
        content_type: &'static str,
        body: String,
        proof: Option<HeaderValue>,
    ) -> Result<Answer, NoToken> {
        let request = self.client_for(url)?.post(url.clone()).header(CONTENT_TYPE, content_type);
        let request = request.header(ACCEPT, "application/json").body(body);
        let request = match proof {
            Some(proof) => request.header(AUTHORIZATION, proof),
            None => request,
        };
        answer(url, request).await
    }

    /// Strangers are asked in secret and at public addresses only. The MCP server's own host may be reached as the server
    /// is, and what the configuration names as the user's own by any way.
    fn client_for(&self, url: &Url) -> Result<&reqwest::Client, NoToken> {
        let refuse = |why: &str| Err(NoToken::new(format!("`{}` is not asked: {why}", place(url))));
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it is not https");
        }
        let host: Host = match url.host_str().unwrap_or_default().parse() {
            Ok(host) => host,
            Err(error) => return refuse(&format!("the host {error}")),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        let is_named = self.private_hosts.iter().any(|rule| rule.covers(&host, port));
        let is_own = url.host() == self.server.host();
        let may_be_plain = is_named || (is_own && self.server.scheme() == "http");
        if url.scheme() == "http" && !may_be_plain {
            return refuse("it is not https");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("there is a password in it");
        }
        let kind = match &host {
            Host::Address(address) => not_public(*address),
            Host::Name(name) if name.as_str() == "localhost" => Some("this machine"),
            Host::Name(_) if is_named => return Ok(&self.clients.trusted),
            Host::Name(_) => return Ok(&self.clients.guarded),
        };
        match kind {
            Some(kind) if !is_named && !is_own => refuse(&format!(
                "it is {kind}; name it in `private_hosts` of `[mcp]` if it is yours"
            )),
            _ => Ok(&self.clients.trusted),
        }
    }
}

/// A URL without what it may hold besides the place.
pub(super) fn place(url: &Url) -> String {
    match url.origin() {
        origin if origin.is_tuple() => format!("{}{}", origin.ascii_serialization(), url.path()),
        _ => format!("{}:{}", url.scheme(), url.path()),
    }
}

async fn answer(url: &Url, request: RequestBuilder) -> Result<Answer, NoToken> {
    let lost = |error: &reqwest::Error| {
        // The URL may hold a code or a state, and the words are made without it.
        let why = Seal::default().of_transport(error);
        NoToken::new(format!("`{}`: {why}", place(url)))
    };
    let mut response = request.timeout(MCP_OAUTH_TIMEOUT).send().await.map_err(|e| lost(&e))?;
    let location = location(url, &response);
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|e| lost(&e))? {
        body.extend_from_slice(&piece);
        if body.len() > MCP_OAUTH_BYTES {
            return Err(NoToken::new(format!("`{}`: its answer is too large", place(url))));
        }
    }
    Ok(Answer { status: response.status(), location, body })
}

fn location(url: &Url, response: &Response) -> Option<Url> {
    let given = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
    url.join(given?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::http::no_roots;

    #[test]
    fn strangers_are_asked_at_public_places_in_secret() {
        let check = |server: &str, url: &str, expected: Result<bool, &str>| {
            let reach = Reach {
                clients: Clients::new(&no_roots(), reqwest::redirect::Policy::none),
                private_hosts: vec!["login.example:8080".parse().unwrap()],
                server: Url::parse(server).unwrap(),
            };
            let client = reach.client_for(&Url::parse(url).unwrap());
            let guarded =
                client.map(|client| std::ptr::eq(client, &raw const reach.clients.guarded));
            match (guarded, expected) {
                (Ok(guarded), Ok(expected)) => assert_eq!(guarded, expected, "{url}"),
                (Err(why), Err(expected)) => {
                    assert!(why.to_string().contains(expected), "{url}: {why}");
                }
                (other, _) => panic!("{url}: {other:?}"),
            }
        };
        let (public, local) = ("https://mcp.example/mcp", "http://localhost:3000/mcp");
        check(public, "https://auth.example/token", Ok(true));
        check(public, "https://mcp.example:444/token", Ok(true));
        check(public, "http://auth.example/token", Err("it is not https"));
        check(public, "http://mcp.example/token", Err("it is not https"));
        check(public, "ftp://mcp.example/token", Err("it is not https"));
        check(public, "https://me:secret@auth.example/token", Err("a password in it"));
        check(public, "https://127.0.0.1/token", Err("a loopback address"));
        check(public, "https://localhost/token", Err("this machine"));
        check(public, "https://10.0.0.1/token", Err("a private address"));
        check(public, "https://169.254.169.254/token", Err("metadata"));
        check(public, "http://login.example:8080/token", Ok(false));
        check(public, "http://login.example:8081/token", Err("it is not https"));
        check(local, "http://localhost:3001/token", Ok(false));
        check(local, "http://127.0.0.1:3001/token", Err("it is not https"));
        check(local, "https://127.0.0.1:3001/token", Err("a loopback address"));
        check("http://127.0.0.1:3000/mcp", "http://127.0.0.1:9/token", Ok(false));
    }
}
