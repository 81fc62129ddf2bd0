//! CMaps: what the codes of a font's strings stand for, as Unicode or as the numbers of glyphs.

use std::collections::BTreeMap;

use super::object::{Object, Reader};
use crate::limits::PDF_CMAP_ENTRIES;

/// A map from codes.
#[derive(Debug, Default)]
pub(super) struct CMap {
    /// How many bytes the codes between two have; in the order in which they are said.
    spaces: Vec<(usize, u32, u32)>,
    /// Texts by the first code of a range: the last code, and what the first stands for.
    texts: BTreeMap<u32, (u32, Vec<u16>)>,
    /// Numbers of glyphs by the first code of a range.
    glyphs: BTreeMap<u32, (u32, u32)>,
}

impl CMap {
    pub(super) fn read(program: &[u8]) -> Self {
        let mut map = Self::default();
        let mut reader = Reader::program(program);
        let mut given: Vec<Object> = Vec::new();
        while let Some(object) = reader.next() {
            let Object::Word(word) = &object else {
                given.push(object);
                // Whatever is said without a verb, nobody needs it all.
                if given.len() > PDF_CMAP_ENTRIES {
                    break;
                }
                continue;
            };
            let size = if word.ends_with(b"char") { 2 } else { 3 };
            match word.as_slice() {
                b"endcodespacerange" => given.chunks_exact(2).for_each(|pair| map.space(pair)),
                b"endbfchar" | b"endbfrange" => {
                    given.chunks_exact(size).for_each(|entry| map.text(entry));
                }
                b"endcidchar" | b"endcidrange" => {
                    given.chunks_exact(size).for_each(|entry| map.glyph(entry));
                }
                _ => {}
            }
            given.clear();
        }
        map
    }

    fn space(&mut self, pair: &[Object]) {
        /// There are four lengths, and real maps have a handful of spaces.
        const MOST: usize = 64;
        if let [Object::Text(low), Object::Text(high)] = pair
            && (1..=4).contains(&low.len())
            && self.spaces.len() < MOST
        {
            self.spaces.push((low.len(), code(low), code(high)));
        }
    }

    fn text(&mut self, entry: &[Object]) {
        match entry {
            [Object::Text(from), Object::Text(text)] => self.means(code(from), code(from), text),
            [Object::Text(from), Object::Text(to), Object::Text(text)] => {
                self.means(code(from), code(to), text);
            }
            [Object::Text(from), Object::Text(_), Object::Array(texts)] => {
                for (i, text) in (0..).zip(texts) {
                    let Object::Text(text) = text else { continue };
                    let at = code(from).saturating_add(i);
                    self.means(at, at, text);
                }
            }
            _ => {}
        }
    }

    fn means(&mut self, from: u32, to: u32, text: &[u8]) {
        if self.texts.len() < PDF_CMAP_ENTRIES {
            self.texts.insert(from, (to, units(text)));
        }
    }

    fn glyph(&mut self, entry: &[Object]) {
        let number = |object: &Object| object.count().and_then(|count| u32::try_from(count).ok());
        let (from, to, glyph) = match entry {
            [Object::Text(from), glyph] => (code(from), code(from), number(glyph)),
            [Object::Text(from), Object::Text(to), glyph] => (code(from), code(to), number(glyph)),
            _ => return,
        };
        if let Some(glyph) = glyph
            && self.glyphs.len() < PDF_CMAP_ENTRIES
        {
            self.glyphs.insert(from, (to, glyph));
        }
    }

    /// Whether it says of how many bytes its codes are.
    pub(super) fn has_spaces(&self) -> bool {
        !self.spaces.is_empty()
    }

    /// The code at the beginning of the bytes, and how many of them it has.
    pub(super) fn first(&self, bytes: &[u8]) -> (u32, usize) {
        let fits = |(length, low, high): &&(usize, u32, u32)| {
            let Some(bytes) = bytes.get(..*length) else { return false };
            // Each byte is within its own bounds.
            let bytes = code(bytes);
            (0..*length).all(|i| {
                let part = |code: u32| code >> (8 * i) & 0xff;
                (part(*low)..=part(*high)).contains(&part(bytes))
            })
        };
        let length = match self.spaces.iter().find(fits) {
            Some((length, ..)) => *length,
            None => self.spaces.iter().map(|(length, ..)| *length).min().unwrap_or(1),
        };
        let length = length.min(bytes.len());
        (code(&bytes[..length]), length)
    }

    /// What the code stands for.
    pub(super) fn unicode(&self, code: u32) -> Option<String> {
        let (from, (to, units)) = self.texts.range(..=code).next_back()?;
        if code > *to {
            return None;
        }
        let mut units = units.clone();
        let last = units.last_mut()?;
        *last = last.wrapping_add(u16::try_from(code - from).ok()?);
        Some(String::from_utf16_lossy(&units))
    }

    /// The number of the glyph.
    pub(super) fn number(&self, code: u32) -> Option<u32> {
        let (from, (to, glyph)) = self.glyphs.range(..=code).next_back()?;
        (code <= *to).then(|| glyph.saturating_add(code - from))
    }
}

/// The number that up to four bytes are.
fn code(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |code, byte| code << 8 | u32::from(*byte))
}

fn units(text: &[u8]) -> Vec<u16> {
    /// No glyph stands for a longer text.
    const MOST: usize = 64;
    match text {
        [one] => vec![u16::from(*one)],
        text => {
            let pairs = text.chunks_exact(2).take(MOST);
            pairs.map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_for_what_is_said() {
        let map = CMap::read(
            b"/CIDInit /ProcSet findresource begin begincmap\n\
            2 begincodespacerange <00> <7f> <8000> <ffff> endcodespacerange\n\
            2 beginbfchar <01> <0041> <8001> <D83DDE00> endbfchar\n\
            2 beginbfrange <10> <12> <0061> <20> <21> [<00660066> <0078>] endbfrange\n\
            1 begincidrange <8100> <81ff> 500 endcidrange endcmap",
        );
        let check = |code: u32, expected: Option<&str>| {
            assert_eq!(map.unicode(code).as_deref(), expected, "{code:x}");
        };
        check(0x01, Some("A"));
        check(0x8001, Some("😀"));
        check(0x12, Some("c"));
        check(0x13, None);
        check(0x20, Some("ff"));
        check(0x21, Some("x"));
        check(0x00, None);
        assert_eq!(map.number(0x8102), Some(502));
        assert_eq!(map.number(0x8200), None);
        assert_eq!(map.first(b"\x01\x02"), (1, 1));
        assert_eq!(map.first(b"\x80\x01\x02"), (0x8001, 2));
        assert_eq!(map.first(b"\x80"), (0x80, 1));
    }
}
