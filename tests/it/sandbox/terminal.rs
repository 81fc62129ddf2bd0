//! What reaches the user's terminal: text of models and tools that would steer it, on a terminal of the test's own.

use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Scene, Tally};
use crate::support::As;

/// What must not arrive, and what it would do.
const STEERING: &[(&str, &str)] = &[
    ("\u{1b}[41;5mblink", "colours and blinking of its own"),
    ("\u{1b}]52;c;Y2FuYXJ5\u{7}", "words into the clipboard"),
    ("\u{1b}]0;owned\u{7}", "a title"),
    ("\u{1b}]8;;http://evil.example\u{1b}\\link", "a link under another name"),
    ("\u{1b}[8mhidden", "hidden text"),
    ("\u{1b}c", "a reset"),
    ("\u{1b}[9;1H", "a jump"),
    ("\u{1b}[6n", "a question that the terminal answers as if typed"),
    ("\u{1b}P+q544e\u{1b}\\", "a question in a string"),
    ("\u{1b}[?1049h", "another screen"),
    ("\u{9b}41m", "an escape in one character"),
    ("\u{9d}0;owned\u{9c}", "a title in one character"),
    ("owned\u{8}\u{8}\u{8}", "backspaces"),
    ("genuine\rforged", "a line drawn over"),
    ("ring\u{7}", "a bell"),
    ("\u{e}shifted", "another alphabet"),
    ("\u{202e}txet", "reversed text"),
    ("\u{2066}isolated", "isolated text"),
    ("in\u{200b}visible", "an invisible letter"),
    ("tag\u{e0041}\u{e0042}", "invisible tags"),
    ("de\u{7f}lete", "a deletion"),
];

/// Runs a command on a terminal of its own; all bytes that it wrote there.
fn on_a_terminal(command: &mut Command) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    command.stdout(Stdio::from(pty.slave.try_clone().unwrap())).stderr(Stdio::from(pty.slave));
    let mut child = command.spawn().unwrap();
    // The command holds copies of the other end: without them the last reader sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let mut master = std::fs::File::from(pty.master);
    // A terminal whose other end is closed answers with an error, not with an end.
    while let Ok(count @ 1..) = master.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A script of a model that says and does everything with this text; every other character is escaped, as in YAML.
fn script(text: &str) -> String {
    let printed: String = text.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    let file = text.replace('/', "_");
    let turns = json!({"turns": [
        {"thinking": text, "text": text, "tool_calls": [{"bash": {"command": format!("printf '{printed}'")}}]},
        {"text": text, "tool_calls": [{"write": {"file_path": file, "content": text}}]},
        {"tool_calls": [{"glob": {"pattern": "*"}}]},
        {"tool_calls": [{"read": {"file_path": file}}]},
        {"tool_calls": [{"read": {"file_path": format!("none {text}")}}]},
        {"tool_calls": [{"bash": {"command": format!("true '{text}'")}}]},
        {"text": format!("Done. {text}")},
    ]});
    let escaped = |c: char| {
        if c.is_ascii() { c.to_string() } else { format!("\\U{:08X}", u32::from(c)) }
    };
    turns.to_string().chars().map(escaped).collect::<String>().replace('\u{7f}', "\\x7f")
}

#[test]
fn nothing_steers_the_users_terminal() {
    let mut wrong = Vec::new();
    for who in As::all() {
        let mut tally = Tally::default();
        for (text, what) in STEERING {
            let scene = Scene::new(who);
            let model = scene.casemate.script(&script(text));
            let mut run = scene.casemate.command();
            run.env("TERM", "xterm-256color").args(["run", "--model", &model, "go"]);
            let shown = on_a_terminal(&mut run);
            assert!(shown.contains("Done."), "{shown}");
            let mut plain = Command::new("printf");
            let raw = on_a_terminal(plain.args(["%s", text]));
            let (arrived, proven) = (shown.contains(text), raw.contains(text));
            tally.count(arrived, proven);
            if arrived {
                wrong.push(format!("{who:?}: LET THROUGH: {what}: {shown:?}"));
            }
            if !proven {
                wrong.push(format!("{who:?}: proves nothing: {what}: {raw:?}"));
            }
        }
        tally.report("terminal", who);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n  "));
}
