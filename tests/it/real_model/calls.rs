//! How many calls of a real model are such as their tools take, with and without a grammar. A measurement: what is asserted is
//! that each answer is one, and that the server holds its model to the grammar.
//!
//! `CASEMATE_TEST_MODEL_URL=… cargo test --test it real_model::calls -- --nocapture`

use std::sync::Arc;

use casemate::event::ContentBlock;
use casemate::provider::assemble::{Answer, AnswerBlock, Assembler};
use casemate::provider::http::{Http, HttpOptions};
use casemate::provider::openai::OpenAi;
use casemate::provider::{Block, Message, Model, Purpose, Request, Role, Stop, ToolSpec};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;

use super::real;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asks {
    tool: Vec<Tool>,
    ask: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    name: String,
    description: String,
    schema: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    words: String,
    tool: String,
}

/// What became of the asks.
#[derive(Debug, Default)]
struct Tally {
    /// All calls of the answer, at least one, are such as their tools take.
    valid: usize,
    /// Of these, the first is of the tool that was meant.
    meant: usize,
    /// Calls of no tool, or with arguments that the tool refuses.
    invalid: usize,
    /// The answer was cut by its limit.
    cut: usize,
    /// No call at all.
    silent: usize,
}

async fn asked(model: &dyn Model, id: &str, tools: &Arc<[ToolSpec]>, words: &str) -> Answer {
    let said = Block::Content(ContentBlock::text(words));
    let mut deltas = model.stream(Request {
        model: id.to_owned(),
        system: "You are an agent that completes the user's task by calling tools.".into(),
        tools: Arc::clone(tools),
        messages: vec![Arc::new(Message { role: Role::User, blocks: vec![said] })],
        max_tokens: 300,
        effort: None,
        answer: None,
        purpose: Purpose::Answer { gone: 0 },
    });
    let mut assembler = Assembler::new("real");
    while let Some(delta) = deltas.next().await {
        assembler.push(delta.expect("an answer")).expect("an answer");
    }
    assembler.finish().expect("a whole answer").fitted(tools)
}

/// The names of the calls, or the first of them that its tool would refuse.
fn judged(answer: &Answer, tools: &[ToolSpec]) -> Result<Vec<String>, String> {
    let calls = answer.blocks.iter().filter_map(|block| match block {
        AnswerBlock::ToolCall { name, input } => Some((name, input)),
        _ => None,
    });
    calls
        .map(|(name, input)| {
            let tool = tools.iter().find(|tool| tool.name == *name);
            let schema = &tool.ok_or_else(|| format!("no tool {name}"))?.input_schema;
            let input = input.clone().map_err(|bad| format!("{name}: {bad}"))?;
            fits(&input.into(), schema, schema).map_err(|wrong| format!("{name}: {wrong}"))?;
            Ok(name.clone())
        })
        .collect()
}

/// Whether a value is what the schema says, as far as the schemas here go.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(path) = schema["$ref"].as_str() {
        return fits(value, root.pointer(&path[1..]).expect("a definition"), root);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fitting = any.iter().any(|one| fits(value, one, root).is_ok());
        return if fitting { Ok(()) } else { Err(format!("{value} is no alternative")) };
    }
    if let Some(values) = schema["enum"].as_array() {
        return if values.contains(value) { Ok(()) } else { Err(format!("{value} is not listed")) };
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is_of = |word: &str| match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type {other} here"),
    };
    if !types.iter().any(|word| is_of(word)) {
        return Err(format!("{value} is not of type {types:?}"));
    }
    let bound = |key: &str| schema[key].as_f64();
    if let Some(number) = value.as_f64()
        && (bound("minimum").is_some_and(|least| number < least)
            || bound("maximum").is_some_and(|most| number > most))
    {
        return Err(format!("{number} is out of bounds"));
    }
    if let Some(list) = value.as_array() {
        let length = f64::from(u32::try_from(list.len()).unwrap());
        if bound("minItems").is_some_and(|least| length < least)
            || bound("maxItems").is_some_and(|most| length > most)
        {
            return Err(format!("{length} items"));
        }
        return list.iter().try_for_each(|item| fits(item, &schema["items"], root));
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !object.contains_key(*name)) {
        return Err(format!("`{missing}` is missing"));
    }
    object.iter().try_for_each(|(key, inner)| match schema["properties"].get(key) {
        Some(schema) => fits(inner, schema, root).map_err(|wrong| format!("`{key}`: {wrong}")),
        None => Err(format!("`{key}` is no property")),
    })
}

async fn measure(model: &dyn Model, id: &str, name: &str) -> Tally {
    let Asks { tool, ask } = toml::from_str(include_str!("calls.toml")).expect("tools and asks");
    let spec = |tool: Tool| ToolSpec {
        name: tool.name,
        description: tool.description,
        input_schema: serde_json::from_str(&tool.schema).expect("a schema"),
    };
    let tools: Arc<[ToolSpec]> = tool.into_iter().map(spec).collect();
    let mut tally = Tally::default();
    for Ask { words, tool } in &ask {
        let answer = asked(model, id, &tools, words).await;
        let judged = judged(&answer, &tools);
        match &judged {
            Err(_) if answer.stop == Stop::MaxTokens => tally.cut += 1,
            Ok(calls) if calls.is_empty() => tally.silent += 1,
            Ok(calls) => {
                tally.valid += 1;
                tally.meant += usize::from(calls[0] == *tool);
            }
            Err(_) => tally.invalid += 1,
        }
        eprintln!("{name}: {words} -> {judged:?} ({})", answer.stop.as_str());
    }
    eprintln!("{name}: of {} asks {tally:?}", ask.len());
    tally
}

fn server(url: &str) -> OpenAi {
    let http = Arc::new(Http::new(HttpOptions::default()).expect("defaults"));
    OpenAi::new(http, "real", url, None)
}

#[tokio::test]
async fn calls_of_a_model_that_is_left_alone_are_counted() {
    let Some((url, id)) = real() else { return };
    measure(&server(&url), &id, "left alone").await;
}

#[tokio::test]
async fn calls_fit_their_tools_where_a_grammar_holds_the_model_to_it() {
    let Some((url, id)) = real() else { return };
    let held = measure(&server(&url).constrained(), &id, "constrained").await;
    assert_eq!(held.invalid, 0, "the server holds its model to nothing: {held:?}");
}
