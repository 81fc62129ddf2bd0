//! The bytes of Chat Completions requests.

use super::Dialect;
use crate::provider::Request;
use crate::provider::testing::{full, plain, pretty};
use crate::provider::transcript::Transcript;

fn body(request: &Request, dialect: Dialect) -> Vec<u8> {
    super::body(request, dialect, &mut Transcript::default())
}

#[test]
fn a_plain_question() {
    insta::assert_snapshot!("plain_openai", pretty(&body(&plain(), Dialect::OpenAi)));
    insta::assert_snapshot!("plain_compatible", pretty(&body(&plain(), Dialect::Compatible)));
    // Without tools there is nothing to hold the model to.
    insta::assert_snapshot!("plain_compatible", pretty(&body(&plain(), Dialect::Constrained)));
}

#[test]
fn every_kind_of_block() {
    insta::assert_snapshot!("full_openai", pretty(&body(&full(), Dialect::OpenAi)));
    insta::assert_snapshot!("full_compatible", pretty(&body(&full(), Dialect::Compatible)));
    insta::assert_snapshot!("full_constrained", pretty(&body(&full(), Dialect::Constrained)));
}

#[test]
fn nulls_come_only_from_the_model() {
    let body = String::from_utf8(body(&full(), Dialect::Compatible)).expect("JSON is UTF-8");
    let ours = body.replace(r#"\":null"#, "");
    assert!(!ours.contains(":null"), "{body}");
}

#[test]
fn the_dialect_follows_from_the_host() {
    for (url, expected) in [
        ("https://api.openai.com/v1", Dialect::OpenAi),
        ("https://api.openai.com:443/v1", Dialect::OpenAi),
        ("https://api.openai.com.evil.example/v1", Dialect::Compatible),
        ("http://127.0.0.1:8080/v1", Dialect::Compatible),
    ] {
        assert_eq!(Dialect::of(url, false), expected, "{url}");
    }
    assert_eq!(Dialect::of("http://127.0.0.1:8080/v1", true), Dialect::Constrained);
    assert_eq!(Dialect::of("https://api.openai.com/v1", true), Dialect::OpenAi);
}

#[test]
fn a_request_is_the_same_whatever_was_said_before_it() {
    let mut transcript = Transcript::default();
    let all = full();
    for end in (0..=all.messages.len()).chain([2, 5, 0, 6]) {
        let mut request = all.clone();
        request.messages.truncate(end);
        let grown = super::body(&request, Dialect::OpenAi, &mut transcript);
        assert_eq!(pretty(&grown), pretty(&body(&request, Dialect::OpenAi)));
    }
}
