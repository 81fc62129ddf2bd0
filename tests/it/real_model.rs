//! Small whole tasks with a real model, over both formats. Opt-in: models are slow, large, and never quite the same, so
//! each task has three tries, and what is checked are files and the log, never words.
//!
//! `CASEMATE_TEST_MODEL_URL=http://127.0.0.1:PORT cargo test --test it real_model -- --nocapture`, with any server there
//! that speaks Chat Completions and Messages; `CASEMATE_TEST_MODEL` names its model, else it is asked for `local`.

mod calls;
mod judge;

use std::time::Instant;

use crate::support::model::Api;
use crate::support::story::{assert_whole, told};
use crate::support::{Casemate, Finished, variable, write};

const TRIES: usize = 3;

struct Task {
    words: &'static str,
    done: fn(&Casemate, &Finished) -> bool,
}

const TASKS: [Task; 2] = [
    Task {
        words: "Create a file named hello.txt containing the text hello.",
        done: |casemate, _| {
            let text = std::fs::read_to_string(casemate.workspace().join("hello.txt"));
            text.is_ok_and(|text| text.trim() == "hello")
        },
    },
    Task {
        words: "Read the file notes.txt and tell me the secret word in it.",
        done: |_, finished| finished.stdout().contains("kumquat"),
    },
];

/// One try: whether it was completed. The log is whole either way.
fn attempt(task: &Task, api: Api, url: &str, model: &str) -> bool {
    let casemate = Casemate::new();
    casemate.put("notes.txt", "Buy milk.\nThe secret word is kumquat.\n");
    let model = format!("{}/{model}", api.provider());
    let begun = Instant::now();
    let finished = casemate.ask(url, &["run", "-m", &model, "--max-turns", "8", task.words]);
    let took = begun.elapsed().as_secs_f64();
    let events = casemate.log();
    assert_whole(&events);
    let done = finished.code() == Some(0) && (task.done)(&casemate, &finished);
    let outcome = if done { "completed" } else { "not completed" };
    eprintln!("{outcome} over {api:?} in {took:.1} s: {}\n{}", task.words, told(&events));
    done
}

/// The server to ask, and its model.
fn real() -> Option<(String, String)> {
    let model = variable("CASEMATE_TEST_MODEL").unwrap_or_else(|| "local".to_owned());
    let url = variable("CASEMATE_TEST_MODEL_URL");
    if url.is_none() {
        eprintln!(
            "no real model: CASEMATE_TEST_MODEL_URL=http://127.0.0.1:PORT cargo test --test it real_model -- --nocapture"
        );
    }
    url.map(|url| (url, model))
}

/// A task of some calls, which is then gone on with from a summary.
const LONG: &str = "Read the files one.txt, two.txt and three.txt, one call for each. Then tell me the secret word that is in \
                    one.txt.";

fn file(name: &str, word: &str) -> String {
    let line = |n: usize| format!("Line {n} of {name} says nothing that anybody needs to know.\n");
    let (before, after) = ((1..=25).map(line), (26..=50).map(line));
    before.chain([format!("The secret word is {word}.\n")]).chain(after).collect()
}

/// A context of 4096 tokens, and a summary by the model in the place of what was in it: the session goes on from there,
/// whatever the model makes of it.
#[test]
fn a_real_model_goes_on_from_its_own_summary() {
    let Some((url, model)) = real() else { return };
    let casemate = Casemate::new();
    for (name, word) in [("one", "kumquat"), ("two", "fig"), ("three", "plum")] {
        casemate.put(&format!("{name}.txt"), &file(name, word));
    }
    let config = casemate.home().join("config.toml");
    write(
        &config,
        &format!(
            "[providers.real]\napi = 'openai'\nbase_url = '{url}'\nconstrain_calls = true\n\
             [[windows]]\nmatch = 'real/*'\ntokens = 4096\n"
        ),
    );
    let model = format!("real/{model}");
    let begun = Instant::now();
    // However slow the model is: the test has no deadline of its own, and the program has one for every wait.
    let ask = |words: &[&str]| {
        let mut command = casemate.command();
        command.args([&words[..1], &["--config", config.to_str().unwrap()], &words[1..]].concat());
        Finished::of(command.output().unwrap())
    };
    eprintln!("{:?}", ask(&["run", "-m", &model, "--max-turns", "8", LONG]));
    let id = casemate.only_session();
    let of = |kind: &str| casemate.log().iter().filter(|event| event["type"] == kind).count();
    if of("internal.compacted") == 0 {
        eprintln!("{:?}", ask(&["compact", &id]).expect(0));
    }
    eprintln!("{:?}", ask(&["resume", &id, "Say again which word it was."]));
    let events = casemate.log();
    eprintln!("{:.0} s\n{}", begun.elapsed().as_secs_f64(), told(&events));
    assert_whole(&events);
    assert!(of("internal.compacted") > 0, "no summary was made");
    assert_eq!(of("internal.context_overflowed"), 0, "the server was asked for more than fits");
}

#[test]
fn a_real_model_completes_small_tasks() {
    let Some((url, model)) = real() else { return };
    let mut failed = Vec::new();
    for api in Api::BOTH {
        for task in &TASKS {
            let tries = (1..=TRIES).find(|_| attempt(task, api, &url, &model));
            match tries {
                Some(tries) => {
                    eprintln!("{api:?}: completed at try {tries} of {TRIES}: {}", task.words);
                }
                None => failed.push(format!("{api:?}: {}", task.words)),
            }
        }
    }
    assert!(failed.is_empty(), "not completed in {TRIES} tries: {failed:#?}");
}
