//! Paths of a tree as they are written down: any bytes, shown and stored as text.

use std::ffi::CStr;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The names from a tree's root to an entry, joined by `/`. Any bytes but NUL, as the kernel has them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RelativePath(Vec<u8>);

impl RelativePath {
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn join(&self, name: &CStr) -> Self {
        let mut joined = self.0.clone();
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(name.to_bytes());
        Self(joined)
    }

    /// A path that is seen from here, seen from the root.
    pub(super) fn below(&self, inner: &Self) -> Self {
        Self([&self.0[..], b"/", &inner.0[..]].concat())
    }

    /// The directory that holds the entry, if that is not the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..cut].to_vec()))
    }

    /// All directories on the way, innermost first.
    pub(super) fn parents(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// The names on the way, outermost first.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Bytes that are not text are written as `\xNN`, a backslash as `\\`: every path has one form and comes back.
impl Serialize for RelativePath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\\' {
                    text.push('\\');
                }
                text.push(c);
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        s.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        unescape(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a broken escape in a path"))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = more;
        } else {
            let digits = after.strip_prefix('x')?.get(..2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[3..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back() {
        for bytes in [
            &b"a/b"[..],
            b"caf\xc3\xa9",
            b"\xff\xfe/x",
            b"back\\slash",
            b"\\x41",
            b"new\nline",
            b"",
        ] {
            let path = RelativePath::of_bytes(bytes.to_vec());
            let text = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<RelativePath>(&text).unwrap(), path, "{text}");
        }
        for broken in [r#""\\x4""#, r#""\\q""#, r#""\\""#, r#""\\xzz""#] {
            assert!(serde_json::from_str::<RelativePath>(broken).is_err(), "{broken}");
        }
    }
}
