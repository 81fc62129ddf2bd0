//! Images and PDFs as blocks that a model sees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Refusal, decode};
use crate::event::{ContentBlock, DocumentSource, ImageSource};
use crate::limits::MAX_MEDIA_BYTES;

/// The block, if the bytes are an image or a PDF. `from` is the path or URL that they came from.
pub(super) fn block(from: &str, bytes: &[u8]) -> Result<Option<ContentBlock>, Refusal> {
    let image = decode::image_type(bytes);
    if image.is_none() && !bytes.starts_with(b"%PDF-") {
        return Ok(None);
    }
    if bytes.len() > MAX_MEDIA_BYTES {
        let size = bytes.len();
        return Err(format!(
            "{from} has {size} bytes; an image or PDF can have {MAX_MEDIA_BYTES}. Make it smaller first."
        ));
    }
    let data = STANDARD.encode(bytes);
    Ok(Some(match image {
        Some(media_type) => ContentBlock::Image {
            source: ImageSource::Base64 { media_type: media_type.to_owned(), data },
        },
        None => ContentBlock::Document {
            source: DocumentSource::Base64 { media_type: "application/pdf".to_owned(), data },
            title: from.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned),
            context: None,
        },
    }))
}
