//! The bytes of Messages API requests.

use crate::provider::Request;
use crate::provider::testing::{full, plain, pretty};
use crate::provider::transcript::Transcript;

fn body(request: &Request) -> Vec<u8> {
    super::body(request, &mut Transcript::default())
}

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
fn a_request_is_the_same_whatever_was_said_before_it() {
    let mut transcript = Transcript::default();
    let all = full();
    for end in (0..=all.messages.len()).chain([2, 5, 0, 6]) {
        let mut request = all.clone();
        request.messages.truncate(end);
        assert_eq!(pretty(&super::body(&request, &mut transcript)), pretty(&body(&request)));
    }
}
