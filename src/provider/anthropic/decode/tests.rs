//! The Messages API decoder on hand-written streams.

use super::AnthropicDecoder;
use crate::provider::ModelError;
use crate::provider::testing::{assemble, shown};

/// The answer, or the error, of a stream of these `data` lines.
fn decode(lines: &[&str]) -> Result<String, ModelError> {
    let mut decoder = AnthropicDecoder::new("p", "m");
    let mut deltas = Vec::new();
    for line in lines {
        deltas.extend(decoder.feed(format!("data: {line}\n\n").as_bytes())?);
    }
    deltas.extend(decoder.finish()?);
    assemble(deltas).map(|answer| shown(&answer))
}

fn check(lines: &[&str], expected: Result<&str, &str>) {
    let got = decode(lines).map_err(|error| error.to_string());
    assert_eq!(got.as_deref().map_err(String::as_str), expected, "{lines:#?}");
}

const STOP: &str = r#"{"type":"message_stop"}"#;

fn ended(reason: &str) -> String {
    format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#)
}

#[test]
fn dialects_of_the_stream() {
    let text =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"hi"}}"#;
    let tool = r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"x y","name":"bash"}}"#;
    let input = r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#;
    check(&[text, &ended("end_turn"), STOP], Ok("text \"hi\" | end_turn 0+0>0"));
    // Nobody says why it stopped.
    check(&[text, STOP], Ok("text \"hi\" | end_turn 0+0>0"));
    check(&[text, tool, input, STOP], Ok("text \"hi\" | bash {\"a\":1} | tool_use 0+0>0"));
    // Pings, unknown events, blocks and deltas.
    let server = r#"{"type":"content_block_start","index":7,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#;
    let server_input = r#"{"type":"content_block_delta","index":7,"delta":{"type":"input_json_delta","partial_json":"{"}}"#;
    let citation = r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{}}}"#;
    let stopped = r#"{"type":"content_block_stop","index":7}"#;
    check(
        &[
            r#"{"type":"ping"}"#,
            r#"{"type":"new","index":"?"}"#,
            text,
            server,
            server_input,
            citation,
            stopped,
            STOP,
        ],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    // The whole input at the start, as some proxies send it.
    let whole = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"bash","input":{"a":1}}}"#;
    check(&[whole, &ended("tool_use"), STOP], Ok("bash {\"a\":1} | tool_use 0+0>0"));
    // Tokens at the start and at the end.
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"cache_read_input_tokens":4,"output_tokens":1}}}"#;
    let counts = r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":30,"input_tokens":null}}"#;
    check(&[start, text, counts, STOP], Ok("text \"hi\" | max_tokens 9+4>30"));
    let refusal = r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"type":"refusal","category":"bio","explanation":null}}}"#;
    check(&[refusal, STOP], Ok("refusal 0+0>0"));
    check(
        &[&ended("model_context_window_exceeded"), STOP],
        Ok("model_context_window_exceeded 0+0>0"),
    );
    check(&[&ended("pause_turn"), STOP], Ok("pause_turn 0+0>0"));
    check(&[STOP, "not JSON any more"], Ok("end_turn 0+0>0"));
}

#[test]
fn errors_of_the_stream() {
    let text =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"hi"}}"#;
    check(&[text], Err("the answer of p broke off: it ended without message_stop"));
    check(&[], Err("the answer of p broke off: it ended without message_stop"));
    check(
        &[text, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#],
        Err("p broke off its answer with an error: Overloaded"),
    );
    check(
        &[r#"{"error":{"code":500,"message":"slot lost","type":"server_error"}}"#],
        Err("p answered 500: slot lost"),
    );
    check(
        &["nonsense"],
        Err(
            "p sent what is not a Messages API stream: expected ident at line 1 column 2: nonsense",
        ),
    );
    check(
        &[r#"{"type":"content_block_stop"}"#],
        Err(
            "p sent what is not a Messages API stream: missing field `index` at line 1 column 29: {\"type\":\"content_block_stop\"}",
        ),
    );
}
