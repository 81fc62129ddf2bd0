//! Clients that vanish in the middle and clients that do not read: what they leave behind, and what they hold.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::Server;
use super::sessions::{ENDLESS, Lab, id, message};
use super::stream::Stream;
use crate::support::until;

/// What a server holds while it answers one request.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    tasks: u64,
    connections: u64,
    streams: u64,
    /// Paths of the data directory.
    files: Vec<String>,
}

impl Held {
    fn by(server: &Server) -> Self {
        let metrics = server.get("/metrics").body;
        let gauge = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}: {metrics}")).trim().parse().unwrap()
        };
        let mut files = Vec::new();
        for name in ["", "files", "sessions"] {
            let dir = server.casemate.data_dir().join(name);
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            files.extend(entries.map(|entry| format!("{name}/{:?}", entry.unwrap().file_name())));
        }
        files.sort();
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
        Self {
            descriptors,
            tasks: gauge("casemate_tasks"),
            connections: gauge("casemate_connections"),
            streams: gauge("casemate_event_streams"),
            files,
        }
    }
}

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Going {
    /// It closes its socket.
    Closes,
    /// Its machine is gone, and another says that there is no such connection.
    Resets,
}

/// Sends the beginning of something, perhaps hears the beginning of an answer, and is gone.
fn vanish(server: &Server, request: &str, hears: &str, going: Going) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(hears) {
        let mut piece = [0; 512];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{request}: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..count]);
    }
    if let Going::Resets = going {
        let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &now).unwrap();
    }
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let lab = Lab::new(ENDLESS);
    let server = &lab.server;
    let (works, rests) = (lab.session(&["go"]), lab.session(&[]));
    lab.once(&works, "span.model_request_start");
    let form = |bytes: &str| {
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{bytes}"
        )
    };
    let whole = format!("{}\r\n--b--\r\n", form(&"x".repeat(4 << 20)));
    let kind = ("content-type", "multipart/form-data; boundary=b");
    let made =
        server.send("POST", "/v1/files", &[("x-api-key", &server.key), kind], whole.as_bytes());
    let file = id(&made.expect(200));
    let request = |line: &str, more: &str| {
        let key = &server.key;
        format!("{line} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{more}\r\n")
    };
    let stream = |session: &str| {
        request(
            &format!("GET /v1/sessions/{session}/events/stream?event_deltas[]=agent.message"),
            "",
        )
    };
    let sized = "content-length: 100000\r\n";
    let upload = format!("{sized}content-type: {}\r\n", kind.1);
    let patch = json!({ "title": "other" }).to_string();
    let ways = [
        ("GET /v1/sess".to_owned(), ""),
        (request("POST /v1/sessions", sized) + "{\"agent\": ", ""),
        (request("POST /v1/files", &upload), ""),
        (request("POST /v1/files", &upload) + &form("half of it"), ""),
        (request(&format!("GET /v1/files/{file}/content"), ""), "xxxx"),
        (request(&format!("GET /v1/files/{file}/content"), ""), ""),
        (stream(&works), "event-stream"),
        (stream(&rests), "event-stream"),
        (stream(&rests), ""),
        (request(&format!("POST /v1/sessions/{rests}/events"), sized) + "{\"events\": [", ""),
        (
            request(
                &format!("POST /v1/sessions/{rests}"),
                &format!("content-length: {}\r\n", patch.len()),
            ) + &patch,
            "",
        ),
        (request("GET /v1/sessions", "") + &request("GET /v1/sessions", ""), "200"),
    ];
    let all = || {
        for (request, hears) in &ways {
            for going in [Going::Closes, Going::Resets] {
                vanish(server, request, hears, going);
            }
        }
    };
    // What the first of each kind makes for good is made before it is counted.
    all();
    let gone = |held: &Held| held.streams == 0 && held.connections == 1;
    // What they began may still be on its way out when their connections are closed.
    let settled = || {
        let held = Held::by(server);
        std::thread::sleep(Duration::from_millis(100));
        (gone(&held) && Held::by(server) == held).then_some(held)
    };
    let before = until("the first to be gone", settled);
    for _ in 0..5 {
        all();
    }
    let mut last = None;
    until("nothing of them to be left", || {
        let held = Held::by(server);
        let same = held == before;
        if last.as_ref() != Some(&held) {
            println!("{held:?}");
        }
        last = Some(held);
        same.then_some(())
    });
    assert_eq!(lab.get(&works)["status"], "running");
}

/// Resident memory in MiB.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn who_is_far_behind_and_does_not_read_holds_little() {
    const STALLED: u64 = 10;
    const TURNS: u64 = 10;
    let long = "x".repeat(1 << 20);
    let lab = Lab::new(&format!("{{text: '{long}', repeat: {TURNS}}}"));
    let session = lab.session(&[]);
    let mut quick = Stream::of(&lab, &session);
    for _ in 0..TURNS {
        lab.send(&session, &json!([message("go")])).expect(200);
        quick.until("session.status_idle");
    }
    let list = lab.server.get(&format!("/v1/sessions/{session}/events?limit=1")).expect(200);
    let from = format!("last-event-id: {}\r\n", id(&list["data"][0]));
    let path = format!("/v1/sessions/{session}/events/stream");
    let before = memory(&lab.server);
    let stalled = (0..STALLED).map(|_| {
        let mut stream = Stream::open(&lab, &path, &from);
        stream.until("agent.message");
        stream
    });
    let stalled: Vec<_> = stalled.collect();
    let held = memory(&lab.server).saturating_sub(before);
    // All that they have not read yet were 90.
    assert!(held < STALLED * TURNS / 2, "{held} MiB");
    // And it is there for whoever goes on.
    for mut stream in stalled {
        stream.until("session.status_idle");
    }
    drop(quick);
    until("the streams' end", || {
        let metrics = lab.server.get("/metrics").body;
        metrics.contains("\ncasemate_event_streams 0\n").then_some(())
    });
}
