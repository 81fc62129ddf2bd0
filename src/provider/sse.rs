//! Event-stream bytes to events, in any pieces. Knows nothing of what the events mean.
//!
//! Follows the WHATWG event-stream grammar: CRLF, LF or CR end a line, a byte order mark may come first, `data` lines
//! join with newlines, an event without data is dropped. `id` and `retry` are ignored: a model's answer cannot be resumed.

use crate::limits::MAX_SSE_LINE_BYTES;

/// One thing that the stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseEvent {
    /// An event with data.
    Message {
        /// The `event` field; empty if absent.
        event: String,
        /// The `data` lines, joined by newlines.
        data: String,
    },
    /// A comment: the server says that it lives.
    Comment,
}

/// A line or an event outgrew [`MAX_SSE_LINE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {MAX_SSE_LINE_BYTES} bytes")]
pub struct SseTooLarge;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The state between two pieces.
#[derive(Debug, Default)]
pub struct SseDecoder {
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    past_first_line: bool,
}

impl SseDecoder {
    /// Takes the next piece and returns the events that it completes.
    ///
    /// # Errors
    /// When a line or an event is too large. The decoder is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, SseTooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|&b| b == b'\n' || b == b'\r') {
            self.extend_line(&rest[..end])?;
            let cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            events.extend(self.end_line()?);
        }
        self.extend_line(rest)?;
        Ok(events)
    }

    /// The event that the end of the stream left without its blank line, if it has data. The grammar says to drop it;
    /// only a caller that recognises a closing mark in it may believe it.
    #[must_use]
    pub fn into_tail(mut self) -> Option<SseEvent> {
        match self.end_line().ok()? {
            Some(message @ SseEvent::Message { .. }) => Some(message),
            Some(SseEvent::Comment) | None => self.dispatch(),
        }
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseTooLarge> {
        if self.line.len() + bytes.len() > MAX_SSE_LINE_BYTES {
            return Err(SseTooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseTooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.past_first_line, true) && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        if line.is_empty() {
            self.line = line;
            return Ok(self.dispatch());
        }
        let (field, value) = match line.iter().position(|&b| b == b':') {
            Some(0) => return Ok(Some(SseEvent::Comment)),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event = value.to_vec(),
            b"data" => {
                if self.data.len() + value.len() + 1 > MAX_SSE_LINE_BYTES {
                    return Err(SseTooLarge);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            _ => {}
        }
        line.clear();
        self.line = line;
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = lossy(std::mem::take(&mut self.event));
        let data = lossy(std::mem::take(&mut self.data));
        std::mem::take(&mut self.has_data).then_some(SseEvent::Message { event, data })
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(event: &str, data: &str) -> SseEvent {
        SseEvent::Message { event: event.into(), data: data.into() }
    }

    fn decode(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut decoder = SseDecoder::default();
        pieces.iter().flat_map(|piece| decoder.feed(piece).expect("within bounds")).collect()
    }

    #[test]
    fn the_grammar_case_by_case() {
        let cases: &[(&str, &[SseEvent])] = &[
            ("data: a\n\n", &[message("", "a")]),
            ("data:a\r\n\r\n", &[message("", "a")]),
            ("data: a\r\r", &[message("", "a")]),
            ("data: a\r\n\n", &[message("", "a")]),
            ("data:  a\n\n", &[message("", " a")]),
            ("data: a\ndata: b\n\n", &[message("", "a\nb")]),
            ("data\n\n", &[message("", "")]),
            ("data:\ndata:\n\n", &[message("", "\n")]),
            ("event: ping\ndata: {}\n\n", &[message("ping", "{}")]),
            ("event: ping\n\ndata: x\n\n", &[message("", "x")]),
            (": hello\n\n:\n\n", &[SseEvent::Comment, SseEvent::Comment]),
            ("\u{feff}data: a\n\n", &[message("", "a")]),
            ("data: \u{feff}a\n\n", &[message("", "\u{feff}a")]),
            ("id: 1\nretry: 5\nwhat: x\ndata: a\n\n", &[message("", "a")]),
            ("data: never finished\n", &[]),
            ("\n\n\n", &[]),
        ];
        for (given, expected) in cases {
            assert_eq!(decode(&[given.as_bytes()]), *expected, "{given:?}");
        }
    }

    #[test]
    fn the_tail_is_what_lacks_its_blank_line() {
        for (given, tail) in [
            ("data: [DONE]", Some(message("", "[DONE]"))),
            ("data: [DONE]\n", Some(message("", "[DONE]"))),
            ("data: a\n\n", None),
            ("data: a\n\n: comment", None),
        ] {
            let mut decoder = SseDecoder::default();
            decoder.feed(given.as_bytes()).expect("within bounds");
            assert_eq!(decoder.into_tail(), tail, "{given:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters() {
        assert_eq!(decode(&[b"data: \xff\n\n"]), [message("", "\u{fffd}")]);
    }

    #[test]
    fn an_endless_line_or_event_is_refused() {
        let piece = vec![b'x'; 1024 * 1024];
        let mut decoder = SseDecoder::default();
        assert!((0..17).any(|_| decoder.feed(&piece).is_err()), "one line");
        let mut event = b"data: ".to_vec();
        event.extend_from_slice(&piece);
        event.push(b'\n');
        let mut decoder = SseDecoder::default();
        assert!((0..17).any(|_| decoder.feed(&event).is_err()), "many lines of one event");
    }

    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"data: ".to_vec()),
            Just(b"event:".to_vec()),
            Just(b":".to_vec()),
            Just(BOM.to_vec()),
            Just("☃é".as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec(fragment(), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream = parts.concat();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&pieces), decode(&[&stream]));
        }
    }
}
