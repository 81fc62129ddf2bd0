//! The transport of before 2025, for servers that know no other: one stream of events from the server, and a place that it
//! names at the beginning for what it is told.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Client, Url};
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;

use crate::limits::{MCP_CONTROL_TIMEOUT, MCP_MESSAGE_BYTES};

/// A server that sends events.
pub(super) struct OldTransport {
    client: Client,
    headers: HeaderMap,
    place: Url,
    events: Events,
}

/// Why one cannot be spoken with.
#[derive(Debug, thiserror::Error)]
pub(super) enum OldError {
    #[error("the request failed")]
    Http(#[from] reqwest::Error),
    #[error("HTTP {0}")]
    Status(u16),
    #[error("{0}")]
    Stream(&'static str),
}

impl OldTransport {
    /// Opens the stream and waits for the place.
    pub(super) async fn open(
        client: Client,
        url: Url,
        headers: HeaderMap,
    ) -> Result<Self, OldError> {
        let asked = client.get(url.clone()).headers(headers.clone());
        let response = asked.header(ACCEPT, "text/event-stream").send().await?;
        if !response.status().is_success() {
            return Err(OldError::Status(response.status().as_u16()));
        }
        let bytes = response.bytes_stream().map(|piece| piece.map(|bytes| bytes.to_vec()));
        let mut events = Events { bytes: bytes.boxed(), held: Vec::new(), seen: 0 };
        let first = events.next().await?.filter(|(kind, _)| kind == "endpoint");
        let (_, place) = first.ok_or(OldError::Stream("it names no place for messages"))?;
        let place = url.join(place.trim()).ok().filter(|place| place.origin() == url.origin());
        let place = place.ok_or(OldError::Stream("its place for messages is not its own"))?;
        Ok(Self { client, headers, place, events })
    }
}

impl Transport<RoleClient> for OldTransport {
    type Error = OldError;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), OldError>> + Send + 'static {
        let asked = self.client.post(self.place.clone()).headers(self.headers.clone());
        async move {
            // The answer comes as an event: this is only that it was taken.
            let response = asked.json(&item).timeout(MCP_CONTROL_TIMEOUT * 6).send().await?;
            match response.status() {
                status if status.is_success() => Ok(()),
                status => Err(OldError::Status(status.as_u16())),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let (kind, data) = self.events.next().await.ok()??;
            if kind == "message"
                && let Ok(message) = serde_json::from_str(&data)
            {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), OldError> {
        self.events.bytes = futures_util::stream::empty().boxed();
        Ok(())
    }
}

/// A stream of events, each within the bound.
struct Events {
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    held: Vec<u8>,
    /// Bytes in which no end of an event was found.
    seen: usize,
}

impl Events {
    /// Kind and data of the next event; nothing at the end.
    async fn next(&mut self) -> Result<Option<(String, String)>, OldError> {
        loop {
            if let Some(end) = end_of_event(&self.held, self.seen) {
                let event: Vec<u8> = self.held.drain(..end).collect();
                self.seen = 0;
                match parse(&event) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            self.seen = self.held.len().saturating_sub(3);
            let Some(piece) = self.bytes.next().await else { return Ok(None) };
            self.held.extend_from_slice(&piece?);
            if self.held.len() > MCP_MESSAGE_BYTES {
                return Err(OldError::Stream("one of its messages is too large"));
            }
        }
    }
}

/// Where the first event ends, with the empty line behind it.
fn end_of_event(held: &[u8], from: usize) -> Option<usize> {
    let ends = |at: usize| {
        let rest = &held[at..];
        let end =
            ["\n\n", "\r\n\r\n", "\n\r\n"].into_iter().find(|end| rest.starts_with(end.as_bytes()));
        end.map(|end| at + end.len())
    };
    (from..held.len()).find_map(ends)
}

/// Kind and data of an event; nothing for one without data, such as a sign of life.
fn parse(event: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(event);
    let field = |line: &str, name: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    let kind = text.lines().find_map(|line| field(line, "event"));
    let data: Vec<_> = text.lines().filter_map(|line| field(line, "data")).collect();
    (!data.is_empty()).then(|| (kind.unwrap_or_else(|| "message".to_owned()), data.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_come_whole_however_they_are_cut() {
        let text = ": hello\n\nevent: endpoint\ndata: /messages?s=1\n\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n";
        for size in 1..text.len() {
            let pieces: Vec<_> =
                text.as_bytes().chunks(size).map(|piece| Ok(piece.to_vec())).collect();
            let bytes = futures_util::stream::iter(pieces).boxed();
            let mut events = Events { bytes, held: Vec::new(), seen: 0 };
            let mut found = Vec::new();
            while let Some(event) = events.next().await.unwrap() {
                found.push(event);
            }
            let expected = [("endpoint", "/messages?s=1"), ("message", "{\"a\":\n1}")];
            let expected = expected.map(|(kind, data)| (kind.to_owned(), data.to_owned()));
            assert_eq!(found, expected, "pieces of {size}");
        }
    }
}
