//! The bytes of Chat Completions requests.

use super::{Dialect, body};
use crate::provider::testing::{full, plain, pretty};

#[test]
fn a_plain_question() {
    insta::assert_snapshot!("plain_openai", pretty(&body(&plain(), Dialect::OpenAi)));
    insta::assert_snapshot!("plain_compatible", pretty(&body(&plain(), Dialect::Compatible)));
}

#[test]
fn every_kind_of_block() {
    insta::assert_snapshot!("full_openai", pretty(&body(&full(), Dialect::OpenAi)));
    insta::assert_snapshot!("full_compatible", pretty(&body(&full(), Dialect::Compatible)));
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
        assert_eq!(Dialect::of(url), expected, "{url}");
    }
}
