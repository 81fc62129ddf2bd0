//! The objects that a PDF is written with, and the reader of them: for files, their content streams and their CMaps alike.

use crate::limits::{PDF_ITEMS, PDF_NESTING};

/// An object; a stream is its dictionary, whose bytes the document finds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Object {
    /// Nothing, or something that could not be read.
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    Name(Vec<u8>),
    Text(Vec<u8>),
    Array(Vec<Object>),
    Dict(Dict),
    /// The number of another object.
    Ref(u32),
    /// A word of a program: an operator.
    Word(Vec<u8>),
}

/// A dictionary; of two values under one key the last counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Dict(Vec<(Vec<u8>, Object)>);

impl Dict {
    /// What stands under the key; [`Object::Null`] if nothing does.
    pub(super) fn get(&self, key: &str) -> &Object {
        let found = self.0.iter().rev().find(|(name, _)| name == key.as_bytes());
        found.map_or(&Object::Null, |(_, value)| value)
    }
}

impl Object {
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A number that counts something, up to what fits.
    pub(super) fn count(&self) -> Option<usize> {
        let number = self.number().filter(|number| (0.0..=f64::from(u32::MAX)).contains(number))?;
        // The range was checked, and what follows the point counts nothing.
        Some(number as usize)
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => std::str::from_utf8(name).ok(),
            _ => None,
        }
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name() == Some(name)
    }
}

/// Reads objects out of bytes, from a place on.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    pub(super) at: usize,
    /// Whether `1 0 R` is another object: it is in files, and three things in a program.
    refers: bool,
    /// Items that the object which is being read may still have.
    items: usize,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\0' | b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}

fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !b"()<>[]{}/%".contains(&byte)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl<'b> Reader<'b> {
    /// For the objects of a file.
    pub(super) fn file(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at, refers: true, items: 0 }
    }

    /// For a program: a content stream or a CMap.
    pub(super) fn program(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0, refers: false, items: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                while self.peek().is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                    self.at += 1;
                }
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// Takes the word if it stands here.
    pub(super) fn take(&mut self, word: &[u8]) -> bool {
        let stands = self.bytes[self.at.min(self.bytes.len())..].starts_with(word);
        self.at += if stands { word.len() } else { 0 };
        stands
    }

    /// The next object; `None` at the end. What cannot be one is passed over.
    pub(super) fn next(&mut self) -> Option<Object> {
        self.items = PDF_ITEMS;
        self.object(PDF_NESTING)
    }

    fn object(&mut self, depth: usize) -> Option<Object> {
        loop {
            self.skip_space();
            self.items = self.items.checked_sub(1)?;
            let byte = self.peek()?;
            return Some(match byte {
                b'/' => Object::Name(self.name()),
                b'(' => Object::Text(self.text()),
                b'[' => {
                    self.at += 1;
                    Object::Array(self.array(depth.checked_sub(1)?))
                }
                b'<' if self.bytes.get(self.at + 1) == Some(&b'<') => {
                    self.at += 2;
                    Object::Dict(self.dict(depth.checked_sub(1)?))
                }
                b'<' => Object::Text(self.hex_text()),
                b'+' | b'-' | b'.' | b'0'..=b'9' => self.number(),
                byte if is_regular(byte) => self.word(),
                // A bracket that closes nothing, or braces, which only functions have.
                _ => {
                    self.at += 1;
                    continue;
                }
            });
        }
    }

    fn name(&mut self) -> Vec<u8> {
        self.at += 1;
        let mut name = Vec::new();
        while let Some(byte) = self.peek().filter(|byte| is_regular(*byte)) {
            self.at += 1;
            let code = (byte == b'#').then(|| self.bytes.get(self.at..self.at + 2)).flatten();
            match code.and_then(|code| Some(hex(code[0])? << 4 | hex(code[1])?)) {
                Some(meant) => {
                    self.at += 2;
                    name.push(meant);
                }
                None => name.push(byte),
            }
        }
        name
    }

    fn text(&mut self) -> Vec<u8> {
        self.at += 1;
        let (mut text, mut open) = (Vec::new(), 1);
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => open += 1,
                b')' if open == 1 => break,
                b')' => open -= 1,
                b'\\' => {
                    text.extend(self.escaped());
                    continue;
                }
                _ => {}
            }
            text.push(byte);
        }
        text
    }

    /// What stands after a backslash; a line's end means nothing.
    fn escaped(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => b'\x08',
            b'f' => b'\x0c',
            b'\r' => {
                self.take(b"\n");
                return None;
            }
            b'\n' => return None,
            b'0'..=b'7' => {
                let mut code = byte - b'0';
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    self.at += 1;
                    code = code.wrapping_mul(8).wrapping_add(digit - b'0');
                }
                code
            }
            other => other,
        })
    }

    fn hex_text(&mut self) -> Vec<u8> {
        self.at += 1;
        let (mut text, mut high) = (Vec::new(), None);
        while let Some(byte) = self.peek() {
            self.at += 1;
            match (hex(byte), high) {
                _ if byte == b'>' => break,
                (None, _) => {}
                (Some(digit), None) => high = Some(digit << 4),
                (Some(digit), Some(upper)) => {
                    text.push(upper | digit);
                    high = None;
                }
            }
        }
        text.extend(high);
        text
    }

    fn array(&mut self, depth: usize) -> Vec<Object> {
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.peek().is_none() || self.take(b"]") {
                return items;
            }
            let Some(item) = self.object(depth) else { return items };
            items.push(item);
        }
    }

    fn dict(&mut self, depth: usize) -> Dict {
        let mut dict = Dict::default();
        loop {
            self.skip_space();
            if self.peek().is_none() || self.take(b">>") {
                return dict;
            }
            let Some(key) = self.object(depth) else { return dict };
            // A word in the place of a key: the dictionary was never closed.
            if matches!(&key, Object::Word(word) if matches!(&word[..], b"endobj" | b"stream")) {
                self.at -= 6;
                return dict;
            }
            let Object::Name(key) = key else { continue };
            self.skip_space();
            if self.take(b">>") {
                return dict;
            }
            let Some(value) = self.object(depth) else { return dict };
            dict.0.push((key, value));
        }
    }

    fn number(&mut self) -> Object {
        let first = self.digits();
        let Some(number) = first.filter(|number| self.refers && *number > 0.0) else {
            return first.map_or(Object::Null, Object::Number);
        };
        let back = self.at;
        match self.reference(number) {
            Some(other) => other,
            None => {
                self.at = back;
                Object::Number(number)
            }
        }
    }

    /// The rest of `1 0 R`, if it stands here.
    fn reference(&mut self, number: f64) -> Option<Object> {
        let number = u32::try_from(Object::Number(number).count()?).ok()?;
        self.skip_space();
        if !self.peek()?.is_ascii_digit() {
            return None;
        }
        self.digits()?;
        self.skip_space();
        let ends = !self.bytes.get(self.at + 1).is_some_and(|byte| is_regular(*byte));
        (ends && self.take(b"R")).then_some(Object::Ref(number))
    }

    /// A number as generators write it: signs may repeat, and an exponent is no part of it.
    fn digits(&mut self) -> Option<f64> {
        let start = self.at;
        while matches!(self.peek(), Some(b'+' | b'-')) {
            self.at += 1;
        }
        let negative = self.bytes[start..self.at].contains(&b'-');
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'.' | b'-')) {
            self.at += 1;
        }
        if self.at == start {
            self.at += 1;
        }
        let written = std::str::from_utf8(&self.bytes[begin..self.at]).ok()?;
        // `1.5-3` and `1.2.3`: what stands first is what readers take.
        let end = written.find('-').unwrap_or(written.len());
        let end = written.match_indices('.').nth(1).map_or(end, |(at, _)| end.min(at));
        let number: f64 = match &written[..end] {
            "" | "." => 0.0,
            digits => digits.parse().ok()?,
        };
        Some(if negative { -number } else { number })
    }

    fn word(&mut self) -> Object {
        let start = self.at;
        while self.peek().is_some_and(is_regular) {
            self.at += 1;
        }
        match &self.bytes[start..self.at] {
            b"true" => Object::Bool(true),
            b"false" => Object::Bool(false),
            b"null" => Object::Null,
            word => Object::Word(word.to_vec()),
        }
    }

    /// Passes over the bytes of an image within a program, up to its `EI`.
    pub(super) fn skip_image(&mut self) {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let ends = |at: &usize| {
            let (before, after) = (rest[at.saturating_sub(1)], &rest[at + 2..]);
            // Bytes of an image may look like its end; what follows it is text.
            let text = |byte: &u8| is_space(*byte) || (b' '..=b'~').contains(byte);
            is_space(before)
                && after.first().is_none_or(|byte| is_space(*byte))
                && after.iter().take(12).all(text)
        };
        let found = rest.windows(2).enumerate().filter(|(_, pair)| *pair == b"EI");
        let end = found.map(|(at, _)| at).find(ends);
        self.at += end.map_or(rest.len(), |at| at + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], refers: bool) -> Vec<Object> {
        let mut reader = Reader { bytes, at: 0, refers, items: 0 };
        std::iter::from_fn(|| reader.next()).collect()
    }

    #[test]
    fn objects_are_read_as_generators_write_them() {
        let check = |bytes: &str, expected: &str| {
            assert_eq!(format!("{:?}", all(bytes.as_bytes(), true)), expected, "{bytes}");
        };
        check(
            "12 -.5 +3. --4 1.5-3",
            "[Number(12.0), Number(-0.5), Number(3.0), Number(-4.0), Number(1.5)]",
        );
        check("[1 0 R 2 3]", "[Array([Ref(1), Number(2.0), Number(3.0)])]");
        check("% a remark\ntrue null", "[Bool(true), Null]");
        check("1 0 RG", "[Number(1.0), Number(0.0), Word([82, 71])]");
        let check = |bytes: &[u8], expected: &[u8]| {
            assert_eq!(all(bytes, true), [Object::Text(expected.to_vec())]);
        };
        check(b"(a(b)\\)\\\n\\101\\n)", b"a(b))A\n");
        check(b"(never closed", b"never closed");
        check(b"<41 4 2 4>", b"ABB\x40".get(..1).map(|_| &b"AB@"[..]).unwrap());
        assert_eq!(all(b"/A#42c", true), [Object::Name(b"ABc".to_vec())]);
        assert_eq!(all(b"]]>>}", true), []);
    }

    #[test]
    fn dictionaries_end_where_they_are_cut() {
        let check = |bytes: &str, expected: Option<f64>| {
            let Some(Object::Dict(dict)) = all(bytes.as_bytes(), true).into_iter().next() else {
                panic!("{bytes}")
            };
            assert_eq!(dict.get("A").number(), expected, "{bytes}");
        };
        check("<</A 1>>", Some(1.0));
        check("<</A 1/A 2>>", Some(2.0));
        check("<</A>>", None);
        check("<</A 1 endobj 2 0 obj", Some(1.0));
        check("<</A 1 /B", Some(1.0));
        check("<< 7 /A 1>>", Some(1.0));
    }

    #[test]
    fn nesting_and_length_end() {
        let deep = "[".repeat(100_000);
        assert!(all(deep.as_bytes(), true).len() < 100_000);
        let long = format!("[{}]", "1 ".repeat(PDF_ITEMS + 10));
        let Object::Array(items) = &all(long.as_bytes(), true)[0] else { panic!("an array") };
        assert!(items.len() <= PDF_ITEMS);
    }

    #[test]
    fn an_image_in_a_program_is_passed_over() {
        let mut reader = Reader::program(b" \x00EI\xff EI\x80 \nEI Q (a) Tj");
        reader.skip_image();
        assert_eq!(reader.next(), Some(Object::Word(b"Q".to_vec())));
    }
}
