//! Sessions through the runtime, as a door drives them: a scripted model, tools of the client's, no sandbox.

mod budgets;
mod compaction;
mod constrained;
mod custom_tools;
mod ends;
mod notes;
mod requests;
mod survival;
mod turns;
mod updates;

use std::path::Path;
use std::time::Duration;

use casemate::agent::{Agent, CustomTool};
use casemate::environment::Environment;
use casemate::event::{ContentBlock, Event, EventBody, StopReason, text_of};
use casemate::id::{EventId, SessionId};
use casemate::runtime::config::Env;
use casemate::runtime::{
    Config, Feed, FeedItem, Input, Overrides, Runtime, RuntimeError, SessionRow, SessionSpec,
};
use serde_json::json;

use crate::support::write;

/// Longer than any machine takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// A pause of the model that no test sits through.
const LONG: &str = "delay_ms: 3600000";

/// A runtime with a directory of its own.
struct Lab {
    dir: tempfile::TempDir,
    runtime: Runtime,
}

fn open(dir: &Path, env: &[(&str, &str)]) -> Result<Runtime, RuntimeError> {
    let home = dir.to_str().unwrap();
    let env = Env::of(&[&[("HOME", home)], env].concat());
    let config_file = Some(dir.join("config.toml"));
    let flags = Overrides { config_file, data_dir: Some(dir.join("data")), ..Overrides::default() };
    Runtime::open(Config::load(&env, &flags)?)
}

impl Lab {
    fn new() -> Self {
        Self::configured("")
    }

    /// With this configuration file.
    fn configured(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("config.toml"), config);
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let runtime = open(dir.path(), &[]).unwrap();
        Self { dir, runtime }
    }

    /// A session whose model follows the script and has these tools of the client's, and none of casemate's.
    fn spec(&self, turns: &str, tools: &[&str]) -> SessionSpec {
        spec(self.dir.path(), turns, tools)
    }

    async fn create(&self, spec: SessionSpec) -> Session<'_> {
        let row = self.runtime.create_session(spec).await.unwrap();
        let feed = self.runtime.subscribe(&row.id, 0).unwrap();
        Session { lab: self, id: row.id, feed }
    }

    /// A session that is told `go` at once.
    async fn go(&self, turns: &str, tools: &[&str]) -> Session<'_> {
        let spec = SessionSpec { initial: vec![Input::text("go")], ..self.spec(turns, tools) };
        self.create(spec).await
    }
}

fn spec(dir: &Path, turns: &str, tools: &[&str]) -> SessionSpec {
    let script = dir.join("script.yaml");
    write(&script, &format!("turns:\n{turns}"));
    let agent = Agent {
        name: "tester".to_owned(),
        tools: Vec::new(),
        custom_tools: tools.iter().map(|name| custom_tool(name)).collect(),
        ..Agent::with_model(format!("scripted:{}", script.display()))
    };
    SessionSpec::new(agent, Environment::new(dir.join("work")))
}

fn custom_tool(name: &str) -> CustomTool {
    let schema = json!({"type": "object"}).as_object().unwrap().clone();
    let (name, description) = (name.to_owned(), format!("The tool {name}."));
    CustomTool { name, description, input_schema: schema }
}

/// A session and somebody who watches it.
struct Session<'l> {
    lab: &'l Lab,
    id: SessionId,
    feed: Feed,
}

impl Session<'_> {
    fn row(&self) -> SessionRow {
        self.lab.runtime.reader().session(&self.id).unwrap().unwrap()
    }

    async fn next(&mut self) -> Event {
        loop {
            let item = tokio::time::timeout(DEADLINE, self.feed.next()).await;
            match item.expect("an event in time").unwrap() {
                FeedItem::Event(event) => return event,
                FeedItem::Preview(_) => {}
                FeedItem::Deleted => panic!("the session is gone"),
            }
        }
    }

    /// All events up to the first for which that holds.
    async fn until(&mut self, last: impl Fn(&EventBody) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next().await);
            if last(&events.last().unwrap().body) {
                return events;
            }
        }
    }

    /// All events up to the end of the turn, or of the session.
    async fn rested(&mut self) -> Vec<Event> {
        let rests = |body: &EventBody| {
            matches!(body, EventBody::StatusIdle { .. } | EventBody::StatusTerminated {})
        };
        self.until(rests).await
    }

    /// All events up to the beginning of a request to the model.
    async fn requested(&mut self) -> Vec<Event> {
        self.until(|body| matches!(body, EventBody::ModelRequestStart {})).await
    }

    async fn say(&self, inputs: &[Input]) -> Result<Vec<Event>, RuntimeError> {
        self.lab.runtime.submit_all(&self.id, inputs).await
    }

    /// Why an input is refused; nothing is recorded then.
    async fn refusal(&self, inputs: &[Input]) -> String {
        let head = self.row().head;
        let refused = self.say(inputs).await.unwrap_err().to_string();
        assert_eq!(self.row().head, head, "a refused input is recorded");
        refused
    }
}

/// The events as lines: what clients see, and where inputs are taken up.
fn story(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(|event| line(&event.body)).collect()
}

fn line(body: &EventBody) -> Option<String> {
    use EventBody as E;
    let idle = |reason: &StopReason| match reason {
        StopReason::RequiresAction { event_ids } => format!("waits for {}", event_ids.len()),
        StopReason::EndTurn => "end_turn".to_owned(),
        StopReason::RetriesExhausted => "retries_exhausted".to_owned(),
        StopReason::BudgetReached => "budget_reached".to_owned(),
        StopReason::Refusal => "refusal".to_owned(),
    };
    Some(match body {
        E::UserMessage { content } => format!("user: {}", text_of(content)),
        E::SystemMessage { content } => format!("system: {}", text_of(content)),
        E::AgentMessage { content } => format!("says: {}", text_of(content)),
        E::AgentCustomToolUse { name, .. } => format!("calls {name}"),
        E::UserCustomToolResult { content, .. } => {
            format!("answer: {}", text_of(content.as_deref().unwrap_or_default()))
        }
        E::AgentToolResult { content, is_error, .. } => {
            format!("result: {} {is_error}", text_of(content))
        }
        E::ThreadStatusIdle { stop_reason, .. } => format!("thread idle: {}", idle(stop_reason)),
        E::StatusIdle { stop_reason, .. } => format!("idle: {}", idle(stop_reason)),
        E::SessionUsage { usage, .. } => format!("usage: {} tokens", usage.input_tokens),
        E::SessionError { error } => format!("error: {:?} {:?}", error.r#type, error.retry_status),
        E::ModelRequestEnd { is_error, .. } => format!("request ends, failed: {is_error}"),
        E::TakenUp { event_ids } => format!("takes up {}", event_ids.len()),
        E::Flushed { event_ids } => format!("drops {}", event_ids.len()),
        E::Metered { .. } | E::ModelStop { .. } | E::AgentReplaced { .. } => return None,
        other => other.kind().to_owned(),
    })
}

/// The calls of the client's tools, in order.
fn calls(events: &[Event]) -> Vec<EventId> {
    let custom = |event: &&Event| matches!(event.body, EventBody::AgentCustomToolUse { .. });
    events.iter().filter(custom).map(|event| event.id.clone()).collect()
}

fn answer(call: &EventId, text: &str) -> Input {
    let content = Some(vec![ContentBlock::text(text)]);
    Input::CustomResult { call: call.clone(), content, is_error: None }
}

fn stop() -> Input {
    Input::Interrupt { thread: None }
}
