//! Tool calls in few words: what a call is about, and what came of it.

use serde_json::{Map, Value};

use super::words::plural;
use crate::agent::ToolName;
use crate::clock::Timestamp;
use crate::event::{ContentBlock, Event, EventBody, Permission, text_of};
use crate::id::EventId;
use crate::limits::MAX_LINE_CHARS;

/// A call that has no result yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The `agent.tool_use` event.
    pub id: EventId,
    /// The tool, one of an MCP server as `SERVER/TOOL`.
    pub name: String,
    /// Its arguments.
    pub input: Map<String, Value>,
    /// When it was asked for, or when it started as far as that is known.
    pub since: Timestamp,
    /// Whether it has started.
    pub started: bool,
    /// Whether policy or user said no.
    pub refused: bool,
}

/// The calls without a result, in the model's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Vec<Call>);

impl Calls {
    /// Takes up what an event says of calls. Gives back the call that it ends.
    pub(super) fn apply(&mut self, event: &Event) -> Option<Call> {
        match &event.body {
            EventBody::AgentToolUse { name, input, evaluated_permission, .. } => {
                self.asked(event, name.clone(), input, *evaluated_permission)
            }
            EventBody::AgentMcpToolUse {
                mcp_server_name,
                name,
                input,
                evaluated_permission,
                ..
            } => {
                let name = format!("{mcp_server_name}/{name}");
                self.asked(event, name, input, *evaluated_permission)
            }
            EventBody::ToolStarted { tool_use_id } => {
                if let Some(call) = self.get_mut(tool_use_id) {
                    call.since = event.created_at;
                    call.started = true;
                }
                None
            }
            EventBody::UserToolConfirmation { tool_use_id, result, .. } => {
                if let Some(call) = self.get_mut(tool_use_id) {
                    call.refused = *result == crate::event::Confirmation::Deny;
                    // Before, it waited for the user: that is not its own time.
                    call.since = event.created_at;
                }
                None
            }
            body => {
                let result = body.tool_result()?;
                let at = self.0.iter().position(|call| call.id == *result.id)?;
                let ended = self.0.remove(at);
                // Calls that only read have no start mark; they waited as long as this one ran.
                for call in self.0.iter_mut().filter(|call| ended.started && !call.started) {
                    call.since = event.created_at;
                }
                Some(ended)
            }
        }
    }

    fn asked(
        &mut self,
        event: &Event,
        name: String,
        input: &Map<String, Value>,
        permission: Permission,
    ) -> Option<Call> {
        self.0.push(Call {
            id: event.id.clone(),
            name,
            input: input.clone(),
            since: event.created_at,
            started: false,
            refused: permission == Permission::Deny,
        });
        None
    }

    pub(super) fn get(&self, id: &EventId) -> Option<&Call> {
        self.0.iter().find(|call| call.id == *id)
    }

    fn get_mut(&mut self, id: &EventId) -> Option<&mut Call> {
        self.0.iter_mut().find(|call| call.id == *id)
    }

    /// Those that have started.
    pub(super) fn running(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| call.started)
    }
}

impl Call {
    /// The argument that says what the call is about. Not neutral yet.
    pub(super) fn subject(&self, workspace: Option<&str>) -> String {
        let text = |key: &str| self.input.get(key).and_then(Value::as_str);
        let path = |key: &str| text(key).map(|path| within(path, workspace).to_owned());
        let place = || match path("path") {
            Some(path) if path != "." => format!(" in {path}"),
            _ => String::new(),
        };
        let subject = match ToolName::parse(&self.name) {
            Some(ToolName::Bash) => match self.input.get("restart") {
                Some(Value::Bool(true)) => Some("restart the shell".to_owned()),
                _ => text("command").map(str::to_owned),
            },
            Some(ToolName::Read) => {
                path("file_path").map(|p| p + &self.range().unwrap_or_default())
            }
            Some(ToolName::Write | ToolName::Edit) => path("file_path"),
            Some(ToolName::Glob | ToolName::Grep) => {
                text("pattern").map(|p| p.to_owned() + &place())
            }
            Some(ToolName::WebFetch) => text("url").map(str::to_owned),
            Some(ToolName::WebSearch) => text("query").map(str::to_owned),
            None => None,
        };
        subject.unwrap_or_else(|| self.whole_input())
    }

    /// All that the call would do. Not neutral yet.
    pub(super) fn whole(&self) -> String {
        let command = match ToolName::parse(&self.name) {
            Some(ToolName::Bash) if self.input.len() == 1 => self.input.get("command"),
            _ => None,
        };
        match command.and_then(Value::as_str) {
            Some(command) => command.to_owned(),
            None => serde_json::to_string(&self.input).expect("a JSON object has string keys only"),
        }
    }

    /// The file that a `write` or an `edit` changes.
    pub(super) fn written_file(&self, workspace: Option<&str>) -> Option<String> {
        match ToolName::parse(&self.name)? {
            ToolName::Write | ToolName::Edit => {
                let path = self.input.get("file_path")?.as_str()?;
                Some(within(path, workspace).to_owned())
            }
            ToolName::Bash
            | ToolName::Read
            | ToolName::Glob
            | ToolName::Grep
            | ToolName::WebFetch
            | ToolName::WebSearch => None,
        }
    }

    fn range(&self) -> Option<String> {
        let [first, last] = self.input.get("view_range")?.as_array()?.as_slice() else {
            return None;
        };
        match (first.as_u64()?, last.as_i64()?) {
            (first, ..=0) => Some(format!(":{first}-")),
            (first, last) => Some(format!(":{first}-{last}")),
        }
    }

    fn whole_input(&self) -> String {
        let json = serde_json::to_string(&self.input).expect("a JSON object has string keys only");
        json.chars().take(MAX_LINE_CHARS).collect()
    }

    /// What came of it, in two or three words; `None` if there is nothing to say.
    pub(super) fn outcome(&self, content: &[ContentBlock], is_error: bool) -> Option<String> {
        if self.refused {
            return Some("refused".to_owned());
        }
        let text = text_of(content);
        if is_error {
            return exit_code(&text).map(|(code, _)| format!("exit {code}"));
        }
        match ToolName::parse(&self.name)? {
            ToolName::Bash => None,
            ToolName::Read | ToolName::WebFetch => match content {
                [ContentBlock::Image { .. }] => Some("image".to_owned()),
                [ContentBlock::Document { .. }] => Some("document".to_owned()),
                _ => Some(plural(text.lines().count(), "line")),
            },
            ToolName::Glob => Some(found(&text, "path")),
            ToolName::Grep => Some(found(&text, "line")),
            ToolName::WebSearch => None,
            ToolName::Write | ToolName::Edit => self.size(),
        }
    }

    /// How much a `write` or an `edit` changes.
    pub(super) fn size(&self) -> Option<String> {
        let lines = |key| Some(self.input.get(key)?.as_str()?.lines().count());
        match ToolName::parse(&self.name)? {
            ToolName::Write => Some(plural(lines("content")?, "line")),
            ToolName::Edit => Some(format!("+{} -{}", lines("new_string")?, lines("old_string")?)),
            ToolName::Bash
            | ToolName::Read
            | ToolName::Glob
            | ToolName::Grep
            | ToolName::WebFetch
            | ToolName::WebSearch => None,
        }
    }
}

fn found(text: &str, thing: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    match lines.take_while(|line| !line.eq_ignore_ascii_case("no matches")).count() {
        0 => "no matches".to_owned(),
        n => plural(n, thing),
    }
}

/// A path as seen from the workspace.
fn within<'p>(path: &'p str, workspace: Option<&str>) -> &'p str {
    let Some(rest) = workspace.and_then(|workspace| path.strip_prefix(workspace)) else {
        return path;
    };
    match rest.strip_prefix('/') {
        Some("") => ".",
        Some(inner) => inner,
        None if rest.is_empty() => ".",
        None => path,
    }
}

/// The exit code that a failed command's result names in its first or last line, and that line.
fn exit_code(text: &str) -> Option<(u32, &str)> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next()?;
    let last = lines.next_back().unwrap_or(first);
    [last, first].into_iter().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let words =
            ["exit code", "exit status", "exited with code", "exited with status", "exited with"];
        let at = words.iter().find_map(|words| Some(lower.find(words)? + words.len()))?;
        let rest = lower[at..].trim_start_matches([' ', ':', '=']);
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        Some((digits.parse().ok()?, line))
    })
}

/// The lines of a failed call that say why, without the one that names the exit code.
pub(super) fn error_lines(content: &[ContentBlock]) -> Vec<String> {
    let text = text_of(content);
    let exit_line = exit_code(&text).map(|(_, line)| line);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.filter(|line| Some(line.trim()) != exit_line).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock;

    fn call(name: &str, input: &Value) -> Call {
        Call {
            id: "sevt_1".parse().unwrap(),
            name: name.to_owned(),
            input: input.as_object().unwrap().clone(),
            since: clock::from_millis(0),
            started: true,
            refused: false,
        }
    }

    #[test]
    fn subjects() {
        let check = |name: &str, input: Value, expected: &str| {
            assert_eq!(call(name, &input).subject(Some("/w")), expected);
        };
        check("bash", json!({"command": "ls -l"}), "ls -l");
        check("bash", json!({"restart": true}), "restart the shell");
        check("bash", json!({}), "{}");
        check("read", json!({"file_path": "/w/src/a.rs"}), "src/a.rs");
        check("read", json!({"file_path": "/web/a", "view_range": [3, 9]}), "/web/a:3-9");
        check("read", json!({"file_path": "a", "view_range": [3, -1]}), "a:3-");
        check("write", json!({"file_path": "/etc/x", "content": ""}), "/etc/x");
        check("edit", json!({"file_path": 7}), r#"{"file_path":7}"#);
        check("glob", json!({"pattern": "**/*.rs", "path": "/w"}), "**/*.rs");
        check("grep", json!({"pattern": "fn main", "path": "/w/src"}), "fn main in src");
        check("weather", json!({"city": "Bern"}), r#"{"city":"Bern"}"#);
    }

    #[test]
    fn outcomes() {
        let check = |name: &str, input: Value, result: &str, is_error, expected: Option<&str>| {
            let outcome = call(name, &input).outcome(&[ContentBlock::text(result)], is_error);
            assert_eq!(outcome.as_deref(), expected, "{name} {result:?}");
        };
        check("bash", json!({}), "a\nb", false, None);
        check("bash", json!({}), "a\n[exit code: 101]", true, Some("exit 101"));
        check("bash", json!({}), "Exit code 2\nnope", true, Some("exit 2"));
        check("bash", json!({}), "it exited with status 7.", true, Some("exit 7"));
        check("bash", json!({}), "no exit code here", true, None);
        check("bash", json!({}), "", true, None);
        check("read", json!({}), "a\nb", false, Some("2 lines"));
        check("glob", json!({}), "a.rs\n", false, Some("1 path"));
        check("grep", json!({}), "no matches", false, Some("no matches"));
        check("write", json!({"content": "a\nb\n"}), "wrote 4 bytes", false, Some("2 lines"));
        check("edit", json!({"old_string": "a", "new_string": "a\nb"}), "ok", false, Some("+2 -1"));
        check("weather", json!({}), "sun", false, None);
    }

    #[test]
    fn error_lines_leave_out_the_exit_code() {
        let content = [ContentBlock::text("one\n\ntwo\n[exit code: 1]\n")];
        assert_eq!(error_lines(&content), ["one", "two"]);
    }
}
