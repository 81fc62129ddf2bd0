//! The text of tool arguments to a JSON object, with only such repairs as cannot change what the model said.
//!
//! Whatever no repair makes whole is [`BadInput`]: an answer for the model, never a guess that runs.

use serde_json::{Map, Value};

use super::literal;

/// Arguments that must not run. Its display is meant for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}. The arguments were: {raw_excerpt}")]
pub struct BadInput {
    /// What is wrong, as a sentence without its full stop.
    pub reason: String,
    /// The beginning of what the model wrote.
    pub raw_excerpt: String,
}

/// Characters of broken arguments that the model is shown of its own words.
const EXCERPT_CHARS: usize = 300;

impl BadInput {
    pub(crate) fn new(reason: impl Into<String>, raw: &str) -> Self {
        Self { reason: reason.into(), raw_excerpt: excerpt(raw, EXCERPT_CHARS) }
    }
}

/// The first `chars` characters, with a mark where more was left out.
pub(crate) fn excerpt(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether the model is known to have finished the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ended by itself: brackets that it forgot may be added.
    Whole,
    /// Something else may have cut it: no bracket is added.
    Unsure,
}

/// Reads arguments. Nothing at all, and `null`, mean no arguments.
///
/// The repairs, and why each is safe:
/// * a code fence around the object is markup, not content, and so are the marks with which models end a call;
/// * a JSON string that holds an object is that object, quoted once too often, or twice;
/// * a raw newline, tab or other control character within a string can only mean itself;
/// * a comma before a closing bracket adds no value;
/// * missing closing brackets at the very end, when the model ended by itself, outside of any string and not within a
///   number or word: every key and value that it wrote is whole;
/// * what `literal` reads is written as other languages write the same object.
///
/// # Errors
/// When the text is no JSON object even so.
pub fn arguments(raw: &str, ending: Ending) -> Result<Map<String, Value>, BadInput> {
    let text = unfence(unmarked(raw));
    if text.is_empty() {
        return Ok(Map::new());
    }
    let first = match parse(text) {
        Ok(value) => return object(value, raw),
        Err(error) => error,
    };
    let tidy = tidied(text);
    let closed = (ending == Ending::Whole).then(|| close(&tidy)).flatten();
    for candidate in [Some(tidy), closed].into_iter().flatten() {
        if let Ok(value @ Value::Object(_)) = parse(&candidate) {
            return object(value, raw);
        }
    }
    if let Some(map) = literal::object(text) {
        return Ok(map);
    }
    Err(BadInput::new(format!("The arguments are not valid JSON: {first}"), raw))
}

fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

fn object(value: Value, raw: &str) -> Result<Map<String, Value>, BadInput> {
    let kind = match value {
        Value::Object(map) => return Ok(map),
        Value::Null => return Ok(Map::new()),
        Value::String(inner) => match quoted_again(inner) {
            Some(map) => return Ok(map),
            None => "a string",
        },
        Value::Array(_) => "an array",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a boolean",
    };
    Err(BadInput::new(format!("The arguments must be a JSON object, not {kind}"), raw))
}

/// The object within a string, and within a string in that.
fn quoted_again(mut text: String) -> Option<Map<String, Value>> {
    for _ in 0..2 {
        match parse(text.trim()).ok()? {
            Value::Object(map) => return Some(map),
            Value::String(inner) => text = inner,
            _ => return None,
        }
    }
    None
}

/// How chat templates end a call or an answer; outside of any string this is never a part of arguments.
const END_MARKS: [&str; 9] = [
    "</tool_call>",
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<end_of_turn>",
];

/// Without space and marks around it.
pub(crate) fn unmarked(text: &str) -> &str {
    let space = |c: char| c.is_whitespace() || c == '\u{feff}' || c == '\u{200b}';
    let mut text = text.trim_matches(space);
    while let Some(shorter) = END_MARKS.iter().find_map(|mark| text.strip_suffix(mark)) {
        text = shorter.trim_end_matches(space);
    }
    text
}

fn unfence(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let Some(inner) = inner else { return text };
    let inner = inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    inner.trim()
}

/// Follows JSON text far enough to know its brackets and strings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    began: bool,
    broken: bool,
}

impl Shape {
    pub(crate) fn feed(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.step(byte));
    }

    fn step(&mut self, byte: u8) {
        self.began |= !byte.is_ascii_whitespace();
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.open.push(b'}'),
            b'[' => self.open.push(b']'),
            b'}' | b']' => self.broken |= self.open.pop() != Some(byte),
            _ => {}
        }
    }

    /// Whether nothing but space came yet.
    pub(crate) fn is_blank(&self) -> bool {
        !self.began
    }

    /// Whether every bracket and string that was opened is closed, and something was opened at all.
    pub(crate) fn is_whole(&self) -> bool {
        self.began && !self.in_string && !self.broken && self.open.is_empty()
    }
}

/// Escapes control characters within strings and drops commas before closing brackets.
fn tidied(text: &str) -> String {
    let mut shape = Shape::default();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let in_string = shape.in_string;
        match c {
            '\n' if in_string => out.push_str("\\n"),
            '\r' if in_string => out.push_str("\\r"),
            '\t' if in_string => out.push_str("\\t"),
            c if in_string && c.is_ascii_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            '}' | ']' if !in_string => {
                drop_trailing_comma(&mut out);
                out.push(c);
            }
            c => out.push(c),
        }
        let mut utf8 = [0; 4];
        shape.feed(c.encode_utf8(&mut utf8));
    }
    out
}

fn drop_trailing_comma(out: &mut String) {
    if let Some(before) = out.trim_end().strip_suffix(',') {
        out.truncate(before.len());
    }
}

/// Adds the closing brackets that are missing at the end, if nothing but they can be missing.
fn close(text: &str) -> Option<String> {
    let mut shape = Shape::default();
    shape.feed(text);
    if shape.in_string || shape.broken || shape.open.is_empty() {
        return None;
    }
    // After a comma another value was meant, so what is there is not all.
    let mut out = text.trim_end().to_owned();
    if !out.ends_with(['"', '}', ']']) {
        return None;
    }
    out.extend(shape.open.iter().rev().map(|&b| char::from(b)));
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(raw: &str, ending: Ending, expected: Option<&Value>) {
        let got = arguments(raw, ending).ok().map(Value::Object);
        assert_eq!(got.as_ref(), expected, "{raw:?} {ending:?}");
    }

    #[test]
    fn what_is_repaired_and_what_is_not() {
        use Ending::{Unsure, Whole};
        let a = || Some(json!({"a": 1}));
        let s = || Some(json!({"a": "x\n\ty"}));
        for (raw, ending, expected) in [
            ("", Unsure, Some(json!({}))),
            ("  \n", Unsure, Some(json!({}))),
            ("null", Unsure, Some(json!({}))),
            (r#"{"a":1}"#, Unsure, a()),
            (r#" {"a":1,} "#, Unsure, a()),
            ("```json\n{\"a\":1}\n```", Unsure, a()),
            ("```{\"a\":1}```", Unsure, a()),
            (r#""{\"a\":1}""#, Unsure, a()),
            ("{\"a\":\"x\n\ty\"}", Unsure, s()),
            (r#"{"a":[1,2,],}"#, Unsure, Some(json!({"a": [1, 2]}))),
            (r#"{"a":",}"}"#, Unsure, Some(json!({"a": ",}"}))),
            (r#"{"a":"b""#, Whole, Some(json!({"a": "b"}))),
            (r#"{"a":["b""#, Whole, Some(json!({"a": ["b"]}))),
            (r#"{"a":{"b":"c"}"#, Whole, Some(json!({"a": {"b": "c"}}))),
            // Cut by something else than the model's own end.
            (r#"{"a":"b""#, Unsure, None),
            // Cut within a string, a number, a word or before a value: more may have been meant.
            (r#"{"a":"b"#, Whole, None),
            (r#"{"a":1"#, Whole, None),
            (r#"{"a":tru"#, Whole, None),
            (r#"{"a":"#, Whole, None),
            (r#"{"a""#, Whole, None),
            (r#"{"a":["b","#, Whole, None),
            ("{", Whole, None),
            (r#"{"a":1}}"#, Whole, None),
            (r#"{"a":1}{"a":2}"#, Whole, None),
            ("[1]", Whole, None),
            ("\"ls\"", Whole, None),
            ("ls -la", Whole, None),
            ("{'a':1}", Unsure, a()),
            ("{\"a\":1}\n</tool_call><|im_end|>", Unsure, a()),
            (r#""\"{\\\"a\\\":1}\"""#, Unsure, a()),
            ("{'a':'b'", Whole, None),
            (r#"{"a":]"#, Whole, None),
        ] {
            check(raw, ending, expected.as_ref());
        }
    }

    #[test]
    fn the_reason_shows_the_model_its_own_words_within_bounds() {
        let bad = arguments(&format!("{{\"a\": {}", "x".repeat(10_000)), Ending::Whole);
        let text = bad.unwrap_err().to_string();
        assert!(text.starts_with("The arguments are not valid JSON: "), "{text}");
        assert!(text.len() < 600, "{}", text.len());
    }

    proptest! {
        #[test]
        fn an_honest_object_survives_unchanged(text in "[ -~\n☃]{0,30}", number in any::<i64>()) {
            let value = json!({"text": text, "list": [number, null, {"x": true}]});
            for raw in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(arguments(&raw, Ending::Unsure).map(Value::Object), Ok(value.clone()));
            }
        }

        #[test]
        fn a_cut_object_is_never_repaired_when_unsure(text in "[a-z\"\\\\{}]{0,12}", cut in any::<prop::sample::Index>()) {
            let whole = json!({"command": text, "n": 5}).to_string();
            let at = 1 + cut.index(whole.len() - 1);
            prop_assert!(arguments(&whole[..at], Ending::Unsure).is_err());
        }

        #[test]
        fn no_text_panics(raw in ".{0,60}") {
            let parsed = arguments(&raw, Ending::Whole);
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
