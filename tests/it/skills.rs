//! Skills of the command line: found, trusted, read in a real sandbox, frozen with their session, and never forgotten.

use serde_json::{Value, json};

use crate::support::{As, Casemate, Finished, story, write};

const BODY: &str = "Hold the rule of the WOMBAT: answer in one word.";

fn skill_md(name: &str, body: &str) -> String {
    format!("---\nname: {name}\ndescription: Does {name}.\n---\n\n{body}\n")
}

/// A skill in a directory of skills of the user's home.
fn put(casemate: &Casemate, place: &str, name: &str, body: &str) {
    put_below(casemate, &casemate.home().join(place), name, body);
}

fn put_below(casemate: &Casemate, place: &std::path::Path, name: &str, body: &str) {
    let dir = place.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    write(&dir.join("SKILL.md"), &skill_md(name, body));
    casemate.give_to_user();
}

fn path(name: &str) -> String {
    format!("/mnt/session/skills/{name}/SKILL.md")
}

fn read(name: &str) -> String {
    format!("tool_calls: [{{ read: {{ file_path: {} }} }}]", path(name))
}

fn run(casemate: &Casemate, turns: &str, args: &[&str]) -> Finished {
    let model = casemate.script(&format!("turns:\n{turns}"));
    casemate.run(&[&["run", "-m", &model, "go"], args].concat())
}

/// What the tools said, in order.
fn results(casemate: &Casemate, session: &str) -> Vec<String> {
    let events = casemate.run(&["sessions", "events", session]).expect(0).json_lines();
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    results.map(|result| result["content"][0]["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_session_reads_its_skills_in_its_sandbox_and_cannot_change_them() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        put(&casemate, ".agents/skills", "demo", BODY);
        let dir = casemate.home().join(".agents/skills/demo");
        write(&dir.join("run.sh"), "#!/bin/sh\necho it ran\n");
        std::fs::set_permissions(
            dir.join("run.sh"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("secret")).unwrap();
        casemate.give_to_user();
        let change = "cd /mnt/session/skills/demo; ./run.sh; ls; echo x 2>/dev/null >> SKILL.md || echo refused; \
                      rm -f run.sh 2>/dev/null || echo refused; chmod 777 . 2>/dev/null || echo refused; \
                      mv ../demo ../other 2>/dev/null || echo refused";
        let turns = format!(
            "  - {{ expect: {{ system_contains: \"\\n- demo: Does demo.\\n\" }}, {} }}\n  \
             - {{ expect: {{ last_tool_result_contains: WOMBAT }}, tool_calls: [{{ bash: {{ command: {} }} }}] }}\n  \
             - text: done\n",
            read("demo"),
            json!(change)
        );
        for mode in ["direct", "overlay"] {
            run(&casemate, &turns, &["--workspace-mode", mode]).expect(0);
            let session = casemate.sessions().remove(0);
            let said = results(&casemate, &session).remove(1);
            let expected = "it ran\nSKILL.md\nrun.sh\nrefused\nrefused\nrefused\nrefused";
            assert_eq!(said.trim(), expected, "{who:?} {mode}");
        }
        let untouched = std::fs::read_to_string(dir.join("SKILL.md")).unwrap();
        assert_eq!(untouched, skill_md("demo", BODY));
    }
}

#[test]
fn the_skills_of_a_workspace_are_used_where_they_are_trusted() {
    let casemate = Casemate::new();
    put_below(&casemate, &casemate.workspace().join(".agents/skills"), "theirs", BODY);
    let none = "  - tool_calls: [{ bash: { command: 'ls -A /mnt 2>/dev/null | wc -l' } }]\n  - text: done\n";
    let change = "echo more 2>/dev/null >> .agents/skills/theirs/SKILL.md || echo refused; \
                  mkdir .agents/skills/other 2>/dev/null || echo refused";
    let told = format!(
        "  - {{ expect: {{ system_contains: '- theirs: Does theirs.' }}, tool_calls: [{{ bash: {{ command: {} }} }}] }}\n  \
         - {{ expect: {{ last_tool_result_contains: \"refused\\nrefused\" }}, text: done }}\n",
        json!(change)
    );
    let told = told.as_str();
    let quiet = |finished: Finished| {
        let finished = finished.expect(0);
        assert!(!finished.stderr().contains("not used"), "{finished:?}");
    };
    let ran = run(&casemate, none, &[]).expect(0);
    let note = "1 skill of this workspace not used: theirs; if you trust who wrote them, --skills all uses them";
    assert!(ran.stderr().contains(note), "{ran:?}");
    assert_eq!(results(&casemate, &casemate.only_session())[0].trim(), "0");
    quiet(run(&casemate, none, &["--skills", "none"]));
    quiet(run(&casemate, told, &["--skills", "all"]));
    let config = casemate.home().join("config.toml");
    let place = casemate.workspace().display().to_string();
    write(&config, &format!("[skills]\ntrusted = [{}]\n", json!(place)));
    quiet(run(&casemate, told, &["--config", config.to_str().unwrap()]));
    write(&config, "[skills]\ntrusted = ['relative']\n");
    let refused = run(&casemate, told, &["--config", config.to_str().unwrap()]).expect(2);
    assert!(refused.stderr().contains("skills.trusted[0]: `relative` must be an absolute path"));
}

#[test]
fn a_session_keeps_its_skills_as_they_were_over_a_crash_and_into_a_fork() {
    let casemate = Casemate::new();
    put(&casemate, ".claude/skills", "demo", BODY);
    let turns = format!(
        "turns:\n  - tool_calls: [{{ bash: {{ command: echo one }} }}]\n  - {{ repeat: 2, {}}}\n  - text: done\n  \
         - {{ {} }}\n  - text: done\n",
        read("demo"),
        read("demo")
    );
    let model = casemate.script(&turns);
    let crash = [("CASEMATE_CRASH_AT", "3")];
    let crashed = casemate.run_with(&crash, &["run", "-m", &model, "go"]);
    assert!(crashed.was_aborted(), "{crashed:?}");
    let dir = casemate.home().join(".claude/skills/demo");
    write(&dir.join("SKILL.md"), &skill_md("demo", "Something else."));
    let session = casemate.only_session();
    let shown = casemate.run(&["sessions", "show", &session]).expect(0);
    assert!(shown.stdout().contains("\n  skills     demo\n"), "{shown:?}");
    casemate.run(&["resume", &session]).expect(0);
    let said = results(&casemate, &session);
    assert!(said[1].contains(BODY) && said[2].contains(BODY), "{said:?}");
    story::assert_whole(&casemate.log());
    std::fs::remove_dir_all(&dir).unwrap();
    casemate.run(&["fork", &session]).expect(0);
    let fork = casemate.sessions().into_iter().find(|id| *id != session).unwrap();
    casemate.run(&["sessions", "delete", &session]).expect(0);
    casemate.run(&["resume", &fork, "again"]).expect(0);
    let said = results(&casemate, &fork);
    assert!(said.last().unwrap().contains(BODY), "{said:?}");
}

#[test]
fn where_no_skill_can_be_shown_the_user_is_told_and_the_model_is_not() {
    let casemate = Casemate::new();
    put(&casemate, ".agents/skills", "demo", BODY);
    let outside = tempfile::tempdir().unwrap();
    let mount = format!("{}:/mnt", outside.path().display());
    let turns = "  - tool_calls: [{ bash: { command: 'ls -A /mnt' } }]\n  - text: done\n";
    let ran = run(&casemate, turns, &["--mount", &mount]).expect(0);
    let note = "no skill is used: a --mount has their place, /mnt/session/skills";
    assert!(ran.stderr().contains(note), "{ran:?}");
    let id = casemate.only_session();
    let shown = casemate.run(&["sessions", "show", &id, "--json"]).expect(0);
    assert!(!shown.stdout().contains("demo"), "{shown:?}");
}

#[test]
fn a_run_that_is_cut_before_it_is_there_leaves_no_copy() {
    let casemate = Casemate::new();
    put(&casemate, ".agents/skills", "demo", BODY);
    let model = casemate.script("turns:\n  - text: done\n");
    let crash = [("CASEMATE_CRASH_AT", "1:before")];
    assert!(casemate.run_with(&crash, &["run", "-m", &model, "go"]).was_aborted());
    casemate.run(&["run", "-m", &model, "--skills", "none", "go"]).expect(0);
    let disks = std::fs::read_dir(casemate.data_dir().join("sessions")).unwrap();
    let with_skills = disks.filter(|disk| disk.as_ref().unwrap().path().join("skills").exists());
    assert_eq!(with_skills.count(), 0);
}

#[test]
fn what_was_read_of_a_skill_outlives_trimming_and_compaction() {
    let casemate = Casemate::new();
    put(&casemate, ".agents/skills", "demo", BODY);
    let config = casemate.home().join("config.toml");
    write(&config, "[[windows]]\nmatch = 'scripted:*'\ntokens = 16000\n");
    let why = "because ".repeat(700);
    let turns = format!(
        "turns:\n  - {{ {} }}\n  \
         - {{ repeat: 8, tool_calls: [{{ bash: {{ command: 'yes {{n}} | head -c 9000' }} }}] }}\n  \
         - {{ repeat: 12, expect: {{ conversation_contains: WOMBAT }}, \
         tool_calls: [{{ bash: {{ command: 'echo {{n}} {why} | head -c 20' }} }}] }}\n  \
         - {{ expect: {{ conversation_contains: WOMBAT }}, text: It held. }}\nsummaries:\n  \
         - {{ repeat: 99, text: \"## Task\\nGo on with what the user asked for, whatever it was.\" }}\n",
        read("demo")
    );
    let model = casemate.script(&turns);
    let args = ["--config", config.to_str().unwrap(), "run", "-m", &model, "go"];
    let ran = casemate.run(&args).expect(0);
    assert!(ran.stdout().contains("It held."), "{ran:?}");
    let log = casemate.log();
    let of = |kind: &'static str| log.iter().filter(move |event| event["type"] == kind);
    let call = &of("agent.tool_use").next().unwrap()["id"];
    let trimmed: Vec<&Value> = of("internal.context_trimmed")
        .flat_map(|event| event["tool_use_ids"].as_array().unwrap())
        .collect();
    assert!(!trimmed.is_empty() && !trimmed.contains(&call), "{trimmed:?}");
    let compacted: Vec<_> = of("internal.compacted").collect();
    assert!(compacted.len() > 1, "{} compactions", compacted.len());
    for event in compacted {
        let text = event["text"].as_str().unwrap();
        assert_eq!(text.matches(BODY).count(), 1, "{text}");
        assert!(text.contains(&format!("<skill file=\"{}\">", path("demo"))), "{text}");
    }
}

#[test]
fn list_and_check_say_what_there_is_and_what_is_wrong() {
    let casemate = Casemate::new();
    std::fs::create_dir(casemate.workspace().join(".git")).unwrap();
    let theirs = casemate.workspace().join(".agents/skills");
    put_below(&casemate, &theirs, "theirs", BODY);
    put(&casemate, ".config/casemate/skills", "mine", BODY);
    put(&casemate, ".agents/skills", "mine", BODY);
    let bad = casemate.home().join(".claude/skills/bad");
    std::fs::create_dir_all(&bad).unwrap();
    write(&bad.join("SKILL.md"), "---\nname: bad\n---\n");
    let listed = casemate.run(&["skills", "list", "--json"]).expect(0);
    let all: Vec<Value> = serde_json::from_str(&listed.stdout()).unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|one| ["name", "level", "state"].map(|key| one[key].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ["theirs", "workspace", "untrusted"],
            ["mine", "user", "used"],
            ["mine", "user", "hidden"],
            ["bad", "user", "unusable"],
        ]
    );
    assert_eq!(all[2]["hidden_by"], all[1]["path"]);
    assert_eq!(all[3]["diagnostics"][0]["field"], "description");
    let text = casemate.run(&["skills", "list"]).expect(0);
    assert!(text.stdout().contains("theirs  workspace, not trusted\n"), "{text:?}");
    assert!(text.stderr().contains("--skills all"), "{text:?}");
    assert!(text.stdout().contains("fatal: "), "{text:?}");

    let ran = run(&casemate, "  - text: done\n", &["--skills", "trusted"]).expect(0);
    let note = "1 skill cannot be used: bad; `casemate skills list` says why";
    assert!(ran.stderr().contains(note), "{ran:?}");

    let good = theirs.join("theirs").display().to_string();
    let checked = casemate.run(&["skills", "check", &good]).expect(0);
    assert_eq!(checked.stdout(), "");
    let checked = casemate.run(&["skills", "check", &good, bad.to_str().unwrap()]).expect(1);
    let expected = format!(
        "fatal: {}/SKILL.md: description: is missing; say in a sentence or two what it does and when to use it\n",
        bad.canonicalize().unwrap().display()
    );
    assert_eq!(checked.stdout(), expected);
    casemate.run(&["skills", "check", "/nowhere"]).expect(2);
}
