//! Objects as models write them that have read more Python and JavaScript than JSON. Pure.
//!
//! Whatever can be read in two ways is not read at all: what comes of it runs.

use serde_json::{Map, Number, Value};

/// Objects and lists within each other that are followed: no honest arguments have more.
const DEPTH: usize = 64;

/// Reads one whole object, besides JSON with:
/// * strings in single quotes, and in three quotes if there is no backslash in them;
/// * `True`, `False` and `None`;
/// * names as keys without quotes;
/// * a comma before a closing bracket;
/// * raw control characters within strings;
/// * backslashes that JSON knows no meaning for, in a string that has no others: they stand for themselves.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    let mut reader = Reader { rest: text.trim() };
    match reader.value(DEPTH)? {
        Value::Object(map) if reader.rest.is_empty() => Some(map),
        _ => None,
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Whether that comes next; it is passed then.
    fn passes(&mut self, word: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.space();
        let value = match self.rest.as_bytes().first()? {
            b'{' => self.map(depth)?,
            b'[' => self.list(depth)?,
            b'"' | b'\'' => Value::String(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            _ => match self.word() {
                "true" | "True" => Value::Bool(true),
                "false" | "False" => Value::Bool(false),
                "null" | "None" => Value::Null,
                _ => return None,
            },
        };
        Some(value)
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        let mut map = Map::new();
        self.passes("{");
        while !self.passes("}") {
            let key = self.key()?;
            if !self.passes(":") {
                return None;
            }
            let value = self.value(depth)?;
            // Of two values for one key nobody knows which is meant.
            if map.insert(key, value).is_some() {
                return None;
            }
            self.separates("}")?;
        }
        Some(Value::Object(map))
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut list = Vec::new();
        self.passes("[");
        while !self.passes("]") {
            list.push(self.value(depth)?);
            self.separates("]")?;
        }
        Some(Value::Array(list))
    }

    /// A comma, or the end before which none is needed.
    fn separates(&mut self, end: &str) -> Option<()> {
        (self.passes(",") || self.rest.starts_with(end)).then_some(())
    }

    fn key(&mut self) -> Option<String> {
        self.space();
        match self.rest.as_bytes().first()? {
            b'"' | b'\'' => self.string(),
            _ => Some(self.word().to_owned()).filter(|word| !word.is_empty()),
        }
    }

    fn word(&mut self) -> &'t str {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !plain(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Option<Value> {
        let within = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let end = self.rest.find(|c| !within(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        number.parse::<Number>().ok().map(Value::Number)
    }

    fn string(&mut self) -> Option<String> {
        for quotes in ["\"\"\"", "'''"] {
            if let Some(inner) = self.rest.strip_prefix(quotes) {
                let (text, rest) = inner.split_once(quotes)?;
                self.rest = rest;
                return (!text.contains('\\')).then(|| text.to_owned());
            }
        }
        let quote = self.rest.chars().next()?;
        let mut out = String::new();
        let mut escapes = Escapes::default();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => escapes.read(&mut chars, quote, &mut out)?,
                c if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return escapes.agree().then_some(out);
                }
                c => out.push(c),
            }
        }
        None
    }
}

/// Which escapes a string has: one that JSON does not know shows that its writer did not mean the others either.
#[derive(Default)]
struct Escapes {
    known: bool,
    unknown: bool,
}

impl Escapes {
    fn read(
        &mut self,
        chars: &mut std::str::CharIndices<'_>,
        quote: char,
        out: &mut String,
    ) -> Option<()> {
        let (_, c) = chars.next()?;
        let plain = match c {
            // To a shell this is a quote too, and another one: it is not guessed which was meant.
            '\'' if quote == '"' => return None,
            '"' | '\'' => {
                out.push(c);
                return Some(());
            }
            '\\' | '/' => Some(c),
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'u' => Some(unicode(chars)?),
            _ => None,
        };
        match plain {
            Some(plain) => {
                self.known = true;
                out.push(plain);
            }
            None => {
                self.unknown = true;
                out.extend(['\\', c]);
            }
        }
        Some(())
    }

    fn agree(&self) -> bool {
        !(self.known && self.unknown)
    }
}

/// Four digits, and four more where one character takes two of them.
fn unicode(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let mut unit = || {
        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
        u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4)
    };
    let first = unit()?;
    if !(0xd800..0xe000).contains(&first) {
        return char::from_u32(first.into());
    }
    let begins =
        chars.next().is_some_and(|(_, c)| c == '\\') && chars.next().is_some_and(|(_, c)| c == 'u');
    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
    let second = u16::from_str_radix(&digits, 16).ok().filter(|_| begins)?;
    char::decode_utf16([first, second]).next()?.ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Option<&Value>) {
        assert_eq!(object(text).map(Value::Object).as_ref(), expected, "{text}");
    }

    #[test]
    fn what_is_read() {
        for (text, expected) in [
            ("{}", json!({})),
            ("{'a': 'b'}", json!({"a": "b"})),
            (r#"{'a': 'it\'s "so"'}"#, json!({"a": "it's \"so\""})),
            ("{'a': True, 'b': False, 'c': None}", json!({"a": true, "b": false, "c": null})),
            ("{a: [1, -2.5, 'x',],}", json!({"a": [1, -2.5, "x"]})),
            ("{\"a\": \"x\ny\"}", json!({"a": "x\ny"})),
            ("{\"a\": \"\"\"x \"y\"\nz\"\"\"}", json!({"a": "x \"y\"\nz"})),
            (r#"{"a": "\d+\s\"x\""}"#, json!({"a": "\\d+\\s\"x\""})),
            (r#"{'a': '\u00e9\ud83d\ude00'}"#, json!({"a": "é😀"})),
        ] {
            check(text, Some(&expected));
        }
    }

    #[test]
    fn what_could_mean_two_things_is_not_read() {
        for text in [
            "",
            "{",
            "[1]",
            "{'a': 'it's'}",
            "{'a': 1, 'a': 2}",
            "{'a' 1}",
            "{'a': 1 'b': 2}",
            "{,}",
            "{'a': ,}",
            "{'a': b}",
            "{'a': 1} x",
            "{'a': '\\",
            r#"{"a": "echo 'it'\''s'"}"#,
            r#"{"a": "\d+\b"}"#,
            r#"{"a": "\d+\n"}"#,
            r"{'a': '\ud83d'}",
            r"{'a': '\u12'}",
            "{'a': 0x10}",
            "{a: `x`}",
            "{\"a\": \"\"\"x\\n\"\"\"}",
        ] {
            check(text, None);
        }
        check(&"{'a':".repeat(10_000), None);
    }

    proptest! {
        #[test]
        fn json_means_here_what_it_means_there(text in ".{0,20}", number in any::<i64>()) {
            let value = json!({"text": text, "list": [number, null, {"x": true}], "z": 0.5});
            for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(object(&json).map(Value::Object), Some(value.clone()));
            }
        }

        #[test]
        fn no_text_panics(text in r#"[{}\[\]'":,\\ua1Tru☃ ]{0,40}"#) {
            let begins = text.trim_start().starts_with('{');
            prop_assert!(object(&text).is_none() || begins);
        }
    }
}
