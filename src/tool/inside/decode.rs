//! Text files in their encodings: what a model reads and writes is UTF-8, what lies on the disk keeps its own.

/// How a text lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// UTF-8, perhaps with a mark.
    Utf8 {
        /// Whether it begins with a byte order mark.
        mark: bool,
    },
    /// UTF-16 with a mark, little-endian.
    Utf16Little,
    /// UTF-16 with a mark, big-endian.
    Utf16Big,
    /// One byte a character.
    Latin1,
}

impl Encoding {
    /// For the note that a reader is given; `None` for plain UTF-8.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Utf8 { .. } => None,
            Self::Utf16Little => Some("UTF-16 LE"),
            Self::Utf16Big => Some("UTF-16 BE"),
            Self::Latin1 => Some("Latin-1"),
        }
    }

    /// The text as bytes of this encoding; `None` if it has a character that the encoding lacks.
    pub(super) fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 { mark: false } => Some(text.as_bytes().to_vec()),
            Self::Utf8 { mark: true } => Some([b"\xef\xbb\xbf", text.as_bytes()].concat()),
            Self::Utf16Little => Some(units(text).flat_map(u16::to_le_bytes).collect()),
            Self::Utf16Big => Some(units(text).flat_map(u16::to_be_bytes).collect()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
        }
    }
}

fn units(text: &str) -> impl Iterator<Item = u16> {
    std::iter::once(0xfeff).chain(text.encode_utf16())
}

/// The text, and how it lay on the disk; `None` for what is no text.
pub(super) fn text(bytes: &[u8]) -> Option<(String, Encoding)> {
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return Some((String::from_utf8(rest.to_vec()).ok()?, Encoding::Utf8 { mark: true }));
    }
    for (mark, encoding) in
        [([0xff, 0xfe], Encoding::Utf16Little), ([0xfe, 0xff], Encoding::Utf16Big)]
    {
        if let Some(rest) = bytes.strip_prefix(&mark) {
            return utf16(rest, encoding).map(|text| (text, encoding));
        }
    }
    if bytes.contains(&0) {
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some((text.to_owned(), Encoding::Utf8 { mark: false })),
        Err(_) if looks_like_latin1(bytes) => {
            Some((bytes.iter().map(|b| char::from(*b)).collect(), Encoding::Latin1))
        }
        Err(_) => None,
    }
}

fn utf16(bytes: &[u8], encoding: Encoding) -> Option<String> {
    let (pairs, []) = bytes.as_chunks::<2>() else { return None };
    let unit = |pair: &[u8; 2]| match encoding {
        Encoding::Utf16Big => u16::from_be_bytes(*pair),
        Encoding::Utf8 { .. } | Encoding::Utf16Little | Encoding::Latin1 => {
            u16::from_le_bytes(*pair)
        }
    };
    let units: Vec<u16> = pairs.iter().map(unit).collect();
    String::from_utf16(&units).ok()
}

/// Old western text has no control characters, neither low nor high, and is mostly ASCII.
fn looks_like_latin1(bytes: &[u8]) -> bool {
    let control = |b: &u8| matches!(b, 0..=8 | 14..=31 | 127..=159);
    let high = bytes.iter().filter(|b| **b >= 160).count();
    !bytes.iter().any(control) && high * 3 <= bytes.len()
}

/// What a binary file is, as far as its first bytes tell.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF program or library",
        [b'P', b'K', 3 | 5, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "gzip data",
        [b'B', b'Z', b'h', ..] => "bzip2 data",
        [0xfd, b'7', b'z', b'X', ..] => "xz data",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd data",
        _ if bytes.starts_with(b"SQLite format 3") => "an SQLite database",
        _ => "a binary file",
    }
}

/// The media type of an image that a model can see.
pub(super) fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}
