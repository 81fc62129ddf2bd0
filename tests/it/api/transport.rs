//! The outer shell: keys, hosts, origins, bounds, unknown paths, stopping.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use super::Server;
use crate::support::{Casemate, until};

#[test]
fn strangers_are_refused_in_the_protocols_words() {
    let server = Server::start();
    let bearer = format!("Bearer {}", server.key);
    let key = server.key.clone();
    let good = ("authorization", bearer.as_str());
    let name = |text: &str| text.replace(&server.address, "ADDRESS");
    for (headers, path, expected) in [
        (vec![], "/metrics", (401, "authentication_error", "a key is needed")),
        (
            vec![("authorization", "Bearer no")],
            "/metrics",
            (401, "authentication_error", "the key is wrong"),
        ),
        (vec![("x-api-key", "")], "/metrics", (401, "authentication_error", "the key is wrong")),
        (
            vec![("authorization", "Basic eA==")],
            "/metrics",
            (401, "authentication_error", "a key is needed"),
        ),
        (vec![good], "/v1/nothing", (404, "not_found_error", "there is no GET /v1/nothing here")),
        (vec![good], "/", (404, "not_found_error", "there is no GET / here")),
        (
            vec![good, ("host", "evil.example")],
            "/metrics",
            (403, "permission_error", "the Host `evil.example`"),
        ),
        (vec![good, ("host", "")], "/metrics", (403, "permission_error", "the Host ``")),
        (
            vec![good, ("host", "localhost"), ("host", "evil.example")],
            "/metrics",
            (403, "permission_error", "the Host `evil.example`"),
        ),
        (
            vec![good],
            "http://evil.example/metrics",
            (403, "permission_error", "the Host `evil.example`"),
        ),
        (
            vec![good, ("origin", "https://evil.example")],
            "/metrics",
            (403, "permission_error", "requests from this Origin"),
        ),
        (
            vec![good, ("origin", "null")],
            "/metrics",
            (403, "permission_error", "requests from this Origin"),
        ),
        (
            vec![("host", "evil.example")],
            "/healthz",
            (403, "permission_error", "the Host `evil.example`"),
        ),
    ] {
        let (status, kind, message) = server.send("GET", path, &headers, b"").error();
        let case = format!("{headers:?} {path}: {}", name(&message));
        assert_eq!((status, kind.as_str()), (expected.0, expected.1), "{case}");
        assert!(message.starts_with(expected.2), "{case}");
        assert!(!message.contains(&key), "{case}");
    }
    let (status, ..) = server.send("DELETE", "/metrics", &[good], b"").error();
    assert_eq!(status, 405);
}

/// The status of a head that no client sends by itself.
fn status_of(server: &Server, head: &str) -> String {
    let address = server.address.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn what_two_readers_could_take_for_two_hosts_is_refused() {
    let server = Server::start();
    for (head, expected) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost:80", "200"),
        ("GET /healthz HTTP/1.1\r\nHost: [::1]:80", "200"),
        ("GET http://localhost/healthz HTTP/1.1\r\nHost: localhost", "200"),
        ("GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:80@evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost:80:x.evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: [::1]evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: [127.0.0.1]", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: 0x7f.1", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[::1]evil.example", "403"),
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:80:x.evil.example",
            "403",
        ),
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://127.0.0.1@evil.example",
            "403",
        ),
        ("GET /v1/../healthz/%2e%2e/v1/agents HTTP/1.1\r\nHost: localhost", "401"),
        ("GET //v1/agents HTTP/1.1\r\nHost: localhost", "401"),
        ("OPTIONS /v1/agents HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example", "403"),
    ] {
        assert_eq!(status_of(&server, head), expected, "{head}");
    }
}

#[test]
fn whoever_has_the_key_is_answered() {
    let server = Server::start();
    let bearer = format!("bearer {}", server.key);
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("x-api-key", server.key.as_str())],
        vec![("x-api-key", server.key.as_str()), ("anthropic-version", "1999-01-01")],
        vec![("x-api-key", server.key.as_str()), ("origin", "http://localhost:3000")],
        vec![("x-api-key", server.key.as_str()), ("host", "localhost")],
    ] {
        let reply = server.send("GET", "/metrics?beta=true", &headers, b"");
        assert_eq!(reply.status, 200, "{headers:?} {reply:?}");
        assert!(reply.header("request-id").is_some_and(|id| id.starts_with("req_")));
        assert!(reply.body.contains("casemate_uptime_seconds"), "{reply:?}");
    }
    // Supervisors have no key.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.send("GET", path, &[], b"").status, 200, "{path}");
    }
}

#[test]
fn a_strict_server_wants_the_beta_header() {
    let server = Server::of(Casemate::new(), &["--strict"]);
    let key = ("x-api-key", server.key.as_str());
    for (beta, status) in [
        (vec![], 404),
        (vec![("anthropic-beta", "files-api-2025-04-14")], 404),
        (vec![("anthropic-beta", "managed-agents-2026-04-01,nonsense-1")], 400),
    ] {
        let headers: Vec<_> = std::iter::once(key).chain(beta).collect();
        let reply = server.send("GET", "/v1/agents", &headers, b"");
        assert_eq!(reply.error().0, status, "{headers:?}");
    }
}

#[test]
fn a_head_without_end_is_refused_and_others_go_on() {
    let server = Server::start();
    let long = "x".repeat(200_000);
    let reply = server.send("GET", "/healthz", &[("x-long", &long)], b"");
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_eq!(server.send("GET", "/healthz", &[], b"").status, 200);
}

#[test]
fn only_what_is_asked_for_is_reachable_from_elsewhere() {
    let casemate = Casemate::new();
    let refused = casemate.run(&["serve", "--listen", "0.0.0.0:0"]).expect(2).stderr();
    assert!(refused.contains("--public"), "{refused}");
    let refused = casemate.run(&["serve", "--listen", "somewhere"]).expect(2).stderr();
    assert!(refused.contains("127.0.0.1:4180"), "{refused}");
}

#[test]
fn the_key_is_the_owners_alone_and_stays() {
    let casemate = Casemate::new();
    let first = casemate.run(&["key"]).expect(0).stdout();
    assert_eq!(casemate.run(&["key"]).expect(0).stdout(), first);
    let facts = std::fs::metadata(casemate.data_dir().join("api-key")).unwrap();
    assert_eq!(facts.mode() & 0o777, 0o600);
}

#[test]
fn a_socket_in_the_file_system_serves_its_owner() {
    let casemate = Casemate::new();
    let key = casemate.run(&["key"]).expect(0).stdout();
    let path = casemate.workspace().join("c.sock");
    let address = format!("unix:{}", path.display());
    let running = casemate.start(&["serve", "--listen", &address, "--quiet"]);
    let mut stream = until("the socket", || UnixStream::connect(&path).ok());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let request =
        format!("GET /metrics HTTP/1.1\r\nx-api-key: {}\r\nconnection: close\r\n\r\n", key.trim());
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    running.signal(nix::sys::signal::Signal::SIGINT);
    running.finish().expect(0);
    assert!(!path.exists());
}

#[test]
fn a_server_that_stops_lets_its_directory_go() {
    let server = Server::start();
    let second = server.casemate.run(&["serve", "--listen", "127.0.0.1:0"]).expect(1).stderr();
    assert!(second.contains("in use by process"), "{second}");
    let casemate = server.stop();
    Server::of(casemate, &[]).stop();
}
