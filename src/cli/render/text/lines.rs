//! The lines of talk, as text: what each says and how it looks. Every word of a stranger is neutral here.

use crate::cli::failure::{NO_SANDBOX_HINT, allow_all};
use crate::cli::render::calls::{self, Call};
use crate::cli::render::words::{count, duration, millis_between, plural};
use crate::cli::render::{Outcome, Settings, Tally};
use crate::cli::terminal::{Look, Paint, columns, neutralise, one_line};
use crate::clock::Timestamp;
use crate::environment::Tier;
use crate::event::{ContentBlock, ErrorDetail, RefusalDetails, RetryStatus, Summarised};
use crate::id::{EventId, SessionId};
use crate::limits::MAX_LINE_CHARS;
use crate::runtime::{Changes, narrowest, on_one_line, was_set_aside};

use super::doing::Label;

/// Columns for a line that goes to a file.
const PLAIN_WIDTH: usize = 160;
/// A call's subject is not cut below this, however narrow the terminal.
const MIN_SUBJECT: usize = 12;
/// Lines shown of a failed call's result.
const ERROR_LINES: usize = 3;
/// Shown of a call that waits for permission: more than a page is read by nobody.
const WAITING_BYTES: usize = 4_000;
/// Longest rule that is offered: a longer one is for this call alone.
const RULE_BYTES: usize = 120;
/// Files named in the summary.
const FILES_NAMED: usize = 5;
/// The spinner, one frame for each tenth of a second.
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Makes the lines.
pub(super) struct Lines {
    paint: Paint,
    width: usize,
    program: String,
    workspace: Option<String>,
}

impl Lines {
    pub(super) fn new(paint: Paint, settings: &Settings) -> Self {
        let on_terminal = settings.facts.stderr_is_tty;
        let width = if on_terminal { usize::from(settings.facts.width) } else { PLAIN_WIDTH };
        let (program, workspace) = (settings.program.clone(), settings.workspace.clone());
        Self { paint, width: width.max(20), program, workspace }
    }

    fn dim(&self, text: &str) -> String {
        self.paint.paint(Look::Dim, text)
    }

    /// What a call is about, on one line.
    pub(super) fn subject(&self, call: &Call) -> String {
        one_line(&call.subject(self.workspace.as_deref()), self.width)
    }

    /// A call with its result: `● bash  cargo test  1.2s`, and the first lines of an error.
    pub(super) fn call(
        &self,
        call: Option<&Call>,
        ended: Timestamp,
        content: &[ContentBlock],
        is_error: bool,
    ) -> Option<String> {
        let name = one_line(call.map_or("tool", |call| &call.name), self.width);
        let outcome = call.and_then(|call| call.outcome(content, is_error)).unwrap_or_default();
        let refused = call.is_some_and(|call| call.refused);
        let time = match call {
            Some(call) if !refused => duration(millis_between(call.since, ended)),
            _ => String::new(),
        };
        let taken = 2 + columns(&name).max(5) + 2 + columns(&outcome) + columns(&time) + 4;
        let room = self.width.saturating_sub(taken).max(MIN_SUBJECT);
        let subject = call.map_or_else(String::new, |call| call.subject(self.workspace.as_deref()));
        let padding = " ".repeat(5_usize.saturating_sub(columns(&name)));
        let (mark, look) = if is_error { ("✗", Look::Bad) } else { ("●", Look::Good) };
        let outcome_look = if is_error { Look::Bad } else { Look::Dim };
        let parts =
            [one_line(&subject, room), self.paint.paint(outcome_look, &outcome), self.dim(&time)];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let (mark, name) = (self.paint.paint(look, mark), self.paint.paint(Look::Bold, &name));
        let mut text = format!("{mark} {name}{padding}  {}\n", parts.join("  "));
        if is_error {
            text.push_str(&self.error_lines(content));
        }
        Some(text)
    }

    fn error_lines(&self, content: &[ContentBlock]) -> String {
        let lines = calls::error_lines(content);
        let shown = lines.iter().take(ERROR_LINES);
        let mut text: String = shown.map(|line| self.aside(line)).collect();
        if let Some(more @ 1..) = lines.len().checked_sub(ERROR_LINES) {
            text.push_str(&self.aside(&format!("… {}", plural(more, "more line"))));
        }
        text
    }

    /// A dim line under another, its own indentation kept.
    fn aside(&self, line: &str) -> String {
        let body = line.trim_start();
        let depth = columns(&neutralise(&line[..line.len() - body.len()])).min(8);
        let indent = " ".repeat(4 + depth);
        let body = one_line(body, self.width.saturating_sub(indent.len()));
        format!("{indent}{}\n", self.dim(&body))
    }

    /// The start of a thought.
    pub(super) fn thought(&self, thought: &str) -> Option<String> {
        let start = &thought[..thought.floor_char_boundary(MAX_LINE_CHARS)];
        let line = one_line(&start.replace(['\n', '\r'], " "), self.width.saturating_sub(2));
        (!line.is_empty()).then(|| self.dim(&format!("· {line}")) + "\n")
    }

    /// That a message was taken back.
    pub(super) fn discarded(&self) -> String {
        self.dim("(discarded)") + "\n"
    }

    /// That a typed line waits for the next model request.
    pub(super) fn heard(&self, line: &str) -> String {
        self.dim(&format!("› {}", one_line(line, self.width.saturating_sub(2)))) + "\n"
    }

    /// That the conversation was replaced by a summary.
    pub(super) fn compacted(&self, before: u64, after: u64, by: Summarised) -> String {
        let aside = match by {
            Summarised::Model => "",
            Summarised::Log => {
                "; no summary by the model could be had, so it is taken from the log"
            }
        };
        let (before, after) = (count(before), count(after));
        let text = format!("· context compacted: about {before} tokens became {after}{aside}");
        self.dim(&one_line(&text, self.width)) + "\n"
    }

    /// That old results were taken out of the context.
    pub(super) fn trimmed(&self, results: usize) -> String {
        self.dim(&format!("· {} taken out of the context", plural(results, "old result"))) + "\n"
    }

    /// That an interrupt was heard.
    pub(super) fn stopping(&self) -> String {
        self.dim("■ stopping") + "\n"
    }

    /// Which isolation holds.
    pub(super) fn sandbox(&self, tier: &str, layers: &[String]) -> Option<String> {
        if tier == Tier::None.as_str() {
            let text = "! no sandbox: tools run as you, with your files and your network";
            return Some(self.paint.paint(Look::Warn, text) + "\n");
        }
        let (namespaces, others): (Vec<_>, Vec<_>) =
            layers.iter().map(String::as_str).partition(|layer| layer.ends_with(" namespace"));
        let namespaces = match namespaces.len() {
            0 => None,
            n => Some(plural(n, "namespace")),
        };
        let layers: Vec<_> = namespaces.as_deref().into_iter().chain(others).collect();
        let text = format!("· sandbox: {tier} ({})", layers.join(", "));
        Some(self.dim(&one_line(&text, self.width)) + "\n")
    }

    /// That a program wanted to go where it may not.
    pub(super) fn unreached(&self, target: &str, rule: &str) -> String {
        self.marked("!", Look::Warn, &format!("{target} was not reached: {rule}"), "")
    }

    /// That a file was moved out of sight of who would obey it.
    pub(super) fn set_aside(&self, path: &str, aside: &str) -> String {
        self.marked("!", Look::Warn, &was_set_aside(path, aside), "")
    }

    /// That the files are not kept as they are now, and why.
    pub(super) fn unsealed(&self, message: &str) -> String {
        let message = format!("changes of files cannot be taken back from here on: {message}");
        self.marked("!", Look::Warn, &message, "")
    }

    /// That there is no sandbox to work in, and what to do about it.
    pub(super) fn no_sandbox(&self, message: &str) -> String {
        let message = format!("no sandbox: {}\n{NO_SANDBOX_HINT}", message.trim());
        self.marked("✗", Look::Bad, &message, "")
    }

    /// A `session.error`.
    pub(super) fn error(&self, error: &ErrorDetail) -> String {
        match error.retry_status {
            RetryStatus::Retrying => self.marked("!", Look::Warn, &error.message, ""),
            RetryStatus::Exhausted => self.marked("✗", Look::Bad, &error.message, ""),
            RetryStatus::Terminal => {
                self.marked("✗", Look::Bad, &error.message, "the session is over")
            }
        }
    }

    /// A refusal of the model.
    pub(super) fn refusal(&self, details: Option<&RefusalDetails>) -> String {
        let words = details.map(|d| [d.category.as_deref(), d.explanation.as_deref()]);
        let words: Vec<_> = words.into_iter().flatten().flatten().collect();
        let message = ["the model refused"].into_iter().chain(words).collect::<Vec<_>>().join(": ");
        self.marked("✗", Look::Bad, &message, "")
    }

    pub(super) fn budget_reached(&self) -> String {
        self.marked("✗", Look::Bad, "the session's budget is used up", "")
    }

    fn marked(&self, mark: &str, look: Look, message: &str, after: &str) -> String {
        let message = neutralise(message.trim()).replace('\n', "\n  ");
        let after = if after.is_empty() { String::new() } else { format!(" ({after})") };
        format!("{} {message}{}\n", self.paint.paint(look, mark), self.dim(&after))
    }

    /// Which calls wait for the user, and how to answer them.
    pub(super) fn waiting(&self, session: &SessionId, ids: &[EventId], tally: &Tally) -> String {
        let wait = if ids.len() == 1 { "waits" } else { "wait" };
        let mark = self.paint.paint(Look::Warn, "?");
        let calls = plural(ids.len(), "tool call");
        let mut text = format!("{mark} {calls} {wait} for your permission\n");
        for id in ids {
            text.push_str(&self.waiting_call(id, tally.call(id)));
        }
        let allow = allow_all(&self.program, session, ids);
        let first = ids.first().map_or("EVENT", |id| id.as_str());
        text.push_str(&format!("\n  allow  {allow}\n"));
        text.push_str(&format!(
            "  deny   {} resume {session} --deny '{first}=REASON'\n",
            self.program
        ));
        text.push_str(&format!("  look   {} sessions events {session}\n", self.program));
        text
    }

    /// Nobody should allow what they have not seen: the subject is shown whole, as far as a page goes.
    fn waiting_call(&self, id: &EventId, call: Option<&Call>) -> String {
        let name = one_line(call.map_or("tool", |call| &call.name), self.width);
        let subject = call.map_or_else(String::new, |call| call.subject(self.workspace.as_deref()));
        let size = call.and_then(Call::size).map(|size| format!("  {size}")).unwrap_or_default();
        let shown = self.page(&subject);
        let (id, size) = (self.dim(id.as_str()), self.dim(&size));
        let rules = self.rules(call);
        format!("    {id}\n      {}  {shown}{size}\n{rules}", self.paint.paint(Look::Bold, &name))
    }

    /// The narrowest rules that would allow a call from now on, where there are such.
    fn rules(&self, call: Option<&Call>) -> String {
        let rules = call.map_or_else(Vec::new, |call| narrowest(&call.name, &call.input));
        if rules.is_empty() || rules.iter().any(|rule| rule.len() > RULE_BYTES) {
            return String::new();
        }
        let rules: Vec<_> = rules.iter().map(|rule| format!("\"{}\"", neutralise(rule))).collect();
        let text = format!("always allow it: permissions.allow = [{}]", rules.join(", "));
        format!("      {}\n", self.dim(&text))
    }

    /// The question whether a call may run: nothing of what it would do is left out, as far as a page goes.
    pub(super) fn question(&self, call: Option<&Call>) -> String {
        let name = one_line(call.map_or("tool", |call| &call.name), self.width);
        let shown = self.page(&call.map_or_else(String::new, Call::whole));
        let (mark, name) = (self.paint.paint(Look::Warn, "?"), self.paint.paint(Look::Bold, &name));
        let rules = self.rules(call);
        format!("{mark} {name}  {shown}\n{rules}  allow it? [y/N, or why not] ")
    }

    /// The first page of a text, and how much more there is; further lines are indented.
    fn page(&self, subject: &str) -> String {
        let shown = &subject[..subject.floor_char_boundary(WAITING_BYTES)];
        let rest = match subject.len() - shown.len() {
            0 => String::new(),
            rest => {
                self.paint.paint(Look::Warn, &format!("\n      … and {}", plural(rest, "byte")))
            }
        };
        neutralise(shown.trim_end()).replace('\n', "\n      ") + &rest
    }

    /// The line that is redrawn; it leaves the last column free, so that no terminal wraps.
    pub(super) fn status(&self, label: &Label, since: Timestamp, now: Timestamp) -> String {
        let millis = millis_between(since, now);
        let frame = FRAMES[usize::try_from(millis / 100 % 10).unwrap_or_default()];
        let time = if millis < 1000 { String::new() } else { seconds(millis) };
        let words = one_line(&label.words, self.width.saturating_sub(12));
        let taken = 2 + columns(&words) + 1 + 2 + columns(&time) + 1;
        let aside = one_line(&label.aside, self.width.saturating_sub(taken));
        let (frame, aside) = (self.paint.paint(Look::Good, frame), self.dim(&aside));
        let words = [words, aside].join(" ");
        format!("{frame} {}  {}", words.trim_end(), self.dim(&time)).trim_end().to_owned()
    }

    /// What the run came to.
    pub(super) fn summary(&self, tally: &Tally, outcome: Outcome, changes: &Changes) -> String {
        let (mark, look, words) = match outcome {
            Outcome::Done => ("✓", Look::Good, "done in"),
            Outcome::Failed => ("✗", Look::Bad, "failed after"),
            Outcome::Interrupted => ("■", Look::Warn, "interrupted after"),
            Outcome::NeedsInput => ("?", Look::Warn, "waiting for you after"),
            Outcome::SandboxUnavailable => ("✗", Look::Bad, "no sandbox, ended after"),
        };
        let turns = plural(usize::try_from(tally.turns()).unwrap_or(usize::MAX), "turn");
        let calls = plural(usize::try_from(tally.tool_calls()).unwrap_or(usize::MAX), "tool call");
        let time = duration(tally.duration_ms());
        let mark = self.paint.paint(look, mark);
        let words = self.paint.paint(Look::Bold, &format!("{words} {time}"));
        let mut text = format!("{mark} {words}  {}\n", self.dim(&format!("{turns}, {calls}")));
        text.push_str(&self.field("tokens", &tokens(tally)));
        if !changes.files.is_empty() {
            text.push_str(&self.field("files", &named(&changes.files)));
        }
        if let Some(warning) = changes.warning() {
            text.push_str(&self.paint.paint(Look::Warn, &format!("  ! {}", neutralise(&warning))));
            text.push('\n');
        }
        if let Some(session) = tally.session().filter(|_| changes.apart) {
            text.push_str(&format!("  {}  {} diff {session}\n", self.dim("changes"), self.program));
        }
        if let Some(session) = tally.session() {
            let resume = match outcome {
                Outcome::NeedsInput => session.to_string(),
                _ => format!("{} resume {session}", self.program),
            };
            let label = if outcome == Outcome::NeedsInput { "session" } else { "resume" };
            text.push_str(&format!("  {}  {resume}\n", self.dim(&format!("{label:<7}"))));
        }
        text
    }

    fn field(&self, label: &str, value: &str) -> String {
        let value = one_line(value, self.width.saturating_sub(11));
        format!("  {}  {value}\n", self.dim(&format!("{label:<7}")))
    }
}

fn seconds(millis: u64) -> String {
    if millis < 60_000 { format!("{}s", millis / 1000) } else { duration(millis) }
}

fn tokens(tally: &Tally) -> String {
    let usage = tally.usage();
    let share = match usage.cache_hit_permille().map(|share| share / 10) {
        None | Some(0) => String::new(),
        Some(percent) => format!(" ({percent}% from cache)"),
    };
    format!("{} in{share}, {} out", count(usage.prompt()), count(usage.output_tokens))
}

fn named(files: &[String]) -> String {
    let names: Vec<_> = files.iter().take(FILES_NAMED).map(String::as_str).collect();
    let more = match files.len().saturating_sub(FILES_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} changed: {}{more}", files.len(), on_one_line(&names.join(", ")))
}
