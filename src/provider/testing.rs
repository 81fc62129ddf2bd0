//! What the tests of this layer share: one conversation that holds everything, and answers as text.

use std::sync::Arc;

use serde_json::{Map, json};

use super::assemble::{Answer, AnswerBlock, Assembler};
use super::{Block, Delta, Message, ModelError, Purpose, Request, Role, ToolSpec};
use crate::agent::Effort;
use crate::event::{
    Citations, ContentBlock, DocumentSource, ImageSource, SearchText, SearchTextKind,
};

fn message(role: Role, blocks: Vec<Block>) -> Arc<Message> {
    Arc::new(Message { role, blocks })
}

fn say(text: &str) -> Block {
    Block::Content(ContentBlock::text(text))
}

fn image() -> ContentBlock {
    let source = ImageSource::Base64 { media_type: "image/png".into(), data: "iVBO".into() };
    ContentBlock::Image { source }
}

fn pdf() -> ContentBlock {
    let source =
        DocumentSource::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() };
    ContentBlock::Document { source, title: Some("a.pdf".into()), context: None }
}

fn found() -> ContentBlock {
    ContentBlock::SearchResult {
        source: "https://a.example".into(),
        title: "A".into(),
        content: vec![SearchText { r#type: SearchTextKind::Text, text: "found".into() }],
        citations: Citations { enabled: true },
    }
}

fn uploaded() -> ContentBlock {
    ContentBlock::Document {
        source: DocumentSource::File { file_id: "file_1".into() },
        title: Some("b.pdf".into()),
        context: Some("last year's".into()),
    }
}

fn result(id: &str, content: Vec<ContentBlock>, is_error: bool) -> Block {
    Block::ToolResult { tool_use_id: id.into(), content, is_error }
}

/// One question, nothing else.
pub(crate) fn plain() -> Request {
    Request {
        model: "m".into(),
        system: "".into(),
        tools: [].into(),
        messages: vec![message(Role::User, vec![say("hi")])],
        max_tokens: 100,
        effort: None,
        answer: None,
        purpose: Purpose::Answer { gone: 0 },
    }
}

/// Every kind of block, in a conversation of two rounds of tools.
pub(crate) fn full() -> Request {
    let call = |id: &str, name: &str, input| Block::ToolUse {
        id: id.into(),
        name: name.into(),
        input: Map::from_iter([("path".to_owned(), input)]),
    };
    let first = vec![
        Block::Thinking { thinking: "unsigned".into(), signature: None },
        Block::Thinking { thinking: "signed".into(), signature: Some("seal".into()) },
        Block::RedactedThinking { data: "opaque".into() },
        say("\n"),
        say("Reading."),
        call("sevt_1", "read", json!("a.png")),
        call("sevt_2", "no such tool!", json!(null)),
    ];
    let results = vec![
        result("sevt_1", vec![ContentBlock::text("an image:"), image()], false),
        result("sevt_2", vec![ContentBlock::text("no tool of that name"), image()], true),
    ];
    let last = vec![
        result("sevt_3", vec![pdf(), found()], false),
        result("sevt_4", vec![], false),
        say("and?"),
        Block::Content(uploaded()),
        Block::System { text: "Be brief.".into() },
    ];
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let tool = |name: &str| ToolSpec {
        name: name.into(),
        description: format!("The tool {name}."),
        input_schema: schema.clone(),
    };
    Request {
        model: "m".into(),
        system: "You are casemate.".into(),
        tools: [tool("read"), tool("bash")].into(),
        messages: vec![
            message(Role::User, vec![say("look"), Block::Content(image()), Block::Content(pdf())]),
            message(Role::Assistant, first),
            message(Role::User, results),
            message(
                Role::Assistant,
                vec![Block::Thinking { thinking: "x".into(), signature: None }],
            ),
            message(
                Role::Assistant,
                vec![call("sevt_3", "read", json!("a.pdf")), call("sevt_4", "bash", json!("é\n"))],
            ),
            message(Role::User, last),
        ],
        max_tokens: 100,
        effort: Some(Effort::Xhigh),
        answer: None,
        purpose: Purpose::Answer { gone: 0 },
    }
}

/// JSON bytes, one member a line.
pub(crate) fn pretty(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).expect("a body is JSON");
    serde_json::to_string_pretty(&value).expect("string keys")
}

/// Deltas as a whole answer.
pub(crate) fn assemble(deltas: Vec<Delta>) -> Result<Answer, ModelError> {
    let mut assembler = Assembler::new("p");
    for delta in deltas {
        assembler.push(delta)?;
    }
    assembler.finish()
}

/// An answer on a few lines: its blocks, then its stop and tokens.
pub(crate) fn shown(answer: &Answer) -> String {
    let mut lines: Vec<_> = answer.blocks.iter().map(block).collect();
    let usage = &answer.usage;
    let cached = usage.cache_read_input_tokens;
    let tokens = format!("{}+{cached}>{}", usage.input_tokens, usage.output_tokens);
    lines.push(format!("{} {tokens}", answer.stop.as_str()));
    lines.join(" | ")
}

fn block(block: &AnswerBlock) -> String {
    match block {
        AnswerBlock::Text(text) => format!("text {text:?}"),
        AnswerBlock::Thinking { thinking, signature } => {
            format!("thinking {thinking:?} {}", signature.as_deref().unwrap_or("unsigned"))
        }
        AnswerBlock::RedactedThinking { data } => format!("redacted {data}"),
        AnswerBlock::ToolCall { name, input: Ok(input) } => {
            format!("{name} {}", serde_json::to_string(input).expect("string keys"))
        }
        AnswerBlock::ToolCall { name, input: Err(bad) } => format!("{name} BAD {}", bad.reason),
    }
}
