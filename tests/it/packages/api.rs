//! Sessions of the protocol whose environment has packages: built once, at first use, by whichever of them comes first.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Shop, shelf};
use crate::api::sessions::{Lab as Api, kinds, message};
use crate::support::{As, Casemate, until};

/// The model calls the package's program so often, and then has done.
fn turns(calls: usize) -> String {
    let call = "{tool_calls: [{bash: {command: casetest-pip}}]}, ";
    format!("turns: [{}{{text: Done.}}]", call.repeat(calls))
}

/// What the server has logged about packages, without what differs each time.
fn logged(casemate: &Casemate) -> Vec<Value> {
    let text = std::fs::read_to_string(casemate.home().join("server.log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_packages =
        |line: &Value| line["event"].as_str().is_some_and(|event| event.starts_with("packages_"));
    let mut lines: Vec<_> = lines.filter(of_packages).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        for name in ["time", "key", "log", "ms"] {
            line.remove(name);
        }
    }
    lines
}

fn api(shop: &Shop, who: As, calls: usize) -> Api {
    let casemate = shop.casemate(who, "registry.example");
    let model = casemate.script(&turns(calls));
    let config = json!({
        "type": "cloud",
        "networking": { "type": "limited", "allow_package_managers": true },
        "packages": { "pip": ["casetest"] },
    });
    let server = shop.lab.serve(casemate, who);
    Api::on(server, &model, &json!([{ "type": "agent_toolset_20260401" }]), &config)
}

fn results(events: &[Value]) -> Vec<&str> {
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    results.map(|event| event["content"][0]["text"].as_str().unwrap().trim()).collect()
}

fn installing() -> Value {
    json!({ "event": "packages_installing", "manager": "pip", "packages": 1 })
}

fn installed() -> Value {
    json!({ "event": "packages_installed", "manager": "pip", "packages": 2 })
}

#[test]
fn sessions_that_need_the_same_packages_wait_for_one_build() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        shop.make("hangs");
        let api = api(&shop, who, 1);
        let sessions: Vec<_> = (0..4).map(|_| api.session(&["go"])).collect();
        // What the models said is there, and all of them wait.
        for session in &sessions {
            api.once(session, "agent.tool_use");
        }
        until("a build", || (shelf(&api.server.casemate).len() == 2).then_some(()));
        shop.mend("hangs");
        for session in &sessions {
            api.settled(session);
            assert_eq!(results(&api.events(session)), ["MARKER pip 1"], "{who:?}");
        }
        let casemate = &api.server.casemate;
        assert_eq!(shelf(casemate), ["KEY"], "{who:?}");
        assert_eq!(logged(casemate), [installing(), installed()], "{who:?}");
    }
}

#[test]
fn a_build_that_fails_ends_the_turn_and_the_next_message_tries_again() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        shop.make("lacks");
        let api = api(&shop, who, 2);
        let session = api.session(&["go"]);
        api.settled(&session);
        let events = api.events(&session);
        let error = events.iter().find(|event| event["type"] == "session.error").unwrap();
        let error = &error["error"];
        assert_eq!(error["type"], "unknown_error");
        assert_eq!(error["retry_status"], json!({ "type": "exhausted" }));
        let said = error["message"].as_str().unwrap();
        assert!(said.contains("pip could not install its packages (exit code 1)"), "{said}");
        let log = said.split("the whole log is ").nth(1).unwrap().lines().next().unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("No matching distribution found for casetest"), "{log}");
        let stop = &events.last().unwrap()["stop_reason"];
        assert_eq!(stop, &json!({ "type": "retries_exhausted" }), "{events:?}");
        let casemate = &api.server.casemate;
        assert_eq!(shelf(casemate), [".log"], "{who:?}");
        let failed = &logged(casemate)[1];
        assert_eq!(failed["event"], "packages_failed", "{failed}");
        shop.mend("lacks");
        api.send(&session, &json!([message("again")])).expect(200);
        until("the answer", || {
            let events = api.events(&session);
            results(&events).contains(&"MARKER pip 1").then_some(())
        });
        api.settled(&session);
        assert_eq!(shelf(casemate), ["KEY"], "{who:?}");
    }
}

#[test]
fn an_interrupt_does_not_wait_for_a_build() {
    let Some(shop) = Shop::open() else { return };
    shop.make("hangs");
    let api = api(&shop, As::Me, 2);
    let session = api.session(&["go"]);
    api.once(&session, "agent.tool_use");
    api.send(&session, &json!([{ "type": "user.interrupt" }])).expect(200);
    api.settled(&session);
    let events = api.events(&session);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["stop_reason"]["type"]),
        (&json!("session.status_idle"), &json!("end_turn"))
    );
    // The build goes on, for whoever comes next.
    shop.mend("hangs");
    until("the build's end", || (shelf(&api.server.casemate) == ["KEY"]).then_some(()));
    api.send(&session, &json!([message("again")])).expect(200);
    until("the answer", || results(&api.events(&session)).contains(&"MARKER pip 1").then_some(()));
    assert_eq!(logged(&api.server.casemate), [installing(), installed()]);
}

#[test]
fn a_server_that_ends_in_the_middle_of_a_build_leaves_nothing_half() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            shop.make("hangs");
            let api = api(&shop, who, 1);
            let session = api.session(&["go"]);
            api.once(&session, "agent.tool_use");
            until("a build", || (shelf(&api.server.casemate).len() == 2).then_some(()));
            let Api { server, agent, environment } = api;
            let casemate = server.end(signal);
            let left = shelf(&casemate);
            match signal {
                Signal::SIGTERM => assert_eq!(left, [] as [&str; 0], "{who:?}"),
                // The lock ended with its holder; the next start sweeps the rest.
                _ => assert_eq!(left, [".building", ".lock"], "{who:?}"),
            }
            shop.mend("hangs");
            let api = Api { server: shop.lab.serve(casemate, who), agent, environment };
            // It was at work, so it goes on by itself.
            api.settled(&session);
            let events = api.events(&session);
            assert_eq!(results(&events), ["MARKER pip 1"], "{who:?} {signal}");
            assert!(!kinds(&events).contains(&"session.error"), "{events:?}");
            assert_eq!(shelf(&api.server.casemate), ["KEY"], "{who:?} {signal}");
        }
    }
}
