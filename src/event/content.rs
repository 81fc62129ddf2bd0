//! Content blocks of messages and tool results, in the protocol's own shape.

use serde::{Deserialize, Serialize};

/// One block of content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentBlock {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Where its bytes are.
        source: ImageSource,
    },
    /// A PDF or a text document.
    Document {
        /// Where its bytes are.
        source: DocumentSource,
        /// A name for the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
}

/// The bytes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageSource {
    /// Inline.
    Base64 {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// The bytes in standard base64.
        data: String,
    },
    /// At a URL that the model's provider fetches.
    Url {
        /// An http or https URL.
        url: String,
    },
}

/// The bytes of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum DocumentSource {
    /// Inline.
    Base64 {
        /// `application/pdf`.
        media_type: String,
        /// The bytes in standard base64.
        data: String,
    },
    /// Inline text.
    Text {
        /// `text/plain`.
        media_type: String,
        /// The text.
        data: String,
    },
    /// At a URL that the model's provider fetches.
    Url {
        /// An http or https URL.
        url: String,
    },
}

impl ContentBlock {
    /// A text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// The text blocks of `content`, joined by newlines; other blocks are named in brackets.
#[must_use]
pub fn text_of(content: &[ContentBlock]) -> String {
    let texts = content.iter().map(|block| match block {
        ContentBlock::Text { text } => text.as_str(),
        ContentBlock::Image { .. } => "[image]",
        ContentBlock::Document { .. } => "[document]",
    });
    texts.collect::<Vec<_>>().join("\n")
}
