//! One page: judged, asked for, followed through redirects, read within bounds.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Instant;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::robots::Rules;
use super::{PRODUCT, Web};
use crate::agent::web::FetchSettings;
use crate::egress::dial::{self, NotPublic, refuse_literal};
use crate::environment::networking::{Host, HostRule};
use crate::limits::{
    WEB_FETCH_TIMEOUT, WEB_PAGE_BYTES, WEB_REDIRECTS, WEB_ROBOTS_BYTES, WEB_URL_CHARS,
};

/// What a server sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Where it came from, after redirects.
    pub url: String,
    /// The server's words about what it is; empty if it said nothing.
    pub content_type: String,
    /// The body, at most [`WEB_PAGE_BYTES`].
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub is_cut: bool,
}

/// Where a session may look, besides what its agent's lists say.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// At every public host.
    Public,
    /// At hosts that these rules name.
    Hosts(&'a [HostRule]),
}

/// Whether the caller's own rules allow an address, asked for each on the way; or why they do not.
pub type Permits<'a> = &'a (dyn Fn(&Url) -> Result<(), String> + Sync);

/// What the model is told when a rule closes an address: the protocol's word, then the reason.
fn not_allowed(reason: &str) -> String {
    format!("url_not_allowed: {reason}")
}

impl Web {
    /// Fetches a page, or says to the model why it has none.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what can be done.
    pub async fn fetch(
        &self,
        given: &str,
        settings: &FetchSettings,
        scope: Scope<'_>,
        permits: Permits<'_>,
    ) -> Result<Arc<Page>, String> {
        let url = parse(given)?;
        let followed = self.follow(url, settings, scope, permits);
        let fetched = tokio::time::timeout(WEB_FETCH_TIMEOUT, followed);
        fetched.await.unwrap_or_else(|_| Err(late()))
    }

    async fn follow(
        &self,
        mut url: Url,
        settings: &FetchSettings,
        scope: Scope<'_>,
        permits: Permits<'_>,
    ) -> Result<Arc<Page>, String> {
        for _ in 0..=WEB_REDIRECTS {
            permits(&url).map_err(|reason| not_allowed(&reason))?;
            let client = self.judge(&url, settings, scope)?;
            if !self.proxies.is_empty() && !self.is_private(&url)? {
                let name = dial::judge_name(&host_of(&url)?).await;
                name.map_err(|refused| private(&refused.to_string()))?;
            }
            if let Some(page) = self.pages.lock().await.get(url.as_str(), Instant::now()) {
                return Ok(page);
            }
            self.ask_robots(client, &url).await?;
            let response = client.get(url.clone()).header(ACCEPT, WANTED).send().await;
            let response = response.map_err(|error| failure(&url, &error))?;
            if let Some(next) = redirect(&url, &response)? {
                url = next;
                continue;
            }
            let page = Arc::new(read(&url, response).await?);
            let kept = Arc::clone(&page);
            self.pages.lock().await.put(url.into(), Instant::now(), kept);
            return Ok(page);
        }
        Err(format!("{url} was reached after {WEB_REDIRECTS} redirects and leads on; gave up."))
    }

    /// Whether the address may be asked, and by whom.
    fn judge(
        &self,
        url: &Url,
        settings: &FetchSettings,
        scope: Scope<'_>,
    ) -> Result<&Client, String> {
        let host = host_of(url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        if !settings.domains.allow(&host, url.path()) {
            return Err(not_allowed(&format!(
                "the agent's lists of domains do not allow `{host}`."
            )));
        }
        match scope {
            Scope::Public => {}
            Scope::Hosts(rules) if rules.iter().any(|rule| rule.covers(&host, port)) => {}
            Scope::Hosts(_) => {
                let reason = format!("the session's network rules do not name `{host}:{port}`.");
                return Err(not_allowed(&reason));
            }
        }
        if self.is_private(url)? {
            return Ok(&self.clients().trusted);
        }
        match refuse_literal(&host) {
            Some(kind) => Err(private(&format!("`{host}` is {kind}"))),
            None => Ok(&self.clients().guarded),
        }
    }

    /// Whether the user's configuration opens the address, public or not.
    fn is_private(&self, url: &Url) -> Result<bool, String> {
        let host = host_of(url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(self.config.private_hosts.iter().any(|rule| rule.covers(&host, port)))
    }

    async fn ask_robots(&self, client: &Client, url: &Url) -> Result<(), String> {
        if !self.config.obeys_robots {
            return Ok(());
        }
        let origin = url.origin().ascii_serialization();
        let known = self.robots.lock().await.get(&origin, Instant::now());
        let rules = match known {
            Some(rules) => rules,
            None => {
                let rules = Arc::new(robots_of(client, url).await?);
                self.robots.lock().await.put(origin, Instant::now(), Arc::clone(&rules));
                rules
            }
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        if rules.allow(&path) {
            return Ok(());
        }
        Err(not_allowed("the site's robots.txt closes this page, and the user wants it obeyed."))
    }
}

/// What can be shown to a model, best first.
const WANTED: &str =
    "text/markdown, text/html;q=0.9, text/*;q=0.8, application/json;q=0.8, */*;q=0.5";

fn parse(given: &str) -> Result<Url, String> {
    let given = given.trim();
    if given.len() > WEB_URL_CHARS {
        return Err(format!("url has more than {WEB_URL_CHARS} characters."));
    }
    let mut url = Url::parse(given).map_err(|error| {
        format!("`{given}` is no URL ({error}); give one such as https://example.com/page.")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("url must begin with http:// or https://, not `{}:`.", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url must hold no user name and no password.".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

fn host_of(url: &Url) -> Result<Host, String> {
    url.host_str().unwrap_or_default().parse().map_err(|error| format!("The host {error}."))
}

/// What is said of addresses in the user's own network.
fn private(reason: &str) -> String {
    not_allowed(&format!(
        "{reason}, which only the user can open: `private_hosts` in the `[web]` part of the configuration."
    ))
}

fn late() -> String {
    let seconds = WEB_FETCH_TIMEOUT.as_secs();
    format!("The page was not there after {seconds} s; gave up. Try another source, or later.")
}

/// Where a redirect leads; `None` if the response is no redirect.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, String> {
    let (status, headers) = (response.status(), response.headers());
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = headers.get(LOCATION).and_then(|to| std::str::from_utf8(to.as_bytes()).ok());
    let Some(to) = to else { return Err(format!("{from} redirects ({status}) to nowhere.")) };
    let joined = from
        .join(to)
        .map_err(|_| format!("{from} redirects to `{}`, which is no URL.", shown(to)))?;
    let next = parse(joined.as_str()).map_err(|problem| format!("{from} redirects: {problem}"))?;
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(format!(
            "{from} redirects to the unencrypted {next}; fetch that one if it is right."
        ));
    }
    Ok(Some(next))
}

async fn read(url: &Url, mut response: Response) -> Result<Page, String> {
    let status = response.status();
    if !status.is_success() {
        return Err(refused(url, status, response.headers()));
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type =
        content_type.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    if !is_shown(&content_type) {
        let size =
            response.content_length().map(|size| format!(" of {size} bytes")).unwrap_or_default();
        return Err(format!(
            "{url} is `{}`{size}, which is no text, image or PDF. Where the sandbox has network access, bash can \
             download it.",
            shown(&content_type)
        ));
    }
    let (bytes, is_cut) = body(url, &mut response, WEB_PAGE_BYTES).await?;
    Ok(Page { url: url.to_string(), content_type, bytes, is_cut })
}

/// The body as far as the bound, and whether there was more.
async fn body(url: &Url, response: &mut Response, most: usize) -> Result<(Vec<u8>, bool), String> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(url, &error))? {
        let room = most - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}

/// Whether a page of that type can be made into something that a model reads. What says nothing may be anything.
fn is_shown(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (family, own) = kind.split_once('/').unwrap_or((kind.as_str(), ""));
    match family {
        "" | "text" => true,
        "image" => matches!(own, "png" | "jpeg" | "gif" | "webp" | "svg+xml"),
        "application" => {
            let own = own.trim_start_matches("x-");
            let text = [
                "json",
                "xml",
                "yaml",
                "toml",
                "javascript",
                "ecmascript",
                "sql",
                "graphql",
                "pdf",
                "ndjson",
            ];
            text.contains(&own) || own.ends_with("+json") || own.ends_with("+xml")
        }
        _ => false,
    }
}

fn refused(url: &Url, status: StatusCode, headers: &HeaderMap) -> String {
    let wait = headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
    let wait = wait.map(|seconds| format!(" It asks to wait {seconds} s.")).unwrap_or_default();
    format!("{url} answered {status}.{wait}")
}

/// What went wrong on the way, in words: the client's own chain, without what it says of every request.
fn failure(url: &Url, error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return late();
    }
    // The innermost says what happened, the others that something did.
    let mut words = "the connection broke".to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<NotPublic>() {
            return private(&refused.to_string());
        }
        words = error.to_string();
        cause = error.source();
    }
    format!("{url} could not be fetched: {}.", shown(words.trim_end_matches('.')))
}

/// Words of a stranger within a sentence of ours.
fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The site's rules; a site without is open, and one whose rules cannot be had now is closed (RFC 9309, 2.3.1).
async fn robots_of(client: &Client, url: &Url) -> Result<Rules, String> {
    let at = url.join("/robots.txt").expect("an absolute path joins every http URL");
    let response = client.get(at.clone()).send().await;
    let mut response = response.map_err(|error| failure(&at, &error))?;
    match response.status() {
        status if status.is_success() => {
            let (text, _) = body(&at, &mut response, WEB_ROBOTS_BYTES).await?;
            Ok(Rules::parse(&String::from_utf8_lossy(&text), PRODUCT))
        }
        status if status.is_server_error() => Err(not_allowed(&format!(
            "{at} answered {status}, so what the site allows is unknown."
        ))),
        _ => Ok(Rules::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_page_is_said() {
        let check = |given: &str, expected: &str| {
            let error = parse(given).unwrap_err();
            assert!(error.contains(expected), "{given}: {error}");
        };
        check("example.com", "is no URL");
        check("file:///etc/passwd", "must begin with http");
        check("https://user:pass@example.com/", "no user name");
        check("http://", "is no URL");
        check(&format!("https://example.com/{}", "a".repeat(WEB_URL_CHARS)), "more than");
        assert_eq!(parse(" https://example.com/a#b ").unwrap().as_str(), "https://example.com/a");
    }

    #[test]
    fn every_spelling_of_an_address_is_one() {
        for given in
            ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::ffff:7f00:1]/"]
        {
            let host = host_of(&parse(given).unwrap()).unwrap();
            assert!(refuse_literal(&host).is_some(), "{given} is {host}");
        }
    }

    #[test]
    fn types_that_can_be_read() {
        for shown in [
            "",
            "text/html; charset=utf-8",
            "application/json",
            "application/vnd.api+json",
            "application/pdf",
            "image/png",
            "TEXT/PLAIN",
        ] {
            assert!(is_shown(shown), "{shown}");
        }
        for other in
            ["application/zip", "application/octet-stream", "video/mp4", "image/tiff", "font/woff2"]
        {
            assert!(!is_shown(other), "{other}");
        }
    }
}
