//! Calls that need permission: nobody is waited for, and `resume` brings the answer.

use std::process::Stdio;

use serde_json::Value;

use super::{events, of_type, texts};
use crate::support::{As, Casemate, Finished, Running};

const SCRIPT: &str = r#"
turns:
  - text: May I?
    tool_calls:
      - bash: { command: echo first >> marks }
      - bash: { command: echo second >> marks }
  - text: Thank you.
    repeat: 9
"#;

const ASKS: &str = "tools:\n  - type: agent_toolset_20260401\n    \
                    default_config: { permission_policy: { type: always_ask } }\n";

struct Asking {
    casemate: Casemate,
    calls: Vec<String>,
    run: Finished,
}

/// A session whose two calls wait.
fn asking(who: As) -> Asking {
    let casemate = Casemate::of(who);
    let model = casemate.script(SCRIPT);
    casemate.put("agent.yaml", ASKS);
    let run = casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "go"]).expect(4);
    let log = events(&casemate);
    let id = |call: &&Value| call["id"].as_str().unwrap().to_owned();
    let calls = of_type(&log, "agent.tool_use").iter().map(id).collect();
    Asking { casemate, calls, run }
}

impl Asking {
    fn marks(&self) -> String {
        std::fs::read_to_string(self.casemate.workspace().join("marks")).unwrap_or_default()
    }

    fn resume(&self, args: &[&str]) -> Finished {
        self.casemate.run(&[&["resume"], args].concat())
    }
}

#[test]
fn a_run_that_nobody_watches_says_how_to_answer_and_ends() {
    for who in As::all() {
        let asking = asking(who);
        let (id, [first, second]) = (asking.casemate.only_session(), &asking.calls[..]) else {
            panic!("there are {} calls", asking.calls.len());
        };
        assert_eq!(asking.run.stdout(), "May I?\n");
        super::demand(
            &asking.run,
            &[
                "? 2 tool calls wait for your permission\n",
                &format!("    {first}\n      bash  echo first >> marks\n"),
                &format!("  allow  casemate resume {id} --allow {first} --allow {second}\n"),
                &format!("  deny   casemate resume {id} --deny '{first}=REASON'\n"),
                "? waiting for you after ",
            ],
        );
        assert_eq!(asking.marks(), "");
        assert_eq!(asking.resume(&["--yes"]).expect(0).stdout(), "Thank you.\n");
        assert_eq!(asking.marks(), "first\nsecond\n");
    }
}

#[test]
fn what_standard_input_is_makes_no_difference() {
    let casemate = Casemate::new();
    let model = casemate.script(SCRIPT);
    casemate.put("agent.yaml", ASKS);
    let args = ["run", "-m", &model, "--agent", "agent.yaml", "go"];
    casemate.shell(r#"exec "$@" <&-"#, &args).expect(4);
    let mut command = casemate.command();
    // A pipe that stays open and never says anything.
    let (silent, _open) = std::io::pipe().unwrap();
    command.args(args).stdin(Stdio::from(silent));
    Running::start(command).finish().expect(4);
    for format in ["json", "stream-json"] {
        casemate.run(&[&args[..], &["--output", format]].concat()).expect(4);
    }
}

#[test]
fn json_names_the_calls_that_wait() {
    let casemate = Casemate::new();
    let model = casemate.script(SCRIPT);
    casemate.put("agent.yaml", ASKS);
    let args = ["run", "-m", &model, "--agent", "agent.yaml", "--output", "json", "go"];
    let report = casemate.run(&args).expect(4).json_lines().remove(0);
    assert_eq!(report["status"], "needs_input");
    let waiting = report["waiting"].as_array().unwrap();
    let commands: Vec<_> = waiting.iter().map(|call| &call["input"]["command"]).collect();
    assert_eq!(commands, ["echo first >> marks", "echo second >> marks"]);
    let ids: Vec<_> = waiting.iter().map(|call| &call["event_id"]).collect();
    let stop = &report["stop_reason"];
    assert_eq!(
        (&stop["type"], stop["event_ids"].as_array().unwrap().len()),
        (&"requires_action".into(), ids.len())
    );
}

#[test]
fn yes_allows_beforehand() {
    let casemate = Casemate::new();
    let model = casemate.script(SCRIPT);
    casemate.put("agent.yaml", ASKS);
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "--yes", "go"]).expect(0);
    let marks = std::fs::read_to_string(casemate.workspace().join("marks")).unwrap();
    assert_eq!(marks, "first\nsecond\n");
}

#[test]
fn one_is_allowed_and_one_is_denied() {
    for who in As::all() {
        let asking = asking(who);
        let deny = format!("{}=not today", asking.calls[1]);
        asking.resume(&["--allow", &asking.calls[0], "--deny", &deny]).expect(0);
        assert_eq!(asking.marks(), "first\n");
        let told = texts(&events(&asking.casemate), "agent.tool_result");
        assert_eq!(told[1], "The user did not allow this call: not today");
    }
}

#[test]
fn half_an_answer_leaves_the_other_half_waiting() {
    let asking = asking(As::Me);
    let half = asking.resume(&["--allow", &asking.calls[0]]).expect(4);
    super::demand(&half, &["? 1 tool call waits for your permission", &asking.calls[1]]);
    assert!(!half.stderr().contains(&format!("--allow {}", asking.calls[0])), "{half:?}");
    asking.resume(&["--deny", &asking.calls[1]]).expect(0);
    assert_eq!(asking.marks(), "first\n");
    let told = texts(&events(&asking.casemate), "agent.tool_result");
    assert_eq!(told[1], "The user did not allow this call.");
}

#[test]
fn without_an_answer_it_goes_on_waiting() {
    let asking = asking(As::Me);
    let id = asking.casemate.only_session();
    let [first, second] = &asking.calls[..] else { panic!("there are two calls") };
    let both = format!("casemate resume {id} --allow {first} --allow {second}");
    super::demand(&asking.resume(&[]).expect(4), &["2 tool calls wait for your permission", &both]);
    super::demand(
        &asking.resume(&["and now?"]).expect(4),
        &["waits for an answer", first, "--allow"],
    );
    super::demand(
        &asking.resume(&["--allow", "sevt_1"]).expect(2),
        &["sevt_1 does not wait for an answer", first],
    );
    let shown = asking.casemate.run(&["sessions", "show", &id]).expect(0).stdout();
    assert!(
        shown.contains("  state      waiting\n")
            && shown.contains(&format!("  waits for  {first}\n")),
        "{shown}"
    );
    assert!(shown.contains(&both), "{shown}");
    assert_eq!(asking.marks(), "");
    asking.resume(&["--yes", "and then?"]).expect(0);
    assert_eq!(asking.marks(), "first\nsecond\n");
    assert_eq!(texts(&events(&asking.casemate), "user.message"), ["go", "and then?"]);
}

#[test]
fn the_answers_of_many_calls_count_together() {
    let casemate = Casemate::new();
    let calls: String =
        (1..=20).map(|n| format!("{{ bash: {{ command: 'echo {n} >> marks' }} }}, ")).collect();
    let model =
        casemate.script(&format!("turns: [{{ tool_calls: [{calls}] }}, {{ text: Done. }}]"));
    casemate.put("agent.yaml", ASKS);
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "--yes", "go"]).expect(0);
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "go"]).expect(4);
    casemate.run(&["resume", "--yes"]).expect(0);
    let marks = std::fs::read_to_string(casemate.workspace().join("marks")).unwrap();
    assert_eq!(marks.lines().count(), 40);
}

/// Nobody judges calls yet: each of them asks, and the log says why.
#[test]
fn where_calls_are_judged_and_nobody_can_tell_the_user_is_asked() {
    let casemate = Casemate::new();
    let model = casemate.script(SCRIPT);
    casemate.put("agent.yaml", &ASKS.replace("always_ask", "auto"));
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "go"]).expect(4);
    let log = events(&casemate);
    let judged = serde_json::json!({
        "type": "auto",
        "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
    });
    for call in of_type(&log, "agent.tool_use") {
        assert_eq!((&call["evaluated_permission"], &call["evaluation"]), (&"ask".into(), &judged));
    }
    casemate.run(&["resume", "--yes"]).expect(0);
}

/// A tool that the agent does not have is refused before any policy applies.
#[test]
fn a_call_of_a_disabled_tool_is_denied_without_an_evaluation() {
    let casemate = Casemate::new();
    let model = casemate.script(SCRIPT);
    let disabled =
        "tools:\n  - { type: agent_toolset_20260401, configs: [{ name: bash, enabled: false }] }\n";
    casemate.put("agent.yaml", disabled);
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "go"]).expect(0);
    let log = events(&casemate);
    let calls = of_type(&log, "agent.tool_use");
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!((&call["evaluated_permission"], call.get("evaluation")), (&"deny".into(), None));
    }
    assert!(!casemate.workspace().join("marks").exists());
}
