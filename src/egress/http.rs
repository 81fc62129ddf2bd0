//! The head of an HTTP/1 request, read as strictly as the strictest server would: what two readers could take
//! differently is refused (RFC 9112). Pure.

use crate::limits::EGRESS_HEAD_BYTES;

/// Why a request is refused. Fits after "it was refused because".
pub type Problem = &'static str;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Path, URL, `*` or authority.
    pub target: &'a str,
    /// Names and values, in order.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Bytes of the head, with its empty line.
    pub length: usize,
    /// The version's second number.
    pub minor: u8,
}

/// How the body of a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// After so many bytes.
    Length(u64),
    /// By its chunks.
    Chunked,
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Reads a head; `None` while it is not whole.
///
/// # Errors
/// What is wrong with it.
pub fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, Problem> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        // A bare line feed ends a head for some servers: it must be seen before more is waited for.
        check_lines(bytes)?;
        let fits = bytes.len() <= EGRESS_HEAD_BYTES;
        return if fits { Ok(None) } else { Err("the head of the request is too long") };
    };
    check_lines(&bytes[..end])?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "the head is not UTF-8")?;
    let mut lines = text.split("\r\n");
    let (method, target, minor) = request_line(lines.next().unwrap_or_default())?;
    let fields = lines.map(field).collect::<Result<_, _>>()?;
    Ok(Some(Head { method, target, fields, length: end + 4, minor }))
}

/// Every line ends in CR LF, and neither stands elsewhere.
fn check_lines(bytes: &[u8]) -> Result<(), Problem> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                return Err("a line ends in a bare line feed");
            }
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => {
                return Err("a carriage return stands within a line");
            }
            _ => {}
        }
    }
    Ok(())
}

fn request_line(line: &str) -> Result<(&str, &str, u8), Problem> {
    const BAD: Problem = "its first line is no request line of HTTP/1";
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        "HTTP/2.0" => return Err("it is HTTP/2 without TLS, whose requests cannot be checked"),
        _ => return Err(BAD),
    };
    let plain = |b: u8| b > b' ' && b != 0x7f;
    if method.is_empty() || !method.bytes().all(is_token) || !target.bytes().all(plain) {
        return Err(BAD);
    }
    if target.is_empty() { Err(BAD) } else { Ok((method, target, minor)) }
}

fn field(line: &str) -> Result<(&str, &str), Problem> {
    if line.starts_with([' ', '\t']) {
        return Err("a header goes on in a second line");
    }
    let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("a header's name has characters that none has");
    }
    if !value.bytes().all(is_value) {
        return Err("a header has control characters");
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

impl Head<'_> {
    /// The values of a header.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let named = self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value)
    }

    /// The one host that the request is for: of the URL and of the header, which must agree.
    ///
    /// # Errors
    /// If it names none, or several.
    pub fn authority(&self) -> Result<&str, Problem> {
        let mut hosts = self.values("host");
        let host = hosts.next().ok_or("the request names no host")?;
        if hosts.next().is_some() {
            return Err("the request has two Host headers");
        }
        match authority_of(self.target) {
            Some(authority) if !authority.eq_ignore_ascii_case(host) => {
                Err("the URL of the request and its Host header differ")
            }
            _ => Ok(host),
        }
    }

    /// How the body ends.
    ///
    /// # Errors
    /// If two servers could disagree about it.
    pub fn body(&self) -> Result<Body, Problem> {
        let lengths: Vec<_> = self.values("content-length").collect();
        let codings: Vec<_> = self.values("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Body::Length(0)),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && self.minor == 1 => {
                Ok(Body::Chunked)
            }
            ([], _) => Err("its transfer encoding is not plainly `chunked`"),
            ([length], []) => match length.parse() {
                Ok(number) if length.bytes().all(|b| b.is_ascii_digit()) => {
                    Ok(Body::Length(number))
                }
                _ => Err("its content length is no number"),
            },
            (_, []) => Err("it has two content lengths"),
            (_, _) => Err("it has both a content length and a transfer encoding"),
        }
    }
}

/// The authority of a URL, if the target of a request is one.
#[must_use]
pub fn authority_of(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/'))?;
    rest.split(['/', '?', '#']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_missing_or_refused() {
        let check = |text: &str, expected: Result<Option<(&str, &str)>, Problem>| {
            let read = head(text.as_bytes());
            let read = read.map(|head| head.map(|head| (head.method, head.target)));
            assert_eq!(read, expected, "{text:?}");
        };
        let line = "its first line is no request line of HTTP/1";
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Some(("GET", "/"))));
        check("GET / HTTP/1.1\r\nHost: a\r\n\r", Ok(None));
        check("GET / HTTP/1.1\r\nHo", Ok(None));
        check("GET / HTTP/1.1\nHost: a\n\n", Err("a line ends in a bare line feed"));
        check("GET / HTTP/1.1\r\nHost: a\n", Err("a line ends in a bare line feed"));
        check("GET / HTTP/1.1\rHost: a\r\n\r\n", Err("a carriage return stands within a line"));
        check("GET  / HTTP/1.1\r\n\r\n", Err(line));
        check("GET\t/\tHTTP/1.1\r\n\r\n", Err(line));
        check("GET / HTTP/1.2\r\n\r\n", Err(line));
        check("G(T / HTTP/1.1\r\n\r\n", Err(line));
        check("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(line));
        check("GET / HTTP/1.1\r\n a: b\r\n\r\n", Err("a header goes on in a second line"));
        check(
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            Err("a header's name has characters that none has"),
        );
        check("GET / HTTP/1.1\r\nab\r\n\r\n", Err("a header has no colon"));
        check("GET / HTTP/1.1\r\na: \0\r\n\r\n", Err("a header has control characters"));
        check(
            "PRI * HTTP/2.0\r\n\r\n",
            Err("it is HTTP/2 without TLS, whose requests cannot be checked"),
        );
        let long = "a".repeat(EGRESS_HEAD_BYTES + 1);
        check(&long, Err("the head of the request is too long"));
    }

    #[test]
    fn the_body_ends_where_everybody_thinks_it_does() {
        let check = |fields: &str, expected: Result<Body, Problem>| {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            let head = head(text.as_bytes()).unwrap().unwrap();
            assert_eq!(head.body(), expected, "{fields:?}");
        };
        let coding = "its transfer encoding is not plainly `chunked`";
        let number = "its content length is no number";
        check("A: b", Ok(Body::Length(0)));
        check("Content-Length: 7", Ok(Body::Length(7)));
        check("content-length: +7", Err(number));
        check("Content-Length: 0x7", Err(number));
        check("Content-Length: 7, 7", Err(number));
        check("Content-Length: 99999999999999999999", Err(number));
        check("Content-Length: 7\r\nContent-Length: 7", Err("it has two content lengths"));
        check("Transfer-Encoding: chunked", Ok(Body::Chunked));
        check("Transfer-Encoding: xchunked", Err(coding));
        check("Transfer-Encoding: gzip, chunked", Err(coding));
        check("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Err(coding));
        check(
            "Transfer-Encoding: chunked\r\nContent-Length: 7",
            Err("it has both a content length and a transfer encoding"),
        );
    }

    #[test]
    fn a_request_is_for_one_host() {
        let check = |target: &str, fields: &str, expected: Result<&str, Problem>| {
            let text = format!("GET {target} HTTP/1.1\r\n{fields}A: b\r\n\r\n");
            let head = head(text.as_bytes()).unwrap().unwrap();
            assert_eq!(head.authority(), expected, "{text:?}");
        };
        let differ = "the URL of the request and its Host header differ";
        check("/", "Host: a.example\r\n", Ok("a.example"));
        check("/?u=http://b.example/", "Host: a.example\r\n", Ok("a.example"));
        check("http://a.example/x", "host: A.example\r\n", Ok("A.example"));
        check("http://b.example/x", "Host: a.example\r\n", Err(differ));
        check("http://a.example@b.example", "Host: a.example\r\n", Err(differ));
        check("/", "", Err("the request names no host"));
        check("/", "Host: a\r\nhost: a\r\n", Err("the request has two Host headers"));
    }
}
