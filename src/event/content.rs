//! Content blocks of messages and tool results, in the protocol's own shape.

use std::borrow::Cow;

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
        /// What the model should know about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
    },
    /// Something that the client found.
    SearchResult {
        /// Where.
        source: String,
        /// Its name.
        title: String,
        /// What it says.
        content: Vec<SearchText>,
        /// Whether the model is to quote it.
        citations: Citations,
    },
}

/// A piece of a search result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchText {
    /// Always `text`.
    pub r#type: SearchTextKind,
    /// The text.
    pub text: String,
}

/// The one kind of piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchTextKind {
    /// Text.
    Text,
}

/// How the model is to refer to a search result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Citations {
    /// Whether it is to quote it.
    pub enabled: bool,
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
    /// A file that the client uploaded.
    File {
        /// Its id.
        file_id: String,
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
    /// A file that the client uploaded.
    File {
        /// Its id.
        file_id: String,
    },
}

impl ContentBlock {
    /// A text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// The text blocks of `content`, joined by newlines; other blocks are named in brackets, with their words if they have any.
#[must_use]
pub fn text_of(content: &[ContentBlock]) -> String {
    let texts = content.iter().map(|block| match block {
        ContentBlock::Text { text } => Cow::Borrowed(text.as_str()),
        ContentBlock::Image { .. } => Cow::Borrowed("[image]"),
        ContentBlock::Document { .. } => Cow::Borrowed("[document]"),
        ContentBlock::SearchResult { source, title, content, .. } => {
            let said: Vec<_> = content.iter().map(|piece| piece.text.as_str()).collect();
            Cow::Owned(format!("[{title}: {source}]\n{}", said.join("\n")))
        }
    });
    texts.collect::<Vec<_>>().join("\n")
}
