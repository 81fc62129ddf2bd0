//! What a session's log, its model and its owner learn of the network; and names whose addresses change.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::{Lab, find};
use crate::support::{As, Casemate, Finished, lacking};

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

fn lab() -> Option<Lab> {
    if find("curl").is_none() {
        lacking("curl");
        return None;
    }
    let lab = Lab::new()?;
    Lab::say_marker(&lab.server, &[80]);
    Some(lab)
}

fn events(lab: &Lab, casemate: &Casemate, who: As) -> Vec<Value> {
    let listed = lab.casemate(casemate, who, &["sessions", "list", "--json"]).expect(0);
    let rows: Value = serde_json::from_str(&listed.stdout()).unwrap();
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    lab.casemate(casemate, who, &["sessions", "events", &id, "--internal"]).expect(0).json_lines()
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

#[test]
fn a_refusal_is_an_event_of_its_call_and_the_model_reads_it() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(
            r#"
turns:
  - tool_calls:
      - bash: { command: "curl -s http://allowed.example/; curl -s http://other.example/; curl -s http://10.77.0.1/" }
  - tool_calls:
      - bash: { command: "curl -s http://allowed.example/ -o /dev/null; curl -s http://allowed.example:8080/; echo $?" }
  - text: Done.
"#,
        );
        let words = ["run", "-m", &model, "--allow-host", "allowed.example", "go"];
        let run = lab.casemate(&casemate, who, &words).expect(0);
        assert!(
            run.stderr().contains("! other.example was not reached: it is not in allowed_hosts"),
            "{run:?}"
        );
        let events = events(&lab, &casemate, who);
        let calls = of(&events, "agent.tool_use");
        let refused: Vec<_> = of(&events, "internal.egress_refused")
            .iter()
            .map(|event| {
                json!([event["tool_use_id"], event["target"], event["rule"], event["change"]])
            })
            .collect();
        let rule = "it is not in allowed_hosts";
        let change = |host: &str| format!("add `{host}` to allowed_hosts (--allow-host {host})");
        let expected = [
            json!([calls[0]["id"], "other.example", rule, change("other.example")]),
            json!([calls[0]["id"], "10.77.0.1:80", rule, change("10.77.0.1")]),
            json!([calls[1]["id"], "allowed.example:8080", rule, change("allowed.example:8080")]),
        ];
        assert_eq!(refused, expected, "{who:?}");
        let results = of(&events, "agent.tool_result");
        let told = results[0]["content"][1]["text"].as_str().unwrap();
        let sentence = |target: &str, host: &str| {
            format!("[network] {target} was not reached: {rule}. To allow it: {}.", change(host))
        };
        let both =
            [sentence("other.example", "other.example"), sentence("10.77.0.1:80", "10.77.0.1")];
        assert_eq!(told, both.join("\n"), "{who:?}");
        let usage = of(&events, "internal.egress_usage");
        let places: Vec<_> =
            usage.iter().map(|event| (&event["target"], &event["connections"])).collect();
        let (place, one) = (json!("allowed.example:80"), json!(1));
        assert_eq!(places, [(&place, &one), (&place, &one)], "{who:?}");
        let ready = of(&events, "internal.sandbox_ready");
        let layers = ready[0]["layers"].as_array().unwrap();
        assert!(layers.contains(&json!("network door (nftables redirect)")), "{layers:?}");
        check_net(&lab, &casemate, who, &events);
    }
}

/// `casemate net` adds up what the log says.
fn check_net(lab: &Lab, casemate: &Casemate, who: As, events: &[Value]) {
    let id = events[0]["session_id"].as_str().unwrap();
    let shown = lab.casemate(casemate, who, &["net", id, "--json"]).expect(0);
    let shown: Value = serde_json::from_str(&shown.stdout()).unwrap();
    let usage = of(events, "internal.egress_usage");
    let sum = |field: &str| usage.iter().map(|event| event[field].as_u64().unwrap()).sum::<u64>();
    let reached = json!([{
        "target": "allowed.example:80",
        "connections": 2,
        "sent": sum("sent"),
        "received": sum("received"),
    }]);
    assert_eq!(shown["reached"], reached);
    assert!(sum("sent") > 100 && sum("received") > 100);
    assert_eq!(shown["refused"].as_array().unwrap().len(), 3);
    let text = lab.casemate(casemate, who, &["net", id]).expect(0).stdout();
    assert!(text.contains("reached  allowed.example:80  2 connections, "), "{text}");
    assert!(text.contains("refused  other.example  it is not in allowed_hosts\n"), "{text}");
}

#[test]
fn what_the_background_tries_is_told_with_the_next_call() {
    let Some(lab) = lab() else { return };
    let casemate = Casemate::new();
    let model = casemate.script(
        r#"
turns:
  - tool_calls:
      - bash: { command: "mkfifo go; (read x < go; curl -s http://other.example/; echo > done) & mkfifo done; echo began" }
  - tool_calls:
      - bash: { command: "echo > go; read x < done; echo seen" }
  - text: Done.
"#,
    );
    lab.casemate(&casemate, As::Me, &["run", "-m", &model, "--network", "limited", "go"]).expect(0);
    let events = events(&lab, &casemate, As::Me);
    let refused = of(&events, "internal.egress_refused");
    assert_eq!(refused.len(), 1);
    let calls = of(&events, "agent.tool_use");
    assert_eq!(refused[0]["tool_use_id"], calls[1]["id"]);
    let results = of(&events, "agent.tool_result");
    assert!(results[1]["content"][1]["text"].as_str().unwrap().contains("other.example"));
}

#[test]
fn what_the_background_is_refused_is_said_while_the_model_thinks() {
    let Some(lab) = lab() else { return };
    let casemate = Casemate::new();
    // The model thinks for longer than anybody waits: what is seen was said before it answered.
    let model = casemate.script(
        r#"
turns:
  - tool_calls:
      - bash: { command: "mkfifo go; (read x < go; for i in 1 2 3 4 5 6 7 8 9; do curl -s http://other$i.example/; done) > /dev/null 2>&1 & echo began" }
  - text: Done.
    delay_ms: 600000
"#,
    );
    let program = env!("CARGO_BIN_EXE_casemate");
    let words = [program, "run", "-m", &model, "--network", "limited", "go"];
    let mut command = lab.command(&casemate, As::Me, &words);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let wait = |wanted: &dyn Fn(&[Value]) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let listed = lab.casemate(&casemate, As::Me, &["sessions", "list", "--json"]);
            let began = listed.code() == Some(0) && listed.stdout().contains("sesn_");
            let seen = if began { events(&lab, &casemate, As::Me) } else { Vec::new() };
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "nothing was said: {seen:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let is = |event: &Value, kind: &str| event["type"] == kind;
    // It waits for the word until the model is asked again.
    wait(&|seen| of(seen, "span.model_request_start").len() == 2);
    let mut word = File::options().write(true).open(casemate.workspace().join("go")).unwrap();
    word.write_all(b"x\n").unwrap();
    // A name that is looked up twice may be refused in two reports.
    let refused = |seen: &[Value]| -> BTreeSet<String> {
        let targets = of(seen, "internal.egress_refused");
        targets.iter().map(|event| event["target"].to_string()).collect()
    };
    let seen = wait(&|seen| refused(seen).len() == 9);
    run.kill().unwrap();
    run.wait().unwrap();
    let request = seen.iter().rposition(|event| is(event, "span.model_request_start"));
    let answer = seen.iter().rposition(|event| is(event, "span.model_request_end"));
    let first = seen.iter().position(|event| is(event, "internal.egress_refused"));
    assert!(answer < request && request < first, "{seen:#?}");
    let calls = of(&seen, "agent.tool_use");
    for refused in of(&seen, "internal.egress_refused") {
        assert_eq!(refused["tool_use_id"], calls[0]["id"]);
    }
}

fn fetch(lab: &Lab, casemate: &Casemate, flags: &[&str], shell: &str) -> Finished {
    lab.sandboxed(casemate, As::Me, flags, &["bash", "-c", shell])
}

#[test]
fn a_name_that_comes_to_mean_another_address_widens_nothing() {
    let Some(lab) = lab() else { return };
    lab.answer_names(|name, count| match (name, count) {
        ("rebind.example", 0) => vec![PUBLIC],
        ("rebind.example", 1) => vec![PRIVATE],
        ("rebind.example", 2) => vec![LOOPBACK],
        ("rebind.example", 3) => vec![METADATA],
        ("rebind.example", _) => vec![PRIVATE, PUBLIC],
        _ => vec![],
    });
    Lab::say_marker(&lab.client, &[80]);
    let casemate = Casemate::new();
    let shell = "for i in 1 2 3 4 5; do curl -s -m 8 http://rebind.example/ || echo no; done";
    let done = fetch(&lab, &casemate, &["--allow-host", "rebind.example"], shell).expect(0);
    let outcomes: Vec<_> = done.stdout().lines().map(str::to_owned).collect();
    assert_eq!(
        outcomes,
        ["MARKER rebind.example", "no", "no", "no", "MARKER rebind.example"],
        "{done:?}"
    );
    for kind in ["a private address", "a loopback address", "a link-local address"] {
        assert!(done.stderr().contains(kind), "{done:?}");
    }
}

#[test]
fn a_name_is_looked_up_only_when_it_is_allowed_and_used() {
    let Some(lab) = lab() else { return };
    lab.answer_names(|name, _| if name == "listed.example" { vec![PUBLIC] } else { vec![] });
    let casemate = Casemate::new();
    let flags = ["--allow-host", "listed.example", "--allow-host", "gone.example"];
    let shell = "getent hosts listed.example; getent hosts secret.leak.example; getent ahosts x.listed.example; true";
    let done = fetch(&lab, &casemate, &flags, shell).expect(0);
    assert_eq!(done.stdout(), "198.18.0.1      listed.example\n", "{done:?}");
    assert_eq!(*lab.asked.lock().unwrap(), Vec::<String>::new());
    let done = fetch(&lab, &casemate, &flags, "curl -s -m 8 http://listed.example/").expect(0);
    assert_eq!(done.stdout(), "MARKER listed.example\n");
    assert_eq!(*lab.asked.lock().unwrap(), ["listed.example."]);
    let done =
        fetch(&lab, &casemate, &flags, "curl -s -m 8 http://gone.example/ || echo no").expect(0);
    assert_eq!(done.stdout(), "no\n");
    assert!(
        done.stderr().contains("gone.example:80 was not reached: it cannot be looked up"),
        "{done:?}"
    );
}

#[test]
fn connections_are_bounded_and_come_back() {
    let Some(lab) = lab() else { return };
    if find("python3").is_none() {
        return lacking("python3");
    }
    let script = "\
import socket, time
def one():
    try:
        s = socket.create_connection(('allowed.example', 80), 20)
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n')
        return s if b'MARKER' in s.recv(999) else None
    except OSError:
        return None
held = [one() for _ in range(264)]
print(sum(s is not None for s in held))
[s.close() for s in held if s]
until = time.time() + 30
while not one() and time.time() < until: time.sleep(.05)
print('again' if time.time() < until else 'never')
";
    let words = ["/usr/bin/python3", "-c", script];
    for who in As::all() {
        let casemate = Casemate::of(who);
        let done = lab.sandboxed(&casemate, who, &["--allow-host", "allowed.example"], &words);
        assert_eq!(done.expect(0).stdout(), "256\nagain\n", "{who:?}");
    }
}

#[test]
fn rules_that_contradict_each_other_are_refused_by_name() {
    let casemate = Casemate::new();
    let check = |flags: &[&str], expected: &str| {
        let words = [&["sandbox", "exec"], flags, &["--", "true"]].concat();
        let done = casemate.run(&words).expect(2);
        assert!(done.stderr().contains(expected), "{done:?}");
    };
    check(&["--network", "none", "--allow-host", "a.example"], "--network none contradicts");
    check(
        &["--network", "unrestricted", "--allow-package-managers"],
        "--network unrestricted contradicts",
    );
    check(&["--allow-host", "https://a.example/"], "is a URL; give the host alone");
    check(&["--allow-host", "0x7f.1"], "is an address, or is read as one");
    check(&["--allow-host", "*.com"], "whole top-level domain");
    check(
        &["--sandbox", "landlock", "--allow-host", "a.example"],
        "cannot be had with --sandbox=landlock",
    );
    check(
        &["--sandbox", "none", "--allow-host", "a.example"],
        "nothing would hold it to its hosts",
    );
}
