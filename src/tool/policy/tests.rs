//! What the rules let pass: nothing that tries to pass another way, and most of what is harmless.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::agent::ToolName;
use crate::agent::mcp::{McpServer, Place, Setting};
use crate::agent::rules::RulesParams;

fn agent(policy: PermissionPolicy, deny: &[&str], ask: &[&str], allow: &[&str]) -> Agent {
    let list = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
    let params = RulesParams { deny: list(deny), ask: list(ask), allow: list(allow) };
    let mut agent = Agent::with_model("m");
    agent.tools.iter_mut().for_each(|grant| grant.permission_policy = policy);
    Agent { permissions: params.validate().expect("rules"), ..agent }
}

fn judged(agent: &Agent, name: &str, input: &Value) -> (Permission, Option<Evaluation>) {
    let input = input.as_object().expect("arguments");
    // `link` leads out of the workspace, and nobody can tell where `dark` leads.
    let resolve = |path: &Path| match path.strip_prefix("/w/link") {
        Ok(rest) => Some(Path::new("/etc").join(rest)),
        Err(_) => (!path.starts_with("/w/dark")).then(|| path.to_owned()),
    };
    let mcp = name.split_once('/');
    let asked = Asked { name, mcp, input, workspace: Path::new("/w"), resolve: &resolve };
    let verdict = evaluate(agent, &asked);
    (verdict.permission, verdict.evaluation)
}

fn bash(agent: &Agent, command: &str) -> Permission {
    judged(agent, "bash", &json!({"command": command})).0
}

/// Strings that try to run more than `git status`, `git log *`, `ls *`, `cargo test *`, `echo *` or what wraps others.
const ATTEMPTS: &str = include_str!("attempts.txt");
/// Commands that a person would let pass, under the rules of [`careful`].
const HARMLESS: &str = include_str!("harmless.txt");

fn careful(policy: PermissionPolicy) -> Agent {
    let allow = [
        "bash(git status)",
        "bash(git status *)",
        "bash(git log *)",
        "bash(git diff *)",
        "bash(git show *)",
        "bash(git branch *)",
        "bash(git add *)",
        "bash(git commit *)",
        "bash(ls *)",
        "bash(pwd)",
        "bash(cd *)",
        "bash(cat *)",
        "bash(head *)",
        "bash(tail *)",
        "bash(wc *)",
        "bash(sort *)",
        "bash(uniq *)",
        "bash(cut *)",
        "bash(grep *)",
        "bash(rg *)",
        "bash(find *)",
        "bash(echo *)",
        "bash(mkdir *)",
        "bash(touch *)",
        "bash(cp *)",
        "bash(mv *)",
        "bash(diff *)",
        "bash(which *)",
        "bash(date *)",
        "bash(stat *)",
        "bash(file *)",
        "bash(du *)",
        "bash(df *)",
        "bash(tree *)",
        "bash(jq *)",
        "bash(cargo build *)",
        "bash(cargo test *)",
        "bash(cargo check *)",
        "bash(cargo fmt *)",
        "bash(cargo clippy *)",
        "bash(npm test *)",
        "bash(npm run *)",
        "bash(pytest *)",
        "bash(python3 *)",
        "bash(make *)",
        "bash(go test *)",
        "bash(go build *)",
        "bash(tar *)",
        "bash(true)",
        "bash(test *)",
        "bash(sed *)",
        "bash(env *)",
        "bash(xargs *)",
        "bash(sudo *)",
        "bash(nice *)",
        "bash(timeout *)",
        "bash(sh *)",
        "bash(bash *)",
    ];
    agent(policy, &[], &[], &allow)
}

#[test]
fn a_hundred_and_fifty_strings_try_to_pass_and_none_does() {
    let attempts: Vec<_> = ATTEMPTS.lines().filter(|line| !line.starts_with("//")).collect();
    assert!(attempts.len() >= 150, "{} attempts", attempts.len());
    let allow =
        ["bash(git status)", "bash(git log *)", "bash(ls *)", "bash(cargo test *)", "bash(echo *)"];
    let wraps = [
        "env", "xargs", "sudo", "nice", "timeout", "sh", "bash", "find", "nohup", "command",
        "eval", "exec",
    ];
    let wraps: Vec<_> = wraps.iter().map(|name| format!("bash({name} *)")).collect();
    let allow: Vec<_> = allow.into_iter().chain(wraps.iter().map(String::as_str)).collect();
    for policy in [PermissionPolicy::AlwaysAsk, PermissionPolicy::Auto] {
        let agent = agent(policy, &[], &[], &allow);
        for attempt in &attempts {
            let attempt = attempt.replace("\\n", "\n");
            assert_eq!(bash(&agent, &attempt), Permission::Ask, "{attempt}");
        }
    }
    // The other way round: whatever hides it, what is denied does not run unasked.
    let strict = agent(PermissionPolicy::AlwaysAllow, &["bash(rm *)", "bash(curl *)"], &[], &[]);
    for attempt in &attempts {
        let attempt = attempt.replace("\\n", "\n");
        assert_ne!(bash(&strict, &attempt), Permission::Allow, "{attempt}");
    }
}

#[test]
fn few_of_a_hundred_harmless_commands_are_asked_about() {
    let harmless: Vec<_> = HARMLESS.lines().collect();
    assert_eq!(harmless.len(), 100);
    let agent = careful(PermissionPolicy::AlwaysAsk);
    let asked = harmless.iter().filter(|command| bash(&agent, command) != Permission::Allow);
    let asked: Vec<_> = asked.collect();
    println!("{} of 100 are asked about: {asked:#?}", asked.len());
    assert!(asked.len() <= 20, "{} are asked about: {asked:#?}", asked.len());
}

#[test]
fn rules_come_in_their_order_and_say_how_they_came_to_it() {
    use Permission::{Allow, Ask, Deny};
    let unclear = Judgement::Ask { reason_code: ReasonCode::Indeterminate };
    let auto = |evaluated_permission| Some(Evaluation::Auto { evaluated_permission });
    let refused = Judgement::Deny { reason_code: ReasonCode::HighRisk };
    let rules = |policy| {
        agent(
            policy,
            &["bash(git push *)"],
            &["bash(git commit *)"],
            &["bash(git *)", "read(src/**)"],
        )
    };
    let check = |policy, command: &str, expected: (Permission, Option<Evaluation>)| {
        let got = judged(&rules(policy), "bash", &json!({"command": command}));
        assert_eq!(got, expected, "{policy:?}: {command}");
    };
    use PermissionPolicy::{AlwaysAllow, AlwaysAsk, Auto};
    for policy in [AlwaysAllow, AlwaysAsk, Auto] {
        check(policy, "git push", (Deny, auto(refused)));
        check(policy, "git status && git push -f", (Deny, auto(refused)));
        check(policy, "git commit -m x", (Ask, Some(Evaluation::AlwaysAsk)));
        check(policy, "git $x", (Ask, auto(unclear)));
    }
    check(AlwaysAsk, "git status", (Allow, auto(Judgement::Allow)));
    check(Auto, "git status", (Allow, auto(Judgement::Allow)));
    check(AlwaysAllow, "git status", (Allow, Some(Evaluation::AlwaysAllow)));
    check(AlwaysAsk, "ls", (Ask, Some(Evaluation::AlwaysAsk)));
    check(Auto, "ls", (Ask, auto(unclear)));
    check(AlwaysAllow, "ls", (Allow, Some(Evaluation::AlwaysAllow)));
    // A call without a command restarts the shell.
    let restart = judged(&rules(AlwaysAsk), "bash", &json!({"restart": true})).0;
    assert_eq!(restart, Ask);
    let nobody = judged(&rules(AlwaysAllow), "no_such_tool", &json!({}));
    assert_eq!(nobody, (Deny, None));
}

#[test]
fn paths_are_judged_as_they_are_and_where_they_lead() {
    use Permission::{Allow, Ask, Deny};
    let agent = agent(
        PermissionPolicy::AlwaysAsk,
        &["read(/etc/**)", "edit(secret/**)", "read(.env)"],
        &[],
        &[
            "read(src/**)",
            "edit(src/**)",
            "read(/usr/include/**)",
            "read(link/**)",
            "read(dark/**)",
        ],
    );
    let check = |name: &str, input: Value, expected: Permission| {
        assert_eq!(judged(&agent, name, &input).0, expected, "{name} {input}");
    };
    let file = |path: &str| json!({"file_path": path});
    check("read", file("src/a.rs"), Allow);
    check("read", file("/w/src/a.rs"), Allow);
    check("read", file("./src/b/../a.rs"), Allow);
    check("read", file("src/../a.rs"), Ask);
    check("read", file("src/../../etc/passwd"), Deny);
    check("read", file("/etc/passwd"), Deny);
    check("read", file("//etc/./passwd"), Deny);
    check("read", file("link/passwd"), Deny);
    check("read", file("dark/a"), Ask);
    check("read", file("src"), Ask);
    check("read", file("/usr/include/stdio.h"), Allow);
    check("read", json!({}), Ask);
    check("read", json!({"file_path": 5}), Ask);
    check("write", file("src/a.rs"), Allow);
    check("write", file("secret/a"), Deny);
    check("edit", file("secret/a/b"), Deny);
    check("edit", file("lib/a"), Ask);
    check("grep", json!({"pattern": "x", "path": "src"}), Allow);
    check("grep", json!({"pattern": "x", "path": "/etc"}), Ask);
    check("grep", json!({"pattern": "x"}), Ask);
    check("glob", json!({"pattern": "*.rs", "path": "src"}), Allow);
    check("glob", json!({"pattern": "../*", "path": "src"}), Ask);
    check("glob", json!({"pattern": "/etc/*", "path": "src"}), Ask);
}

#[test]
fn hosts_and_servers_have_rules_too() {
    let check = |rule: &str, name: &str, input: Value, expected: Match| {
        let rule = Rule::parse(rule.to_owned()).unwrap();
        let input = input.as_object().unwrap();
        let resolve = |_: &Path| None;
        let mcp = name.split_once('/');
        let asked = Asked { name, mcp, input, workspace: Path::new("/w"), resolve: &resolve };
        assert_eq!(Call::of(&asked).may_be(&rule), expected, "{rule} {name} {input:?}");
    };
    let url = |url: &str| json!({"url": url});
    let rule = "web_fetch(domain:docs.rs)";
    check(rule, "web_fetch", url("https://docs.rs/x"), Match::Yes);
    check(rule, "web_fetch", url("https://API.docs.rs.:443/x"), Match::Yes);
    check(rule, "web_fetch", url("https://evildocs.rs/"), Match::No);
    check(rule, "web_fetch", url("https://docs.rs.evil.example/"), Match::No);
    check(rule, "web_fetch", url("https://docs.rs@evil.example/"), Match::Unclear);
    check(rule, "web_fetch", url("https://evil.example\\@docs.rs/"), Match::No);
    check(rule, "web_fetch", url("file:///etc/passwd"), Match::Unclear);
    check("mcp(git/log)", "git/log", json!({}), Match::Yes);
    check("mcp(git/log)", "git/push", json!({}), Match::No);
    check("mcp(git/*)", "git/push", json!({}), Match::Yes);
    check("mcp(git/*)", "github/push", json!({}), Match::No);
    check("bash", "git/bash", json!({"command": "ls"}), Match::No);
    check("bash(ls)", "git/ls", json!({"command": "ls"}), Match::No);
}

#[test]
fn a_tool_of_a_server_has_its_toolsets_policy_and_rules_come_first() {
    let check = |rules: [&[&str]; 3], tool: &str, expected: Permission| {
        let [deny, ask, allow] = rules;
        let mut agent = agent(PermissionPolicy::AlwaysAllow, deny, ask, allow);
        agent.mcp_servers = vec![server()];
        assert_eq!(judged(&agent, &format!("git/{tool}"), &json!({})).0, expected, "{tool}");
    };
    check([&[], &[], &[]], "push", Permission::Ask);
    check([&[], &[], &[]], "log", Permission::Allow);
    check([&[], &[], &[]], "drop", Permission::Deny);
    check([&[], &[], &["mcp(git/*)"]], "push", Permission::Allow);
    check([&[], &[], &["mcp(git/*)"]], "drop", Permission::Deny);
    check([&[], &["mcp(git/log)"], &["mcp(git/*)"]], "log", Permission::Ask);
    check([&["mcp(git/log)"], &[], &[]], "log", Permission::Deny);
}

fn server() -> McpServer {
    let of = |enabled, permission_policy| Setting { enabled, permission_policy };
    let tools = [
        ("log".to_owned(), of(true, PermissionPolicy::AlwaysAllow)),
        ("drop".to_owned(), of(false, PermissionPolicy::AlwaysAllow)),
    ];
    McpServer {
        name: "git".to_owned(),
        place: Place::Url { url: "http://git.example/mcp".to_owned() },
        default: Setting::default(),
        tools: tools.into(),
    }
}

#[test]
fn the_narrowest_rule_covers_the_call_and_no_other() {
    let check = |name: &str, input: Value, expected: &[&str]| {
        let input = input.as_object().unwrap();
        let rules = narrowest(name, input);
        assert_eq!(rules, expected, "{name} {input:?}");
        let allow: Vec<_> = rules.iter().map(String::as_str).collect();
        if !allow.is_empty() {
            let mut agent = agent(PermissionPolicy::AlwaysAsk, &[], &[], &allow);
            agent.mcp_servers = vec![server()];
            let value = Value::Object(input.clone());
            assert_eq!(judged(&agent, name, &value).0, Permission::Allow, "{rules:?}");
        }
    };
    check("bash", json!({"command": "git status"}), &["bash(git status)"]);
    check("bash", json!({"command": "a b | c"}), &["bash(a b)", "bash(c)"]);
    check("bash", json!({"command": "echo 'a b'"}), &[]);
    check("bash", json!({"command": "echo '*'"}), &[]);
    check("bash", json!({"command": "echo $x"}), &[]);
    check("bash", json!({"command": "sudo ls"}), &[]);
    check("write", json!({"file_path": "src/a.rs"}), &["write(src/a.rs)"]);
    check("read", json!({"file_path": "a[1]"}), &[]);
    check("grep", json!({"pattern": "x"}), &[]);
    check("git/push", json!({"force": true}), &["mcp(git/push)"]);
    check("git/a/b", json!({}), &[]);
    assert!(ToolName::ALL.iter().all(|tool| narrowest(tool.as_str(), &Map::new()).is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_allowed_together_is_allowed_alone(
        parts in proptest::collection::vec("(git|ls|rm|env|git status|ls -l|git log -1|echo|a)( ('[ a]{0,3}'|[a-z$>*-]{1,3})){0,3}", 1..5),
        joins in proptest::collection::vec("( && | \\|\\| |; | \\| |\n| & |&&|\\|)", 4),
    ) {
        let agent = agent(PermissionPolicy::AlwaysAsk, &[], &[], &["bash(git log *)", "bash(git status)", "bash(ls *)", "bash(env *)"]);
        let mut line = parts[0].clone();
        for (join, part) in joins.iter().zip(&parts[1..]) {
            line = format!("{line}{join}{part}");
        }
        if bash(&agent, &line) == Permission::Allow {
            for part in &parts {
                prop_assert_eq!(bash(&agent, part), Permission::Allow, "{} in {}", part, line);
            }
        }
    }
}
