//! Calls that a model writes as text, because its server did not know its marks for them.
//!
//! Text may also quote a call, and a quoted one must not run. So a call counts only where nothing else can be meant: it
//! begins a line outside of any code fence and is the end of the answer, or it is all of the answer; it names a tool that
//! was offered; nothing is in it but a name and arguments. What may be one is held back until that is known.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::limits::MAX_TOOL_INPUT_BYTES;
use crate::provider::ToolSpec;
use crate::provider::offered::{WRAPPERS, named};
use crate::provider::repair::{Ending, arguments, unmarked};

/// What begins a call at the beginning of any line.
const MARKS: [&str; 4] = ["<tool_call>", "<function=", "[TOOL_CALLS]", "<|python_tag|>"];
/// What may begin one at the beginning of the answer.
const FIRST: [&str; 5] = ["```json", "```tool_call", "```\n", "{", "[{"];

/// Blank text that is held back before what may become a mark: it is looked at with every piece.
const BLANK_HELD: usize = 4096;

/// A call in the decoder's terms.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) json: String,
}

/// Follows the text of one answer.
#[derive(Debug)]
pub(super) struct Listener {
    tools: Arc<[ToolSpec]>,
    /// What may be a call, or the beginning of a mark.
    held: String,
    /// The held text begins with a mark.
    marked: bool,
    place: Place,
}

/// Where in the text the listener is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Something but space was shown.
    began: bool,
    within_line: bool,
    within_fence: bool,
}

impl Listener {
    /// Nothing is held back where no tools are.
    pub(super) fn new(tools: Arc<[ToolSpec]>) -> Self {
        Self { tools, held: String::new(), marked: false, place: Place::default() }
    }

    /// Takes text; what is certainly no call comes out.
    pub(super) fn hear(&mut self, text: &str) -> String {
        if self.tools.is_empty() {
            return text.to_owned();
        }
        self.held.push_str(text);
        if self.held.len() > MAX_TOOL_INPUT_BYTES {
            return self.give_up();
        }
        let mut shown = String::new();
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_str();
        while !self.marked && !rest.is_empty() {
            match self.at_mark(rest) {
                Some(true) => self.marked = true,
                Some(false) => rest = self.show_line(rest, &mut shown),
                None => break,
            }
        }
        self.held = if rest.len() == held.len() { held } else { rest.to_owned() };
        shown
    }

    /// Whether a mark comes here; unknown while it may still become one.
    fn at_mark(&self, text: &str) -> Option<bool> {
        if self.place.within_line || self.place.within_fence {
            return Some(false);
        }
        let line = text.trim_start_matches([' ', '\t', '\r']);
        if line.starts_with('\n') {
            return Some(false);
        }
        // It may become a fence, which is told by its whole beginning.
        let may_become = text.len() <= BLANK_HELD;
        if "``".starts_with(line) {
            return if may_become { None } else { Some(false) };
        }
        let first = FIRST.iter().filter(|_| !self.place.began);
        let marks = MARKS.iter().chain(first);
        let mut open = false;
        for mark in marks {
            if line.starts_with(mark) {
                return Some(true);
            }
            open |= mark.starts_with(line);
        }
        if open && may_become { None } else { Some(false) }
    }

    /// Shows text up to the end of its line; what comes after is left.
    fn show_line<'t>(&mut self, text: &'t str, shown: &mut String) -> &'t str {
        let starts_line = !self.place.within_line;
        let end = text.find('\n').map_or(text.len(), |at| at + 1);
        let (line, rest) = text.split_at(end);
        self.place.within_fence ^= starts_line && line.trim_start().starts_with("```");
        self.place.within_line = !line.ends_with('\n');
        self.place.began |= !line.trim().is_empty();
        shown.push_str(line);
        rest
    }

    /// The text has ended by itself, without calls of the server's own finding: the calls in what was held back, or the
    /// text that it is.
    pub(super) fn calls(&mut self) -> Result<Vec<Call>, String> {
        let held = std::mem::take(&mut self.held);
        if !self.marked {
            return Err(held);
        }
        let calls = Reader { tools: &self.tools }.calls(unmarked(&held));
        calls.filter(|calls| !calls.is_empty()).ok_or(held)
    }

    /// What was held back is text, and all that follows.
    pub(super) fn give_up(&mut self) -> String {
        self.marked = false;
        self.tools = [].into();
        std::mem::take(&mut self.held)
    }
}

struct Reader<'t> {
    tools: &'t [ToolSpec],
}

impl Reader<'_> {
    fn calls(&self, text: &str) -> Option<Vec<Call>> {
        if let Some(list) = text.strip_prefix("[TOOL_CALLS]") {
            return self.mistral(list.trim());
        }
        let text = text.strip_prefix("<|python_tag|>").unwrap_or(text);
        if text.starts_with("<tool_call>") {
            return self.tagged(text);
        }
        if text.starts_with("<function=") {
            return self.functions(text);
        }
        // Not even an end may be missing: it is the end that shows that all was meant.
        self.json(unfenced(text)?, Ending::Unsure)
    }

    /// `<tool_call>…</tool_call>`, as often as there are calls; the last end may be missing.
    fn tagged(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        for piece in text.split("<tool_call>").skip(1) {
            let piece = piece.trim();
            let inner = piece.strip_suffix("</tool_call>").unwrap_or(piece).trim();
            let found = match inner.starts_with("<function=") {
                true => self.functions(inner),
                false => self.json(inner, Ending::Whole),
            };
            calls.extend(found.or_else(|| self.broken(inner))?);
        }
        Some(calls)
    }

    /// Something that is meant as a call of a tool and cannot be read: the model is to hear of it, and nothing runs.
    fn broken(&self, text: &str) -> Option<Vec<Call>> {
        let (_, name) = text.strip_prefix('{')?.split_once("\"name\"")?;
        let name = name.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        let (name, _) = name.split_once('"')?;
        named(name, self.tools)?;
        // With its closing tag it would be text around a call.
        let unreadable = !text.contains("</tool_call>") && arguments(text, Ending::Whole).is_err();
        unreadable.then(|| vec![Call { name: name.to_owned(), json: text.to_owned() }])
    }

    /// One call as an object, or a list of them.
    fn json(&self, text: &str, ending: Ending) -> Option<Vec<Call>> {
        if text.starts_with('[') {
            let list: Vec<Map<String, Value>> = serde_json::from_str(text).ok()?;
            return list.into_iter().map(|call| self.object(call)).collect();
        }
        let call = arguments(text, ending).ok()?;
        self.object(call).map(|call| vec![call])
    }

    /// `{"name": …, "arguments": …}`, and `{"type": "function", "function": {…}}` around it.
    fn object(&self, mut call: Map<String, Value>) -> Option<Call> {
        if let Some(Value::Object(inner)) = call.get("function") {
            call = inner.clone();
        }
        let wrapper = WRAPPERS.iter().find(|key| call.contains_key(**key))?;
        let input = match call.remove(*wrapper)? {
            Value::Object(input) => input,
            Value::String(text) => arguments(&text, Ending::Unsure).ok()?,
            _ => return None,
        };
        let name = ["name", "function", "tool"].iter().find_map(|key| call.remove(*key))?;
        let name = name.as_str()?.to_owned();
        let known = |key: &String| ["type", "id"].contains(&key.as_str());
        let whole = named(&name, self.tools).is_some() && call.keys().all(known);
        whole.then(|| Call { name, json: Value::Object(input).to_string() })
    }

    /// `[{…}]`, or `NAME[ARGS]{…}`.
    fn mistral(&self, text: &str) -> Option<Vec<Call>> {
        let Some((name, json)) = text.split_once("[ARGS]") else {
            return self.json(text, Ending::Unsure);
        };
        let input = arguments(json, Ending::Unsure).ok()?;
        named(name.trim(), self.tools)?;
        Some(vec![Call { name: name.trim().to_owned(), json: Value::Object(input).to_string() }])
    }

    /// `<function=NAME>` with one object in it, or with `<parameter=KEY>` for each argument.
    fn functions(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (name, inner) = rest.strip_prefix("<function=")?.split_once('>')?;
            let (inner, after) = inner.split_once("</function>")?;
            let tool = named(name.trim(), self.tools)?;
            let input = match inner.trim() {
                inner if inner.starts_with('{') => arguments(inner, Ending::Unsure).ok()?,
                inner => parameters(inner, tool)?,
            };
            calls.push(Call { name: tool.name.clone(), json: Value::Object(input).to_string() });
            rest = after.trim();
        }
        Some(calls)
    }
}

/// Each value is the text between its tags, without the line breaks next to them.
fn parameters(mut text: &str, tool: &ToolSpec) -> Option<Map<String, Value>> {
    let mut input = Map::new();
    while !text.is_empty() {
        let (key, inner) = text.strip_prefix("<parameter=")?.split_once('>')?;
        let (value, after) = inner.split_once("</parameter>")?;
        // A value that holds a tag may be two values.
        if value.contains("<parameter=") {
            return None;
        }
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        tool.input_schema.get("properties")?.get(key)?;
        if input.insert(key.to_owned(), value.into()).is_some() {
            return None;
        }
        text = after.trim();
    }
    Some(input)
}

/// What is in a code fence that is all of the text, or the text without one.
fn unfenced(text: &str) -> Option<&str> {
    let Some(inner) = text.strip_prefix("```") else { return Some(text) };
    let inner = inner.strip_suffix("```")?;
    let inner =
        ["json", "tool_call"].iter().find_map(|word| inner.strip_prefix(word)).unwrap_or(inner);
    (!inner.contains("```")).then(|| inner.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listener() -> Listener {
        let schema =
            json!({"properties": {"command": {"type": "string"}, "n": {"type": "integer"}}});
        let spec =
            ToolSpec { name: "bash".to_owned(), description: String::new(), input_schema: schema };
        Listener::new([spec].into())
    }

    /// What is shown, and the calls.
    fn hear<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<String>) {
        let mut listener = listener();
        let mut shown: String = pieces.into_iter().map(|piece| listener.hear(piece)).collect();
        match listener.calls() {
            Ok(calls) => {
                let calls = calls.into_iter().map(|Call { name, json }| format!("{name} {json}"));
                (shown, calls.collect())
            }
            Err(text) => {
                shown.push_str(&text);
                (shown, Vec::new())
            }
        }
    }

    #[test]
    fn a_call_is_found_wherever_the_stream_cuts_it_and_text_stays_whole() {
        let ls = r#"bash {"command":"ls"}"#;
        let call = r#"{"name": "bash", "arguments": {"command": "ls"}}"#;
        let tagged = format!("<tool_call>\n{call}\n</tool_call>");
        for (text, shown, calls) in [
            (tagged.clone(), "", vec![ls]),
            (format!("I look.\n{tagged}\n"), "I look.\n", vec![ls]),
            (format!("{tagged}{tagged}"), "", vec![ls, ls]),
            (format!("```json\n{call}\n```"), "", vec![ls]),
            (call.to_owned(), "", vec![ls]),
            ("hello\nworld".to_owned(), "hello\nworld", vec![]),
            (format!("say {tagged}"), &*format!("say {tagged}"), vec![]),
            (format!("```\n{tagged}\n```\n"), &*format!("```\n{tagged}\n```\n"), vec![]),
            (format!("a\n```\n{tagged}"), &*format!("a\n```\n{tagged}"), vec![]),
            (format!("{tagged} and so on"), &*format!("{tagged} and so on"), vec![]),
            ("<".to_owned(), "<", vec![]),
            ("  ".to_owned(), "  ", vec![]),
        ] {
            let whole = hear([text.as_str()]);
            let calls: Vec<String> = calls.into_iter().map(str::to_owned).collect();
            assert_eq!(whole, (shown.to_owned(), calls), "{text}");
            for (at, _) in text.char_indices() {
                let (head, tail) = text.split_at(at);
                assert_eq!(hear([head, tail]), whole, "{text:?} cut at {at}");
            }
        }
    }

    #[test]
    fn no_more_is_held_back_than_a_call_can_have() {
        for begins in ["<tool_call>{", "\n"] {
            let mut listener = listener();
            let piece = "\n".repeat(1024 * 1024);
            let mut shown = listener.hear(begins).len();
            for _ in 0..5 {
                shown += listener.hear(&piece).len();
            }
            assert_eq!(shown, begins.len() + 5 * piece.len(), "{begins:?}");
            assert!(listener.held.is_empty());
        }
    }

    #[test]
    fn text_that_is_no_call_is_not_held_back() {
        let mut listener = listener();
        assert_eq!(listener.hear("I think"), "I think");
        assert_eq!(listener.hear(" that <tool"), " that <tool");
        assert_eq!(listener.hear("\n<to"), "\n");
        assert_eq!(listener.hear("ol>"), "<tool>");
        assert_eq!(Listener::new([].into()).hear("<tool_call>"), "<tool_call>");
    }
}
