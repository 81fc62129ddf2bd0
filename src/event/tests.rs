//! Every event's JSON, pinned: it is the wire and the disk.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::agent::Agent;
use crate::agent::mcp::ServerTool;
use crate::clock::from_millis;
use crate::skill::{Brought, ShownSkill};

fn id() -> EventId {
    "sevt_1".parse().expect("an id")
}

/// One event of each kind at least, every member present where it can be absent.
#[expect(clippy::too_many_lines, reason = "a table of like things")]
fn samples() -> Vec<EventBody> {
    use EventBody as E;
    let thread = || "sthr_1".parse().expect("an id");
    let session = || "sesn_1".parse().expect("an id");
    let (text, name) = (|| vec![ContentBlock::text("hi")], || "a".to_owned());
    let input = || json!({"command": "ls"}).as_object().expect("a map").clone();
    let details = Some(RefusalDetails {
        r#type: "refusal".into(),
        category: Some("cyber".into()),
        explanation: None,
    });
    let web = ServerToolUse { web_search_requests: 1, web_fetch_requests: 2 };
    let usage = Usage {
        input_tokens: 1,
        output_tokens: 2,
        cache_creation_input_tokens: 3,
        cache_read_input_tokens: 4,
    };
    let money = Some(Money { cents: 2500 });
    let budget = Budget { max_list_cost: money, max_tokens: Some(9), ..Budget::default() };
    let asks = Judgement::Ask { reason_code: ReasonCode::Indeterminate };
    let requires = StopReason::RequiresAction { event_ids: vec![id()] };
    let searched = ContentBlock::SearchResult {
        source: "https://a.example".into(),
        title: "A".into(),
        content: vec![SearchText { r#type: SearchTextKind::Text, text: "found".into() }],
        citations: Citations { enabled: true },
    };
    let document = ContentBlock::Document {
        source: DocumentSource::File { file_id: "file_1".into() },
        title: Some("t".into()),
        context: Some("c".into()),
    };
    let image = ContentBlock::Image { source: ImageSource::File { file_id: "file_2".into() } };
    let agent = Agent { tools: Vec::new(), ..Agent::with_model("m") };
    vec![
        E::UserMessage { content: vec![ContentBlock::text("hi"), document, image] },
        E::UserInterrupt { session_thread_id: None },
        E::UserInterrupt { session_thread_id: Some(thread()) },
        E::UserToolConfirmation {
            tool_use_id: id(),
            result: Confirmation::Deny,
            deny_message: Some("no".into()),
        },
        E::UserCustomToolResult {
            custom_tool_use_id: id(),
            content: Some(vec![searched]),
            is_error: Some(false),
        },
        E::UserCustomToolResult { custom_tool_use_id: id(), content: None, is_error: None },
        E::SystemMessage { content: text() },
        E::AgentMessage { content: text() },
        E::AgentThinking {},
        E::AgentToolUse {
            name: name(),
            input: input(),
            evaluated_permission: Permission::Ask,
            evaluation: Some(Evaluation::Auto { evaluated_permission: asks }),
        },
        E::AgentToolUse {
            name: name(),
            input: input(),
            evaluated_permission: Permission::Deny,
            evaluation: None,
        },
        E::AgentCustomToolUse { name: name(), input: input() },
        E::AgentToolResult { tool_use_id: id(), content: text(), is_error: true },
        E::AgentMcpToolUse {
            mcp_server_name: "docs".into(),
            name: name(),
            input: input(),
            evaluated_permission: Permission::Ask,
            evaluation: Some(Evaluation::AlwaysAsk),
        },
        E::AgentMcpToolResult { mcp_tool_use_id: id(), content: text(), is_error: false },
        E::McpListed {
            mcp_server_name: "docs".into(),
            tools: vec![ServerTool {
                name: name(),
                description: "Finds pages.".into(),
                input_schema: json!({"type": "object"}).as_object().expect("a map").clone(),
            }],
        },
        E::McpLoaded { names: vec!["mcp__docs__a".into()] },
        E::SkillsFound(Brought {
            skills: vec![ShownSkill {
                name: "demo".into(),
                description: "Does it.".into(),
                from: "https://git.example/hello .agents/skills/demo".into(),
                digest: "ab".into(),
            }],
            passed_over: vec!["a name is taken".into()],
        }),
        E::SessionError {
            error: ErrorDetail {
                r#type: ErrorKind::McpConnectionFailedError,
                message: "no answer".into(),
                retry_status: RetryStatus::Retrying,
                repository_url: None,
                mcp_server_name: Some("docs".into()),
            },
        },
        E::StatusRunning {},
        E::StatusIdle { stop_reason: requires, stop_details: None },
        E::StatusIdle { stop_reason: StopReason::Refusal, stop_details: details.clone() },
        E::StatusRescheduled {},
        E::StatusTerminated {},
        E::ThreadStatusRunning { session_thread_id: thread(), agent_name: name() },
        E::ThreadStatusIdle {
            session_thread_id: thread(),
            agent_name: name(),
            stop_reason: StopReason::BudgetReached,
            stop_details: None,
        },
        E::ThreadStatusRescheduled { session_thread_id: thread(), agent_name: name() },
        E::ThreadStatusTerminated { session_thread_id: thread(), agent_name: name() },
        E::SessionUpdated {
            agent: Some(json!({"id": "agent_1"})),
            title: Some(None),
            metadata: Some([("k".to_owned(), "v".to_owned())].into()),
            budget: Some(None),
        },
        E::SessionUpdated {
            agent: None,
            title: Some(Some("t".into())),
            metadata: None,
            budget: None,
        },
        E::SessionError {
            error: ErrorDetail {
                r#type: ErrorKind::ModelOverloadedError,
                message: "busy".into(),
                retry_status: RetryStatus::Retrying,
                repository_url: None,
                mcp_server_name: None,
            },
        },
        E::SessionUsage {
            usage: UsageSnapshot::new(usage, Cost::picodollars(25_000_000_000), 1500, web),
            budget: Some(budget),
        },
        E::SessionUsage {
            usage: UsageSnapshot::new(
                Usage::default(),
                Cost::default(),
                0,
                ServerToolUse::default(),
            ),
            budget: None,
        },
        E::ModelRequestStart {},
        E::ModelRequestEnd { model_request_start_id: id(), is_error: false, model_usage: usage },
        E::Thinking { thinking: "hm".into(), signature: Some("seal".into()) },
        E::RedactedThinking { data: "x".into() },
        E::ModelStop { reason: "end_turn".into(), model: "p/m".into(), refusal: details },
        E::TakenUp { event_ids: vec![id()] },
        E::Flushed { event_ids: vec![id()] },
        E::Metered { model_request_start_id: id(), cost: Cost::picodollars(3_000_000) },
        E::WebUsed { tool_use_id: id(), used: web },
        E::Judged {
            tool_use_id: id(),
            decision: Permission::Deny,
            reason: "it deletes".into(),
            model: "p/m".into(),
            usage,
            cost: Cost::picodollars(7),
        },
        E::Noted { about: NoteSubject::Repetition, text: "again".into() },
        E::Noted { about: NoteSubject::Budget { level: 1 }, text: "little".into() },
        E::AgentReplaced { agent: Box::new(agent) },
        E::Archived {},
        E::Resumed {},
        E::ToolStarted { tool_use_id: id() },
        E::SandboxFailed { message: "no".into() },
        E::EgressRefused {
            tool_use_id: id(),
            target: "a:1".into(),
            rule: "r".into(),
            change: Some("c".into()),
        },
        E::EgressUsage {
            tool_use_id: id(),
            target: "a:1".into(),
            connections: 1,
            sent: 2,
            received: 3,
        },
        E::ProtectedMade {
            tool_use_id: id(),
            path: ".git/commondir".into(),
            set_aside: Some(".git/commondir.set-aside-1".into()),
        },
        E::SandboxReady { tier: "full".into(), layers: vec!["seccomp".into()] },
        E::ThreadContextCompacted {},
        E::ContextMeasured { window: 4096, fixed: 900 },
        E::ContextOverflowed { message: "too long".into() },
        E::ContextTrimmed { tool_use_ids: vec![id()] },
        E::CompactionRequested {},
        E::CompactionStarted { reason: CompactionReason::Overflow },
        E::CompactionFailed { message: "empty".into(), again: true },
        E::Compacted {
            text: "all".into(),
            summary: "much".into(),
            instructions: vec!["be brief".into()],
            by: Summarised::Model,
            before: 3000,
            after: 200,
        },
        E::Sealed { home: 1, work: 2, files: 3, changed: 4, bytes: 5 },
        E::Unsealed { message: "no".into() },
        E::KeptBack { message: "no".into() },
        E::Rewound { to: id(), position: 1, home: 2, work: 3 },
        E::Applying { paths: vec![name()] },
        E::Discarding { paths: vec![name()] },
        E::Applied { applied: vec![name()], merged: vec![], kept: vec![] },
        E::Discarded { discarded: vec![name()], kept: vec![] },
        E::Forked { from: session(), at: id(), home: 1, work: 2 },
    ]
}

#[test]
fn the_json_of_every_event_is_pinned_and_read_back_as_it_was() {
    let samples = samples();
    let mut shown = String::new();
    for body in &samples {
        let json = serde_json::to_string(body).expect("string keys");
        let again: EventBody = serde_json::from_str(&json).expect("what was written");
        assert_eq!(again, *body, "{json}");
        assert!(json.starts_with(&format!(r#"{{"type":"{}""#, body.kind())), "{json}");
        shown += &(json + "\n");
    }
    let kinds: BTreeSet<_> = samples.iter().map(EventBody::kind).collect();
    let variants = include_str!("body.rs").matches("#[serde(rename = \"").count();
    assert_eq!(kinds.len(), variants, "a kind of event has no sample");
    insta::assert_snapshot!(shown);
}

#[test]
fn money_is_whole_cents_of_one_currency() {
    let check = |json: &str, cents: Option<u64>| {
        let read = serde_json::from_str::<Money>(json).ok();
        assert_eq!(read.map(|money| money.cents), cents, "{json}");
    };
    check(r#"{"amount":"2500","currency":"USD"}"#, Some(2500));
    check(r#"{"amount":"0","currency":"USD"}"#, Some(0));
    for amount in [r#""25.00""#, r#""-1""#, r#""007""#, r#""+1""#, r#""""#, "25", r#""900000001""#]
    {
        check(&format!(r#"{{"amount":{amount},"currency":"USD"}}"#), None);
    }
    check(r#"{"amount":"1","currency":"EUR"}"#, None);
    check(r#"{"amount":"1","currency":"USD","more":1}"#, None);
}

#[test]
fn costs_are_summed_exactly_and_shown_rounded() {
    let mut sum = Cost::default();
    (0..10).for_each(|_| sum += Cost::picodollars(499_999_999));
    assert_eq!(sum.as_picodollars(), 4_999_999_990);
    assert_eq!(sum.rounded(), Money { cents: 0 });
    sum += Cost::picodollars(10);
    assert_eq!(sum.rounded(), Money { cents: 1 });
    let limit = Budget { max_list_cost: Some(Money { cents: 1 }), ..Budget::default() };
    let reached = |picodollars| {
        let cost = Cost::picodollars(picodollars);
        limit.is_reached(&Used { cost, ..Used::default() })
    };
    assert!(!reached(9_999_999_999), "what is shown as a cent is not one yet");
    assert!(reached(10_000_000_000));
}

#[test]
fn only_work_counts_as_activity() {
    use EventBody as E;
    let idle = || E::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None };
    let say = || E::UserMessage { content: vec![ContentBlock::text("hi")] };
    let check = |events: Vec<(i64, EventBody)>, now: i64, expected: u64| {
        let mut activity = Activity::default();
        events.iter().for_each(|(at, body)| activity.apply(from_millis(*at), body));
        assert_eq!(activity.total_ms(from_millis(now)), expected, "{events:?}");
    };
    check(vec![(5, say())], 50, 0);
    check(vec![(5, say()), (10, E::StatusRunning {})], 15, 5);
    check(vec![(10, E::StatusRunning {}), (12, idle()), (90, say())], 99, 2);
    let waits = vec![(0, E::StatusRunning {}), (3, E::StatusRescheduled {})];
    check([waits, vec![(10, E::StatusRunning {})]].concat(), 14, 7);
    // Cut at 3, told something at 80 while nobody worked, resumed at 100.
    let cut = vec![(0, E::StatusRunning {}), (3, E::ModelRequestStart {}), (80, say())];
    check([cut, vec![(100, E::Resumed {})]].concat(), 104, 7);
    check(vec![(7, E::Resumed {})], 9, 0);
    // The clock went back.
    check(vec![(10, E::StatusRunning {}), (5, idle())], 20, 0);
}
