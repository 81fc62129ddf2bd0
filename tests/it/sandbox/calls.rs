//! Attacks by way of tool calls: a scripted model makes them one after another in one session, and what the model is told,
//! or what the host shows afterwards, says whether they succeeded. Without the sandbox means `--sandbox=none`: the same
//! tools with nothing between them and the host.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Place, SECRET, Scene, Tally};
use crate::support::{As, Finished, write};

/// One attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) calls: &'static [Call],
    pub(super) wins: Wins,
    pub(super) outside: Control,
}

/// One tool call. `$HERE` in it is the attack's own directory in the workspace, `$OUT` the one outside of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    /// A command, in the attack's directory.
    Bash(&'static str),
    /// One that is late at once.
    LateBash(&'static str),
    /// A new shell.
    Restart,
    /// A file.
    Read(&'static str),
    /// A file, and what is to stand in it.
    Write(&'static str, &'static str),
    /// A file in which the secret is to be replaced.
    Edit(&'static str),
    /// A directory to list.
    Glob(&'static str),
    /// A directory or file to look for the secret in.
    Grep(&'static str),
    /// The same call again and again, by ever longer names of the same path: `%` in it becomes `/.`, many times.
    Often(&'static Call),
}

/// The attack wins, if.
#[derive(Clone, Copy)]
pub(super) enum Wins {
    /// The model is told this.
    Told(&'static str),
    /// The model is not told this.
    NotTold(&'static str),
    /// This holds on the host afterwards.
    Seen(&'static str),
}

/// The proof that the attack would work.
pub(super) enum Control {
    /// The same calls without the sandbox.
    SameCalls,
    /// This script on the host ends with 0.
    Script(&'static str),
    /// There is none, because.
    Untried(&'static str),
}

/// Times that a race is run.
const ROUNDS: usize = 16;
/// More tries of what did not succeed without the sandbox.
const AGAIN: usize = 4;

impl Call {
    fn in_words(self, here: &str, name: &dyn Fn(&str) -> String) -> Vec<Value> {
        let path = |path: &str| name(path);
        let bash = |command: &str| format!("cd {here}; {}", name(command));
        let (tool, input) = match self {
            Self::Bash(command) => {
                ("bash", json!({"command": bash(command), "timeout_ms": 20_000}))
            }
            Self::LateBash(command) => {
                ("bash", json!({"command": bash(command), "timeout_ms": 400}))
            }
            Self::Restart => ("bash", json!({"restart": true})),
            Self::Read(file) => ("read", json!({"file_path": path(file)})),
            Self::Write(file, text) => ("write", json!({"file_path": path(file), "content": text})),
            Self::Edit(file) => (
                "edit",
                json!({"file_path": path(file), "old_string": SECRET, "new_string": "attacked"}),
            ),
            Self::Glob(dir) => ("glob", json!({"pattern": "*", "path": path(dir)})),
            // Matches the secret without repeating it, in case the pattern is told back.
            Self::Grep(dir) => ("grep", json!({"pattern": "CANARY-4c[7]d", "path": path(dir)})),
            Self::Often(call) => {
                let again = |round| {
                    let longer = move |text: &str| text.replace('%', &"/.".repeat(round));
                    call.in_words(here, &move |text| longer(&name(text)))
                };
                return (0..ROUNDS).flat_map(again).collect();
            }
        };
        vec![json!({"tool_calls": [{tool: input}]})]
    }
}

impl Scene {
    /// Lets a scripted model make all calls of all attacks in one session; what it was told in each attack.
    fn converse(&self, place: Place, attacks: &[&Attack]) -> Vec<String> {
        let mut turns = vec![json!({"tool_calls": [{"bash": {"command": "printf %s $HOME"}}]})];
        let mut ends = Vec::new();
        for (i, attack) in attacks.iter().enumerate() {
            let here = format!("{}/p{i}", self.casemate.workspace().display());
            std::fs::create_dir(&here).unwrap();
            let out = self.out().join(format!("p{i}"));
            std::fs::create_dir(&out).unwrap();
            for name in ["canary", "target", "transcript"] {
                write(&out.join(name), SECRET);
            }
            let name = |text: &str| {
                let dots = format!("../out/p{i}");
                let text = text.replace("$HERE", &here).replace("../out", &dots);
                self.named(&text.replace("$OUT", &out.display().to_string()))
            };
            turns.extend(attack.calls.iter().flat_map(|call| call.in_words(&here, &name)));
            ends.push(turns.len());
        }
        turns.push(json!({"text": "Done."}));
        let model = self.casemate.script(&json!({"turns": turns}).to_string());
        let tier = if place == Place::Inside { "full" } else { "none" };
        let words = [
            "run",
            "--model",
            &model,
            "--max-turns",
            "10000",
            "--sandbox",
            tier,
            "--quiet",
            "attack",
        ];
        let ended = self.careless_casemate(&words);
        assert_eq!(ended.code(), Some(0), "{ended:?}{}", self.transcript());
        let events = self.casemate.run(&["sessions", "events", &self.casemate.only_session()]);
        let told: Vec<String> = events.expect(0).json_lines().iter().filter_map(result).collect();
        assert_eq!(told.len(), turns.len() - 1, "not every call was answered");
        if place == Place::Outside {
            // Without a sandbox the session's home is on the host, and goes with the session.
            let home = serde_json::from_str::<Value>(&told[0]).unwrap()[0]["text"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(home.starts_with("/tmp/casemate-"), "{home}");
            assert!(!std::path::Path::new(&home).exists(), "{home} is left");
        }
        let mut begin = 1;
        let each =
            ends.into_iter().map(|end| told[std::mem::replace(&mut begin, end)..end].join("\n"));
        each.collect()
    }

    fn careless_casemate(&self, words: &[&str]) -> Finished {
        let program = self.casemate.command().get_program().to_owned();
        let mut command = self.careless();
        Finished::of(command.arg(program).args(words).output().unwrap())
    }

    /// A text with the names of the scene replaced by what they stand for.
    fn named(&self, text: &str) -> String {
        text.replace("$VICTIM_HOME", &self.casemate.home().display().to_string())
            .replace("$WORK", &self.casemate.workspace().display().to_string())
            .replace("$SECRET", SECRET)
    }

    fn succeeded(&self, attack: &Attack, i: usize, told: &str) -> bool {
        match attack.wins {
            Wins::Told(text) => told.contains(text),
            Wins::NotTold(text) => !told.contains(text),
            Wins::Seen(condition) => {
                self.holds(&format!("OUT=$OUT/p{i}\n{condition}"), &format!("p{i}"))
            }
        }
    }

    /// Whether an attack succeeds without the sandbox, when nothing else is tried here.
    fn is_won_alone(&self, attack: &Attack) -> bool {
        let told = self.converse(Place::Outside, &[attack]);
        self.succeeded(attack, 0, &told[0])
    }

    fn succeeds_on_the_host(&self, script: &str) -> bool {
        let place = tempfile::tempdir_in(self.casemate.workspace()).unwrap();
        self.casemate.give_to_user();
        let script = format!("{}{script}", self.names(Place::Outside));
        let mut command = Command::new("timeout");
        command.args(["20", "bash", "-c", &script]).current_dir(place.path());
        super::as_user(command.stdout(Stdio::null()).stderr(Stdio::null()), self.who)
            .status()
            .unwrap()
            .success()
    }
}

fn result(event: &Value) -> Option<String> {
    (event["type"] == "agent.tool_result").then(|| event["content"].to_string())
}

/// Tries a category, as everyone, and demands that each attack fails in the sandbox and succeeds without it.
pub(super) fn attack(category: &'static str, attacks: &[Attack]) {
    if super::ATTACKER.is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for who in As::all() {
        let inside = Scene::new(who);
        let all: Vec<_> = attacks.iter().collect();
        let told_inside = inside.converse(Place::Inside, &all);
        let same: Vec<_> =
            attacks.iter().filter(|one| matches!(one.outside, Control::SameCalls)).collect();
        let outside = Scene::new(who);
        let mut told_outside = outside.converse(Place::Outside, &same).into_iter().enumerate();
        let mut tally = Tally::default();
        for (i, attack) in attacks.iter().enumerate() {
            let let_through = inside.succeeded(attack, i, &told_inside[i]);
            let proven = match attack.outside {
                Control::SameCalls => {
                    let (i, told) = told_outside.next().expect("one for each");
                    // A race is won by chance, and may be lost once.
                    let again = || (0..AGAIN).any(|_| Scene::new(who).is_won_alone(attack));
                    outside.succeeded(attack, i, &told) || again()
                }
                Control::Script(script) => outside.succeeds_on_the_host(script),
                Control::Untried(why) => {
                    assert!(
                        why.len() > 10,
                        "`{}` is not tried outside, without a reason",
                        attack.name
                    );
                    false
                }
            };
            tally.count(let_through, proven);
            if let_through {
                let told = &told_inside[i];
                let end =
                    told.len() - told.chars().rev().take(300).map(char::len_utf8).sum::<usize>();
                wrong.push(format!("{who:?}: LET THROUGH: {}: …{}", attack.name, &told[end..]));
            }
            if !proven && !matches!(attack.outside, Control::Untried(_)) {
                wrong.push(format!(
                    "{who:?}: proves nothing, it fails without the sandbox too: {}",
                    attack.name
                ));
            }
        }
        tally.report(category, who);
    }
    assert!(wrong.is_empty(), "{category}:\n  {}", wrong.join("\n  "));
}
