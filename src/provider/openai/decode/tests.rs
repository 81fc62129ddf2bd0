//! The Chat Completions decoder on the quirks of its servers.

use super::OpenAiDecoder;
use crate::provider::ModelError;
use crate::provider::testing::{assemble, shown};

/// The answer, or the error, of a stream of these `data` lines.
fn decode(lines: &[&str]) -> Result<String, ModelError> {
    let mut decoder = OpenAiDecoder::new("p", "m");
    let mut deltas = Vec::new();
    for line in lines {
        deltas.extend(decoder.feed(format!("data: {line}\n\n").as_bytes())?);
    }
    deltas.extend(decoder.finish()?);
    assemble(deltas).map(|answer| shown(&answer))
}

fn check(quirk: &str, lines: &[&str], expected: Result<&str, &str>) {
    let got = decode(lines).map_err(|error| error.to_string());
    assert_eq!(got.as_deref().map_err(String::as_str), expected, "{quirk}: {lines:#?}");
}

fn delta(delta: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

fn calls(calls: &str) -> String {
    delta(&format!(r#"{{"tool_calls":[{calls}]}}"#))
}

fn end(reason: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#)
}

const DONE: &str = "[DONE]";

#[test]
fn tool_calls_in_every_dialect() {
    let two = Ok(r#"a {"x":1} | b {"y":2} | tool_use 0+0>0"#);
    let one = Ok(r#"a {"x":1} | tool_use 0+0>0"#);
    let call = |head: &str, name: &str, json: &str| {
        calls(&format!(r#"{{{head}"function":{{"name":"{name}","arguments":{json}}}}}"#))
    };
    let (x, y) = (r#""{\"x\":1}""#, r#""{\"y\":2}""#);
    let stop = end("tool_calls");
    let check = |quirk, lines: &[&str], expected| check(quirk, lines, expected);
    check(
        "1: no index",
        &[&call(r#""id":"1","#, "a", x), &call(r#""id":"2","#, "b", y), &stop, DONE],
        two,
    );
    check(
        "2: every call at index 0",
        &[
            &call(r#""index":0,"id":"1","#, "a", x),
            &call(r#""index":0,"id":"2","#, "b", y),
            &stop,
            DONE,
        ],
        two,
    );
    check(
        "2 and 3: index 0 and no id",
        &[&call(r#""index":0,"#, "a", x), &call(r#""index":0,"id":"","#, "b", y), &stop, DONE],
        two,
    );
    check("3: neither index nor id", &[&call("", "a", x), &call("", "b", y), &stop, DONE], two);
    check(
        "3: neither, and the same tool twice",
        &[&call("", "a", x), &call("", "a", x), &stop, DONE],
        Ok(r#"a {"x":1} | a {"x":1} | tool_use 0+0>0"#),
    );
    let both = format!(
        r#"{{"function":{{"name":"a","arguments":{x}}}}},{{"function":{{"name":"b","arguments":{y}}}}}"#
    );
    check("4: all calls in one delta", &[&calls(&both), &stop, DONE], two);
    let fragments = [
        call(r#""index":0,"id":"1","#, "a", r#""{""#),
        calls(r#"{"index":0,"function":{"arguments":"\"x\":"}}"#),
        calls(r#"{"index":0,"function":{"arguments":"1}"}}"#),
    ];
    let [f1, f2, f3] = &fragments;
    check("4: fragments, the first of which holds `{`", &[f1, f2, f3, &stop, DONE], one);
    check(
        "1 and 4: fragments without an index",
        &[
            &call(r#""id":"1","#, "a", r#""{\"x\"""#),
            &calls(r#"{"function":{"arguments":":1}"}}"#),
            &call(r#""id":"2","#, "b", r#""{\"y\"""#),
            &calls(r#"{"function":{"arguments":":2}"}}"#),
            &stop,
            DONE,
        ],
        two,
    );
    check(
        "4: the id and the name on every fragment",
        &[
            &call(r#""index":0,"id":"1","#, "a", r#""{\"x\"""#),
            &call(r#""index":0,"id":"1","#, "a", r#"":1}""#),
            &stop,
            DONE,
        ],
        one,
    );
    check(
        "4: the whole call twice under one id runs at most once",
        &[
            &call(r#""index":0,"id":"1","#, "a", x),
            &call(r#""index":0,"id":"1","#, "a", x),
            &stop,
            DONE,
        ],
        Ok(
            "a BAD The arguments are not valid JSON: trailing characters at line 1 column 8 | tool_use 0+0>0",
        ),
    );
    check(
        "4: interleaved by index",
        &[
            &call(r#""index":0,"id":"1","#, "a", r#""{\"x\"""#),
            &call(r#""index":1,"id":"2","#, "b", r#""{\"y\"""#),
            &calls(r#"{"index":0,"function":{"arguments":":1}"}}"#),
            &calls(r#"{"index":1,"function":{"arguments":":2}"}}"#),
            &stop,
            DONE,
        ],
        two,
    );
    check("5: arguments as an object", &[&call("", "a", r#"{"x":1}"#), &stop, DONE], one);
    check("5: no arguments", &[&call("", "a", r#""""#), &stop, DONE], Ok("a {} | tool_use 0+0>0"));
    check("5: null arguments", &[&call("", "a", "null"), &stop, DONE], Ok("a {} | tool_use 0+0>0"));
    check(
        "5: arguments that are no JSON",
        &[&call("", "a", r#""x=1""#), &stop, DONE],
        Ok(
            "a BAD The arguments are not valid JSON: expected value at line 1 column 1 | tool_use 0+0>0",
        ),
    );
    check("6: `stop` although there is a call", &[&call("", "a", x), &end("stop"), DONE], one);
    check(
        "6: `tool_calls` without any",
        &[&delta(r#"{"content":"hi"}"#), &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check(
        "the name comes after the id",
        &[
            &calls(r#"{"index":0,"id":"1"}"#),
            &calls(r#"{"index":0,"function":{"name":"a"}}"#),
            &calls(&format!(r#"{{"index":0,"function":{{"arguments":{x}}}}}"#)),
            &stop,
            DONE,
        ],
        one,
    );
    check(
        "16: a call as text stays text",
        &[&delta(r#"{"content":"<tool_call>{\"name\":\"a\"}</tool_call>"}"#), &end("stop"), DONE],
        Ok(r#"text "<tool_call>{\"name\":\"a\"}</tool_call>" | end_turn 0+0>0"#),
    );
    check(
        "cut by the limit",
        &[&call("", "a", x), &end("length"), DONE],
        Ok(
            "a BAD The call was cut by the token limit; send it again, in smaller pieces if it is long | max_tokens 0+0>0",
        ),
    );
    check(
        "[DONE] within a call",
        &[&call("", "a", r#""{\"x\"""#), DONE],
        Err("the answer of p broke off: it ended within a tool call"),
    );
}

#[test]
fn text_and_thoughts_in_every_dialect() {
    let stop = end("stop");
    let check = |quirk, lines: &[&str], expected| check(quirk, lines, expected);
    let thought = Ok(r#"thinking "hm" unsigned | text "hi" | end_turn 0+0>0"#);
    let hi = delta(r#"{"content":"hi"}"#);
    check(
        "8: reasoning_content",
        &[&delta(r#"{"reasoning_content":"hm"}"#), &hi, &stop, DONE],
        thought,
    );
    check(
        "8: reasoning",
        &[&delta(r#"{"reasoning":"hm","content":""}"#), &hi, &stop, DONE],
        thought,
    );
    check(
        "8: both names",
        &[&delta(r#"{"reasoning":"hm","reasoning_content":"hm"}"#), &hi, &stop, DONE],
        thought,
    );
    check(
        "8: inline tags, cut anywhere",
        &[
            &delta(r#"{"content":"<thi"}"#),
            &delta(r#"{"content":"nk>hm</"}"#),
            &delta(r#"{"content":"think>\n\nhi"}"#),
            &stop,
            DONE,
        ],
        thought,
    );
    check(
        "11: null content",
        &[&delta(r#"{"role":"assistant","content":null}"#), &hi, &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check(
        "11: no delta at all",
        &[r#"{"choices":[{"index":0,"finish_reason":"stop"}]}"#, DONE],
        Ok("end_turn 0+0>0"),
    );
    check(
        "content as parts",
        &[&delta(r#"{"content":[{"type":"text","text":"hi"}]}"#), &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check(
        "another choice",
        &[&hi, r#"{"choices":[{"index":1,"delta":{"content":"no"}}]}"#, &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check(
        "a refusal",
        &[&delta(r#"{"refusal":"I can"}"#), &delta(r#"{"refusal":"not"}"#), &stop, DONE],
        Ok("refusal 0+0>0"),
    );
    check("a filter", &[&hi, &end("content_filter"), DONE], Ok("text \"hi\" | refusal 0+0>0"));
}

#[test]
fn usage_and_endings_in_every_dialect() {
    let stop = end("stop");
    let hi = delta(r#"{"content":"hi"}"#);
    let check = |quirk, lines: &[&str], expected| check(quirk, lines, expected);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let counted = Ok("text \"hi\" | end_turn 6+4>2");
    check("9: usage in a last chunk", &[&hi, &stop, usage, DONE], counted);
    check(
        "9: usage after [DONE] is late",
        &[&hi, &stop, DONE, usage],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    let growing = r#"{"choices":[{"delta":{"content":"hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":null}}"#;
    let grown = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2}}"#;
    check(
        "9: usage in every chunk",
        &[growing, &stop, grown, DONE],
        Ok("text \"hi\" | end_turn 10+0>2"),
    );
    check(
        "9: usage null, choices null",
        &[r#"{"choices":null,"usage":null}"#, &hi, &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check("10: no [DONE]", &[&hi, &stop, usage], counted);
    check("10: no finish_reason", &[&hi, DONE], Ok("text \"hi\" | end_turn 0+0>0"));
    check(
        "10: neither",
        &[&hi],
        Err("the answer of p broke off: it ended without finish_reason and [DONE]"),
    );
    check(
        "12: an error in the stream",
        &[&hi, r#"{"error":{"message":"lost","type":"server_error","code":500}}"#],
        Err("p answered 500: lost"),
    );
    check(
        "12: an error as text",
        &[r#"{"error":"model runner has stopped"}"#],
        Err("p broke off its answer with an error: model runner has stopped"),
    );
    check(
        "12: an error that is null",
        &[r#"{"error":null}"#, &hi, &stop, DONE],
        Ok("text \"hi\" | end_turn 0+0>0"),
    );
    check(
        "17: overflow in the stream",
        &[r#"{"error":{"code":"context_length_exceeded","message":"long"}}"#],
        Err("the conversation is too long for the model: long"),
    );
    check(
        "no JSON",
        &["nonsense"],
        Err(
            "p sent what is not a Chat Completions stream: expected ident at line 1 column 2: nonsense",
        ),
    );
}

#[test]
fn the_last_line_may_lack_its_blank_line() {
    for tail in ["data: [DONE]", "data: [DONE]\n", "data:[DONE]\r\n"] {
        let mut decoder = OpenAiDecoder::new("p", "m");
        let hi = format!("data: {}\n\n", delta(r#"{"content":"hi"}"#));
        let mut deltas = decoder.feed(hi.as_bytes()).expect("a delta");
        deltas.extend(decoder.feed(tail.as_bytes()).expect("a tail"));
        deltas.extend(decoder.finish().expect("the end"));
        assert_eq!(
            assemble(deltas).map(|a| shown(&a)).as_deref(),
            Ok("text \"hi\" | end_turn 0+0>0")
        );
    }
}
