//! What the codes and the names of glyphs stand for where a font brings no map of its own.

use std::collections::HashMap;
use std::sync::LazyLock;

use encoding_rs::{Encoding, MACINTOSH, WINDOWS_1252};

/// The names of glyphs that fonts use, with the character of each.
const GLYPHS: &str = include_str!("glyphs.txt");

static NAMES: LazyLock<HashMap<&str, char>> = LazyLock::new(|| {
    let character = |code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    let entries = GLYPHS.split_whitespace().filter_map(|entry| entry.split_once('='));
    entries.filter_map(|(name, code)| Some((name, character(code)?))).collect()
});

/// An encoding that the format knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Standard,
    Windows,
    Mac,
    Symbol,
    Dingbats,
}

/// Standard encoding from 0xA1 on; a space is no character.
const STANDARD_HIGH: &str =
    "¡¢£⁄¥ƒ§¤'“«‹›ﬁﬂ –†‡· ¶•‚„”»…‰ ¿ `´ˆ˜¯˘˙¨ ˚¸ ˝˛ˇ—                Æ ª    ŁØŒº     æ   ı  łøœß";
/// Symbol from 0x21 on.
const SYMBOL_LOW: &str = "!∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧ∆ΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_ αβχδεφγηιϕκλµνοπθρστυϖωξψζ{|}∼";
/// Symbol from 0xA0 on.
const SYMBOL_HIGH: &str = "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…  ↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇   ∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈   ∑           〉∫⌠ ⌡         ";
/// The marks of Zapf Dingbats that lists are made with.
const DINGBATS: [(u8, char); 12] = [
    (0x33, '✓'),
    (0x34, '✔'),
    (0x35, '✕'),
    (0x36, '✖'),
    (0x48, '★'),
    (0x6c, '●'),
    (0x6e, '■'),
    (0x73, '▲'),
    (0x74, '▼'),
    (0x75, '◆'),
    (0xd4, '→'),
    (0xd5, '→'),
];

impl Known {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "StandardEncoding" => Self::Standard,
            "WinAnsiEncoding" | "PDFDocEncoding" => Self::Windows,
            "MacRomanEncoding" => Self::Mac,
            _ => return None,
        })
    }

    /// The character of a code.
    pub(super) fn character(self, code: u8) -> Option<char> {
        let of = |table: &str, first: u8| table.chars().nth(usize::from(code.checked_sub(first)?));
        let found = match (self, code) {
            (_, 0x20) => return Some(' '),
            (Self::Windows, _) => one(WINDOWS_1252, code),
            (Self::Mac, _) => one(MACINTOSH, code),
            (Self::Standard, b'\'') => Some('’'),
            (Self::Standard, b'`') => Some('‘'),
            (Self::Standard, 0x21..0x7f) => Some(char::from(code)),
            (Self::Standard, _) => of(STANDARD_HIGH, 0xa1),
            (Self::Symbol, 0..0xa0) => of(SYMBOL_LOW, 0x21),
            (Self::Symbol, _) => of(SYMBOL_HIGH, 0xa0),
            (Self::Dingbats, _) => {
                DINGBATS.iter().find(|(at, _)| *at == code).map(|(_, mark)| *mark)
            }
        };
        found.filter(|c| !c.is_control() && *c != ' ')
    }
}

/// A text of the file about itself, which says its encoding by how it begins.
pub(super) fn text(bytes: &[u8]) -> String {
    let encoding = Encoding::for_bom(bytes).map_or(WINDOWS_1252, |(encoding, _)| encoding);
    encoding.decode_with_bom_removal(bytes).0.into_owned()
}

fn one(encoding: &'static Encoding, code: u8) -> Option<char> {
    let bytes = [code];
    let (text, _) = encoding.decode_without_bom_handling(&bytes);
    text.chars().next()
}

/// The text of a glyph by its name: `eacute`, `f_i`, `uni00E9`, `a.alt`.
pub(super) fn of_name(name: &str) -> Option<String> {
    let plain = name.split('.').next().filter(|plain| !plain.is_empty())?;
    plain.split('_').map(component).collect()
}

fn component(name: &str) -> Option<String> {
    if let Some(c) = NAMES.get(name) {
        return Some(c.to_string());
    }
    let mut characters = name.chars();
    if let (Some(only), None) = (characters.next(), characters.next()) {
        return Some(only.to_string());
    }
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(digits) = name.strip_prefix("uni").filter(|digits| is_hex(digits)) {
        let units = digits
            .as_bytes()
            .chunks(4)
            .map(|unit| u16::from_str_radix(std::str::from_utf8(unit).ok()?, 16).ok());
        let units: Vec<u16> = units.collect::<Option<_>>()?;
        return (!units.is_empty()).then(|| String::from_utf16_lossy(&units));
    }
    let digits = name.strip_prefix('u').filter(|rest| (4..=6).contains(&rest.len()))?;
    let code = u32::from_str_radix(digits, 16).ok()?;
    char::from_u32(code).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_stand_for_characters() {
        let check = |known: Known, code: u8, expected: Option<char>| {
            assert_eq!(known.character(code), expected, "{known:?} {code:x}");
        };
        check(Known::Standard, b'A', Some('A'));
        check(Known::Standard, 0xae, Some('ﬁ'));
        check(Known::Standard, 0xfb, Some('ß'));
        check(Known::Standard, 0xe2, None);
        check(Known::Windows, 0x80, Some('€'));
        check(Known::Windows, 0x05, None);
        check(Known::Mac, 0x8a, Some('ä'));
        check(Known::Symbol, b'a', Some('α'));
        check(Known::Symbol, 0xb7, Some('•'));
        check(Known::Symbol, 0xe5, Some('∑'));
        check(Known::Dingbats, b'n', Some('■'));
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(of_name(name).as_deref(), expected, "{name}");
        };
        check("eacute", Some("é"));
        check("A", Some("A"));
        check("f_f_i", Some("ffi"));
        check("ffi", Some("ﬃ"));
        check("uni00E900DF", Some("éß"));
        check("u1F600", Some("😀"));
        check("a.alt", Some("a"));
        check("alpha", Some("α"));
        for unknown in ["", ".notdef", "g17", "uni", "unknown"] {
            check(unknown, None);
        }
    }
}
