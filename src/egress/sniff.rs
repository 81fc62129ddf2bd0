//! What a client says to a server that it may reach by name: is it really for that name? Pure.
//!
//! A name may share its address with others (a content network, a load balancer). So the name in a TLS hello must be the
//! one that was allowed, and in HTTP/1 every request's own. What is inside of TLS cannot be seen. Bytes are handed on
//! only once they are judged. What could not be judged any more after a change of protocol is not handed on: offers of
//! HTTP/2 are taken out of a request, and so is a plain WebSocket's, which needs TLS here.

use super::http::{self, Body, Head};
use super::tls;
use crate::environment::networking::{HostName, WEB_PORTS};
use crate::limits::EGRESS_HEAD_BYTES;

/// What stands against a client's bytes. Fits after "it was not reached:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

fn violation(text: impl Into<String>) -> Violation {
    Violation(text.into())
}

/// Where the client stands.
#[derive(Debug)]
enum State {
    /// Nothing is decided.
    Opening,
    /// Between requests, or in the head of one.
    Head,
    /// In a body that has so many bytes left.
    Body(u64),
    /// In the line that begins a chunk, or a trailer of the last.
    ChunkLine { last: bool },
    /// In a chunk and the line's end after it.
    Chunk(u64),
    /// No more is looked at.
    Opaque,
}

/// Looks at all that one client sends on one connection.
#[derive(Debug)]
pub struct Inspector {
    name: HostName,
    port: u16,
    state: State,
    /// What is not judged yet.
    held: Vec<u8>,
}

/// Longest line before a chunk, extensions included.
const CHUNK_LINE_BYTES: usize = 256;
/// Longest word that may become a method although it is no token, as lenient servers take it.
const METHOD_BYTES: usize = 32;
/// Longest line with which a client of SSH begins (RFC 4253, 4.2).
const SSH_LINE_BYTES: usize = 255;

impl Inspector {
    /// For a connection to this name.
    #[must_use]
    pub fn new(name: HostName, port: u16) -> Self {
        Self { name, port, state: State::Opening, held: Vec::new() }
    }

    /// Whether everything that follows passes: then it need not be shown.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Opaque) && self.held.is_empty()
    }

    /// Whether something was begun that is not whole.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the client's next bytes; `forward` gains those that may go on.
    ///
    /// # Errors
    /// What stands against them; nothing more may go on then.
    pub fn pass(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Result<(), Violation> {
        self.held.extend_from_slice(bytes);
        // A head ends with a line: without one, what was looked at need not be looked at again.
        let more_of_a_line = matches!(self.state, State::Head)
            && !bytes.contains(&b'\n')
            && self.held.len() <= EGRESS_HEAD_BYTES;
        if more_of_a_line {
            return Ok(());
        }
        while !self.held.is_empty() && self.step(forward)? {}
        Ok(())
    }

    /// Judges a piece; false if it needs more bytes.
    fn step(&mut self, forward: &mut Vec<u8>) -> Result<bool, Violation> {
        match self.state {
            State::Opening => match opening(&self.held, WEB_PORTS.contains(&self.port))? {
                Some(Opening::Tls) => return self.tls(),
                Some(Opening::Http) => self.state = State::Head,
                Some(Opening::Other) => self.state = State::Opaque,
                None => return Ok(false),
            },
            State::Head => return self.request(forward),
            State::Body(left) => {
                let left = left - self.forward_up_to(left, forward);
                self.state = if left == 0 { State::Head } else { State::Body(left) };
            }
            State::ChunkLine { last } => return self.chunk_line(last, forward),
            State::Chunk(left) => {
                let left = left - self.forward_up_to(left, forward);
                if left > 0 {
                    self.state = State::Chunk(left);
                    return Ok(true);
                }
                match &self.held[..self.held.len().min(2)] {
                    b"\r\n" => {
                        self.forward_up_to(2, forward);
                        self.state = State::ChunkLine { last: false };
                    }
                    b"" | b"\r" => {
                        self.state = State::Chunk(0);
                        return Ok(false);
                    }
                    _ => return Err(violation("a chunk of its body is longer than it says")),
                }
            }
            State::Opaque => {
                forward.append(&mut self.held);
            }
        }
        Ok(true)
    }

    /// Hands on at most `most` bytes of what is held; how many.
    fn forward_up_to(&mut self, most: u64, forward: &mut Vec<u8>) -> u64 {
        let count = self.held.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        forward.extend(self.held.drain(..count));
        count as u64
    }

    fn tls(&mut self) -> Result<bool, Violation> {
        let Some(hello) = tls::hello(&self.held).map_err(violation)? else { return Ok(false) };
        if hello.is_encrypted {
            return Err(violation(
                "its TLS hello is encrypted (ECH), so the server that it names cannot be seen",
            ));
        }
        match hello.server_name {
            None => Err(violation(format!(
                "its TLS hello names no server, and must name {}",
                self.name
            ))),
            Some(given) if given.parse::<HostName>().as_ref() == Ok(&self.name) => {
                self.state = State::Opaque;
                Ok(true)
            }
            Some(given) => {
                let given: String = given.chars().take(80).flat_map(char::escape_default).collect();
                Err(violation(format!("its TLS hello names `{given}`, not {}", self.name)))
            }
        }
    }

    fn request(&mut self, forward: &mut Vec<u8>) -> Result<bool, Violation> {
        let Some(head) = http::head(&self.held).map_err(violation)? else { return Ok(false) };
        self.check_host(&head)?;
        if head.method == "CONNECT" {
            return Err(violation("it asks the server for a tunnel to elsewhere (CONNECT)"));
        }
        let next = match head.body().map_err(violation)? {
            Body::Length(0) => State::Head,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkLine { last: false },
        };
        without_upgrade(&head, forward);
        let length = head.length;
        self.held.drain(..length);
        self.state = next;
        Ok(true)
    }

    fn check_host(&self, head: &Head<'_>) -> Result<(), Violation> {
        let authority = head.authority().map_err(violation)?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok()),
            None => (authority, Some(self.port)),
        };
        if port == Some(self.port) && host.parse::<HostName>().as_ref() == Ok(&self.name) {
            return Ok(());
        }
        let given: String = authority.chars().take(80).flat_map(char::escape_default).collect();
        Err(violation(format!("a request on it is for `{given}`, not {}:{}", self.name, self.port)))
    }

    fn chunk_line(&mut self, last: bool, forward: &mut Vec<u8>) -> Result<bool, Violation> {
        let bad = || violation("a chunk of its body has no proper length");
        let Some(end) = self.held.iter().position(|b| *b == b'\n') else {
            return if self.held.len() > CHUNK_LINE_BYTES { Err(bad()) } else { Ok(false) };
        };
        let line = self.held[..end].strip_suffix(b"\r").ok_or_else(bad)?;
        let clean = line.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
        if !clean || line.len() > CHUNK_LINE_BYTES {
            return Err(bad());
        }
        let next = if last {
            // Trailers pass until the empty line.
            if line.is_empty() { State::Head } else { State::ChunkLine { last: true } }
        } else {
            let digits = line.split(|b| *b == b';').next().unwrap_or_default();
            let plain = !digits.is_empty()
                && digits.len() <= 15
                && digits.iter().all(u8::is_ascii_hexdigit);
            let text = std::str::from_utf8(digits).ok().filter(|_| plain).ok_or_else(bad)?;
            match u64::from_str_radix(text, 16).map_err(|_| bad())? {
                0 => State::ChunkLine { last: true },
                length => State::Chunk(length),
            }
        };
        self.forward_up_to(end as u64 + 1, forward);
        self.state = next;
        Ok(true)
    }
}

/// The head as it came, without its offer to go on in another protocol: what follows must stay readable.
fn without_upgrade(head: &Head<'_>, forward: &mut Vec<u8>) {
    let mut text = format!("{} {} HTTP/1.{}\r\n", head.method, head.target, head.minor);
    for (name, value) in &head.fields {
        if !["upgrade", "http2-settings"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str("\r\n");
    forward.extend_from_slice(text.as_bytes());
}

enum Opening {
    Tls,
    Http,
    Other,
}

/// What a client speaks, from its first bytes. On the web's ports, only what can be judged, and SSH.
fn opening(bytes: &[u8], web: bool) -> Result<Option<Opening>, Violation> {
    const SSH: &[u8] = b"SSH-";
    if bytes[0] == tls::HANDSHAKE {
        return Ok(Some(Opening::Tls));
    }
    if bytes[0] == b'\r' || bytes[0] == b'\n' {
        return Err(violation("it begins with an empty line, which servers pass over"));
    }
    let other = || {
        if web {
            return Err(violation("it speaks neither TLS, HTTP/1 nor SSH"));
        }
        Ok(Some(Opening::Other))
    };
    let is_ssh = bytes.starts_with(SSH);
    let line = bytes.iter().position(|b| *b == b'\n').map(|end| &bytes[..end]);
    if let Some(line) = line {
        let upper = line.to_ascii_uppercase();
        let is_http = upper.windows(5).any(|five| five == b"HTTP/");
        return match (is_http, is_ssh) {
            (true, _) => Ok(Some(Opening::Http)),
            (false, true) => Ok(Some(Opening::Other)),
            (false, false) => other(),
        };
    }
    // `SSH-` also begins a method that HTTP servers take: only the whole line says which it is.
    if is_ssh {
        let fits = bytes.len() <= SSH_LINE_BYTES;
        return if fits { Ok(None) } else { Err(violation("its SSH version is too long")) };
    }
    // Without a line's end yet: whatever cannot become a request line is something else.
    let is_text = |b: &u8| *b == b'\t' || *b == b'\r' || (*b >= b' ' && *b != 0x7f);
    let word = bytes.iter().position(u8::is_ascii_whitespace).map_or(bytes, |end| &bytes[..end]);
    // Servers take methods of any length, as long as they are tokens.
    let is_method = word.len() <= METHOD_BYTES || word.iter().all(|b| http::is_token(*b));
    if !bytes.iter().all(is_text) || !is_method {
        return other();
    }
    let fits = bytes.len() <= EGRESS_HEAD_BYTES;
    if fits { Ok(None) } else { Err(violation("its first line is too long")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tls::hello_for_tests;
    use super::*;

    /// All that is handed on of `bytes`, given in pieces of `size`, and the violation if there is one.
    fn inspect(port: u16, bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), String>) {
        let mut inspector = Inspector::new("a.example".parse().unwrap(), port);
        let mut forward = Vec::new();
        for piece in bytes.chunks(size) {
            if let Err(violation) = inspector.pass(piece, &mut forward) {
                return (forward, Err(violation.to_string()));
            }
        }
        (forward, Ok(()))
    }

    /// `expected` is what is handed on, or a part of the violation.
    fn check(port: u16, bytes: &[u8], expected: Result<&[u8], &str>) {
        for size in [1, 7, bytes.len().max(1)] {
            let (forward, outcome) = inspect(port, bytes, size);
            let shown = String::from_utf8_lossy(bytes);
            match (&outcome, expected) {
                (Ok(()), Ok(expected)) => assert_eq!(forward, expected, "{shown:?} by {size}"),
                (Err(text), Err(part)) => assert!(text.contains(part), "{shown:?}: {text}"),
                other => panic!("{shown:?} by {size}: {other:?}"),
            }
        }
    }

    #[test]
    fn tls_is_for_the_name_that_was_allowed() {
        let right = hello_for_tests(&["A.example"], &[], 100);
        check(443, &[&right[..], b"more"].concat(), Ok(&[&right[..], b"more"].concat()));
        check(
            443,
            &hello_for_tests(&["b.example"], &[], 9),
            Err("names `b.example`, not a.example"),
        );
        check(443, &hello_for_tests(&["a.example.evil.example"], &[], 99), Err("not a.example"));
        check(443, &hello_for_tests(&["a.example\0.b"], &[], 99), Err("not a.example"));
        check(443, &hello_for_tests(&[], &[], 99), Err("names no server"));
        check(443, &hello_for_tests(&["a.example"], &[0xfe0d], 99), Err("encrypted (ECH)"));
        check(8443, &hello_for_tests(&["b.example"], &[], 99), Err("not a.example"));
    }

    #[test]
    fn every_request_is_for_the_name_that_was_allowed() {
        let one = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        check(80, one, Ok(one));
        check(80, &one.repeat(3), Ok(&one.repeat(3)));
        let evil = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
        check(80, evil, Err("is for `b.example`, not a.example:80"));
        check(80, &[&one[..], evil].concat(), Err("is for `b.example`"));
        let with_port = b"GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
        check(80, with_port, Ok(with_port));
        check(80, b"GET / HTTP/1.1\r\nHost: a.example:81\r\n\r\n", Err("`a.example:81`"));
        check(80, b"GET / HTTP/1.1\r\nHost: b.example#a.example\r\n\r\n", Err("not a.example"));
        check(80, b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Err("differ"));
        check(80, b"CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", Err("CONNECT"));
        check(80, b"GET / HTTP/1.0\r\n\r\n", Err("names no host"));
        check(8080, b"get / http/1.1\nHost: b.example\n\n", Err("bare line feed"));
        check(80, b"\r\nGET / HTTP/1.1\r\nHost: b.example\r\n\r\n", Err("empty line"));
    }

    #[test]
    fn bodies_hide_no_request() {
        let evil = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
        let post = |fields: &str, body: &[u8]| {
            [format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n").as_bytes(), body]
                .concat()
        };
        let inside = post("Content-Length: 35", evil);
        assert_eq!(evil.len(), 35);
        check(80, &inside, Ok(&inside));
        check(80, &[&inside[..], evil].concat(), Err("`b.example`"));
        check(80, &post("Content-Length: 0", evil), Err("`b.example`"));
        check(80, &post("Content-Length: 3\r\nTransfer-Encoding: chunked", evil), Err("both"));
        let chunked =
            post("Transfer-Encoding: chunked", b"3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\n");
        check(80, &chunked, Ok(&chunked));
        check(80, &[&chunked[..], evil].concat(), Err("`b.example`"));
        check(
            80,
            &post("Transfer-Encoding: chunked", b"3\r\nabcd\r\n"),
            Err("longer than it says"),
        );
        check(80, &post("Transfer-Encoding: chunked", b"3\nabc"), Err("no proper length"));
        check(80, &post("Transfer-Encoding: chunked", b"0x3\r\nabc"), Err("no proper length"));
        check(80, &post("Transfer-Encoding: chunked", b"-1\r\nabc"), Err("no proper length"));
        check(80, &post("Transfer-Encoding: chunked", b"\r\nabc"), Err("no proper length"));
        check(
            80,
            &post("Transfer-Encoding: chunked", b"fffffffffffffffff\r\n"),
            Err("no proper length"),
        );
    }

    #[test]
    fn an_offer_to_change_the_protocol_is_not_handed_on() {
        let asked = "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nA: b\r\n\r\n";
        check(80, asked.as_bytes(), Ok(b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\r\n\r\n"));
    }

    #[test]
    fn no_method_makes_a_request_another_protocol() {
        let evil = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
        let long = "M".repeat(METHOD_BYTES + 10);
        for (port, method) in [(443, "SSH-"), (80, "SSH-2.0-x"), (9000, "SSH-"), (9000, &long)] {
            let good = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n");
            check(port, good.as_bytes(), Ok(good.as_bytes()));
            check(port, &[good.as_bytes(), evil].concat(), Err("is for `b.example`"));
            // The method may come alone.
            for size in [method.len(), method.len() + 3] {
                let (_, outcome) = inspect(port, &[good.as_bytes(), evil].concat(), size);
                assert!(outcome.is_err(), "{method} by {size} on {port}");
            }
        }
    }

    #[test]
    fn other_protocols_pass_where_a_rule_names_their_port() {
        check(22, b"SSH-2.0-x\r\n", Ok(b"SSH-2.0-x\r\n"));
        check(443, b"SSH-2.0-x\r\n", Ok(b"SSH-2.0-x\r\n"));
        check(9418, b"0032git-upload-pack /r\0host=a", Ok(b"0032git-upload-pack /r\0host=a"));
        check(6379, b"PING\r\n", Ok(b"PING\r\n"));
        check(5432, b"\0\0\0\x08\x04\xd2\x16\x2f", Ok(b"\0\0\0\x08\x04\xd2\x16\x2f"));
        check(22, &[&b"SSH-2.0-"[..], &[b'x'; 300]].concat(), Err("SSH version is too long"));
        check(443, b"PING\r\n", Err("neither TLS, HTTP/1 nor SSH"));
        check(80, b"\0\0\0\x08", Err("neither TLS, HTTP/1 nor SSH"));
        check(6379, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err("HTTP/2 without TLS"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_and_pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
            prop_assert_eq!(inspect(80, &bytes, size), inspect(80, &bytes, 1));
            prop_assert_eq!(inspect(9000, &bytes, size), inspect(9000, &bytes, 1));
        }

        #[test]
        fn no_request_for_another_host_passes(
            before in 0_usize..4,
            host in "[a-z.:@]{0,12}",
            body in proptest::collection::vec(any::<u8>(), 0..40),
            size in 1_usize..60,
        ) {
            let good = format!("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", body.len());
            let good = [good.as_bytes(), &body].concat();
            let other = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let all = [good.repeat(before), other.into_bytes()].concat();
            let (forward, outcome) = inspect(80, &all, size);
            prop_assert_eq!(forward, good.repeat(before));
            prop_assert!(outcome.is_err());
        }
    }
}
