//! What a server asks the user while a call runs. Nobody is there, so it is declined, and the server is not even told that
//! it may ask; unless the configuration says of this server that its own defaults are good answers.

use std::sync::{Mutex, PoisonError};

use rmcp::model::{ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema};
use serde_json::{Map, Value};

use super::failure::Seal;
use crate::limits::MCP_QUESTIONS;

/// What a server's questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Questions {
    /// No.
    #[default]
    Decline,
    /// What the server itself proposes, where it proposes something for everything that it needs.
    Defaults,
}

/// What was asked during one call, and answered.
#[derive(Default)]
pub(super) struct Asked(Mutex<Vec<(String, Option<Value>)>>);

impl Asked {
    /// Answers with the server's defaults, or declines.
    pub(super) fn answer(&self, question: &ElicitRequestParams) -> ElicitResult {
        let (message, content) = match question {
            ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } => {
                (message.clone(), defaults(requested_schema))
            }
            ElicitRequestParams::UrlElicitationParams { message, .. } => (message.clone(), None),
            _ => return ElicitResult::new(ElicitationAction::Decline),
        };
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MCP_QUESTIONS {
            return ElicitResult::new(ElicitationAction::Cancel);
        }
        asked.push((message, content.clone()));
        match content {
            Some(content) => ElicitResult::new(ElicitationAction::Accept).with_content(content),
            None => ElicitResult::new(ElicitationAction::Decline),
        }
    }

    /// What the model and the log are told of it; then it is forgotten.
    pub(super) fn tell(&self, seal: &Seal) -> Vec<String> {
        let asked = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let told = |(message, content): (String, Option<Value>)| {
            let message = seal.quote(&message);
            match content {
                Some(content) => {
                    let content = seal.quote(&content.to_string());
                    format!(
                        "[the server asked: \"{message}\"; it was answered with its own defaults: {content}]"
                    )
                }
                None => format!("[the server asked: \"{message}\"; that was declined]"),
            }
        };
        asked.into_iter().map(told).collect()
    }
}

/// A form filled with its defaults: all of them, and none of its required fields empty. A form without any asks for leave,
/// which no default gives.
fn defaults(schema: &ElicitationSchema) -> Option<Value> {
    let mut content = Map::new();
    for (name, property) in &schema.properties {
        let Ok(mut property) = serde_json::to_value(property) else { continue };
        if let Some(default) = property.get_mut("default") {
            content.insert(name.clone(), default.take());
        }
    }
    let is_whole = schema.required.iter().flatten().all(|name| content.contains_key(name));
    (is_whole && !content.is_empty()).then_some(Value::Object(content))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_form_that_fills_itself_is_accepted() {
        let check = |schema: Value, expected: Option<Value>| {
            let question = json!({"mode": "form", "message": "well?", "requestedSchema": schema});
            let question = serde_json::from_value(question).unwrap();
            let answer = Asked::default().answer(&question);
            let action = match &expected {
                Some(_) => ElicitationAction::Accept,
                None => ElicitationAction::Decline,
            };
            assert_eq!((answer.action, answer.content), (action, expected), "{schema}");
        };
        let form = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
        let (named, aged) = (json!({"type": "string", "default": "x"}), json!({"type": "integer"}));
        check(form(json!({"name": named}), json!([])), Some(json!({"name": "x"})));
        check(form(json!({"name": named}), json!(["name"])), Some(json!({"name": "x"})));
        check(
            form(json!({"name": named, "age": aged}), json!(["name"])),
            Some(json!({"name": "x"})),
        );
        check(form(json!({"name": named, "age": aged}), json!(["age"])), None);
        check(form(json!({"age": aged}), json!([])), None);
        check(form(json!({}), json!([])), None);
    }

    #[test]
    fn what_was_asked_is_told_once_and_has_an_end() {
        let asked = Asked::default();
        let question = json!({"mode": "url", "message": "open sk-1234567890", "url": "https://x", "elicitationId": "1"});
        let question = serde_json::from_value(question).unwrap();
        let answers: Vec<_> = (0..=MCP_QUESTIONS).map(|_| asked.answer(&question).action).collect();
        assert_eq!(answers[0], ElicitationAction::Decline);
        assert_eq!(answers[MCP_QUESTIONS], ElicitationAction::Cancel);
        let told = asked.tell(&Seal::of(vec!["sk-1234567890".to_owned()]));
        assert_eq!(told.len(), MCP_QUESTIONS);
        assert_eq!(told[0], "[the server asked: \"open [hidden]\"; that was declined]");
        assert!(asked.tell(&Seal::default()).is_empty());
    }
}
