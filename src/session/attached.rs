//! Files that the conversation refers to, as the model is told them: the bytes in the place of the reference. They never
//! change, so a request begins with the same bytes as the one before.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::event::{ContentBlock, DocumentSource, ImageSource};
use crate::provider::{Block, Message};

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What the file is called.
    pub name: String,
    /// An image's type, `application/pdf` or `text/plain`.
    pub media_type: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Reads what a session's conversation refers to, by its id; nothing, if it is lost. Blocks.
pub type AttachedFiles = Arc<dyn Fn(&str) -> Option<Attached> + Send + Sync>;

/// The messages with references in them that were said last, and how they were said: one that is said again is the very
/// same.
pub(super) struct Resolver {
    files: AttachedFiles,
    said: Vec<(Arc<Message>, Arc<Message>)>,
}

impl Resolver {
    pub(super) fn new(files: AttachedFiles) -> Self {
        Self { files, said: Vec::new() }
    }

    /// The conversation with what it refers to.
    pub(super) async fn resolve(&mut self, messages: Vec<Arc<Message>>) -> Vec<Arc<Message>> {
        if !messages.iter().any(|message| refers(message)) {
            return messages;
        }
        let (files, known) = (Arc::clone(&self.files), std::mem::take(&mut self.said));
        let resolved = tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            let resolved: Vec<_> = messages
                .into_iter()
                .map(|message| {
                    if !refers(&message) {
                        return message;
                    }
                    let before = known.iter().find(|(asked, _)| Arc::ptr_eq(asked, &message));
                    let whole = match before {
                        Some((_, whole)) => Arc::clone(whole),
                        None => Arc::new(with_files(&message, &files)),
                    };
                    said.push((message, Arc::clone(&whole)));
                    whole
                })
                .collect();
            (resolved, said)
        });
        let resolved = resolved.await.expect("reading does not panic");
        self.said = resolved.1;
        resolved.0
    }
}

fn is_reference(content: &ContentBlock) -> bool {
    matches!(
        content,
        ContentBlock::Image { source: ImageSource::File { .. } }
            | ContentBlock::Document { source: DocumentSource::File { .. }, .. }
    )
}

fn refers(message: &Message) -> bool {
    message.blocks.iter().any(|block| match block {
        Block::Content(content) => is_reference(content),
        Block::ToolResult { content, .. } => content.iter().any(is_reference),
        Block::System { .. }
        | Block::Thinking { .. }
        | Block::RedactedThinking { .. }
        | Block::ToolUse { .. } => false,
    })
}

fn with_files(message: &Message, files: &AttachedFiles) -> Message {
    let mut message = message.clone();
    for block in &mut message.blocks {
        match block {
            Block::Content(content) => fill(content, files),
            Block::ToolResult { content, .. } => {
                content.iter_mut().for_each(|content| fill(content, files));
            }
            Block::System { .. }
            | Block::Thinking { .. }
            | Block::RedactedThinking { .. }
            | Block::ToolUse { .. } => {}
        }
    }
    message
}

/// Puts the bytes in the place of a reference. One that leads nowhere stays: the provider says so to the model.
fn fill(content: &mut ContentBlock, files: &AttachedFiles) {
    match content {
        ContentBlock::Image { source } => {
            let ImageSource::File { file_id } = source else { return };
            let Some(Attached { media_type, bytes, .. }) = files(file_id) else { return };
            *source = ImageSource::Base64 { media_type, data: STANDARD.encode(bytes) };
        }
        ContentBlock::Document { source, title, .. } => {
            let DocumentSource::File { file_id } = source else { return };
            let Some(Attached { name, media_type, bytes }) = files(file_id) else { return };
            *source = match String::from_utf8(bytes) {
                Ok(data) if media_type == "text/plain" => DocumentSource::Text { media_type, data },
                Ok(text) => DocumentSource::Base64 { media_type, data: STANDARD.encode(text) },
                Err(e) => {
                    let data = STANDARD.encode(e.into_bytes());
                    DocumentSource::Base64 { media_type, data }
                }
            };
            title.get_or_insert(name);
        }
        ContentBlock::Text { .. } | ContentBlock::SearchResult { .. } => {}
    }
}
