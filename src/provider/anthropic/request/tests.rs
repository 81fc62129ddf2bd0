//! The bytes of Messages API requests.

use super::body;
use crate::provider::testing::{full, plain, pretty};

#[test]
fn a_plain_question() {
    insta::assert_snapshot!(pretty(&body(&plain())));
}

#[test]
fn every_kind_of_block() {
    insta::assert_snapshot!(pretty(&body(&full())));
}

#[test]
fn without_a_system_prompt_the_tools_carry_the_breakpoint() {
    let mut request = full();
    request.system = " ".into();
    let body = String::from_utf8(body(&request)).expect("JSON is UTF-8");
    assert!(!body.contains("\"system\""), "{body}");
    assert_eq!(body.matches("ephemeral").count(), 3);
    let tools =
        &body[body.find("\"tools\"").expect("tools")..body.find("\"messages\"").expect("m")];
    assert!(tools.ends_with("\"cache_control\":{\"type\":\"ephemeral\"}}],"), "{tools}");
}

#[test]
fn a_longer_conversation_keeps_the_bytes_before_it() {
    let long = full();
    let mut short = full();
    short.messages.truncate(3);
    let strip = |request| {
        let body = String::from_utf8(body(request)).expect("JSON is UTF-8");
        body.replace(r#","cache_control":{"type":"ephemeral"}"#, "")
    };
    let (short, long) = (strip(&short), strip(&long));
    assert!(long.starts_with(short.trim_end_matches("]}")), "{short}\n{long}");
}
