//! Repositories of sessions: a real git against a server of the test's own, as root and as an ordinary user.

mod skills;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::api::sessions::{Lab as Api, message};
use crate::egress::lab::{Lab, find};
use crate::support::{As, Casemate, lacking, until, write};

/// What the private repository asks for. A command can look for it without having it in its own words.
const TOKEN: &str = "ghp_NobodyMayReadThis0123456789";
const LOOK_FOR_IT: &str = "[g]hp_NobodyMayReadThis";

/// The git server of one test, on the loopback of casemate's machine.
struct Forge {
    lab: Lab,
    dir: tempfile::TempDir,
    server: Child,
    said: BufReader<ChildStdout>,
}

impl Forge {
    /// The server, or nothing where it cannot be had.
    fn open() -> Option<Self> {
        for program in ["git", "python3"] {
            if find(program).is_none() {
                lacking(program);
                return None;
            }
        }
        let lab = Lab::new()?;
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("git.py"), include_str!("git.py"));
        write(&dir.path().join("tokens"), TOKEN);
        write(&dir.path().join("requests"), "");
        let mut command = lab.client.command("/usr/bin/python3");
        command.args(["git.py", "127.0.0.1"]).current_dir(dir.path());
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Some(Self { lab, dir, server, said })
    }

    fn order(&mut self, line: &str) {
        writeln!(self.server.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.said.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }

    fn make(&self, name: &str, content: &str) {
        write(&self.dir.path().join(name), content);
    }

    fn mend(&self, name: &str) {
        std::fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    /// How often contents were sent since this was asked last.
    fn sent(&self) -> usize {
        let path = self.dir.path().join("requests");
        let all = std::fs::read_to_string(&path).unwrap();
        write(&path, "");
        all.lines().filter(|line| line.starts_with("POST") && line.ends_with("200")).count()
    }

    /// The commit that a branch or another name of one is.
    fn commit(&self, name: &str) -> String {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "safe.directory=*", "rev-parse", name]);
        let done = command.current_dir(self.dir.path().join("git/hello")).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// A server of the protocol on that machine, whose agent runs these commands, one for each message.
    fn api(&self, casemate: Casemate, who: As, commands: &[&str]) -> Api {
        let turn = |command: &&str| {
            let call = json!({ "tool_calls": [{ "bash": { "command": command } }] });
            format!("{call}, {{text: done}}")
        };
        let turns: Vec<_> = commands.iter().map(turn).collect();
        let model = casemate.script(&format!("turns: [{}]", turns.join(", ")));
        let hosts = ["127.0.0.1", "93.184.216.35", "private.example"];
        let networking = json!({ "type": "limited", "allowed_hosts": hosts });
        let config = json!({ "type": "cloud", "networking": networking });
        let server = self.lab.serve(casemate, who);
        Api::on(server, &model, &json!([{ "type": "agent_toolset_20260401" }]), &config)
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn repository(path: &str, more: &Value) -> Value {
    let mut all = json!({ "type": "github_repository", "url": format!("http://127.0.0.1/{path}") });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn private(more: &Value) -> Value {
    let mut all = repository("private/hello", &json!({ "authorization_token": TOKEN }));
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn session(api: &Api, resources: &[Value]) -> String {
    let made = api.create(&json!({ "resources": resources })).expect(200);
    made["id"].as_str().unwrap().to_owned()
}

/// Has the session run its next command, and says what came of it.
#[track_caller]
fn run(api: &Api, session: &str) -> String {
    api.send(session, &json!([message("go on")])).expect(200);
    api.settled(session);
    let events = api.events(session);
    let mut results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let last = results.next_back().unwrap_or_else(|| panic!("{events:#?}"));
    last["content"][0]["text"].as_str().unwrap().trim().to_owned()
}

/// Kinds and messages of what the session had to do without.
fn troubles(api: &Api, session: &str) -> Vec<(String, String)> {
    let events = api.events(session);
    let errors = events.iter().filter(|event| event["type"] == "session.error");
    let trouble = |event: &Value| {
        let error = &event["error"];
        assert_eq!(error["retry_status"], json!({ "type": "retrying" }));
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        let beginning = format!("the repository {} is not there: ", text("repository_url"));
        let message = text("message");
        let message = message.strip_prefix(&beginning).unwrap_or_else(|| panic!("{message}"));
        (text("type"), message.to_owned())
    };
    errors.map(trouble).collect()
}

fn rotate(api: &Api, session: &str, token: &str) -> crate::api::server::Reply {
    let resource = api.get(session)["resources"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{session}/resources/{resource}");
    api.server.post(&path, &json!({ "authorization_token": token }))
}

/// The files below a directory that have this in them.
fn holding(directory: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    found.push(entry.path().display().to_string());
                }
            }
        }
    }
    found
}

#[test]
fn a_session_works_on_what_it_asked_for() {
    let Some(forge) = Forge::open() else { return };
    let look = "cd /workspace/deep/er 2>/dev/null || cd /workspace/hello; pwd; cat README; git log -1 --format=%H; \
                git symbolic-ref -q --short HEAD; git status --porcelain; git remote get-url origin; readlink link; \
                echo mine > README; git -c user.name=a -c user.email=a@a.example commit -qam mine; git log --oneline | wc -l";
    let (url, link) = ("http://127.0.0.1/private/hello", "/etc/passwd");
    for who in As::all() {
        let api = forge.api(Casemate::of(who), who, &[look]);
        let [main, old, dev] = ["main", "main~1", "dev"].map(|name| forge.commit(name));
        for (more, expected) in [
            (json!({}), format!("/workspace/hello\nthree\n{main}\nmain\n{url}\n{link}\n4")),
            (
                json!({ "checkout": { "type": "branch", "name": "dev" } }),
                format!("/workspace/hello\ndev\n{dev}\ndev\n{url}\n{link}\n5"),
            ),
            (
                json!({ "checkout": { "type": "commit", "sha": old }, "mount_path": "/workspace/deep/er" }),
                format!("/workspace/deep/er\ntwo\n{old}\n{url}\n3"),
            ),
        ] {
            let asked = private(&more);
            let session = session(&api, std::slice::from_ref(&asked));
            let shown = api.get(&session)["resources"][0].clone();
            assert_eq!(shown["authorization_token"], Value::Null);
            for name in ["type", "url", "checkout"] {
                assert_eq!(shown[name], asked[name], "{name}");
            }
            assert_eq!(run(&api, &session), expected, "{who:?}");
            assert_eq!(troubles(&api, &session), [], "{who:?}");
        }
    }
}

#[test]
fn a_token_is_nowhere_but_with_git() {
    let Some(forge) = Forge::open() else { return };
    let look = format!(
        "cd /workspace/hello && cat README; env | grep -c '{LOOK_FOR_IT}'; \
         cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n' | grep -c '{LOOK_FOR_IT}'; \
         grep -rc '{LOOK_FOR_IT}' .git | grep -v ':0$'; git config --list | grep -c '{LOOK_FOR_IT}'; true"
    );
    for who in As::all() {
        forge.make("hangs", "");
        let api = forge.api(Casemate::of(who), who, &[&look]);
        let session = session(&api, &[private(&json!({}))]);
        api.send(&session, &json!([message("go on")])).expect(200);
        // While git waits for its server: no argument and no variable of any process.
        let processes = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
                .flat_map(|entry| ["cmdline", "environ"].map(|name| entry.path().join(name)))
                .filter_map(|path| {
                    Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
                })
                .collect::<Vec<_>>()
        };
        let all = until("git at work", || {
            let all = processes();
            all.iter().any(|text| text.contains("ls-remote")).then_some(all)
        });
        assert!(!all.iter().any(|text| text.contains(TOKEN)), "{who:?}");
        forge.mend("hangs");
        api.settled(&session);
        let events = api.events(&session);
        let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
        let said: Vec<_> =
            results.map(|event| event["content"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(said.len(), 1, "{events:#?}");
        assert_eq!(
            said[0].split_whitespace().collect::<Vec<_>>(),
            ["three", "0", "0", "0"],
            "{who:?}"
        );
        // Wrong ones too, with whatever is said of them.
        let wrong = "ghp_WrongAndSecret0123456789";
        assert_eq!(rotate(&api, &session, TOKEN).status, 200);
        let other = private(&json!({ "authorization_token": wrong }));
        let other = self::session(&api, &[other]);
        api.send(&other, &json!([message("go on")])).expect(200);
        api.settled(&other);
        assert_eq!(troubles(&api, &other)[0].0, "repository_authentication_error");
        let casemate = api.server.stop();
        for secret in [TOKEN, wrong] {
            // The database, the sealed tokens, the checkouts, what is kept of the repository; and the server's log.
            assert_eq!(holding(&casemate.home(), secret), [] as [String; 0], "{who:?}");
        }
        let key = casemate.data_dir().join("secrets.key").metadata().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&key) & 0o777, 0o600);
    }
}

#[test]
fn a_token_outlives_the_server_and_can_be_replaced() {
    let Some(forge) = Forge::open() else { return };
    let look = "cat /workspace/hello/README 2>&1";
    for who in As::all() {
        let api = forge.api(Casemate::of(who), who, &[look, look]);
        let good = session(&api, &[private(&json!({}))]);
        let bad = session(&api, &[private(&json!({ "authorization_token": "wrong" }))]);
        let Api { server, agent, environment } = api;
        let server = forge.lab.serve(server.stop(), who);
        let api = Api { server, agent, environment };
        assert_eq!(run(&api, &good), "three", "{who:?}");
        let refused = "its server refused the authorization_token";
        assert!(run(&api, &bad).contains("No such file"), "the session goes on without it");
        let expected = ("repository_authentication_error".to_owned(), refused.to_owned());
        assert_eq!(troubles(&api, &bad), [expected]);
        let reply = rotate(&api, &bad, "wrong too");
        assert_eq!(
            reply.error().2,
            "authorization_token: must have 1 to 1024 visible ASCII characters"
        );
        let reply = rotate(&api, &bad, "wrong-too");
        let message = format!("authorization_token: the repository cannot be had: {refused}");
        assert_eq!(reply.error(), (400, "invalid_request_error".to_owned(), message));
        let code = &reply.json()["error"]["details"]["error_code"];
        assert_eq!(code, "repository_authentication_error");
        let before = api.get(&bad)["resources"][0].clone();
        let after = rotate(&api, &bad, TOKEN).expect(200);
        assert_ne!(before["updated_at"], after["updated_at"]);
        assert_eq!(before["created_at"], after["created_at"]);
        assert_eq!(after.get("authorization_token"), None);
        // The sandbox is the same as before.
        assert_eq!(run(&api, &bad), "three", "{who:?}");
    }
}

#[test]
fn what_is_kept_of_a_repository_is_shown_to_nobody_who_could_not_have_it() {
    let Some(mut forge) = Forge::open() else { return };
    let look = "cat /workspace/hello/README 2>&1";
    let api = forge.api(Casemate::new(), As::Me, &[look]);
    let secret = forge.commit("secret");
    let secret = json!({ "checkout": { "type": "commit", "sha": secret } });
    for (asked, sent, expected) in [
        (private(&secret), 1, "secret"),
        // Everything is there already, and asked for all the same.
        (private(&json!({})), 0, "three"),
        (private(&secret), 0, "secret"),
    ] {
        assert_eq!(run(&api, &session(&api, &[asked])), expected);
        assert_eq!(forge.sent(), sent, "{expected}");
    }
    // The same place without the token, or with another.
    for token in [json!(null), json!("other")] {
        let asked = private(&json!({ "authorization_token": token }));
        let session = session(&api, &[asked]);
        assert!(run(&api, &session).contains("No such file"));
        assert_eq!(troubles(&api, &session)[0].0, "repository_authentication_error");
    }
    forge.order("commit four");
    forge.order("forget secret");
    assert_eq!(run(&api, &session(&api, &[private(&json!({}))])), "four");
    assert_eq!(forge.sent(), 1);
    let session = session(&api, &[private(&secret)]);
    assert!(run(&api, &session).contains("No such file"));
    assert_eq!(troubles(&api, &session)[0].0, "repository_checkout_error");
}

#[test]
fn what_cannot_be_had_has_a_name_and_the_session_goes_on() {
    let Some(forge) = Forge::open() else { return };
    let missing = "0123456789012345678901234567890123456789";
    let at = |n: usize, url: &str, checkout: Value| json!({ "type": "github_repository", "url": url, "mount_path": format!("/workspace/{n}"), "checkout": checkout });
    let cases = [
        (
            at(0, "http://127.0.0.1/public/hello", json!({ "type": "branch", "name": "nosuch" })),
            "repository_checkout_error",
            "it has no branch `nosuch`",
        ),
        (
            at(1, "http://127.0.0.1/public/hello", json!({ "type": "commit", "sha": missing })),
            "repository_checkout_error",
            "it has no commit 0123456789012345678901234567890123456789",
        ),
        (
            at(2, "http://127.0.0.1/public/nosuch", json!(null)),
            "repository_not_found_error",
            "its server has no such repository, or does not show it to this authorization_token (404)",
        ),
        (
            at(3, "http://127.0.0.1/forbidden/hello", json!(null)),
            "repository_forbidden_error",
            "its server forbids it (403)",
        ),
        (
            at(4, "http://127.0.0.1/private/hello", json!(null)),
            "repository_authentication_error",
            "its server asks for an authorization_token",
        ),
        (
            at(5, "http://127.0.0.1/public/empty", json!(null)),
            "repository_checkout_error",
            "it has no commit yet",
        ),
        (
            at(6, "http://93.184.216.35/public/hello", json!(null)),
            "repository_clone_error",
            "93.184.216.35:80 was not reached: connection refused",
        ),
        (
            at(7, "http://private.example/public/hello", json!(null)),
            "repository_forbidden_error",
            "private.example:80 was not reached: its address 10.77.0.1 is a private address",
        ),
        (
            at(8, "http://127.0.0.1/moved/hello", json!(null)),
            "repository_clone_error",
            "git could not clone it:\nfatal: unable to access 'http://127.0.0.1/moved/hello/'",
        ),
        (at(9, "http://127.0.0.1/public/hello.git", json!(null)), "", ""),
    ];
    for who in As::all() {
        let api = forge.api(Casemate::of(who), who, &["ls /workspace; cat /workspace/9/README"]);
        let asked: Vec<_> = cases.iter().map(|(asked, ..)| asked.clone()).collect();
        let session = session(&api, &asked);
        assert_eq!(run(&api, &session), "9\nthree", "{who:?}");
        let troubles = troubles(&api, &session);
        let failing = cases.iter().filter(|(_, kind, _)| !kind.is_empty());
        assert_eq!(troubles.len(), failing.clone().count(), "{troubles:#?}");
        for ((_, kind, message), trouble) in failing.zip(&troubles) {
            assert_eq!(*kind, trouble.0, "{who:?}: {trouble:?}");
            assert!(trouble.1.starts_with(message), "{who:?}: {trouble:?}");
        }
    }
}

#[test]
fn bounds_of_room_and_of_silence_are_kept() {
    let Some(forge) = Forge::open() else { return };
    let casemate = Casemate::new();
    let path = casemate.home().join(".config/casemate/config.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write(&path, "[repositories]\nmax_mib = 2\nmax_silence_seconds = 2\n");
    let api = forge.api(casemate, As::Me, &["ls /workspace"]);
    let large = session(&api, &[repository("public/large", &json!({}))]);
    assert_eq!(run(&api, &large), "(no output)");
    let kind = "repository_clone_error".to_owned();
    let message = "it has more than 2 MiB, with its checkout".to_owned();
    assert_eq!(troubles(&api, &large), [(kind, message)]);
    forge.make("hangs", "");
    let late = session(&api, &[repository("public/hello", &json!({}))]);
    assert_eq!(run(&api, &late), "(no output)");
    let (kind, message) = &troubles(&api, &late)[0];
    assert_eq!(kind, "repository_clone_error");
    assert!(message.contains("Operation too slow"), "{message}");
}

#[test]
fn what_is_no_repository_is_refused_with_its_field() {
    let Some(forge) = Forge::open() else { return };
    let api = forge.api(Casemate::new(), As::Me, &["true"]);
    let hello = |more: Value| repository("public/hello", &more);
    for (resources, expected) in [
        (json!([{ "type": "github_repository" }]), "resources[0].url: Field required"),
        (
            json!([{ "type": "github_repository", "url": "git@github.com:a/b" }]),
            "resources[0].url: must begin with https://",
        ),
        (
            json!([{ "type": "github_repository", "url": "https://u:secret@github.com/a/b" }]),
            "resources[0].url: must not have credentials in it: they are given as authorization_token",
        ),
        (
            json!([{ "type": "github_repository", "url": "https://github.com/a/b" }]),
            "resources[0].url: github.com:443 was not reached: it is not in allowed_hosts. To allow it: add `github.com` to \
             allowed_hosts",
        ),
        (
            json!([hello(json!({})), hello(json!({ "mount_path": "/workspace/hello/x" }))]),
            "resources.mount_path: /workspace/hello/x cannot be had: the session has a repository at /workspace/hello",
        ),
        (
            json!([hello(json!({ "mount_path": "/etc/x" }))]),
            "resources[0].mount_path: must be a directory below /workspace",
        ),
        (
            json!([hello(json!({ "mount_path": "/workspace/../x" }))]),
            "resources[0].mount_path: must not have `.` or `..` in it",
        ),
        (
            json!([hello(json!({ "checkout": { "type": "tag" } }))]),
            "resources[0].checkout.type: must be `branch` or `commit`",
        ),
        (
            json!([hello(json!({ "checkout": { "type": "branch", "name": "--upload-pack=x" } }))]),
            "resources[0].checkout.name: must be the name of a branch",
        ),
        (
            json!([hello(json!({ "checkout": { "type": "commit", "sha": "abc" } }))]),
            "resources[0].checkout.sha: must be the whole sha of a commit: 40 or 64 hexadecimal digits",
        ),
        (
            json!([hello(json!({ "authorization_token": "a\nb" }))]),
            "resources[0].authorization_token: must have 1 to 1024 visible ASCII characters",
        ),
        (
            json!([hello(json!({ "depth": 1 }))]),
            "resources[0].depth: Extra inputs are not permitted",
        ),
    ] {
        let reply = api.create(&json!({ "resources": resources }));
        let (status, _, message) = reply.error();
        assert_eq!(status, 400, "{resources}");
        assert!(message.starts_with(expected), "{resources}: {message}");
    }
    assert_eq!(api.server.get("/v1/sessions").expect(200)["data"], json!([]));
    // Without TLS only where it was named, and never within reach of everybody.
    let open = json!({ "name": "open" });
    let open = api.server.post("/v1/environments", &open).expect(200)["id"].clone();
    let plain = json!([{ "type": "github_repository", "url": "http://allowed.example/x" }]);
    let reply = api.create(&json!({ "environment_id": open, "resources": plain }));
    let expected = "resources[0].url: a URL with http is for hosts that the environment's allowed_hosts names; use https";
    assert_eq!(reply.error().2, expected);
    let kept = session(&api, &[hello(json!({}))]);
    let resource = api.get(&kept)["resources"][0]["id"].as_str().unwrap().to_owned();
    let reply =
        api.server.ask("DELETE", &format!("/v1/sessions/{kept}/resources/{resource}"), None);
    assert_eq!(
        (reply.error().0, reply.error().2.as_str()),
        (400, "a repository stays as long as its session")
    );
}

#[test]
fn a_link_of_the_sessions_leads_no_checkout_elsewhere() {
    let Some(forge) = Forge::open() else { return };
    let commands =
        ["ln -s /mnt/session/outputs /workspace/a && ls /workspace", "ls /mnt/session/outputs"];
    let api = forge.api(Casemate::new(), As::Me, &commands);
    let asked = private(&json!({ "authorization_token": "wrong", "mount_path": "/workspace/a/b" }));
    let session = session(&api, &[asked]);
    assert_eq!(run(&api, &session), "a");
    let reply = rotate(&api, &session, TOKEN);
    assert_eq!(reply.error().0, 400);
    let code = &reply.json()["error"]["details"]["error_code"];
    assert_eq!(code, "repository_checkout_error", "{reply:?}");
    assert_eq!(run(&api, &session), "(no output)");
}

#[test]
fn a_server_that_ends_in_the_middle_of_a_clone_begins_it_again() {
    let Some(forge) = Forge::open() else { return };
    for who in As::all() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            forge.make("hangs", "");
            let look = "cat /workspace/hello/README";
            let api = forge.api(Casemate::of(who), who, &[look]);
            let session = session(&api, &[private(&json!({}))]);
            api.send(&session, &json!([message("go on")])).expect(200);
            api.once(&session, "agent.tool_use");
            let Api { server, agent, environment } = api;
            let mirrors = server.casemate.data_dir().join("repositories");
            let busy = || {
                let mut all = std::fs::read_dir(&mirrors).into_iter().flatten().flatten();
                all.any(|entry| entry.path().join("busy").exists()).then_some(())
            };
            until("a clone", busy);
            let casemate = server.end(signal);
            forge.mend("hangs");
            let server = forge.lab.serve(casemate, who);
            let api = Api { server, agent, environment };
            api.settled(&session);
            let events = api.events(&session);
            let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
            let said: Vec<_> =
                results.map(|event| event["content"][0]["text"].as_str().unwrap()).collect();
            assert_eq!(said, ["three"], "{who:?} {signal}: {events:#?}");
        }
    }
}
