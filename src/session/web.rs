//! Calls that ask the web: judged and asked from the host; what a page holds is only looked at inside of the sandbox.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::Definition;
use super::call::{Call, CallState};
use super::driver::Driver;
use crate::agent::ToolName;
use crate::agent::web::{Source, UrlSources};
use crate::environment::networking::Networking;
use crate::event::{ContentBlock, Event, EventBody, Permission, ServerToolUse, text_of};
use crate::limits::SCAN_PAGE;
use crate::sandbox::Guest;
use crate::sandbox::wire::{FetchedPage, ToolCall, ToolReply};
use crate::tool::policy;
use crate::web::{Hit, Scope};

/// Where the session's pages may come from. A session that a client made of stored definitions asks as the hosted
/// service does, whatever its programs may reach; all others are bound by their network rules.
fn scope(definition: &Definition) -> Scope<'_> {
    match &definition.environment.networking {
        _ if definition.origin.is_some() => Scope::Public,
        Networking::Unrestricted => Scope::Public,
        Networking::Limited { allowed_hosts, .. } => Scope::Hosts(allowed_hosts),
        Networking::None => Scope::Hosts(&[]),
    }
}

impl Driver {
    /// Performs a call of `web_fetch` or `web_search`. A failure is the second kind of answer.
    pub(super) async fn ask_web(
        &self,
        call: &Call,
        tool: ToolName,
        guest: Option<&Guest>,
        token: &CancellationToken,
    ) -> Result<ToolReply, String> {
        let asked = async {
            match tool {
                ToolName::WebSearch => self.search(call).await,
                _ => self.fetch(call, guest, token).await,
            }
        };
        tokio::select! {
            answer = asked => answer,
            () = token.cancelled() => Err("The call was cancelled.".to_owned()),
        }
    }

    async fn search(&self, call: &Call) -> Result<ToolReply, String> {
        let query = argument("web_search", &call.input, "query")?;
        let settings = &self.session.definition().agent.web.search;
        let hits = self.parts.web.search(query, settings).await?;
        Ok(ToolReply::text(list(&hits)))
    }

    async fn fetch(
        &self,
        call: &Call,
        guest: Option<&Guest>,
        token: &CancellationToken,
    ) -> Result<ToolReply, String> {
        let url = argument("web_fetch", &call.input, "url")?;
        let definition = self.session.definition();
        let settings = &definition.agent.web.fetch;
        if let Some(sources) = &settings.url_sources
            && !self.was_said(url, sources)
        {
            return Err(
                "url_not_allowed: nothing that may name pages in this session has named this one."
                    .to_owned(),
            );
        }
        let judged = policy::host(url);
        let permits = |hop: &Url| self.permits(hop, judged.as_deref());
        let page = self.parts.web.fetch(url, settings, scope(definition), &permits).await?;
        let input = FetchedPage {
            url: page.url.clone(),
            content_type: page.content_type.clone(),
            data: STANDARD.encode(&page.bytes),
            is_cut: page.is_cut,
            max_content_tokens: settings.max_content_tokens,
        };
        let Ok(Value::Object(input)) = serde_json::to_value(input) else {
            unreachable!("a struct is a JSON object")
        };
        let guest = guest.expect("the driver made a sandbox before it committed the intent");
        let takes_documents = self.parts.takes_documents;
        let wire = ToolCall { name: call.name.clone(), input, takes_documents };
        guest.call(wire, token).await.map_err(|failure| format!("The sandbox broke: {failure}."))
    }

    /// Whether the rules allow a page that another leads to. Those of the host that was judged with the call were.
    fn permits(&self, hop: &Url, judged: Option<&str>) -> Result<(), String> {
        if hop.host_str().is_some_and(|host| Some(host) == judged) {
            return Ok(());
        }
        let input = Map::from_iter([("url".to_owned(), hop.as_str().into())]);
        let verdict = self.verdict(ToolName::WebFetch.as_str(), None, &input);
        match (verdict.permission, verdict.rule) {
            (Permission::Allow, _) => Ok(()),
            (Permission::Deny, Some(rule)) => Err(format!("the rule `{rule}` denies {hop}.")),
            (Permission::Ask | Permission::Deny, _) => Err(format!(
                "the page leads to {hop}, which no rule allows; fetch that one if it is right."
            )),
        }
    }

    /// Whether one of the sources has named the page, anywhere in the log: a compaction takes nothing back.
    fn was_said(&self, url: &str, sources: &UrlSources) -> bool {
        let Some(wanted) = normal(url) else { return true };
        let mut names = Names { sources, calls: HashSet::new() };
        let mut from = 0;
        loop {
            let Ok(events) = self.parts.store.reader().scan(&self.id, from, SCAN_PAGE) else {
                return false;
            };
            let Some(last) = events.last() else { return false };
            from = last.seq;
            if events
                .iter()
                .any(|event| names.of(event).is_some_and(|text| names_url(&text, &wanted)))
            {
                return true;
            }
        }
    }
}

/// The texts of a log that may name pages.
struct Names<'s> {
    sources: &'s UrlSources,
    /// Calls whose results count.
    calls: HashSet<String>,
}

impl Names<'_> {
    fn of(&mut self, event: &Event) -> Option<String> {
        let mut note = |source: &Source, name: &str| {
            if source.takes(name) {
                self.calls.insert(event.id.as_str().to_owned());
            }
        };
        match &event.body {
            EventBody::UserMessage { content } if self.sources.user_input == Source::All => {
                Some(text_of(content))
            }
            EventBody::AgentCustomToolUse { name, .. } => {
                note(&self.sources.client_tool_results, name);
                None
            }
            EventBody::AgentToolUse { name, .. }
                if ToolName::parse(name).is_some_and(ToolName::asks_web) =>
            {
                note(&self.sources.server_tool_results, name);
                None
            }
            EventBody::UserCustomToolResult { custom_tool_use_id, content, .. } => {
                let counts = self.calls.contains(custom_tool_use_id.as_str());
                counts.then(|| text_of(content.as_deref().unwrap_or_default()))
            }
            EventBody::AgentToolResult { tool_use_id, content, .. } => {
                self.calls.contains(tool_use_id.as_str()).then(|| text_of(content))
            }
            _ => None,
        }
    }
}

/// A URL in the form in which two of them are compared; `None` for what is none, which the fetch then says.
fn normal(url: &str) -> Option<Url> {
    let mut url = Url::parse(url.trim()).ok()?;
    url.set_fragment(None);
    Some(url)
}

/// Whether a text names that URL: it stands there, up to where prose or Markdown ends it.
fn names_url(text: &str, wanted: &Url) -> bool {
    let starts = text.match_indices("http").map(|(at, _)| &text[at..]);
    let mut named = starts.filter_map(|rest| {
        let end = rest
            .find(|c: char| c.is_whitespace() || "<>\"'`|\\^{}[]".contains(c))
            .unwrap_or(rest.len());
        Some(&rest[..end]).filter(|url| url.starts_with("http://") || url.starts_with("https://"))
    });
    // A bracket or a full stop at the end belongs to the address or to the sentence: both are tried.
    named.any(|url| {
        let shorter = std::iter::successors(Some(url), |url| {
            url.strip_suffix(['.', ',', ';', ':', '!', '?', ')', '*', '_'])
        });
        shorter.into_iter().filter_map(normal).any(|url| url == *wanted)
    })
}

fn argument<'c>(tool: &str, input: &'c Map<String, Value>, name: &str) -> Result<&'c str, String> {
    if let Some(other) = input.keys().find(|key| *key != name) {
        return Err(format!(
            "The input of `{tool}` is wrong: it has no field `{other}`, only `{name}`."
        ));
    }
    let text = input.get(name).and_then(Value::as_str);
    text.ok_or_else(|| format!("The input of `{tool}` is wrong: `{name}` must be a string."))
}

fn list(hits: &[Hit]) -> String {
    if hits.is_empty() {
        return "Nothing was found. Try other words.".to_owned();
    }
    let entries = hits.iter().enumerate().map(|(i, Hit { title, url, snippet })| {
        let title = if title.is_empty() { url } else { title };
        format!("{}. {title}\n   {url}\n   {snippet}", i + 1)
    });
    entries.collect::<Vec<_>>().join("\n")
}

/// That a call asked the web, for the sums.
pub(super) fn used(call: &Call) -> Option<EventBody> {
    let asks = !matches!(call.state, CallState::Denied(_));
    let tool = ToolName::parse(&call.name).filter(|tool| asks && tool.asks_web())?;
    let searches = u64::from(tool == ToolName::WebSearch);
    let used = ServerToolUse { web_search_requests: searches, web_fetch_requests: 1 - searches };
    Some(EventBody::WebUsed { tool_use_id: call.id.clone(), used })
}

/// An answer for the log.
pub(super) fn body(call: &Call, reply: Result<ToolReply, String>) -> EventBody {
    let (content, is_error) = match reply {
        Ok(ToolReply { content, is_error }) => (content, is_error),
        Err(sentence) => (vec![ContentBlock::text(sentence)], true),
    };
    EventBody::AgentToolResult { tool_use_id: call.id.clone(), content, is_error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_pages() {
        let check = |text: &str, url: &str, expected: bool| {
            assert_eq!(names_url(text, &normal(url).unwrap()), expected, "{text:?} {url}");
        };
        check("see https://a.example/x.", "https://a.example/x", true);
        check("see [x](https://a.example/x)!", "https://a.example/x", true);
        check("(https://a.example/x_(y))", "https://a.example/x_(y)", true);
        check("https://A.example", "https://a.example/", true);
        check("https://a.example/x#part", "https://a.example/x#other", true);
        check("https://a.example/xyz", "https://a.example/x", false);
        check("https://a.example/", "https://a.example/x", false);
        check("https://evil.example/?u=https://a.example/x", "https://a.example/x", true);
        check("a.example/x", "https://a.example/x", false);
        check("httpshttps://a.example/x", "https://a.example/x", true);
    }
}
