//! The primary thread. (Checklist of the protocol: 120, 131.)

use serde_json::{Value, json};

use super::sessions::{Lab, id};

#[test]
fn a_session_has_its_primary_thread() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&["go"]);
    lab.settled(&session);
    let path = format!("/v1/sessions/{session}/threads");
    let threads = lab.server.get(&path).expect(200);
    let thread = &threads["data"][0];
    let events = lab.events(&session);
    assert_eq!(thread["id"], events[1]["session_thread_id"]);
    assert_eq!(thread["parent_thread_id"], Value::Null);
    assert_eq!((&thread["type"], &thread["status"]), (&json!("session_thread"), &json!("idle")));
    assert_eq!(thread["agent"]["id"], json!(lab.agent));
    let one = format!("{path}/{}", id(thread));
    assert_eq!(lab.server.get(&one).expect(200)["id"], thread["id"]);
    assert_eq!(lab.server.get(&format!("{one}/events")).expect(200)["data"], json!(events));
    assert_eq!(lab.server.post(&format!("{one}/archive"), &json!({})).error().0, 400);
    for (query, count) in [("statuses[]=idle", 1), ("statuses[]=running", 0)] {
        let listed = lab.server.get(&format!("{path}?{query}")).expect(200);
        assert_eq!(listed["data"].as_array().unwrap().len(), count, "{query}");
    }
    for path in
        [format!("{path}/sthr_other"), format!("{path}/x/events"), format!("{path}/x/stream")]
    {
        assert_eq!(lab.server.get(&path).error().0, 404, "{path}");
    }
    // The session's own path has `events/stream`; a thread's has not.
    assert_eq!(lab.server.get(&format!("{one}/events/stream")).error().0, 404);
}
