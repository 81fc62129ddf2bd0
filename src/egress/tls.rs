//! The first message of a TLS client: which server it names (RFC 8446, 6066). Pure; nothing is decrypted.

use crate::limits::EGRESS_HEAD_BYTES;

/// Why a hello is refused.
pub(super) type Problem = &'static str;

/// What a hello says of the server that it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// The name, if it gives one.
    pub(super) server_name: Option<String>,
    /// Whether the true hello is encrypted within.
    pub(super) is_encrypted: bool,
}

/// The content type of a handshake record, with which every TLS connection begins.
pub(super) const HANDSHAKE: u8 = 22;

const NO_HELLO: Problem = "it does not begin with a TLS hello";

/// Reads a hello; `None` while it is not whole.
///
/// # Errors
/// What is wrong with it.
pub(super) fn hello(bytes: &[u8]) -> Result<Option<Hello>, Problem> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(hello) = whole(&message)? {
            return parse(hello).ok_or("its TLS hello is malformed")?.map(Some);
        }
        if message.len() > EGRESS_HEAD_BYTES || bytes.len() > 2 * EGRESS_HEAD_BYTES {
            return Err("its TLS hello is too long");
        }
        let [kind, major, _, high, low, ..] = *rest else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || length == 0 || length > 1 << 14 {
            return Err(NO_HELLO);
        }
        let Some(fragment) = rest.get(5..5 + length) else { return Ok(None) };
        message.extend_from_slice(fragment);
        rest = &rest[5 + length..];
    }
}

/// The body of the hello, once it is all there.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, Problem> {
    const CLIENT_HELLO: u8 = 1;
    let [kind, a, b, c, ref body @ ..] = *message else {
        let starts_right = message.first().is_none_or(|kind| *kind == CLIENT_HELLO);
        return if starts_right { Ok(None) } else { Err(NO_HELLO) };
    };
    if kind != CLIENT_HELLO {
        return Err(NO_HELLO);
    }
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    Ok(body.get(..length))
}

/// Cuts pieces off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }

    /// A number of `width` bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A piece with its length before it.
    fn piece(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

/// `None` for what is cut short; an error for what says two things.
fn parse(body: &[u8]) -> Option<Result<Hello, Problem>> {
    const SERVER_NAME: usize = 0;
    const ENCRYPTED_HELLO: usize = 0xfe0d;
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.piece(1)?;
    reader.piece(2)?;
    reader.piece(1)?;
    let mut hello = Hello::default();
    if reader.0.is_empty() {
        return Some(Ok(hello));
    }
    let mut extensions = Reader(reader.piece(2)?);
    let mut seen = std::collections::HashSet::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let data = extensions.piece(2)?;
        if !seen.insert(kind) {
            return Some(Err("its TLS hello has an extension twice"));
        }
        match kind {
            SERVER_NAME => match server_name(data)? {
                Ok(name) => hello.server_name = Some(name),
                Err(problem) => return Some(Err(problem)),
            },
            ENCRYPTED_HELLO => hello.is_encrypted = true,
            _ => {}
        }
    }
    Some(Ok(hello))
}

fn server_name(data: &[u8]) -> Option<Result<String, Problem>> {
    const HOST_NAME: usize = 0;
    let mut outer = Reader(data);
    let mut list = Reader(outer.piece(2)?);
    let kind = list.number(1)?;
    let name = list.piece(2)?;
    if !list.0.is_empty() || !outer.0.is_empty() || kind != HOST_NAME {
        return Some(Err("its TLS hello names several servers"));
    }
    Some(std::str::from_utf8(name).map(str::to_owned).map_err(|_| "its server name is not ASCII"))
}

/// A hello for tests, in records of at most `record` bytes.
#[cfg(test)]
pub(super) fn hello_for_tests(names: &[&str], extra: &[u16], record: usize) -> Vec<u8> {
    let sized = |width: usize, data: &[u8]| {
        let length = data.len().to_be_bytes();
        [&length[length.len() - width..], data].concat()
    };
    let mut extensions = Vec::new();
    if !names.is_empty() {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [vec![0], sized(2, name.as_bytes())].concat()).collect();
        extensions.extend([vec![0, 0], sized(2, &sized(2, &list))].concat());
    }
    for kind in extra {
        extensions.extend([&kind.to_be_bytes()[..], &[0, 1, 7]].concat());
    }
    let body = [
        &[3, 3][..],
        &[9; 32],
        &sized(1, b"session"),
        &sized(2, &[0x13, 1]),
        &sized(1, &[0]),
        &sized(2, &extensions),
    ]
    .concat();
    let message = [vec![1], sized(3, &body)].concat();
    let records = message.chunks(record).map(|part| [&[22, 3, 1][..], &sized(2, part)].concat());
    records.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_that_a_hello_names() {
        let check = |bytes: &[u8], expected: Result<Option<(Option<&str>, bool)>, Problem>| {
            let read = hello(bytes);
            let read = read.as_ref().map(|hello| {
                hello.as_ref().map(|hello| (hello.server_name.as_deref(), hello.is_encrypted))
            });
            assert_eq!(read.map_err(|e| *e), expected);
        };
        let named = Ok(Some((Some("a.example"), false)));
        check(&hello_for_tests(&["a.example"], &[], 16_384), named);
        check(&hello_for_tests(&["a.example"], &[10, 43], 3), named);
        check(&hello_for_tests(&[], &[10], 16_384), Ok(Some((None, false))));
        check(
            &hello_for_tests(&["a.example"], &[0xfe0d], 16_384),
            Ok(Some((Some("a.example"), true))),
        );
        check(&hello_for_tests(&["a", "b"], &[], 99), Err("its TLS hello names several servers"));
        check(&hello_for_tests(&["a"], &[10, 10], 99), Err("its TLS hello has an extension twice"));
        check(&hello_for_tests(&["a"], &[0], 99), Err("its TLS hello has an extension twice"));
        check(b"", Ok(None));
        check(b"\x16\x03\x01", Ok(None));
        check(b"\x16\x03\x01\0\0", Err(NO_HELLO));
        check(b"\x17\x03\x01\0\x01\x01", Err(NO_HELLO));
        check(b"\x16\x03\x01\0\x01\x02", Err(NO_HELLO));
        let whole = hello_for_tests(&["a.example"], &[10], 7);
        for cut in 0..whole.len() {
            check(&whole[..cut], Ok(None));
        }
    }
}
