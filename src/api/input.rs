//! What clients send to a session: events, by hand, into [`Input`]s. The same reading serves a request that sends events
//! and one that creates a session with some.

use super::body::{Node, Object};
use super::error::ApiError;
use crate::event::{
    Citations, Confirmation, ContentBlock, DocumentSource, ImageSource, SearchText, SearchTextKind,
};
use crate::limits::{MAX_CONTENT_BLOCKS, MAX_INITIAL_EVENTS, MAX_INPUTS};
use crate::runtime::{IMAGES, Input, RuntimeError};

/// The events of a request.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn events(body: &Node<'_>) -> Result<Vec<Input>, ApiError> {
    let mut object = body.object()?;
    let events = object.need("events")?;
    let inputs = events.list(MAX_INPUTS)?.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    if inputs.is_empty() {
        return Err(events.refuse("must have at least one entry"));
    }
    object.done()?;
    Ok(inputs)
}

/// Which of the events, and which field of it, the session cannot take, where it is one.
pub(super) fn place_of(inputs: &[Input], error: &RuntimeError) -> Option<String> {
    let speaks = |input: &Input| matches!(input, Input::Message(_) | Input::System(_));
    let of = |wanted: &dyn Fn(&Input) -> bool| inputs.iter().position(wanted);
    let (at, field) = match error {
        RuntimeError::NotWaiting { call: wrong, .. } => {
            let at = inputs.iter().rposition(|input| match input {
                Input::Confirm { call, .. } | Input::CustomResult { call, .. } => call == wrong,
                Input::Message(_) | Input::System(_) | Input::Interrupt { .. } => false,
            })?;
            let confirms = matches!(inputs[at], Input::Confirm { .. });
            (at, if confirms { ".tool_use_id" } else { ".custom_tool_use_id" })
        }
        RuntimeError::Attachment { .. } => return attachment(error, "events"),
        RuntimeError::NoThread(_) => {
            (of(&|input| matches!(input, Input::Interrupt { .. }))?, ".session_thread_id")
        }
        RuntimeError::MisplacedInstruction => (of(&|input| matches!(input, Input::System(_)))?, ""),
        RuntimeError::EmptyMessage
        | RuntimeError::MessageTooLarge { .. }
        | RuntimeError::WaitsForConfirmation { .. }
        | RuntimeError::BudgetReached(_) => (of(&speaks)?, ""),
        _ => return None,
    };
    Some(format!("events[{at}]{field}"))
}

/// Where the file is named that the session cannot be told.
pub(super) fn attachment(error: &RuntimeError, list: &str) -> Option<String> {
    let RuntimeError::Attachment { input, block, .. } = error else { return None };
    Some(format!("{list}[{input}].content[{block}].source.file_id"))
}

/// The events that a session begins with.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn initial_events(node: &Node<'_>) -> Result<Vec<Input>, ApiError> {
    let begin = |node: &Node<'_>| {
        let kind = node.object()?.need("type")?.string()?;
        match kind {
            "user.message" | "user.define_outcome" => event(node),
            _ => Err(node.refuse("a session begins with `user.message` events only")),
        }
    };
    node.list(MAX_INITIAL_EVENTS)?.iter().map(begin).collect()
}

fn event(node: &Node<'_>) -> Result<Input, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let input = match kind.string()? {
        "user.message" => Input::Message(content(&object.need("content")?, Blocks::Message)?),
        "system.message" => Input::System(content(&object.need("content")?, Blocks::Text)?),
        "user.interrupt" => Input::Interrupt {
            thread: object.maybe("session_thread_id").map(|node| id(&node)).transpose()?,
        },
        "user.tool_confirmation" => confirmation(&mut object)?,
        "user.custom_tool_result" => Input::CustomResult {
            call: id(&object.need("custom_tool_use_id")?)?,
            content: object
                .maybe("content")
                .map(|node| content(&node, Blocks::Result))
                .transpose()?,
            is_error: object.maybe("is_error").map(|node| node.boolean()).transpose()?,
        },
        "user.tool_result" => {
            return Err(kind.refuse(
                "is for sessions in self-hosted environments; this one runs its built-in tools itself",
            ));
        }
        "user.define_outcome" => {
            return Err(kind.refuse("outcomes are not supported by this server"));
        }
        other => {
            let other: String = other.chars().take(80).collect();
            return Err(kind.refuse(format!("`{other}` is no event that a client sends")));
        }
    };
    object.done()?;
    Ok(input)
}

fn confirmation(object: &mut Object<'_>) -> Result<Input, ApiError> {
    let call = id(&object.need("tool_use_id")?)?;
    let result = object.need("result")?;
    let confirmation = match result.string()? {
        "allow" => Confirmation::Allow,
        "deny" => Confirmation::Deny,
        _ => return Err(result.refuse("must be `allow` or `deny`")),
    };
    let message = object.maybe("deny_message");
    if let (Some(message), Confirmation::Allow) = (&message, confirmation) {
        return Err(message.refuse("goes with the result `deny` only"));
    }
    let message = message.map(|node| node.string().map(str::to_owned)).transpose()?;
    Ok(Input::Confirm { call, result: confirmation, message })
}

fn id<T: std::str::FromStr>(node: &Node<'_>) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    node.string()?.parse().map_err(|problem: T::Err| node.refuse(problem))
}

/// Which blocks can be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// Text, images, documents.
    Message,
    /// Those, and search results.
    Result,
    /// Text.
    Text,
}

fn content(node: &Node<'_>, allowed: Blocks) -> Result<Vec<ContentBlock>, ApiError> {
    let blocks = node.list(MAX_CONTENT_BLOCKS)?;
    if blocks.is_empty() && allowed != Blocks::Result {
        return Err(node.refuse("must have at least one block"));
    }
    blocks.iter().map(|node| block(node, allowed)).collect()
}

fn block(node: &Node<'_>, allowed: Blocks) -> Result<ContentBlock, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let block = match (kind.string()?, allowed) {
        ("text", _) => ContentBlock::text(object.need("text")?.string()?),
        ("image", Blocks::Message | Blocks::Result) => {
            ContentBlock::Image { source: image(&object.need("source")?)? }
        }
        ("document", Blocks::Message | Blocks::Result) => ContentBlock::Document {
            source: document(&object.need("source")?)?,
            title: words(object.maybe("title"))?,
            context: words(object.maybe("context"))?,
        },
        ("search_result", Blocks::Result) => search_result(&mut object)?,
        ("redacted", _) => {
            return Err(kind.refuse("redacted blocks come from the server and cannot be sent"));
        }
        (other, _) => {
            let other: String = other.chars().take(80).collect();
            return Err(kind.refuse(format!("`{other}` is no block that can stand here")));
        }
    };
    object.done()?;
    Ok(block)
}

fn words(node: Option<Node<'_>>) -> Result<Option<String>, ApiError> {
    node.map(|node| node.string().map(str::to_owned)).transpose()
}

fn image(node: &Node<'_>) -> Result<ImageSource, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let source = match kind.string()? {
        "base64" => {
            let media_type = one_of(&object.need("media_type")?, &IMAGES)?;
            ImageSource::Base64 { media_type, data: base64(&object.need("data")?)? }
        }
        "url" => ImageSource::Url { url: url(&object.need("url")?)? },
        "file" => ImageSource::File { file_id: file_id(&object.need("file_id")?)? },
        _ => return Err(kind.refuse("must be `base64`, `url` or `file`")),
    };
    object.done()?;
    Ok(source)
}

fn document(node: &Node<'_>) -> Result<DocumentSource, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let source = match kind.string()? {
        "base64" => {
            let media_type = one_of(&object.need("media_type")?, &["application/pdf"])?;
            DocumentSource::Base64 { media_type, data: base64(&object.need("data")?)? }
        }
        "text" => {
            let media_type = one_of(&object.need("media_type")?, &["text/plain"])?;
            DocumentSource::Text { media_type, data: object.need("data")?.string()?.to_owned() }
        }
        "url" => DocumentSource::Url { url: url(&object.need("url")?)? },
        "file" => DocumentSource::File { file_id: file_id(&object.need("file_id")?)? },
        _ => return Err(kind.refuse("must be `base64`, `text`, `url` or `file`")),
    };
    object.done()?;
    Ok(source)
}

fn one_of(node: &Node<'_>, words: &[&str]) -> Result<String, ApiError> {
    let word = node.string()?;
    if words.contains(&word) {
        return Ok(word.to_owned());
    }
    Err(node.refuse(format!("must be one of {}", words.join(", "))))
}

fn base64(node: &Node<'_>) -> Result<String, ApiError> {
    use base64::Engine as _;
    let text = node.string()?;
    if text.is_empty() || base64::engine::general_purpose::STANDARD.decode(text).is_err() {
        return Err(node.refuse("must be standard base64"));
    }
    Ok(text.to_owned())
}

fn url(node: &Node<'_>) -> Result<String, ApiError> {
    let text = node.string()?;
    let plain = text.starts_with("https://") || text.starts_with("http://");
    if plain && !text.contains(char::is_whitespace) {
        return Ok(text.to_owned());
    }
    Err(node.refuse("must be an http or https URL"))
}

fn file_id(node: &Node<'_>) -> Result<String, ApiError> {
    let id: crate::id::FileId = id(node)?;
    Ok(id.as_str().to_owned())
}

fn search_result(object: &mut Object<'_>) -> Result<ContentBlock, ApiError> {
    let piece = |node: &Node<'_>| {
        let mut object = node.object()?;
        one_of(&object.need("type")?, &["text"])?;
        let text = object.need("text")?.string()?.to_owned();
        object.done()?;
        Ok(SearchText { r#type: SearchTextKind::Text, text })
    };
    let source = object.need("source")?.string()?.to_owned();
    let title = object.need("title")?.string()?.to_owned();
    let content = object.need("content")?.list(MAX_CONTENT_BLOCKS)?;
    let content = content.iter().map(piece).collect::<Result<_, ApiError>>()?;
    let mut citations = object.need("citations")?.object()?;
    let enabled = citations.need("enabled")?.boolean()?;
    citations.done()?;
    Ok(ContentBlock::SearchResult { source, title, content, citations: Citations { enabled } })
}
