//! Encrypted model servers, proxies on the way to them, and names that nobody knows.

use crate::support::model::{Api, KEY, ModelServer, Reply, answer, body, call, env_for, text};
use crate::support::running::Running;
use crate::support::story::{assert_whole, told};
use crate::support::tls::{Door, Ending, NAME, Proxy};
use crate::support::{Casemate, Finished};

/// What the environment says of proxies, the address of the server, and the proxy that is asked.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);

fn good(api: Api) -> Reply {
    answer(api, &[text("Good.")], "end_turn")
}

/// Runs a task with the provider of that API at `url`, and looks for secrets in all that it says.
fn ask(casemate: &Casemate, api: Api, url: &str, env: &[(&str, &str)]) -> Finished {
    let mut command = casemate.command();
    command.envs(env_for(url)).envs(env.iter().copied());
    command.args(["run", "-m", &format!("{}/m", api.provider()), "do it"]);
    let finished = Running::start(command).finish();
    let said = finished.stdout() + &finished.stderr();
    assert!(!said.contains(KEY) && !said.contains("pass-7d1f"), "{finished:?}");
    finished
}

#[test]
fn an_encrypted_connection_that_dies_leaves_nothing_half_done() {
    let check = |api: Api, ending: Ending, share: usize| {
        let casemate = Casemate::new();
        let parts = [text("Half."), call("t1", "write", r#"{"file_path":"ran","content":""}"#)];
        let whole = body(api, &parts, "tool_use").into_bytes();
        let cut = Reply::cut(&whole, whole.len() * share / 4);
        let server = ModelServer::start(vec![cut, good(api)]);
        let door = Door::to(&server.url(), &casemate.home(), ending);
        let url = format!("https://localhost:{}", door.port());
        ask(&casemate, api, &url, &[("SSL_CERT_FILE", door.certificate())]).expect(0);
        assert_eq!(server.requests().len(), 2, "{ending:?} after {share} quarters");
        let events = casemate.log();
        assert_whole(&events);
        let told = told(&events);
        let lines: Vec<_> = told.lines().map(str::trim).collect();
        let [user, error, says, idle] = lines[..] else { panic!("{ending:?}, {share}: {told}") };
        assert_eq!([user, says, idle], ["user: do it", "says: Good.", "idle: end_turn"]);
        assert!(error.contains("[retrying] the answer of"), "{ending:?}, {share}: {error}");
        assert!(!casemate.workspace().join("ran").exists(), "{ending:?}, {share}: it ran");
    };
    std::thread::scope(|scope| {
        for api in Api::BOTH {
            for ending in [Ending::Said, Ending::Unsaid, Ending::InRecord] {
                for share in [0, 1, 2, 3] {
                    scope.spawn(move || check(api, ending, share));
                }
            }
        }
    });
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let casemate = Casemate::new();
    let server = ModelServer::start(vec![good(Api::OpenAi)]);
    let door = Door::to(&server.url(), &casemate.home(), Ending::Said);
    let url = format!("https://localhost:{}", door.port());
    let finished = ask(&casemate, Api::OpenAi, &url, &[]).expect(1);
    let said = finished.stderr();
    assert!(said.contains(&format!("could not reach {url}: ")), "{said}");
    assert!(said.contains("certificate"), "{said}");
    assert!(server.requests().is_empty(), "it was asked all the same");
}

/// Which way a request goes: `PROXY` stands for the proxy's address.
#[test]
fn proxies_of_the_environment_are_used_for_servers_elsewhere() {
    let connect = format!("CONNECT {NAME}:443 HTTP/1.1\r\n");
    let post = format!("POST http://{NAME}/v1/chat/completions HTTP/1.1\r\n");
    let (secure, plain) = (format!("https://{NAME}"), format!("http://{NAME}"));
    let (http, port) = ("http://PROXY", "https://localhost:PORT");
    let cases: [Case<'_>; 12] = [
        (&[("HTTPS_PROXY", http)], &secure, Some(&connect)),
        (&[("https_proxy", "PROXY")], &secure, Some(&connect)),
        (&[("ALL_PROXY", http)], &secure, Some(&connect)),
        (&[("all_proxy", http), ("HTTP_PROXY", "http://127.0.0.1:1")], &secure, Some(&connect)),
        (&[("HTTPS_PROXY", "http://me:pass-7d1f@PROXY")], &secure, Some(&connect)),
        (&[("HTTPS_PROXY", http), ("NO_PROXY", "other.test")], &secure, Some(&connect)),
        (&[("HTTP_PROXY", http), ("HTTPS_PROXY", "http://127.0.0.1:1")], &plain, Some(&post)),
        (&[("ALL_PROXY", http)], &plain, Some(&post)),
        // This machine is asked directly.
        (&[("HTTPS_PROXY", http)], port, None),
        (&[("ALL_PROXY", "socks5://PROXY")], port, None),
        (&[("ALL_PROXY", http), ("HTTP_PROXY", http)], "http://PLAIN", None),
        (&[("ALL_PROXY", http), ("NO_PROXY", "*")], "http://PLAIN", None),
    ];
    let check = |env: &[(&str, &str)], url: &str, expected: Option<&str>| {
        let casemate = Casemate::new();
        let server = ModelServer::start(vec![good(Api::OpenAi)]);
        let door = Door::to(&server.url(), &casemate.home(), Ending::Said);
        let address = server.url().trim_start_matches("http://").to_owned();
        let plain_port = address.rsplit(':').next().unwrap().parse().unwrap();
        let encrypted = url.starts_with("https:");
        let proxy = Proxy::to(if encrypted { door.port() } else { plain_port });
        let url = url.replace("PORT", &door.port().to_string()).replace("PLAIN", &address);
        let named = |value: &str| value.replace("PROXY", &proxy.address().to_string());
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, named(value))).collect();
        let mut env: Vec<_> = env.iter().map(|(name, value)| (*name, &**value)).collect();
        env.push(("SSL_CERT_FILE", door.certificate()));
        let finished = ask(&casemate, Api::OpenAi, &url, &env).expect(0);
        assert_eq!(finished.stdout().trim(), "Good.", "{env:?}");
        let asked = proxy.asked();
        match (expected, &asked[..]) {
            (None, []) => {}
            (Some(line), [head]) => {
                assert!(head.starts_with(line), "{env:?}: {head}");
                // The proxy gets its own password, and of an encrypted request nothing else.
                let own = env.iter().any(|(_, value)| value.contains("pass-7d1f"));
                let basic = "Basic bWU6cGFzcy03ZDFm";
                assert_eq!(head.contains(basic), own, "{env:?}: {head}");
                assert_eq!(head.contains(KEY), !encrypted, "{env:?}: {head}");
            }
            (expected, asked) => panic!("{env:?}: expected {expected:?}, asked {asked:?}"),
        }
    };
    std::thread::scope(|scope| {
        for (env, url, expected) in cases {
            scope.spawn(move || check(env, url, expected));
        }
    });
}

#[test]
fn a_proxy_that_speaks_no_http_is_refused_before_anything_is_done() {
    let casemate = Casemate::new();
    let env = [("ALL_PROXY", "socks5://me:pass-7d1f@127.0.0.1:1080")];
    let url = format!("https://{NAME}");
    let finished = ask(&casemate, Api::Anthropic, &url, &env).expect(2);
    let said = finished.stderr();
    assert!(
        said.contains("the proxy `127.0.0.1:1080` of the environment speaks no HTTP"),
        "{said}"
    );
    assert_eq!(casemate.sessions(), [""; 0], "a session that can never work");
}

/// A name with so long a part is one that the resolver refuses without asking anybody. Also that `NO_PROXY` is obeyed:
/// the proxy would have known the name.
#[test]
fn a_name_that_cannot_be_resolved_is_named() {
    let casemate = Casemate::new();
    let server = ModelServer::start(vec![good(Api::OpenAi)]);
    let port = server.url().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(port);
    let host = format!("{}.test", "m".repeat(64));
    let url = format!("http://{host}");
    let through = format!("http://{}", proxy.address());
    let env = [("HTTP_PROXY", &*through), ("NO_PROXY", "a.example, .test")];
    let finished = ask(&casemate, Api::OpenAi, &url, &env).expect(1);
    let said = finished.stderr();
    assert!(said.contains(&format!("could not reach {url}: ")), "{said}");
    assert!(said.contains("failed to lookup address information"), "{said}");
    assert!(said.contains("gave up after 6 tries"), "{said}");
    assert_eq!(proxy.asked(), [""; 0]);
    assert!(server.requests().is_empty());
    ask_again(&casemate, &server);
}

/// The session is whole, and goes on once its server is found.
fn ask_again(casemate: &Casemate, server: &ModelServer) {
    casemate.ask(&server.url(), &["resume"]).expect(0);
    assert_whole(&casemate.log());
}

#[test]
fn the_last_try_is_as_good_as_the_first() {
    let check = |api: Api| {
        let busy = Reply::status("503 Service Unavailable", "", "not now");
        let mut replies = vec![busy; 5];
        replies.push(good(api));
        let server = ModelServer::start(replies);
        let casemate = Casemate::new();
        let finished = ask(&casemate, api, &server.url(), &[]).expect(0);
        assert_eq!(finished.stdout().trim(), "Good.");
        let events = casemate.log();
        assert_whole(&events);
        let told = told(&events);
        assert_eq!(told.matches("[retrying]").count(), 5, "{told}");
        assert!(told.ends_with("says: Good.\n  idle: end_turn\n"), "{told}");
        let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
        assert!(bodies.windows(2).all(|two| two[0] == two[1]), "asked again in other words");
    };
    std::thread::scope(|scope| {
        for api in Api::BOTH {
            scope.spawn(move || check(api));
        }
    });
}
