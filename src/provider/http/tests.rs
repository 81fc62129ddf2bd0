//! Against a real server on the loopback interface, which says exactly what the case tells it to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Http, HttpOptions, Proxies, Timeouts, unusable};
use crate::provider::openai::OpenAi;
use crate::provider::retry::{Verdict, verdict};
use crate::provider::routes::{Api, Catalog, Detected, ProviderConfig, Routes, Secret};
use crate::provider::testing::{assemble, plain, shown};
use crate::provider::{Model as _, ModelError};

/// What the server does after it has read the request's head.
#[derive(Clone)]
enum Say {
    Bytes(String),
    /// Keeps the connection open and says nothing more.
    Hang,
}

fn bytes(text: impl Into<String>) -> Say {
    Say::Bytes(text.into())
}

fn stream(body: &str) -> Say {
    bytes(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}"
    ))
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<Say> {
    let length = body.len();
    vec![bytes(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"))]
}

/// Serves every connection with the same words; returns the address and, per connection, the request's head.
async fn serve(words: Vec<Say>) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (heads, received) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (words, heads) = (words.clone(), heads.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                heads.send(String::from_utf8_lossy(&head).into_owned()).await.expect("a test");
                // The rest of the request must be taken, or closing resets the connection.
                if head.starts_with(b"POST") {
                    let mut body = vec![0; 64 * 1024];
                    let read = socket.read(&mut body).await.unwrap_or(0);
                    assert!(read > 0, "a body");
                }
                for word in words {
                    match word {
                        Say::Bytes(text) => {
                            if socket.write_all(text.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                        Say::Hang => std::future::pending().await,
                    }
                }
            });
        }
    });
    (address, received)
}

fn http() -> Arc<Http> {
    let short = Duration::from_millis(150);
    let timeouts = Timeouts { connect: short, first_byte: short, idle: short, tail: short };
    Arc::new(Http::new(HttpOptions { timeouts, ..HttpOptions::default() }).expect("options"))
}

async fn ask(url: &str) -> Result<String, ModelError> {
    let model = OpenAi::new(http(), "p", url, Some(Secret::new("sk-hidden")));
    let mut stream = model.stream(plain());
    let mut deltas = Vec::new();
    while let Some(delta) = stream.next().await {
        deltas.push(delta?);
    }
    assemble(deltas).map(|answer| shown(&answer))
}

async fn check(words: Vec<Say>, expected: Result<&str, &str>) -> Option<Verdict> {
    let (url, _heads) = serve(words).await;
    let got = ask(&url).await;
    let verdict = got.as_ref().err().map(verdict);
    let got = got.map_err(|error| error.to_string().replace(&url, "URL"));
    assert_eq!(got.as_deref().map_err(String::as_str), expected);
    verdict
}

const AGAIN: Option<Verdict> = Some(Verdict::Retry { after: None });
const FATAL: Option<Verdict> = Some(Verdict::Fatal);
const HI: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const GOOD: Result<&str, &str> = Ok("text \"hi\" | end_turn 0+0>0");

#[tokio::test]
async fn whole_answers() {
    check(vec![stream(&format!("{HI}{STOP}data: [DONE]\n\n"))], GOOD).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    let all = format!("{HI}{STOP}data: [DONE]\n\n");
    let chunk = |text: &str| bytes(format!("{:x}\r\n{text}\r\n", text.len()));
    let (first, second) = all.split_at(20);
    check(vec![bytes(head), chunk(first), chunk(second), bytes("0\r\n\r\n")], GOOD).await;
    // The socket dies or falls silent after a complete answer.
    check(vec![bytes(head), chunk(&format!("{HI}{STOP}"))], GOOD).await;
    check(vec![stream(&format!("{HI}{STOP}")), Say::Hang], GOOD).await;
    check(vec![stream(&format!("{HI}{STOP}data: [DONE]\n\n")), Say::Hang], GOOD).await;
}

#[tokio::test]
async fn answers_that_break_off() {
    let never = "the answer of p broke off: it ended without finish_reason and [DONE]";
    assert_eq!(check(vec![stream(HI)], Err(never)).await, AGAIN);
    assert_eq!(check(vec![stream("")], Err(never)).await, AGAIN);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n";
    let (url, _heads) = serve(vec![bytes(format!("{head}{HI}"))]).await;
    let error = ask(&url).await.expect_err("half an answer");
    assert!(matches!(&error, ModelError::BrokenStream { .. }), "{error}");
    let (url, _heads) = serve(vec![]).await;
    let error = ask(&url).await.expect_err("no answer at all");
    assert!(matches!(&error, ModelError::BrokenStream { .. }), "{error}");
    assert_eq!(Some(verdict(&error)), AGAIN);
}

#[tokio::test]
async fn deadlines_of_each_phase() {
    let first = "no answer from p within 0 s while waiting for the first byte";
    let more = "no answer from p within 0 s while waiting for more of the answer";
    assert_eq!(check(vec![Say::Hang], Err(first)).await, AGAIN);
    assert_eq!(check(vec![stream(""), Say::Hang], Err(first)).await, AGAIN);
    assert_eq!(check(vec![stream(HI), Say::Hang], Err(more)).await, AGAIN);
    assert_eq!(check(vec![stream(": alive\n\n"), Say::Hang], Err(more)).await, AGAIN);
}

#[tokio::test]
async fn comments_keep_an_answer_alive() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut request = vec![0; 64 * 1024];
        let read = socket.read(&mut request).await.expect("a request");
        assert!(read > 0);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        socket.write_all(head.as_bytes()).await.expect("a reader");
        // Together far longer than the deadline between two pieces.
        let mut ticks = tokio::time::interval(Duration::from_millis(40));
        for _ in 0..8 {
            ticks.tick().await;
            socket.write_all(b":\n\n").await.expect("a reader");
        }
        let rest = format!("{HI}{STOP}data: [DONE]\n\n");
        socket.write_all(rest.as_bytes()).await.expect("a reader");
    });
    assert_eq!(ask(&url).await.ok().as_deref(), GOOD.ok());
}

#[tokio::test]
async fn refusals() {
    let json = "content-type: application/json\r\n";
    let limited = answer(
        "429 Too Many Requests",
        &format!("{json}retry-after: 7\r\n"),
        r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#,
    );
    let seven = Verdict::Retry { after: Some(Duration::from_secs(7)) };
    assert_eq!(check(limited, Err("p answered 429: slow down")).await, Some(seven));
    let page = "<html><title>502 Bad Gateway</title></html>";
    let gateway = answer("502 Bad Gateway", "content-type: text/html\r\n", page);
    assert_eq!(check(gateway, Err(&format!("p answered 502: {page}"))).await, AGAIN);
    let portal = answer("200 OK", "content-type: text/html\r\n", "<html>log in</html>");
    let wrong = "p sent what is not an event stream: its content type is `text/html` (is the base URL right?): <html>log in</html>";
    assert_eq!(check(portal, Err(wrong)).await, FATAL);
    let hidden = answer("200 OK", json, r#"{"error":{"code":"model_not_found","message":"none"}}"#);
    assert_eq!(check(hidden, Err("p does not know the model `m`: none")).await, FATAL);
    let moved = answer("302 Found", "location: https://evil.example/\r\n", "");
    let words = "p answered 302: it redirects to https://evil.example/; set the base URL to where that leads";
    assert_eq!(check(moved, Err(words)).await, FATAL);
    let auth = answer("401 Unauthorized", json, r#"{"error":{"message":"Invalid API Key"}}"#);
    assert_eq!(check(auth, Err("p refused the API key (401): Invalid API Key")).await, FATAL);
    let endless = vec![bytes("HTTP/1.1 500 Oops\r\n\r\nno".to_owned() + &" no".repeat(100_000))];
    let (url, _heads) = serve(endless).await;
    let error = ask(&url).await.expect_err("a refusal").to_string();
    assert!(error.len() < 1000, "{}", error.len());
    // The deadline holds for error bodies too.
    let stuck = vec![bytes("HTTP/1.1 500 Oops\r\ncontent-length: 99\r\n\r\nno"), Say::Hang];
    assert_eq!(check(stuck, Err("p answered 500: the server gave no reason")).await, AGAIN);
}

#[tokio::test]
async fn a_closed_port_is_a_failed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = ask(&url).await.expect_err("nobody listens");
    let text = error.to_string();
    assert!(text.starts_with(&format!("could not reach {url}: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert_eq!(Some(verdict(&error)), AGAIN);
}

#[tokio::test]
async fn an_encrypted_server_that_speaks_no_tls_is_a_failed_connection() {
    let (url, _heads) = serve(vec![stream(HI)]).await;
    let secure = url.replace("http:", "https:");
    let error = tokio::time::timeout(Duration::from_secs(5), ask(&secure)).await.expect("an end");
    let late = matches!(error, Err(ModelError::Connect { .. } | ModelError::Timeout { .. }));
    assert!(late, "{error:?}");
}

/// A server that answers `answers` requests on each connection, then closes it: before it has read the next one, or on
/// having read it. Sends the number of the connection with each head that it reads.
async fn keeping(
    answers: usize,
    reads_one_more: bool,
) -> (String, tokio::sync::mpsc::Receiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (heads, received) = tokio::sync::mpsc::channel(16);
    let body = format!("{HI}{STOP}data: [DONE]\n\n");
    let said = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            for request in 0..=answers {
                if request == answers && !reads_one_more {
                    break;
                }
                let mut head = vec![0; 64 * 1024];
                let read = socket.read(&mut head).await.unwrap_or(0);
                if read == 0 || request == answers {
                    break;
                }
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                heads.send((connection, head)).await.expect("a test");
                socket.write_all(said.as_bytes()).await.expect("a client");
            }
        }
    });
    (address, received)
}

#[tokio::test]
async fn the_key_is_sent_and_connections_are_used_again() {
    // Whether the server keeps its promise, closes at once, or closes on the next request, none is lost.
    for (answers, reads_one_more, connections) in
        [(3, false, [0, 0, 0]), (1, false, [0, 1, 2]), (1, true, [0, 1, 2])]
    {
        let (url, mut heads) = keeping(answers, reads_one_more).await;
        let model = OpenAi::new(http(), "p", &url, Some(Secret::new("sk-hidden")));
        assert!(!format!("{model:?}").contains("hidden"), "{model:?}");
        for expected in connections {
            let deltas: Vec<_> = model.stream(plain()).collect().await;
            assert!(deltas.iter().all(Result::is_ok), "{deltas:?}");
            let (connection, head) = heads.recv().await.expect("a request");
            assert_eq!(connection, expected, "{answers} answers, {reads_one_more}");
            assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("authorization: Bearer sk-hidden\r\n"), "{head}");
            assert!(head.contains("content-type: application/json\r\n"), "{head}");
            // What is left of the answer is read behind our back.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn local_servers_are_detected_within_the_bound() {
    let list = answer("200 OK", "", r#"{"data":[{"id":"qwen"},{"id":"llama"}]}"#);
    let (good, mut heads) = serve(list).await;
    let (mute, _mute_heads) = serve(vec![Say::Hang]).await;
    let provider = |name: &str, base_url: &str| ProviderConfig {
        name: name.into(),
        api: Api::OpenAi,
        base_url: base_url.into(),
        key: None,
        key_variable: None,
        key_required: false,
        constrain_calls: false,
    };
    let providers = vec![
        provider("mute", &mute),
        provider("good", &good),
        provider("far", "http://192.0.2.1:9"),
        provider("closed", "http://127.0.0.1:1"),
    ];
    let catalog = Catalog::new(Routes::new(providers, Vec::new()), http());
    let found = catalog.detect_local(Duration::from_millis(100)).await;
    let models = vec!["qwen".to_owned(), "llama".to_owned()];
    assert_eq!(found, [Detected { provider: "good".into(), models }]);
    assert!(heads.recv().await.is_some_and(|head| head.starts_with("GET /v1/models ")));
}

#[test]
fn options_are_checked() {
    let pem =
        |text: &str| HttpOptions { extra_ca_pem: Some(text.into()), ..HttpOptions::default() };
    for (options, expected) in [
        (pem(""), "the extra certificates are not PEM: there is no certificate in them"),
        (
            pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "the extra certificates are not PEM: 1 of 1 cannot be used as a root",
        ),
    ] {
        let error = Http::new(options).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_named_where_it_would_be() {
    let check = |proxy: &str, except: &str, url: &str, good: bool| {
        let secret = Some(Secret::new(proxy));
        let proxies = Proxies { plain: secret.clone(), secure: secret, except: except.to_owned() };
        let http = Http::new(HttpOptions { proxies, ..HttpOptions::default() }).expect("options");
        assert!(!format!("{http:?}").contains("hidden"), "{http:?}");
        let shown = proxy.rsplit('@').next().expect("a text");
        let expected = if good { Ok(()) } else { Err(unusable(shown)) };
        assert_eq!(http.check(url), expected, "{proxy} for {url}, except {except}");
    };
    let far = "https://models.example/v1";
    for good in
        ["http://p:3128", "p:3128", "https://u:hidden@p", "u:hidden@p:1", "http://[::1]:3128"]
    {
        check(good, "", far, true);
        check(good, "", "http://models.example", true);
    }
    for bad in ["socks5://p:1080", "socks5h://u:hidden@p:1", "http://u:hidden@", "file:///p"] {
        check(bad, "", far, false);
        check(bad, "other.example, odels.example", far, false);
        check(bad, "other.example, models.example", far, true);
        for except in ["example", ".example", "*"] {
            check(bad, except, far, true);
        }
        for local in ["http://localhost:1", "http://127.1.2.3:1", "https://[::1]:1"] {
            check(bad, "", local, true);
        }
        check(bad, "", "http://127.models.example", false);
    }
}

#[tokio::test]
async fn a_key_that_the_server_quotes_is_taken_out_of_the_error() {
    for (said, told) in [
        ("bad key sk-hidden!", "bad key [the API key]!"),
        // The excerpt of a long message ends within the key.
        (&*format!("{}sk-hidden", "x".repeat(591)), &*format!("{}[the API key]", "x".repeat(591))),
        (&*format!("{}sk-hidden", "x".repeat(592)), &*format!("{}[the API key]…", "x".repeat(592))),
        ("sk-hidd", "sk-hidd"),
    ] {
        let error = format!("p answered 400: {told}");
        check(answer("400 Bad Request", "", said), Err(&error)).await;
        let event = format!("data: {{\"error\":{{\"message\":\"{said}\",\"code\":400}}}}\n\n");
        check(vec![stream(&event)], Err(&error)).await;
    }
}
