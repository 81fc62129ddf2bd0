//! What a session's log tells, as lines that a snapshot can hold, and the promises that every log keeps.

use serde_json::Value;

/// Demands of any log: no gap, one end for each request, one result for each call, no call started twice.
#[track_caller]
pub(crate) fn assert_whole(events: &[Value]) {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], i + 1, "the log has a gap");
    }
    for start in of("span.model_request_start") {
        let ends =
            of("span.model_request_end").filter(|end| end["model_request_start_id"] == start["id"]);
        assert_eq!(ends.count(), 1, "ends of {start}");
    }
    for call in of("agent.tool_use") {
        let mine = |event: &&Value| event["tool_use_id"] == call["id"];
        assert_eq!(of("agent.tool_result").filter(mine).count(), 1, "results of {call}");
        assert!(of("internal.tool_started").filter(mine).count() <= 1, "{call} was started twice");
    }
    assert_eq!(events.last().map(|last| &last["type"]), Some(&"session.status_idle".into()));
}

/// The log, one line for each fact that people or models see.
pub(crate) fn told(events: &[Value]) -> String {
    events.iter().filter_map(line).map(|line| format!("  {line}\n")).collect()
}

fn line(event: &Value) -> Option<String> {
    let text = || short(event["content"][0]["text"].as_str().unwrap_or_default());
    Some(match event["type"].as_str()? {
        "user.message" => format!("user: {}", text()),
        "agent.message" => format!("says: {}", text()),
        "internal.thinking" => {
            format!("thinks: {} sealed {}", event["thinking"], event["signature"])
        }
        "internal.redacted_thinking" => format!("thinks: redacted {}", event["data"]),
        "agent.tool_use" => format!("calls {} {}", event["name"].as_str()?, event["input"]),
        "agent.tool_result" if event["is_error"] == true => format!("failure: {}", text()),
        "agent.tool_result" => format!("result: {}", text()),
        "session.error" => {
            let error = &event["error"];
            let message = without_jitter(error["message"].as_str()?);
            format!(
                "{} [{}] {message}",
                error["type"].as_str()?,
                error["retry_status"]["type"].as_str()?
            )
        }
        "session.status_idle" => format!("idle: {}", event["stop_reason"]["type"].as_str()?),
        _ => return None,
    })
}

fn short(text: &str) -> String {
    const CHARS: usize = 160;
    let text = text.trim_end().replace('\n', "⏎");
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The wait before the next try is random.
fn without_jitter(message: &str) -> String {
    match message.rsplit_once("trying again in ") {
        Some((before, _)) => format!("{before}trying again in N s"),
        None => message.to_owned(),
    }
}
