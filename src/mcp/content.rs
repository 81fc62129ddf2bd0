//! Results of servers as content for a model: text, images and documents; of all else, what it is.

use rmcp::model::{CallToolResult, ContentBlock as Given, ResourceContents};

use super::failure::Seal;
use crate::event::{ContentBlock, DocumentSource, ImageSource};
use crate::limits::{MAX_MEDIA_BYTES, MCP_BLOCKS, MCP_MEDIA_BYTES, MCP_TEXT_BYTES};

/// What a tool returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// All its text.
    pub text: String,
    /// Images and documents.
    pub media: Vec<ContentBlock>,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// Kinds of images that models see.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

#[derive(Default)]
struct Gathered {
    texts: Vec<String>,
    media: Vec<ContentBlock>,
    media_bytes: usize,
}

pub(super) fn of(result: CallToolResult, seal: &Seal) -> Answer {
    let mut gathered = Gathered::default();
    let blocks = result.content.len();
    for block in result.content.into_iter().take(MCP_BLOCKS) {
        gathered.take(block);
    }
    if blocks > MCP_BLOCKS {
        gathered.say(format!("[{} more blocks are not shown]", blocks - MCP_BLOCKS));
    }
    // Servers say the same in both forms, except those that say it in this one alone.
    if let Some(structured) = result.structured_content
        && gathered.texts.is_empty()
        && gathered.media.is_empty()
    {
        gathered.say(structured.to_string());
    }
    let Gathered { texts, media, .. } = gathered;
    let text = cut(seal.hide(&texts.join("\n")));
    Answer { text, media, is_error: result.is_error.unwrap_or(false) }
}

fn cut(mut text: String) -> String {
    if text.len() > MCP_TEXT_BYTES {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(MCP_TEXT_BYTES));
        text.push_str(&format!("\n[cut: the result has {whole} bytes]"));
    }
    text
}

impl Gathered {
    fn say(&mut self, text: String) {
        self.texts.push(text);
    }

    fn take(&mut self, block: Given) {
        match block {
            Given::Text(text) => self.say(text.text),
            Given::Image(image) => self.media("image", &image.mime_type, image.data),
            Given::Audio(audio) => self.media("audio", &audio.mime_type, audio.data),
            Given::Resource(resource) => self.resource(resource.resource),
            Given::ResourceLink(link) => {
                let described = link.description.map(|text| format!(": {text}"));
                self.say(format!(
                    "[resource {} {}]{}",
                    link.name,
                    link.uri,
                    described.unwrap_or_default()
                ));
            }
            _ => self.say("[content of an unknown kind]".to_owned()),
        }
    }

    fn resource(&mut self, resource: ResourceContents) {
        match resource {
            ResourceContents::TextResourceContents { uri, text, .. } => {
                self.say(format!("[resource {uri}]\n{text}"));
            }
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                self.say(format!("[resource {uri}]"));
                self.media("data", &mime_type.unwrap_or_default(), blob);
            }
            _ => self.say("[a resource of an unknown kind]".to_owned()),
        }
    }

    /// What a model can see is shown; of all else it is said.
    fn media(&mut self, what: &str, media_type: &str, data: String) {
        let kind = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (length, bytes) = (data.len(), data.len() / 4 * 3);
        let fits = bytes <= MAX_MEDIA_BYTES && self.media_bytes + length <= MCP_MEDIA_BYTES;
        let is_base64 = data.len().is_multiple_of(4) && data.bytes().all(is_of_base64);
        let block = match kind.as_str() {
            image if IMAGES.contains(&image) => {
                ContentBlock::Image { source: ImageSource::Base64 { media_type: kind, data } }
            }
            "application/pdf" => ContentBlock::Document {
                source: DocumentSource::Base64 { media_type: kind, data },
                title: None,
                context: None,
            },
            _ => return self.say(format!("[{what} of type `{kind}`, {bytes} bytes: not shown]")),
        };
        if !fits || !is_base64 || bytes == 0 {
            let why = if is_base64 && bytes > 0 { "too large" } else { "broken" };
            return self.say(format!("[{what}, {bytes} bytes: {why}]"));
        }
        self.media_bytes += length;
        self.media.push(block);
    }
}

fn is_of_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(result: Value) -> Answer {
        let seal = Seal::of(vec!["sk-1234567890".to_owned()]);
        of(serde_json::from_value(result).unwrap(), &seal)
    }

    #[test]
    fn content_is_what_a_model_can_see() {
        let check = |content: Value, text: &str, media: usize| {
            let answer = shown(json!({"content": content}));
            assert_eq!((&*answer.text, answer.media.len()), (text, media), "{content}");
        };
        check(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "a\nb", 0);
        check(json!([{"type": "text", "text": "key sk-1234567890"}]), "key [hidden]", 0);
        check(json!([{"type": "image", "mimeType": "image/png", "data": "aGk="}]), "", 1);
        check(
            json!([{"type": "image", "mimeType": "image/png", "data": "no!"}]),
            "[image, 0 bytes: broken]",
            0,
        );
        check(
            json!([{"type": "image", "mimeType": "image/tiff", "data": "aGk="}]),
            "[image of type `image/tiff`, 3 bytes: not shown]",
            0,
        );
        check(
            json!([{"type": "audio", "mimeType": "audio/wav", "data": "aGkh"}]),
            "[audio of type `audio/wav`, 3 bytes: not shown]",
            0,
        );
        check(
            json!([{"type": "resource", "resource": {"uri": "file:///a", "text": "hi"}}]),
            "[resource file:///a]\nhi",
            0,
        );
        check(
            json!([{"type": "resource", "resource": {"uri": "a:b", "mimeType": "application/pdf", "blob": "aGkh"}}]),
            "[resource a:b]",
            1,
        );
        check(
            json!([{"type": "resource_link", "uri": "a:b", "name": "n", "description": "d"}]),
            "[resource n a:b]: d",
            0,
        );
    }

    #[test]
    fn structured_content_is_shown_where_there_is_no_other() {
        let structured = json!({"a": 1});
        let both = shown(
            json!({"content": [{"type": "text", "text": "t"}], "structuredContent": structured}),
        );
        assert_eq!(both.text, "t");
        let alone = shown(json!({"structuredContent": structured, "isError": true}));
        assert_eq!((&*alone.text, alone.is_error), (r#"{"a":1}"#, true));
    }

    #[test]
    fn a_result_has_its_bounds() {
        let long =
            shown(json!({"content": [{"type": "text", "text": "é".repeat(MCP_TEXT_BYTES)}]}));
        assert!(long.text.len() < MCP_TEXT_BYTES + 100, "{}", long.text.len());
        assert!(long.text.ends_with("bytes]"));
        let data = "A".repeat(8 * 1024 * 1024);
        let image = json!({"type": "image", "mimeType": "image/png", "data": data});
        let many = shown(json!({"content": [image, image, image, image]}));
        assert_eq!(many.media.len(), 2, "{}", many.text);
        let blocks: Vec<_> = (0..300).map(|_| json!({"type": "text", "text": "x"})).collect();
        assert!(shown(json!({"content": blocks})).text.ends_with("[44 more blocks are not shown]"));
    }
}
