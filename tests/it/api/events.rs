//! Events over the protocol: sending and listing. (Checklist of the protocol: 79–92, 99–101, 107, 108.)

use std::collections::HashSet;

use serde_json::{Value, json};

use super::sessions::{ENDLESS, Lab, id, kinds, message};

// 80–86
#[test]
fn what_is_sent_is_read_strictly_and_as_a_whole() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let block = |block: Value| json!({ "type": "user.message", "content": [block] });
    for (event, expected) in [
        (json!(7), "events[1]: must be an object, not a number"),
        (json!({}), "events[1].type: Field required"),
        (
            json!({ "type": "user.shout" }),
            "events[1].type: `user.shout` is no event that a client sends",
        ),
        (
            json!({ "type": "agent.message", "content": [] }),
            "events[1].type: `agent.message` is no event",
        ),
        (
            json!({ "type": "user.message", "content": [] }),
            "events[1].content: must have at least one block",
        ),
        (
            json!({ "type": "user.message", "content": "text" }),
            "events[1].content: must be an array, not a string",
        ),
        (block(json!({ "type": "redacted" })), "events[1].content[0].type: redacted blocks"),
        (block(json!({ "type": "text" })), "events[1].content[0].text: Field required"),
        (
            block(json!({ "type": "text", "text": "x", "more": 1 })),
            "events[1].content[0].more: Extra inputs",
        ),
        (
            block(json!({ "type": "search_result" })),
            "events[1].content[0].type: `search_result` is no block",
        ),
        (
            block(
                json!({ "type": "image", "source": { "type": "base64", "media_type": "image/bmp", "data": "eA==" } }),
            ),
            "events[1].content[0].source.media_type: must be one of image/png",
        ),
        (
            block(
                json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "?" } }),
            ),
            "events[1].content[0].source.data: must be standard base64",
        ),
        (
            block(
                json!({ "type": "document", "source": { "type": "url", "url": "file:///etc/passwd" } }),
            ),
            "events[1].content[0].source.url: must be an http or https URL",
        ),
        (
            json!({ "type": "user.tool_result", "tool_use_id": "sevt_x" }),
            "events[1].type: is for sessions in self-hosted",
        ),
        (
            json!({ "type": "user.define_outcome", "description": "x" }),
            "events[1].type: outcomes are not supported",
        ),
        (
            json!({ "type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "maybe" }),
            "events[1].result: must be",
        ),
        (
            json!({ "type": "user.tool_confirmation", "tool_use_id": "x", "result": "allow" }),
            "events[1].tool_use_id: `x` is not",
        ),
        (
            json!({ "type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "allow", "deny_message": "no" }),
            "events[1].deny_message: goes with the result `deny` only",
        ),
        (
            json!({ "type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "deny" }),
            "events[1].tool_use_id: sevt_x",
        ),
        (
            json!({ "type": "user.custom_tool_result", "custom_tool_use_id": "sevt_x" }),
            "events[1].custom_tool_use_id: sevt_x",
        ),
        (
            json!({ "type": "user.interrupt", "session_thread_id": "sthr_other" }),
            "events[1].session_thread_id: the session has no thread sthr_other",
        ),
        (
            json!({ "type": "system.message", "content": [{ "type": "image" }] }),
            "events[1].content[0].type: `image` is no block",
        ),
    ] {
        let (status, kind, told) = lab.send(&session, &json!([message("first"), event])).error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{event}: {told}");
        assert!(told.starts_with(expected), "{event}: {told}");
    }
    let system = json!({ "type": "system.message", "content": [{ "type": "text", "text": "s" }] });
    assert_eq!(lab.send(&session, &json!([system, message("x")])).error().0, 400);
    assert_eq!(lab.send(&session, &json!([])).error().0, 400);
    assert_eq!(lab.events(&session), Vec::<Value>::new());
    assert_eq!(lab.send("sesn_unknown", &json!([message("x")])).error().0, 404);
}

// 79, 89–92, 107
#[test]
fn a_turn_is_listed_in_the_order_of_the_protocol() {
    let lab = Lab::new("{thinking: hm, text: hello}");
    let session = lab.session(&[]);
    let sent = lab.send(&session, &json!([message("one"), message("two")])).expect(200);
    let echoes = sent["data"].as_array().unwrap();
    assert_eq!(
        echoes.iter().map(|event| &event["processed_at"]).collect::<Vec<_>>(),
        [&Value::Null; 2]
    );
    lab.settled(&session);
    let events = lab.events(&session);
    assert_eq!(
        kinds(&events),
        [
            "session.status_running",
            "session.thread_status_running",
            "user.message",
            "user.message",
            "span.model_request_start",
            "agent.thinking",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    assert_eq!([id(&events[2]), id(&events[3])], [id(&echoes[0]), id(&echoes[1])]);
    assert!(events.iter().all(|event| event["processed_at"].is_string()), "{events:?}");
    assert_eq!(events[6]["content"], json!([{ "type": "text", "text": "hello" }]));
    assert_eq!(events[7]["model_request_start_id"], events[4]["id"]);
    let idle = events.last().unwrap();
    let expected = json!({ "id": idle["id"], "processed_at": idle["processed_at"],
        "type": "session.status_idle", "stop_reason": { "type": "end_turn" }, "stop_details": null });
    assert_eq!(*idle, expected);
}

/// The ids of all events, page by page.
pub(super) fn walk(lab: &Lab, session: &str, query: &str) -> Vec<String> {
    follow(lab, session, query, String::new())
}

/// The ids of all events from a page on.
fn follow(lab: &Lab, session: &str, query: &str, mut page: String) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let path = format!("/v1/sessions/{session}/events?{query}{page}");
        let reply = lab.server.get(&path).expect(200);
        seen.extend(reply["data"].as_array().unwrap().iter().map(id));
        let Some(next) = reply["next_page"].as_str() else { return seen };
        page = format!("&page={next}");
    }
}

// 107, 108
#[test]
fn pages_hold_every_event_once() {
    let lab = Lab::new("{text: hello}, {text: again}");
    let session = lab.session(&["one", "two"]);
    lab.settled(&session);
    lab.send(&session, &json!([message("three")])).expect(200);
    lab.once(&session, "session.status_idle");
    lab.settled(&session);
    let events = lab.events(&session);
    let all: Vec<_> = events.iter().map(id).collect();
    for limit in [1, 2, 3, 7, 1000] {
        assert_eq!(walk(&lab, &session, &format!("limit={limit}")), all, "{limit}");
        let mut down = walk(&lab, &session, &format!("limit={limit}&order=desc"));
        down.reverse();
        assert_eq!(down, all, "{limit}");
    }
    let of = |kinds: &[&str]| {
        let wanted = |event: &&Value| kinds.contains(&event["type"].as_str().unwrap());
        events.iter().filter(wanted).map(id).collect::<Vec<_>>()
    };
    let query = "limit=1&types[]=user.message&types[]=agent.message";
    assert_eq!(walk(&lab, &session, query), of(&["user.message", "agent.message"]));
    assert_eq!(walk(&lab, &session, "types=agent.thinking"), Vec::<String>::new());
    let first = events[0]["processed_at"].as_str().unwrap();
    assert_eq!(walk(&lab, &session, &format!("created_at[gte]={first}")), all);
    assert_eq!(walk(&lab, &session, &format!("created_at[lt]={first}")), Vec::<String>::new());
    let page = lab.server.get(&format!("/v1/sessions/{session}/events?limit=1")).expect(200);
    let cursor = page["next_page"].as_str().unwrap();
    for query in [
        format!("order=desc&page={cursor}"),
        "types[]=session.deleted".to_owned(),
        "types[]=nonsense".to_owned(),
        "limit=0".to_owned(),
        "limit=1001".to_owned(),
        "order=up".to_owned(),
    ] {
        let reply = lab.server.get(&format!("/v1/sessions/{session}/events?{query}"));
        assert_eq!(reply.error().0, 400, "{query}");
    }
}

// 87, 99, 108
#[test]
fn what_waits_is_listed_last_and_once_though_it_is_taken_up_meanwhile() {
    let lab = Lab::new(ENDLESS);
    let session = lab.session(&["begin"]);
    lab.once(&session, "span.model_request_start");
    let sent = lab.send(&session, &json!([message("a"), message("b"), message("c")])).expect(200);
    let waiting: Vec<_> = sent["data"].as_array().unwrap().iter().map(id).collect();
    let events = lab.events(&session);
    let tail = &events[events.len() - 3..];
    assert_eq!(tail.iter().map(id).collect::<Vec<_>>(), waiting);
    assert!(tail.iter().all(|event| event["processed_at"].is_null()));
    let path = format!("/v1/sessions/{session}/events");
    let up = lab.server.get(&format!("{path}?limit={}", events.len() - 1)).expect(200);
    let down = lab.server.get(&format!("{path}?order=desc&limit=2")).expect(200);
    let bounded = format!("{path}?created_at[gte]=2020-01-01T00:00:00Z");
    let bounded = lab.server.get(&bounded).expect(200);
    assert_eq!(bounded["data"].as_array().unwrap().len(), events.len() - 3);
    lab.send(&session, &json!([{ "type": "user.interrupt" }])).expect(200);
    lab.once(&session, "user.interrupt");
    let seen = |page: &Value, order: &str| {
        let mut seen: Vec<_> = page["data"].as_array().unwrap().iter().map(id).collect();
        let cursor = page["next_page"].as_str().unwrap();
        seen.extend(follow(&lab, &session, &format!("{order}&limit=2"), format!("&page={cursor}")));
        let unique: HashSet<_> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "{seen:?}");
        unique
    };
    let before: HashSet<_> = events.iter().map(id).collect();
    assert_eq!(seen(&down, "order=desc"), before);
    assert!(seen(&up, "order=asc").is_superset(&before));
}

// 101
#[test]
fn an_interrupt_that_finds_nothing_is_not_recorded() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let sent = lab.send(&session, &json!([{ "type": "user.interrupt" }])).expect(200);
    assert_eq!(sent["data"][0]["type"], "user.interrupt");
    assert_eq!(lab.events(&session), Vec::<Value>::new());
}
