//! A page of the web as text for the model. The host fetched it; what it holds is only looked at in here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dom_smoothie::{Config, Readability, TextMode};
use encoding_rs::Encoding;
use serde_json::{Map, Value};

use super::media::{self, Given};
use super::output;
use super::tags::{self, Stripped};
use super::{Leash, Refusal, decode, input};
use crate::limits::{WEB_PAGE_BYTES, WEB_PAGE_DEPTH, WEB_PAGE_ELEMENTS};
use crate::sandbox::GuestContext;
use crate::sandbox::wire::{FetchedPage, ToolReply};

/// Part of a page in which it must say its encoding (the HTML standard's bound).
const PRESCAN: usize = 1024;
/// An article of fewer characters than this share of the whole page is not what the page is about.
const LEAST_SHARE: usize = 4;

pub(super) fn run(
    context: &GuestContext,
    leash: &Leash,
    takes_documents: bool,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let FetchedPage { url, content_type, data, is_cut, max_content_tokens } =
        input::parse("web_fetch", given)?;
    let bytes = STANDARD.decode(data).map_err(|_| "The page came in broken.".to_owned())?;
    let (shown, mut notes) = match media::given(&url, &bytes, takes_documents, leash)? {
        Some(Given::Block(block)) => {
            return Ok(ToolReply { content: vec![block], is_error: false });
        }
        Some(Given::Text(text, notes)) => (text, notes),
        None => (page(&url, &bytes, &content_type)?, Vec::new()),
    };
    let shown = output::clean(shown.as_bytes());
    if shown.trim().is_empty() {
        return Ok(ToolReply::text(format!(
            "{url}\n\n(the page holds no text; it may need a browser)"
        )));
    }
    let shown = match max_content_tokens {
        Some(most) => cut(shown, most, &mut notes),
        None => output::bounded(shown, &context.spool),
    };
    if is_cut {
        notes.push(format!("only the page's first {WEB_PAGE_BYTES} bytes were read"));
    }
    let notes: String = notes.iter().map(|note| format!("\n[{note}]")).collect();
    Ok(ToolReply::text(format!("{url}\n\n{}{notes}", shown.trim())))
}

/// The text of a page that is one.
fn page(url: &str, bytes: &[u8], content_type: &str) -> Result<String, Refusal> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(text) = text(bytes, content_type) else {
        return Err(format!(
            "{url} is {} of {} bytes, not text.",
            decode::kind(bytes),
            bytes.len()
        ));
    };
    let is_html = matches!(kind.as_str(), "text/html" | "application/xhtml+xml")
        || (kind.is_empty() && looks_like_html(&text));
    if is_html { article(&text, url) } else { Ok(text) }
}

/// At four characters a token.
fn cut(mut text: String, tokens: u32, notes: &mut Vec<String>) -> String {
    let most = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(4);
    if let Some((at, _)) = text.char_indices().nth(most) {
        notes.push(format!("cut at {most} of {} characters", text.chars().count()));
        text.truncate(at);
    }
    text
}

/// The text in the encoding that its mark, its server or it itself names; `None` for what is no text.
fn text(bytes: &[u8], content_type: &str) -> Option<String> {
    let named = |label: &str| Encoding::for_label(label.trim_matches(['"', '\'', ' ']).as_bytes());
    let of_server =
        || content_type.split(';').find_map(|part| named(part.trim().strip_prefix("charset=")?));
    let encoding = match Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None => match of_server().or_else(|| of_page(bytes)) {
            Some(encoding) => encoding,
            None if std::str::from_utf8(bytes).is_ok() => encoding_rs::UTF_8,
            None => encoding_rs::WINDOWS_1252,
        },
    };
    let (text, _, _) = encoding.decode(bytes);
    (!text.contains('\0')).then(|| text.into_owned())
}

/// What `<meta charset=…>` or an XML declaration says.
fn of_page(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = &bytes[..bytes.len().min(PRESCAN)];
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    ["charset=", "encoding="].into_iter().find_map(|key| {
        let (_, rest) = head.split_once(key)?;
        let label = rest.trim_start_matches(['"', '\'', ' ']);
        let end = label.find(['"', '\'', ' ', ';', '>', '/', '?']).unwrap_or(label.len());
        // A page that can be read so far is in no encoding of two bytes, whatever it says.
        Encoding::for_label(&label.as_bytes()[..end]).map(Encoding::output_encoding)
    })
}

fn looks_like_html(text: &str) -> bool {
    let begin: String =
        text.trim_start().chars().take(200).collect::<String>().to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| begin.starts_with(tag))
}

/// The page's article as Markdown; the whole page where it is no article; its plain text where its tags are too deep.
fn article(html: &str, url: &str) -> Result<String, Refusal> {
    let Stripped { text, depth } = tags::strip(html);
    if depth > WEB_PAGE_DEPTH {
        return Ok(text);
    }
    let settings = Config {
        text_mode: TextMode::Markdown,
        max_elements_to_parse: WEB_PAGE_ELEMENTS,
        ..Config::default()
    };
    let reader = Readability::new(html, Some(url), Some(settings));
    let mut reader = reader.map_err(|error| format!("{url} cannot be read: {error}."))?;
    let whole = reader.doc.md(None).trim().to_owned();
    let title = reader.get_article_title().trim().to_owned();
    let article = match reader.parse() {
        Ok(article) => article.text_content.trim().to_owned(),
        // Too long, or no article.
        Err(_) => String::new(),
    };
    let body = if article.len() * LEAST_SHARE < whole.len() { whole } else { article };
    Ok(if title.is_empty() || body.starts_with("# ") {
        body
    } else {
        format!("# {title}\n\n{body}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_their_encoding() {
        let check = |bytes: &[u8], content_type: &str, expected: Option<&str>| {
            assert_eq!(text(bytes, content_type).as_deref(), expected, "{content_type}");
        };
        check("grüß".as_bytes(), "text/html", Some("grüß"));
        check(b"gr\xfc\xdf", "text/html", Some("grüß"));
        check(b"gr\xfc\xdf", "text/html; charset=\"ISO-8859-1\"", Some("grüß"));
        check(b"\xff\xfeg\0r\0", "text/html; charset=utf-8", Some("gr"));
        check(
            b"<meta charset='shift_jis'>\x83\x65",
            "text/html",
            Some("<meta charset='shift_jis'>テ"),
        );
        check(
            b"<?xml version=\"1.0\" encoding=\"koi8-r\"?>\xc1",
            "",
            Some("<?xml version=\"1.0\" encoding=\"koi8-r\"?>а"),
        );
        check(b"gr\xfc", "text/html; charset=klingon", Some("grü"));
        check(b"MZ\0\0\x01", "", None);
    }

    #[test]
    fn an_article_loses_what_surrounds_it() {
        let words =
            "The river rose by a metre in the night, and the bridge was closed to all. ".repeat(12);
        let html = format!(
            "<html><head><title>Flood</title><script>alert(1)</script></head><body><nav><a href=/a>Home</a></nav>\
             <article><h1>Flood</h1><p>{words}</p><p>See <a href=\"/more\">more</a>.</p></article>\
             <footer>Imprint</footer></body></html>"
        );
        let shown = article(&html, "https://news.example/flood").unwrap();
        assert!(shown.starts_with("# Flood"), "{shown}");
        assert!(shown.contains("[more](https://news.example/more)"), "{shown}");
        assert!(!shown.contains("alert") && !shown.contains("Imprint"), "{shown}");
    }

    #[test]
    fn a_page_that_is_no_article_is_shown_whole() {
        let html =
            "<title>Index</title><ul><li><a href='a.html'>A</a><li><a href='b.html'>B</a></ul>";
        let shown = article(html, "https://docs.example/").unwrap();
        assert!(shown.contains("A") && shown.contains("B"), "{shown}");
    }

    /// Readers of pages take minutes for some of them, by depth, by number or by repetition.
    #[test]
    fn hostile_pages_end() {
        let pages = [
            "<div>".repeat(100_000),
            "<b>".repeat(50_000) + "x",
            "<table><tr><td>".repeat(20_000),
            "<p>a".repeat(30_000),
            "<a href=\"".repeat(10_000),
            format!("<p>{}</p>", "&amp;".repeat(100_000)),
            "<svg><![CDATA[".repeat(10_000),
            "<select><option>".repeat(20_000),
        ];
        for page in pages {
            let shown = article(&page, "https://x.example/");
            assert!(shown.is_ok(), "{shown:?}");
        }
    }

    #[test]
    fn a_bound_of_tokens_cuts_between_characters() {
        let mut notes = Vec::new();
        assert_eq!(cut("äöüßx".to_owned(), 1, &mut notes), "äöüß");
        assert_eq!(notes, ["cut at 4 of 5 characters"]);
        assert_eq!(cut("äöüß".to_owned(), 1, &mut Vec::new()), "äöüß");
    }
}
