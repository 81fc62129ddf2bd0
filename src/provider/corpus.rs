//! Broken answers, as data in `broken.toml`: what is repaired, what is refused, and that a repair never runs what was not
//! meant. The figures are in `docs/figures.md`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::ToolSpec;
use super::assemble::{Answer, AnswerBlock, Assembler};
use super::openai::OpenAiDecoder;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    answer: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: String,
    text: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    finish: Option<String>,
    #[serde(default)]
    runs: Vec<String>,
    told: Option<String>,
    #[serde(default)]
    quotes: bool,
}

fn tools() -> Vec<ToolSpec> {
    let string = || json!({"type": "string"});
    let tool = |name: &str, properties: Value, required: &[&str]| ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        input_schema: json!({"type": "object", "properties": properties, "required": required}),
    };
    vec![
        tool(
            "bash",
            json!({"command": string(), "timeout_ms": {"type": "integer"}, "background": {"type": "boolean"}}),
            &["command"],
        ),
        tool(
            "read",
            json!({"file_path": string(), "view_range": {"type": "array"}}),
            &["file_path"],
        ),
        tool(
            "write",
            json!({"file_path": string(), "content": string()}),
            &["file_path", "content"],
        ),
        tool("web_fetch", json!({"url": string()}), &["url"]),
        tool("list_skills", json!({}), &[]),
    ]
}

impl Case {
    /// The stream of a server that sends the answer in pieces of that many characters.
    fn stream(&self, piece: usize) -> String {
        let mut deltas = Vec::new();
        for piece in pieces(self.text.as_deref().unwrap_or_default(), piece) {
            deltas.push(json!({"content": piece}));
        }
        if let Some(arguments) = &self.arguments {
            let name = self.name.as_deref().unwrap_or("bash");
            let begun =
                json!({"index": 0, "id": "call_1", "function": {"name": name, "arguments": ""}});
            deltas.push(json!({"tool_calls": [begun]}));
            for piece in pieces(arguments, piece) {
                let more = json!({"index": 0, "function": {"arguments": piece}});
                deltas.push(json!({"tool_calls": [more]}));
            }
        }
        let usual = if self.arguments.is_some() { "tool_calls" } else { "stop" };
        let finish = self.finish.as_deref().unwrap_or(usual);
        let chunk = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]});
        let mut chunks: Vec<_> = deltas.into_iter().map(chunk).collect();
        chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}));
        let lines = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
        lines.collect::<String>() + "data: [DONE]\n\n"
    }

    fn answer(&self, piece: usize) -> Answer {
        let tools = tools();
        let mut decoder = OpenAiDecoder::new("test", "m").hearing(tools.clone().into());
        let mut assembler = Assembler::new("test");
        let mut deltas = decoder.feed(self.stream(piece).as_bytes()).expect("a good stream");
        deltas.extend(decoder.finish().expect("a good end"));
        for delta in deltas {
            assembler.push(delta).expect("a delta that belongs");
        }
        assembler.finish().expect("a whole answer").fitted(&tools)
    }

    /// What would run, and what the model is told of what would not.
    fn outcome(&self, piece: usize) -> (Vec<String>, String) {
        let (mut runs, mut told) = (Vec::new(), String::new());
        for block in self.answer(piece).blocks {
            match block {
                AnswerBlock::ToolCall { name, input: Ok(input) } => {
                    runs.push(format!("{name} {}", Value::Object(input)));
                }
                AnswerBlock::ToolCall { input: Err(bad), .. } => told.push_str(&bad.to_string()),
                AnswerBlock::Text(_)
                | AnswerBlock::Thinking { .. }
                | AnswerBlock::RedactedThinking { .. } => {}
            }
        }
        (runs, told)
    }
}

fn pieces(text: &str, size: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

#[test]
fn broken_answers_are_repaired_or_refused_and_never_guessed() {
    let Corpus { answer: cases } =
        toml::from_str(include_str!("broken.toml")).expect("the corpus is TOML");
    let (mut broken, mut repaired, mut told_of, mut quotes) = (0, 0, 0, 0);
    for case in &cases {
        for piece in [1, 3, 7, 10_000] {
            let (runs, told) = case.outcome(piece);
            assert_eq!(runs, case.runs, "{}, in pieces of {piece}; told: {told}", case.kind);
            match &case.told {
                Some(expected) => assert!(told.contains(expected), "{}: {told}", case.kind),
                None => assert_eq!(told, "", "{}", case.kind),
            }
        }
        assert!(!case.quotes || case.runs.is_empty(), "{}", case.kind);
        broken += usize::from(!case.quotes);
        quotes += usize::from(case.quotes);
        repaired += usize::from(!case.runs.is_empty());
        told_of += usize::from(case.told.is_some());
    }
    let figures = format!(
        "Of {broken} broken answers {repaired} are repaired and {} are refused, {told_of} of them with a reason that the \
         model is told; of {quotes} honest answers that show a call none runs.",
        broken - repaired
    );
    println!("{figures}");
    let written =
        include_str!("../../docs/figures.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(written.contains(&figures), "docs/figures.md says otherwise: {figures}");
}

#[test]
fn text_of_an_honest_answer_stays_as_it_was_said() {
    let Corpus { answer: cases } =
        toml::from_str(include_str!("broken.toml")).expect("the corpus is TOML");
    for case in cases.iter().filter(|case| case.quotes) {
        for piece in [1, 4, 10_000] {
            let said = case.answer(piece).text();
            assert_eq!(Some(said), case.text, "{}, in pieces of {piece}", case.kind);
        }
    }
}
