//! The policy of the loop, as tables: a log, and the step that follows from it.

use std::sync::Arc;

use serde_json::json;

use super::call::CallState;
use super::recover::{self, OUTCOME_UNKNOWN};
use super::skills::{ShownSkill, Skills};
use super::state::{Session, Status};
use super::step::{Step, intent, next_step};
use super::{Definition, prompt};
use crate::agent::Agent;
use crate::clock::from_millis;
use crate::environment::Environment;
use crate::event::{
    Budget, CompactionReason, Confirmation, ContentBlock, ErrorDetail, ErrorKind, Event, EventBody,
    Permission, RetryStatus, StopReason, Usage,
};
use crate::id::{EventId, SessionId, ThreadId};
use crate::provider::{Block, Role};

fn id(name: &str) -> EventId {
    format!("sevt_{name}").parse().unwrap()
}

fn definition() -> Arc<Definition> {
    Arc::new(Definition {
        agent: Agent::with_model("test/model"),
        environment: Environment::new("/w".into()),
        thread: ThreadId::mint(from_millis(0)),
        system: "system".to_owned(),
        max_turns: 3,
        budget: None,
        on_ask: None,
        origin: None,
        skills: Skills::default(),
    })
}

/// A log under construction.
struct Log {
    definition: Arc<Definition>,
    events: Vec<Event>,
}

impl Log {
    fn new() -> Self {
        Self { definition: definition(), events: Vec::new() }
    }

    fn add(mut self, name: &str, body: EventBody) -> Self {
        let seq = self.events.len() as u64 + 1;
        let at = from_millis(0);
        let session: SessionId = "sesn_1".parse().unwrap();
        self.events.push(Event {
            seq,
            id: id(name),
            session,
            created_at: at,
            processed_at: Some(at),
            body,
        });
        self
    }

    fn then(self, body: EventBody) -> Self {
        let name = format!("e{}", self.events.len());
        self.add(&name, body)
    }

    fn says(self, text: &str) -> Self {
        self.then(EventBody::UserMessage { content: vec![ContentBlock::text(text)] })
    }

    fn asks_model(self) -> Self {
        let name = format!("r{}", self.events.len());
        let running = self.session().status() == Status::Running;
        let log = if running { self } else { self.then(EventBody::StatusRunning {}) };
        let event_ids: Vec<_> = log.session().queued().cloned().collect();
        let log =
            if event_ids.is_empty() { log } else { log.then(EventBody::TakenUp { event_ids }) };
        log.add(&name, EventBody::ModelRequestStart {})
    }

    fn calls(self, name: &str, tool: &str, permission: Permission) -> Self {
        let input = json!({"command": name}).as_object().unwrap().clone();
        let body = EventBody::AgentToolUse {
            name: tool.to_owned(),
            input,
            evaluated_permission: permission,
            evaluation: None,
        };
        self.add(name, body)
    }

    fn answers(self, reason: &str) -> Self {
        let stop = EventBody::ModelStop {
            reason: reason.to_owned(),
            model: "test/model".to_owned(),
            refusal: None,
        };
        self.then(stop).ends(false)
    }

    fn says_and_ends(self, text: &str, reason: &str) -> Self {
        self.then(EventBody::AgentMessage { content: vec![ContentBlock::text(text)] })
            .answers(reason)
    }

    fn ends(self, is_error: bool) -> Self {
        let start = self.session().request().cloned().unwrap();
        self.then(EventBody::ModelRequestEnd {
            model_request_start_id: start,
            is_error,
            model_usage: Usage { input_tokens: 1, ..Usage::default() },
        })
    }

    fn starts(self, name: &str) -> Self {
        self.then(EventBody::ToolStarted { tool_use_id: id(name) })
    }

    fn results(self, name: &str, text: &str) -> Self {
        self.then(EventBody::AgentToolResult {
            tool_use_id: id(name),
            content: vec![ContentBlock::text(text)],
            is_error: false,
        })
    }

    fn fails(self, retry_status: RetryStatus) -> Self {
        let error = ErrorDetail::new(ErrorKind::ModelOverloadedError, "busy", retry_status);
        self.ends(true).then(EventBody::SessionError { error })
    }

    /// Performs a step that is nothing but its intent.
    fn settles(mut self) -> Self {
        let session = self.session();
        for body in intent(&session, &next_step(&session), from_millis(0)) {
            self = self.then(body);
        }
        self
    }

    fn session(&self) -> Session {
        Session::fold(Arc::clone(&self.definition), &self.events)
    }
}

#[track_caller]
fn check(log: &Log, expected: &Step) {
    assert_eq!(next_step(&log.session()), *expected);
}

fn run(names: &[&str]) -> Step {
    Step::Run(names.iter().map(|name| id(name)).collect())
}

fn called(calls: &[(&str, &str)]) -> Log {
    let log = Log::new().says("go").asks_model();
    let log = calls.iter().fold(log, |log, (name, tool)| log.calls(name, tool, Permission::Allow));
    log.answers("tool_use")
}

#[test]
fn an_idle_session_rests_until_it_is_spoken_to() {
    check(&Log::new(), &Step::Rest);
    check(&Log::new().says("hello"), &Step::Sample);
    check(
        &Log::new().says("hello").asks_model().says_and_ends("hi", "end_turn"),
        &Step::Settle(StopReason::EndTurn),
    );
    check(
        &Log::new().says("hello").asks_model().says_and_ends("hi", "end_turn").settles(),
        &Step::Rest,
    );
}

#[test]
fn reads_run_together_and_everything_else_alone_in_the_models_order() {
    let log = called(&[("a", "read"), ("b", "grep"), ("c", "bash"), ("d", "bash"), ("e", "glob")]);
    check(&log, &run(&["a", "b"]));
    let log = log.results("a", "1").results("b", "2");
    check(&log, &run(&["c"]));
    let log = log.starts("c").results("c", "3");
    check(&log, &run(&["d"]));
    let log = log.starts("d").results("d", "4");
    check(&log, &run(&["e"]));
    check(&log.results("e", "5"), &Step::Sample);
}

#[test]
fn only_calls_that_change_things_are_marked_as_started() {
    let log = called(&[("a", "read"), ("b", "bash")]);
    let marks = |log: &Log| {
        let session = log.session();
        intent(&session, &next_step(&session), from_millis(0)).len()
    };
    assert_eq!(marks(&log), 0, "a read has no start mark");
    assert_eq!(marks(&log.results("a", "x")), 1, "a bash call has one");
}

#[test]
fn a_call_that_asks_waits_and_what_follows_waits_with_it() {
    let log = Log::new().says("go").asks_model();
    let log = log.calls("a", "read", Permission::Allow).calls("b", "bash", Permission::Ask);
    let log = log.calls("c", "bash", Permission::Allow).answers("tool_use");
    check(&log, &run(&["a"]));
    let log = log.results("a", "x");
    let waits = Step::Settle(StopReason::RequiresAction { event_ids: vec![id("b")] });
    check(&log, &waits);
    let log = log.settles();
    check(&log, &Step::Rest);
    let answered = |result, deny_message| EventBody::UserToolConfirmation {
        tool_use_id: id("b"),
        result,
        deny_message,
    };
    let allowed = log.then(answered(Confirmation::Allow, None));
    check(&allowed, &run(&["b"]));
    // The second answer to the same call changes nothing.
    let twice = allowed.then(answered(Confirmation::Deny, None));
    assert_eq!(twice.session().call(&id("b")).unwrap().state, CallState::Ready);
}

#[test]
fn a_refused_call_is_answered_without_a_start_mark() {
    let log =
        Log::new().says("go").asks_model().calls("a", "bash", Permission::Deny).answers("tool_use");
    let session = log.session();
    assert_eq!(next_step(&session), run(&["a"]));
    assert_eq!(intent(&session, &next_step(&session), from_millis(0)), []);
}

#[test]
fn an_interrupt_closes_open_calls_and_ends_the_turn() {
    let log = called(&[("a", "bash"), ("b", "bash")])
        .starts("a")
        .then(EventBody::UserInterrupt { session_thread_id: None });
    check(&log, &Step::Stop);
    let log = log.settles();
    check(&log, &Step::Rest);
    let session = log.session();
    assert!(session.calls().iter().all(|call| !call.is_open()));
    assert_eq!(session.stop_reason(), Some(&StopReason::EndTurn));
    // An interrupt of an idle session is nothing, and a message after it starts a turn.
    check(
        &log.then(EventBody::UserInterrupt { session_thread_id: None }).says("again"),
        &Step::Sample,
    );
}

#[test]
fn what_the_user_types_meanwhile_is_taken_up_with_the_results() {
    let log =
        called(&[("a", "bash")]).starts("a").says("and faster").results("a", "ok").asks_model();
    let session = log.session();
    let last = session.messages().last().unwrap();
    assert_eq!(last.role, Role::User);
    assert!(matches!(&last.blocks[..], [Block::ToolResult { .. }, Block::Content(_)]), "{last:?}");
}

#[test]
fn failures_are_tried_again_until_they_are_final() {
    let asked = || Log::new().says("go").asks_model();
    let again = asked().fails(RetryStatus::Retrying).then(EventBody::StatusRescheduled {});
    check(&again, &Step::Sample);
    assert_eq!(again.session().turn().failures, 1);
    let over = asked().fails(RetryStatus::Exhausted);
    check(&over, &Step::Settle(StopReason::RetriesExhausted));
    check(&over.settles(), &Step::Rest);
}

#[test]
fn every_stop_reason_has_its_end() {
    let ended = |reason: &str| Log::new().says("go").asks_model().says_and_ends("text", reason);
    check(&ended("stop_sequence"), &Step::Settle(StopReason::EndTurn));
    check(&ended("refusal"), &Step::Settle(StopReason::Refusal));
    check(&ended("pause_turn"), &Step::Sample);
    check(&ended("some_new_reason"), &Step::Settle(StopReason::EndTurn));
    match next_step(&ended("max_tokens").session()) {
        Step::GiveUp(error) => assert!(error.message.contains("token limit"), "{error:?}"),
        other => panic!("a cut answer leads to {other:?}"),
    }
    // An answer that ran out of room is no answer yet.
    let full = ended("model_context_window_exceeded");
    check(&full, &Step::Compact(CompactionReason::Overflow));
    // A refusal without a word must not ask again for ever.
    let silent = Log::new().says("go").asks_model().answers("refusal");
    check(&silent, &Step::Settle(StopReason::Refusal));
    let asked = Log::new().says("go").asks_model().calls("t1", "bash", Permission::Allow);
    check(&asked.results("t1", "refused").answers("refusal"), &Step::Settle(StopReason::Refusal));
}

#[test]
fn the_turn_limit_counts_from_the_last_message() {
    let mut log = Log::new().says("go");
    for n in 0..3 {
        let name = format!("c{n}");
        log = log.asks_model().calls(&name, "bash", Permission::Allow).answers("tool_use");
        log = log.starts(&name).results(&name, &n.to_string());
    }
    assert!(
        matches!(next_step(&log.session()), Step::GiveUp(error) if error.message.contains("limit of 3"))
    );
    let log = log.settles();
    check(&log, &Step::Rest);
    check(&log.says("go on"), &Step::Sample);
}

#[test]
fn the_same_call_with_the_same_result_is_no_progress() {
    let definition = Arc::new(Definition { max_turns: 100, ..(*definition()).clone() });
    let mut log = Log { definition, events: Vec::new() }.says("go");
    for n in 0..5 {
        // The name is part of the id only: the input is what `calls` was given, so it must be the same.
        let name = format!("c{n}");
        log = log.asks_model();
        let input = json!({"command": "make"}).as_object().unwrap().clone();
        let body = EventBody::AgentToolUse {
            name: "bash".to_owned(),
            input,
            evaluated_permission: Permission::Allow,
            evaluation: None,
        };
        log = log.add(&name, body).answers("tool_use").starts(&name).results(&name, "failed");
    }
    // The model has not heard of it yet.
    check(&log, &Step::Sample);
    let session = log.session();
    let facts = intent(&session, &next_step(&session), from_millis(0));
    let [EventBody::Noted { about, text }, EventBody::ModelRequestStart {}] = &facts[..] else {
        panic!("{facts:?}")
    };
    let log = log.then(EventBody::Noted { about: *about, text: text.clone() });
    assert!(
        matches!(next_step(&log.session()), Step::GiveUp(error) if error.message.contains("no progress"))
    );
}

#[test]
fn repairs_close_what_a_crash_left_open() {
    let nothing = |log: &Log| assert_eq!(recover::repairs(&log.session(), from_millis(0)), []);
    nothing(&Log::new());
    nothing(&called(&[("a", "bash")]));
    nothing(&called(&[("a", "read")]));
    let lost = called(&[("a", "bash"), ("b", "bash")]).starts("a");
    match &recover::repairs(&lost.session(), from_millis(0))[..] {
        [EventBody::AgentToolResult { tool_use_id, is_error: true, content }] => {
            assert_eq!(*tool_use_id, id("a"));
            assert_eq!(*content, [ContentBlock::text(OUTCOME_UNKNOWN)]);
        }
        other => panic!("{other:?}"),
    }
    let asked = Log::new().says("go").asks_model();
    assert!(matches!(
        &recover::repairs(&asked.session(), from_millis(0))[..],
        [EventBody::ModelRequestEnd { is_error: true, .. }]
    ));
    check(&asked.ends(true), &Step::Sample);
}

#[test]
fn a_request_only_ever_grows() {
    let log = called(&[("a", "bash")]);
    let first = Log::new().says("go").asks_model().session().messages().to_vec();
    let log = log.starts("a").results("a", "ok").asks_model();
    let second = log.session().messages().to_vec();
    assert_eq!(first[..], second[..first.len()]);
    let system = Arc::from("system");
    let request = prompt::request(&log.session(), "model", &system, &Arc::from([]));
    assert_eq!(request.messages, second);
}

#[test]
fn usage_adds_up_over_requests() {
    let log = Log::new().says("a").asks_model().says_and_ends("b", "end_turn").settles();
    let log = log.says("c").asks_model().says_and_ends("d", "end_turn");
    assert_eq!(log.session().usage().input_tokens, 2);
}

#[test]
fn what_the_client_runs_is_waited_for_after_all_else_and_not_at_all_if_it_is_there() {
    let custom = |log: Log, name: &str| {
        let input = json!({}).as_object().unwrap().clone();
        log.add(name, EventBody::AgentCustomToolUse { name: "ask".to_owned(), input })
    };
    let answer = |name: &str| EventBody::UserCustomToolResult {
        custom_tool_use_id: id(name),
        content: Some(vec![ContentBlock::text("yes")]),
        is_error: None,
    };
    let log = custom(Log::new().says("go").asks_model(), "a");
    let log = log.calls("b", "bash", Permission::Allow).answers("tool_use");
    check(&log, &run(&["b"]));
    let waits = |names: &[&str]| {
        let event_ids = names.iter().map(|name| id(name)).collect();
        Step::Settle(StopReason::RequiresAction { event_ids })
    };
    check(&log_of(&log).starts("b").results("b", "ok"), &waits(&["a"]));
    // The answer came while the other call ran: there is no pause.
    let early = log.starts("b").then(answer("a")).results("b", "ok");
    check(&early, &Step::Sample);
    // The second answer to the same call changes nothing.
    check(&early.then(answer("a")), &Step::Sample);

    let log = custom(Log::new().says("go").asks_model(), "a");
    let log = log.calls("b", "bash", Permission::Ask).answers("tool_use");
    check(&log, &waits(&["a", "b"]));
    let allowed = EventBody::UserToolConfirmation {
        tool_use_id: id("b"),
        result: Confirmation::Allow,
        deny_message: None,
    };
    let log = log.settles().then(allowed);
    check(&log, &waits(&["a"]));
    let log = log.settles();
    check(&log, &Step::Rest);
    let log = log.then(answer("a"));
    check(&log, &run(&["b"]));
    check(&log.starts("b").results("b", "ok"), &Step::Sample);
}

/// The same log once more.
fn log_of(log: &Log) -> Log {
    Log { definition: Arc::clone(&log.definition), events: log.events.clone() }
}

#[test]
fn answers_alone_make_a_paused_turn_go_on() {
    let input = json!({}).as_object().unwrap().clone();
    let ask = EventBody::AgentCustomToolUse { name: "ask".to_owned(), input };
    let log = Log::new().says("go").asks_model().add("a", ask).answers("tool_use").settles();
    let log = log.then(EventBody::UserCustomToolResult {
        custom_tool_use_id: id("a"),
        content: None,
        is_error: None,
    });
    check(&log, &Step::Sample);
}

#[test]
fn a_turn_that_is_given_up_drops_what_waited_for_it() {
    let log = Log::new().says("go").asks_model().says("later").fails(RetryStatus::Exhausted);
    let session = log.session();
    let closing = intent(&session, &next_step(&session), from_millis(0));
    let waiting: Vec<_> = session.queued().cloned().collect();
    assert_eq!(closing[0], EventBody::Flushed { event_ids: waiting });
    let log = log.settles();
    check(&log, &Step::Rest);
    check(&log.says("again"), &Step::Sample);
}

#[test]
fn an_interrupt_before_the_first_request_ends_the_turn_of_the_message_before_it() {
    let stop = || EventBody::UserInterrupt { session_thread_id: None };
    let log = Log::new().says("go").then(EventBody::StatusRunning {}).then(stop()).says("other");
    check(&log, &Step::Stop);
    let log = log.settles();
    // Only what was said after the interrupt begins a turn; both are in the conversation.
    assert_eq!(log.session().queued().count(), 1);
    check(&log, &Step::Sample);
    let session = log.asks_model().session();
    assert_eq!(session.messages().last().unwrap().blocks.len(), 2);
}

#[test]
fn time_and_tools_count_toward_a_budget() {
    let budget =
        Budget { max_tool_seconds: Some(2), max_active_seconds: Some(9), ..Budget::default() };
    let definition = Arc::new(Definition { budget: Some(budget), ..(*definition()).clone() });
    let mut log = Log { definition, events: Vec::new() }.says("go");
    log = log.asks_model().calls("a", "bash", Permission::Allow).answers("tool_use");
    log = log.starts("a").results("a", "ok");
    let last = log.events.len() - 1;
    let over = |mut log: Log, millis: i64| {
        log.events[last].created_at = from_millis(millis);
        next_step(&log.session())
    };
    assert_eq!(over(log_of(&log), 1999), Step::Sample);
    assert_eq!(over(log_of(&log), 2000), Step::Settle(StopReason::BudgetReached));
    let used = {
        log.events[last].created_at = from_millis(8500);
        log.session().used()
    };
    assert_eq!((used.active_ms, used.tool_ms, used.tokens), (8500, 8500, 1));
}

#[test]
fn bytes_of_the_network_count_toward_a_budget() {
    let budget = Budget { max_egress_bytes: Some(1000), ..Budget::default() };
    let definition = Arc::new(Definition { budget: Some(budget), ..(*definition()).clone() });
    let log = Log { definition, events: Vec::new() }.says("go");
    let log = log.asks_model().calls("a", "bash", Permission::Allow).answers("tool_use");
    let used = |log: &Log, received| {
        let target = "a.example:443".to_owned();
        let usage = EventBody::EgressUsage {
            tool_use_id: id("a"),
            target,
            connections: 1,
            sent: 100,
            received,
        };
        log_of(log).starts("a").then(usage).results("a", "ok")
    };
    check(&used(&log, 899), &Step::Sample);
    check(&used(&log, 900), &Step::Settle(StopReason::BudgetReached));
    let told = |received| {
        let session = used(&log, received).session();
        let facts = intent(&session, &next_step(&session), from_millis(0));
        facts.into_iter().find_map(|fact| match fact {
            EventBody::Noted { text, .. } => Some(text),
            _ => None,
        })
    };
    assert_eq!(told(100), None);
    assert!(told(700).unwrap().contains("800 of 1000 bytes to and from the network are used"));
}

#[test]
fn a_call_that_nobody_is_to_be_asked_about_ends_its_turn_or_is_refused() {
    let asks = |on_ask: &str| {
        let on_ask = Some(on_ask.parse().unwrap());
        let definition = Arc::new(Definition { on_ask, ..(*definition()).clone() });
        let log = Log { definition, events: Vec::new() }.says("go").asks_model();
        log.calls("a", "bash", Permission::Ask).answers("tool_use")
    };
    check(&asks("deny"), &run(&["a"]));
    let waits = Step::Settle(StopReason::RequiresAction { event_ids: vec![id("a")] });
    check(&asks("wait=1h"), &waits);
    check(&asks("webhook=http://a.example/"), &waits);
    let Step::GiveUp(error) = next_step(&asks("fail").session()) else { panic!("it goes on") };
    assert!(error.message.ends_with(r#"`fail`: bash {"command":"a"}"#), "{}", error.message);
    check(&asks("fail").settles().says("again"), &Step::Sample);
}

#[test]
fn an_interrupt_stops_the_step_that_did_not_know_of_it_and_no_other() {
    let interrupt = super::driver::Interrupt::default();
    let knowing = interrupt.step(5);
    interrupt.trip(5);
    assert!(!knowing.is_cancelled(), "it was chosen in its light");
    interrupt.trip(6);
    assert!(knowing.is_cancelled());
    assert!(interrupt.step(5).is_cancelled(), "it comes a moment before the event is read");
    let next = interrupt.step(6);
    interrupt.trip(6);
    assert!(!next.is_cancelled(), "it is told twice, and late");
}

#[test]
fn a_compaction_keeps_the_skills_that_were_read_as_far_as_there_is_room() {
    let shown = ShownSkill {
        name: "small".to_owned(),
        description: "d".to_owned(),
        from: "/somewhere".to_owned(),
        digest: String::new(),
    };
    let skills = Skills { shown: vec![shown], of_repositories: Vec::new() };
    let definition = Arc::new(Definition { skills, ..(*definition()).clone() });
    let mut log = Log { definition, events: Vec::new() }
        .says("go")
        .then(EventBody::ContextMeasured { window: 8000, fixed: 500 });
    let large = "x".repeat(20_000);
    for (call, skill, text) in
        [("a", "small", "Be kind."), ("b", "large", &large), ("c", "small", "Be brief.")]
    {
        let path = json!({ "file_path": format!("/mnt/session/skills/{skill}/SKILL.md") });
        let read = EventBody::AgentToolUse {
            name: "read".to_owned(),
            input: path.as_object().unwrap().clone(),
            evaluated_permission: Permission::Allow,
            evaluation: None,
        };
        log = log.asks_model().add(call, read).answers("tool_use").results(call, text);
    }
    let facts = super::compact::facts(&log.session(), Some("## Task\nGo on."));
    let EventBody::Compacted { text, after, .. } = &facts[0] else { panic!("{facts:?}") };
    let small = "<skill file=\"/mnt/session/skills/small/SKILL.md\">\nBe brief.\n</skill>";
    assert!(text.contains(small) && text.matches("<skill ").count() == 1, "{text}");
    let gone = "/mnt/session/skills/large/SKILL.md: there is no room for it here; read it again.";
    assert!(text.contains(gone), "{text}");
    assert!(*after < 4000, "{after}");
}
