//! Recorded bytes of real model servers against the decoders: whole, in the recorded pieces, and cut at every byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate::provider::anthropic::AnthropicDecoder;
use casemate::provider::assemble::{Answer, AnswerBlock, Assembler};
use casemate::provider::http::{Http, HttpOptions};
use casemate::provider::openai::OpenAiDecoder;
use casemate::provider::retry::{error_kind, verdict};
use casemate::provider::routes::{Api, Catalog, ProviderConfig, Routes};
use casemate::provider::{Delta, ModelError, Purpose, Request};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Anthropic,
    OpenAi,
}

/// The recordings with this ending, except for formats that casemate does not speak.
fn recordings(ending: &str) -> Vec<(String, Format, PathBuf)> {
    let mut found = Vec::new();
    for folder in ["aimock-1.43.0", "llamacpp-b11549-anthropic", "llamacpp-b11549-openai"] {
        let dir = transcripts().join(folder);
        for entry in std::fs::read_dir(&dir).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            let file = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let Some(name) = file.strip_suffix(ending) else { continue };
            if file.ends_with(".meta.json") {
                continue;
            }
            let anthropic = folder.ends_with("-anthropic") || name.starts_with("anthropic-");
            let format = if anthropic { Format::Anthropic } else { Format::OpenAi };
            found.push((format!("{folder}/{name}"), format, path));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no recording ends in {ending}");
    found
}

/// The deltas of a body in these pieces, and the error that ended them, if one did.
fn decode(format: Format, pieces: &[&[u8]]) -> (Vec<Delta>, Option<ModelError>) {
    let mut anthropic = AnthropicDecoder::new("p", "m");
    let mut openai = OpenAiDecoder::new("p", "m");
    let mut deltas = Vec::new();
    let steps = pieces.iter().map(Some).chain([None]);
    for step in steps {
        let result = match (format, step) {
            (Format::Anthropic, Some(piece)) => anthropic.feed(piece),
            (Format::Anthropic, None) => anthropic.finish(),
            (Format::OpenAi, Some(piece)) => openai.feed(piece),
            (Format::OpenAi, None) => openai.finish(),
        };
        match result {
            Ok(more) => deltas.extend(more),
            Err(error) => return (deltas, Some(error)),
        }
    }
    (deltas, None)
}

fn assemble(deltas: Vec<Delta>) -> Result<Answer, ModelError> {
    let mut assembler = Assembler::new("p");
    for delta in deltas {
        assembler.push(delta)?;
    }
    assembler.finish()
}

fn answer(format: Format, body: &[u8]) -> Result<Answer, ModelError> {
    match decode(format, &[body]) {
        (deltas, None) => assemble(deltas),
        (_, Some(error)) => Err(error),
    }
}

fn shown(answer: &Result<Answer, ModelError>) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return format!("  failed: {error}\n"),
    };
    let mut text = String::new();
    for block in &answer.blocks {
        let line = match block {
            AnswerBlock::Text(text) => format!("text {text:?}"),
            AnswerBlock::Thinking { thinking, signature } => {
                format!("thinking {thinking:?}, signature {signature:?}")
            }
            AnswerBlock::RedactedThinking { data } => format!("redacted {data}"),
            AnswerBlock::ToolCall { name, input: Ok(input) } => {
                format!("call {name} {}", serde_json::to_string(input).expect("string keys"))
            }
            AnswerBlock::ToolCall { name, input: Err(bad) } => format!("bad call {name}: {bad}"),
        };
        writeln!(text, "  {line}").expect("a string grows");
    }
    writeln!(text, "  {} {:?}", answer.stop.as_str(), answer.usage).expect("a string grows");
    text
}

#[test]
fn every_recorded_stream_gives_its_answer() {
    let mut all = String::new();
    for (name, format, path) in recordings(".sse") {
        let body = std::fs::read(path).expect("a recording");
        write!(all, "{name}\n{}", shown(&answer(format, &body))).expect("a string grows");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_recorded_pieces_give_the_same_deltas() {
    for (name, format, path) in recordings(".sse") {
        let body = std::fs::read(&path).expect("a recording");
        let meta = std::fs::read(path.with_extension("meta.json")).expect("its meta data");
        let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
        let mut rest = &body[..];
        let mut pieces = Vec::new();
        for read in meta["reads"].as_array().expect("reads") {
            let size = usize::try_from(read[1].as_u64().expect("a size")).expect("a small size");
            let (piece, more) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces.push(rest);
        assert_eq!(decode(format, &pieces), decode(format, &[&body]), "{name}");
    }
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for (name, format, path) in recordings(".sse") {
        let body = std::fs::read(path).expect("a recording");
        let whole = decode(format, &[&body]);
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            assert_eq!(decode(format, &[head, tail]), whole, "{name} cut at byte {at}");
        }
    }
}

#[test]
fn an_answer_truncated_at_any_byte_is_broken_or_whole() {
    for (name, format, path) in recordings(".sse") {
        let body = std::fs::read(path).expect("a recording");
        let whole = answer(format, &body);
        let mut complete = 0;
        for at in 0..body.len() {
            match (answer(format, &body[..at]), &whole) {
                (Err(ModelError::BrokenStream { .. }), _) => {
                    assert_eq!(complete, 0, "{name} truncated at byte {at}");
                }
                // The end of the stream may bring tokens, but neither blocks nor another reason.
                (Ok(early), Ok(whole)) => {
                    complete += 1;
                    assert_eq!(early.blocks, whole.blocks, "{name} truncated at byte {at}");
                    assert_eq!(early.stop, whole.stop, "{name} truncated at byte {at}");
                }
                (other, _) => panic!("{name} truncated at byte {at}: {other:?}"),
            }
        }
        assert!(whole.is_err() == (complete == 0), "{name}: {complete} cuts were complete");
    }
}

/// The error that a model behind a socket gives for a recorded response.
async fn refused(format: Format, response: Vec<u8>) -> ModelError {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base_url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut request = vec![0; 64 * 1024];
        let mut taken = 0;
        // The request's body ends with its only `]}` at the very end.
        while !request[..taken].ends_with(b"]}") {
            taken += socket.read(&mut request[taken..]).await.expect("a request");
        }
        socket.write_all(&response).await.expect("a reader");
    });
    let api = match format {
        Format::Anthropic => Api::Anthropic,
        Format::OpenAi => Api::OpenAi,
    };
    let provider = ProviderConfig {
        name: "p".into(),
        api,
        base_url,
        key: None,
        key_variable: None,
        key_required: false,
        constrain_calls: false,
    };
    let http = Arc::new(Http::new(HttpOptions::default()).expect("defaults"));
    let catalog = Catalog::new(Routes::new(vec![provider], Vec::new()), http);
    let route = catalog.routes().resolve("p/m").expect("a route");
    let request = Request {
        model: "m".into(),
        system: "".into(),
        tools: [].into(),
        messages: Vec::new(),
        max_tokens: 1,
        effort: None,
        answer: None,
        purpose: Purpose::Answer { gone: 0 },
    };
    let mut stream = catalog.model(&route).expect("a model").stream(request);
    let error = stream.next().await.expect("an item").expect_err("a refusal");
    assert!(stream.next().await.is_none(), "nothing follows an error");
    server.await.expect("the server is done");
    error
}

#[tokio::test]
async fn every_recorded_refusal_gets_its_verdict() {
    let mut all = String::new();
    for (name, format, path) in recordings(".response.http") {
        let response = std::fs::read(path).expect("a recording");
        if response.starts_with(b"HTTP/1.1 200") {
            continue;
        }
        let error = refused(format, response).await;
        let (kind, verdict) = (error_kind(&error), verdict(&error));
        writeln!(all, "{name}\n  {error}\n  {kind:?} {verdict:?}").expect("a string grows");
    }
    insta::assert_snapshot!(all);
}
