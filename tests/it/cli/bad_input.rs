//! What makes no sense: one sentence that names the thing and the way out, exit code 2, and no session.

use super::HELLO;
use crate::support::{As, Casemate};

/// Runs and demands the code, these words on standard error, silence on standard output, and that nothing was begun.
#[track_caller]
fn check(casemate: &Casemate, args: &[&str], words: &[&str]) {
    let run = casemate.run(args).expect(2);
    assert_eq!(run.stdout(), "", "{args:?}");
    super::demand(&run, words);
    assert!(run.stderr().starts_with("error: "), "{run:?}");
    assert!(casemate.sessions().is_empty(), "{args:?} left a session");
}

#[test]
fn models_that_cannot_be_asked() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        check(
            &casemate,
            &["run", "hi"],
            &["there is no model to ask", "set ANTHROPIC_API_KEY or OPENAI_API_KEY"],
        );
        check(
            &casemate,
            &["run", "-m", "mystery", "hi"],
            &[
                "no provider is known for the model `mystery`",
                "such as `ollama/mystery`",
                "anthropic, openai",
            ],
        );
        check(
            &casemate,
            &["run", "-m", "claude-x", "hi"],
            &["provider `anthropic`: set ANTHROPIC_API_KEY"],
        );
        check(
            &casemate,
            &["run", "-m", "mine", "--route", "m*=nowhere", "hi"],
            &["the route for `mine` leads to `nowhere`", "anthropic, openai"],
        );
        check(
            &casemate,
            &["run", "-m", "mine", "--route", "[=openai", "hi"],
            &["--route [=openai", "unclosed character class"],
        );
        check(
            &casemate,
            &["run", "-m", "mine", "--route", "openai", "hi"],
            &["'openai'", "expected GLOB=PROVIDER"],
        );
        check(
            &casemate,
            &["run", "-m", "scripted:none.yaml", "hi"],
            &["none.yaml", "No such file"],
        );
        let script = casemate.script("turns: [{ texxt: hi }]");
        check(&casemate, &["run", "-m", &script, "hi"], &["script.yaml", "turn 1", "texxt"]);
    }
}

#[test]
fn tasks_that_say_nothing() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    check(&casemate, &["run", "-m", &model], &["<TASK>"]);
    check(&casemate, &["run", "-m", &model, ""], &["it is empty: say what to do"]);
    check(&casemate, &["run", "-m", &model, " \n"], &["it is empty: say what to do"]);
    check(&casemate, &["run", "-m", &model, "-"], &["TASK: it is empty: say what to do"]);
    check(
        &casemate,
        &["run", "-m", &model, "--max-turns", "0", "hi"],
        &["--max-turns", "1..=10000"],
    );
    check(
        &casemate,
        &["run", "-m", &model, "--output", "xml", "hi"],
        &["'xml'", "text, json, stream-json"],
    );
}

#[test]
fn workspaces_that_cannot_be_used() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(HELLO);
        let file = casemate.put("file", "");
        let check = |dir: &str, words: &[&str]| {
            check(
                &casemate,
                &["run", "-m", &model, "-C", dir, "hi"],
                &[words, &["the workspace", dir]].concat(),
            );
        };
        check("/nowhere", &["No such file", "name a directory that you can read with --workspace"]);
        check(file.to_str().unwrap(), &["it is not a directory"]);
        check("/", &["it is the whole filesystem"]);
        if who == As::User {
            let closed = casemate.home().join("closed");
            std::fs::create_dir(&closed).unwrap();
            std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .unwrap();
            check(closed.to_str().unwrap(), &["Permission denied"]);
        }
    }
}

#[test]
fn agent_files_that_are_wrong() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    let check = |yaml: &str, words: &[&str]| {
        let path = casemate.put("agent.yaml", yaml);
        let args = ["run", "-m", &model, "--agent", path.to_str().unwrap(), "hi"];
        check(&casemate, &args, &[words, &["agent.yaml"]].concat());
    };
    check("nam: x\n", &["line 1", "unknown field `nam`", "examples/agent.yaml"]);
    check("name: [x\n", &["line 1"]);
    check("name: ''\n", &["name: must have 1 to 256 characters"]);
    check("max_tokens: 0\n", &["max_tokens: must be at least 1"]);
    check("max_tokens: many\n", &["max_tokens", "line 1"]);
    let set = |rest: &str| format!("tools:\n  - type: agent_toolset_20260401\n    {rest}\n");
    check("tools: [{ type: other }]\n", &["tools[0].type: `other` is not supported"]);
    check(
        &set("configs: [{ name: foo }]"),
        &["tools[0].configs[0].name: `foo` is not one of bash, read"],
    );
    check(&set("default_config: { permission_policy: { type: never } }"), &["never", "line 3"]);
    super::bad_input::check(
        &casemate,
        &["run", "-m", &model, "--agent", "none.yaml", "hi"],
        &["the agent file none.yaml cannot be read", "No such file"],
    );
}

#[test]
fn settings_that_are_wrong() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    let check = |flag: &[&str], words: &[&str]| {
        check(&casemate, &[&["run", "-m", &model, "hi"], flag].concat(), words);
    };
    casemate.put("typo.toml", "\nmodle = 'x'\n");
    casemate.put("provider.toml", "[providers.mine]\napi = 'openai'\n");
    check(
        &["--config", "typo.toml"],
        &["the config file typo.toml is wrong", "line 2", "unknown field `modle`"],
    );
    check(&["--config", "provider.toml"], &["providers.mine", "base_url"]);
    check(&["--config", "none.toml"], &["the config file none.toml cannot be read"]);
    check(&["--profile", "nonesuch"], &["no sandbox profile `nonesuch`", "default"]);
    check(&["--sandbox", "weak"], &["'weak'", "full, landlock, none"]);
    check(&["--mount", "/nowhere"], &["--mount: /nowhere cannot be shown"]);
    check(&["--mount", ":/x"], &["it names no source"]);
}
