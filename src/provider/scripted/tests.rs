//! Scripted models: what a file may say, and what they answer.

use futures_util::StreamExt as _;

use super::*;
use crate::event::ContentBlock;
use crate::provider::assemble::{Answer, AnswerBlock, Assembler};
use crate::provider::{Message, ToolSpec};

/// A request after `answered` answers, each of a call with the result `result`.
fn request(answered: usize, result: &str, is_error: bool) -> Request {
    let user = |blocks| Arc::new(Message { role: Role::User, blocks });
    let mut messages = vec![user(vec![Block::Content(ContentBlock::text("make hello"))])];
    for i in 0..answered {
        let id = format!("t{i}");
        let call =
            Block::ToolUse { id: id.clone(), name: "bash".into(), input: Default::default() };
        messages.push(Arc::new(Message { role: Role::Assistant, blocks: vec![call] }));
        let content = vec![ContentBlock::text(result)];
        messages.push(user(vec![Block::ToolResult { tool_use_id: id, content, is_error }]));
    }
    let tool = |name: &str| ToolSpec {
        name: name.into(),
        description: String::new(),
        input_schema: serde_json::json!({"type": "object"}),
    };
    Request {
        model: "script".into(),
        system: "You are casemate.".into(),
        tools: [tool("bash"), tool("read")].into(),
        messages,
        max_tokens: 100,
        effort: None,
        answer: None,
        purpose: Purpose::Answer { gone: 0 },
    }
}

async fn ask(model: &Scripted, request: Request) -> Result<Answer, ModelError> {
    let mut assembler = Assembler::new("scripted");
    let mut stream = model.stream(request);
    while let Some(delta) = stream.next().await {
        assembler.push(delta?)?;
    }
    assembler.finish()
}

const SCRIPT: &str = r#"
turns:
  - expect: {last_user_contains: make hello, system_contains: casemate, tools: [bash, read], messages: 1}
    thinking: Easy.
    text: "I'll write it."
    tool_calls:
      - bash: {command: "echo hello > hello.txt", list: ["{n}"]}
      - {name: read, input: {path: hello.txt}}
      - {name: read, raw_input: '{"path": '}
      - read:
    usage: {input_tokens: 10, output_tokens: 5}
    chunks: 3
  - expect: {last_tool_result_contains: hello, tool_result_is_error: false}
    text: "Turn {n}."
    repeat: 2
  - text: cut
    stop: max_tokens
"#;

#[tokio::test]
async fn the_turn_follows_from_the_request_alone() {
    let model = Scripted::parse(SCRIPT).expect("a good script");
    let answer = ask(&model, request(0, "", false)).await.expect("turn 1");
    assert_eq!(answer.stop, Stop::ToolUse);
    assert_eq!(answer.usage.input_tokens, 10);
    let shown: Vec<_> = answer
        .blocks
        .iter()
        .map(|block| match block {
            AnswerBlock::ToolCall { name, input: Ok(input) } => {
                format!("{name} {}", serde_json::to_string(input).expect("string keys"))
            }
            AnswerBlock::ToolCall { name, input: Err(bad) } => {
                format!("{name} !{}", bad.raw_excerpt)
            }
            other => format!("{other:?}"),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    Thinking { thinking: "Easy.", signature: None }
    Text("I'll write it.")
    bash {"command":"echo hello > hello.txt","list":["1"]}
    read {"path":"hello.txt"}
    read !{"path": 
    read {}
    "#);
    // Another process, later turns: nothing is remembered.
    let resumed = Scripted::parse(SCRIPT).expect("a good script");
    for (answered, text) in [(2, "Turn 3."), (1, "Turn 2."), (1, "Turn 2.")] {
        let answer = ask(&resumed, request(answered, "hello", false)).await.expect("a turn");
        assert_eq!(answer.blocks, [AnswerBlock::Text(text.into())]);
    }
    let answer = ask(&resumed, request(3, "", false)).await.expect("turn 4");
    assert_eq!(answer.stop, Stop::MaxTokens);
}

#[tokio::test]
async fn a_request_that_does_not_fit_says_which_turn_and_what() {
    let model = Scripted::parse(SCRIPT).expect("a good script");
    for (request, expected) in [
        (
            request(1, "bye", false),
            "turn 2: expected last_tool_result_contains `hello`, but got `bye`",
        ),
        (request(1, "hello", true), "turn 2: expected tool_result_is_error false, but got true"),
        (request(4, "", false), "the request is for turn 5, but the script has 4 turns"),
    ] {
        let error = ask(&model, request).await.unwrap_err();
        assert_eq!(error, ModelError::Script { reason: expected.into() });
    }
}

#[tokio::test]
async fn injected_errors_come_first_and_once() {
    let yaml =
        "turns: [{text: hello there, chunks: 4, errors: [529, broken, timeout, refused, empty]}]";
    let model = Scripted::parse(yaml).expect("a good script");
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(match ask(&model, request(0, "", false)).await {
            Ok(answer) => format!("{:?}", answer.blocks),
            Err(error) => error.to_string(),
        });
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    scripted answered 529: the script answers 529
    the answer of scripted broke off: the script breaks off here
    no answer from scripted within 0 s while waiting for more of the answer
    could not reach scripted://: connection refused
    []
    [Text("hello there")]
    "#);
}

#[tokio::test(start_paused = true)]
async fn delays_pass_in_the_runtimes_time() {
    let yaml = "turns: [{text: abcd, chunks: 4, delay_ms: 1000, chunk_delay_ms: 10}]";
    let model = Scripted::parse(yaml).expect("a good script");
    let begun = tokio::time::Instant::now();
    ask(&model, request(0, "", false)).await.expect("turn 1");
    assert_eq!(begun.elapsed(), Duration::from_millis(1060));
}

#[test]
fn a_bad_script_says_where() {
    let errors = [
        "turns: []",
        "turns: [{text: a}, {txt: b}]",
        "turns: [{text: a, delay_ms: soon}]",
        "turns: [{expect: {mesages: 1}}]",
        "turns: [{tool_calls: [{bash: {command: ls}, read: {}}]}]",
        "turns: [{tool_calls: [{bash: ls}]}]",
        "turns: [{tool_calls: [{name: bash, input: {}, raw_input: x}]}]",
        "turns: [{errors: [fire]}]",
        "turns: [{errors: [200]}]",
        "turns: [{stop: now}]",
        "turns: [{repeat: 0}]",
    ]
    .map(|yaml| Scripted::parse(yaml).expect_err(yaml).to_string());
    insta::assert_snapshot!(errors.join("\n"), @r#"
    the scripted model cannot answer: the script has no turns
    the scripted model cannot answer: turn 2: txt: unknown field `txt`, expected one of `expect`, `thinking`, `text`, `tool_calls`, `delay_ms`, `chunk_delay_ms`, `chunks`, `errors`, `stop`, `usage`, `repeat`
    the scripted model cannot answer: turn 1: delay_ms: invalid type: string "soon", expected u64
    the scripted model cannot answer: turn 1: expect: unknown field `mesages`, expected one of `last_user_contains`, `last_tool_result_contains`, `tool_result_is_error`, `system_contains`, `conversation_contains`, `last_system_contains`, `tools`, `messages`
    the scripted model cannot answer: turn 1: tool_calls: each call is `TOOL: {arguments}`
    the scripted model cannot answer: turn 1: tool_calls: the arguments of bash must be a mapping
    the scripted model cannot answer: turn 1: tool_calls: bash has both input and raw_input
    the scripted model cannot answer: turn 1: errors: `fire` is not one of a status, broken, timeout, refused, empty, context
    the scripted model cannot answer: turn 1: errors: 200 is not an error status
    the scripted model cannot answer: turn 1: stop: `now` is not one of end_turn, tool_use, max_tokens, stop_sequence, pause_turn, refusal, model_context_window_exceeded
    the scripted model cannot answer: turn 1: repeat: must be at least 1
    "#);
}

#[test]
fn a_missing_file_is_named() {
    let error = Scripted::load(Path::new("/nowhere/x.yaml")).expect_err("no such file");
    assert!(error.to_string().contains("/nowhere/x.yaml: No such file"), "{error}");
}
