//! Small whole tasks with a real model, over both formats. Opt-in: models are slow, large, and never quite the same, so
//! each task has three tries, and what is checked are files and the log, never words.
//!
//! `CASEMATE_TEST_MODEL_URL=http://127.0.0.1:PORT cargo test --test it real_model -- --nocapture`, with any server there
//! that speaks Chat Completions and Messages; `CASEMATE_TEST_MODEL` names its model, else it is asked for `local`.

mod calls;

use std::time::Instant;

use crate::support::model::Api;
use crate::support::story::{assert_whole, told};
use crate::support::{Casemate, Finished, variable};

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
