//! A scripted run for the tests: events and previews on a clock that only the script moves.

use serde_json::{Value, json};

use crate::cli::render::Preview;
use crate::clock::{self, Timestamp};
use crate::event::{
    ContentBlock, ErrorDetail, ErrorKind, Evaluation, Event, EventBody, Permission, RetryStatus,
    StopReason, Usage,
};
use crate::id::{EventId, SessionId};

/// What happens next.
pub(super) enum Beat {
    Event(Box<Event>),
    Preview(Preview),
    PreviewsLost,
    Tick(Timestamp),
}

/// Builds beats.
#[derive(Default)]
pub(super) struct Story {
    pub(super) beats: Vec<Beat>,
    seq: u64,
    millis: i64,
    last_request: Option<EventId>,
}

pub(super) fn session() -> SessionId {
    "sesn_01jqsxf3n8e5vrg4w7t2k9m6pc".parse().unwrap()
}

/// The id of the `n`th event.
pub(super) fn id(n: u64) -> EventId {
    format!("sevt_01jqsxf3n8e5vrg4w7t2k{n:05}").parse().unwrap()
}

impl Story {
    fn now(&self) -> Timestamp {
        clock::from_millis(1_750_000_000_000 + self.millis)
    }

    pub(super) fn wait(&mut self, millis: i64) -> &mut Self {
        self.millis += millis;
        self
    }

    pub(super) fn tick(&mut self) -> &mut Self {
        self.beats.push(Beat::Tick(self.now()));
        self
    }

    pub(super) fn lost(&mut self) -> &mut Self {
        self.beats.push(Beat::PreviewsLost);
        self
    }

    pub(super) fn event(&mut self, body: EventBody) -> EventId {
        self.seq += 1;
        self.beats.push(Beat::Event(Box::new(Event {
            seq: self.seq,
            id: id(self.seq),
            session: session(),
            created_at: self.now(),
            processed_at: Some(self.now()),
            body,
        })));
        id(self.seq)
    }

    pub(super) fn fact(&mut self, body: EventBody) -> &mut Self {
        self.event(body);
        self
    }

    /// The id of the event that comes after `ahead` others.
    pub(super) fn next_id(&self, ahead: u64) -> EventId {
        id(self.seq + 1 + ahead)
    }

    pub(super) fn preview(&mut self, preview: Preview) -> &mut Self {
        self.beats.push(Beat::Preview(preview));
        self
    }

    pub(super) fn says(&mut self, ahead: u64, text: &str) -> &mut Self {
        let event = self.next_id(ahead);
        self.preview(Preview::Message { event, at: 0, text: text.to_owned() })
    }

    pub(super) fn thinks(&mut self, text: &str) -> &mut Self {
        let event = self.next_id(0);
        self.preview(Preview::Thinking { event, text: text.to_owned() })
    }

    pub(super) fn begin(&mut self, task: &str) -> &mut Self {
        self.event(EventBody::UserMessage { content: vec![ContentBlock::text(task)] });
        self.event(EventBody::StatusRunning {});
        self
    }

    pub(super) fn ask(&mut self) -> &mut Self {
        self.last_request = Some(self.event(EventBody::ModelRequestStart {}));
        self
    }

    pub(super) fn answered(&mut self, input_tokens: u64, output_tokens: u64) -> &mut Self {
        let usage = Usage {
            input_tokens,
            output_tokens,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: input_tokens * 5,
        };
        self.request_end(false, usage)
    }

    pub(super) fn request_failed(&mut self) -> &mut Self {
        self.request_end(true, Usage::default())
    }

    fn request_end(&mut self, is_error: bool, model_usage: Usage) -> &mut Self {
        let model_request_start_id = self.last_request.clone().expect("a request was made");
        self.event(EventBody::ModelRequestEnd { model_request_start_id, is_error, model_usage });
        self
    }

    pub(super) fn thought(&mut self, text: &str) -> &mut Self {
        self.event(EventBody::AgentThinking {});
        self.event(EventBody::Thinking { thinking: text.to_owned(), signature: None });
        self
    }

    pub(super) fn message(&mut self, text: &str) -> &mut Self {
        self.event(EventBody::AgentMessage { content: vec![ContentBlock::text(text)] });
        self
    }

    pub(super) fn call(&mut self, name: &str, input: &Value, permission: Permission) -> EventId {
        self.event(EventBody::AgentToolUse {
            name: name.to_owned(),
            input: input.as_object().unwrap().clone(),
            evaluated_permission: permission,
            evaluation: Some(Evaluation::AlwaysAllow),
        })
    }

    pub(super) fn started(&mut self, call: &EventId) -> &mut Self {
        self.event(EventBody::ToolStarted { tool_use_id: call.clone() });
        self
    }

    pub(super) fn result(&mut self, call: &EventId, text: &str, is_error: bool) -> &mut Self {
        let content = vec![ContentBlock::text(text)];
        self.event(EventBody::AgentToolResult { tool_use_id: call.clone(), content, is_error });
        self
    }

    pub(super) fn error(&mut self, message: &str, retry_status: RetryStatus) -> &mut Self {
        let error = ErrorDetail::new(ErrorKind::ModelOverloadedError, message, retry_status);
        self.event(EventBody::SessionError { error });
        self
    }

    pub(super) fn idle(&mut self, stop_reason: StopReason) -> &mut Self {
        self.event(EventBody::StatusIdle { stop_reason, stop_details: None });
        self
    }
}

/// A small repair from start to end: thoughts, calls that fail and succeed, a retry, words in pieces.
pub(super) fn repair() -> Story {
    let mut story = Story::default();
    story.begin("make the tests pass").tick().ask().tick();
    story.wait(400).thinks("The user wants green tests.\nI should run ").wait(900).tick();
    story.thinks("them first.").wait(200).tick();
    let (one, two) = ("I'll run the tests first, ", "then look at\r\nwhat fails.\n\n");
    story.says(2, one).wait(100).tick().says(2, two).wait(100);
    story.preview(Preview::ToolUse { name: "bash".to_owned() }).wait(1500).tick();
    story.thought("The user wants green tests.\nI should run them first.");
    story.message(&(one.to_owned() + two));
    let test = story.call(
        "bash",
        &json!({"command": "cd /home/ann/app &&\n  cargo test --workspace"}),
        Permission::Allow,
    );
    story.answered(1_200, 86);
    story.event(EventBody::SandboxReady {
        tier: "full".to_owned(),
        layers: ["namespaces", "landlock (ABI 7)", "seccomp"].map(str::to_owned).into(),
    });
    story.started(&test).wait(1_260).tick().wait(2_000).tick();
    let failure = "error[E0308]: mismatched types\n  --> src/lib.rs:3:5\n   |\n3 |     \"two\"\n   |     \
                   ^^^^^ expected `u32`, found `&str`\n[exit code: 101]";
    story.result(&test, failure, true).tick();

    story.ask().wait(700);
    let read = story.call(
        "read",
        &json!({"file_path": "/home/ann/app/src/lib.rs", "view_range": [1, 40]}),
        Permission::Allow,
    );
    let grep = story.call(
        "grep",
        &json!({"pattern": "fn two", "path": "/home/ann/app"}),
        Permission::Allow,
    );
    let glob = story.call("glob", &json!({"pattern": "**/*.toml"}), Permission::Allow);
    story.answered(1_900, 120).started(&read).started(&grep).started(&glob).wait(3).tick();
    story.result(&grep, "src/lib.rs:2:pub fn two() -> u32 {", false).wait(1);
    story.result(&read, "pub fn one() -> u32 {\n1\n}\npub fn two() -> u32 {\n\"two\"\n}", false);
    story.result(&glob, "no matches", false);

    story.ask().wait(300).request_failed();
    story.error("anthropic is overloaded (529); trying again in 0.5 s", RetryStatus::Retrying);
    story.event(EventBody::StatusRescheduled {});
    story.wait(2_000).tick();
    story.event(EventBody::StatusRunning {});
    story.ask().wait(900);
    let edit = story.call(
        "edit",
        &json!({"file_path": "/home/ann/app/src/lib.rs", "old_string": "\"two\"", "new_string": "2"}),
        Permission::Allow,
    );
    let write = story.call(
        "write",
        &json!({"file_path": "/home/ann/app/CHANGELOG.md", "content": "# Changes\n\n* two is 2\n"}),
        Permission::Allow,
    );
    story.answered(2_100, 90).started(&edit).wait(2).result(&edit, "edited", false);
    story.started(&write).wait(2).result(&write, "wrote 23 bytes", false);

    story.ask().wait(800);
    let colours = story.call("bash", &json!({"command": "cargo test -q"}), Permission::Allow);
    story.answered(2_400, 40).started(&colours).wait(61_000).tick().wait(4_000);
    story.result(&colours, "\u{1b}[32mok\u{1b}[0m", false);

    story.ask().wait(500);
    story.says(0, "The tests pass now: `two` ").says(0, "returned a string.\n").wait(50);
    story.says(0, "\nI changed **src/lib.rs** and noted it in the ");
    story.message(
        "The tests pass now: `two` returned a string.\n\nI changed **src/lib.rs** and noted it in the \
         changelog.",
    );
    story.answered(2_600, 64).idle(StopReason::EndTurn);
    story
}
