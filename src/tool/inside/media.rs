//! Images and PDFs as a model is given them: as blocks that it sees, a PDF as its text where that cannot be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pdf::{self, Text};
use super::{Leash, Refusal, decode};
use crate::event::{ContentBlock, DocumentSource, ImageSource};
use crate::limits::{DOCUMENT_PAGES, MAX_MEDIA_BYTES};

/// What is given of an image or a PDF.
pub(super) enum Given {
    Block(ContentBlock),
    /// Its text, and what there is to say about that.
    Text(String, Vec<String>),
}

/// What the model is given, if the bytes are an image or a PDF. `from` is the path or URL that they came from.
pub(super) fn given(
    from: &str,
    bytes: &[u8],
    takes_documents: bool,
    leash: &Leash,
) -> Result<Option<Given>, Refusal> {
    if pdf::is_one(bytes) {
        return document(from, bytes, takes_documents, leash).map(Some);
    }
    let Some(media_type) = decode::image_type(bytes) else { return Ok(None) };
    if bytes.len() > MAX_MEDIA_BYTES {
        let size = bytes.len();
        return Err(format!(
            "{from} has {size} bytes; an image can have {MAX_MEDIA_BYTES}. Make it smaller first."
        ));
    }
    let source =
        ImageSource::Base64 { media_type: media_type.to_owned(), data: STANDARD.encode(bytes) };
    Ok(Some(Given::Block(ContentBlock::Image { source })))
}

/// The PDF itself for a model that takes it. One that providers refuse would spoil every later request of the session.
fn document(
    from: &str,
    bytes: &[u8],
    takes_documents: bool,
    leash: &Leash,
) -> Result<Given, Refusal> {
    let wrong = |why| format!("{from} cannot be read as a PDF: {why}.");
    let mut notes = Vec::new();
    if takes_documents {
        let pages = pdf::pages(bytes, leash).map_err(wrong)?;
        if pages <= DOCUMENT_PAGES && bytes.len() <= MAX_MEDIA_BYTES {
            return Ok(Given::Block(block(from, bytes)));
        }
        notes.push(format!(
            "this is the text of a PDF of {pages} pages and {} bytes, which is too large to be shown as it is; split it to \
             see its pages",
            bytes.len()
        ));
    }
    let Text { text, pages, notes: of_text, is_empty } = pdf::read(bytes, leash).map_err(wrong)?;
    if is_empty {
        return Err(format!(
            "{from} is a PDF of {pages} pages in which there is no text: they are images, such as scans. A program for \
             text recognition can read them.{}",
            of_text.iter().map(|note| format!(" [{note}]")).collect::<String>()
        ));
    }
    notes.extend(of_text);
    Ok(Given::Text(text, notes))
}

fn block(from: &str, bytes: &[u8]) -> ContentBlock {
    let data = STANDARD.encode(bytes);
    ContentBlock::Document {
        source: DocumentSource::Base64 { media_type: "application/pdf".to_owned(), data },
        title: from.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned),
        context: None,
    }
}
