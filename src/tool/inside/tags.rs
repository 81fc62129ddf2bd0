//! A look at a page's tags before anything is built of them: readers of pages take a time that grows with the square of
//! their depth, and a page of a stranger may be as deep as it likes.

/// The page's text without its tags, and how deep they went. Linear in the page's length.
pub(super) struct Stripped {
    pub(super) text: String,
    pub(super) depth: usize,
}

/// Elements whose content is no markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];
/// Elements that have no end, or whose end may be left out: they do not count as depth.
const FLAT: [&str; 32] = [
    "area", "base", "body", "br", "col", "colgroup", "dd", "dt", "embed", "head", "hr", "html",
    "img", "input", "li", "link", "meta", "optgroup", "option", "p", "param", "rp", "rt", "source",
    "tbody", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
];

pub(super) fn strip(html: &str) -> Stripped {
    let mut text = String::new();
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let begins = |c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?');
        if !after.starts_with(begins) {
            text.push('<');
            rest = after;
            continue;
        }
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let (tag, following) = after.split_once('>').unwrap_or((after, ""));
        let is_end = tag.starts_with('/');
        let tag = tag.trim_start_matches('/');
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = tag[..end].to_ascii_lowercase();
        rest = following;
        if RAW.contains(&name.as_str()) && !is_end {
            rest = after_raw(rest, &name);
        } else if !FLAT.contains(&name.as_str()) && !name.is_empty() {
            depth = if is_end { depth.saturating_sub(1) } else { depth + 1 };
            deepest = deepest.max(depth);
        }
        text.push(' ');
    }
    text.push_str(rest);
    let words: Vec<_> = text.split_whitespace().collect();
    Stripped { text: words.join(" "), depth: deepest }
}

/// What follows the end of an element whose content is no markup.
fn after_raw<'p>(rest: &'p str, name: &str) -> &'p str {
    let ends = |tail: &&'p str| {
        tail.get(2..2 + name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name))
    };
    let tail = rest.match_indices("</").map(|(at, _)| &rest[at..]).find(ends);
    tail.and_then(|tail| tail.split_once('>')).map_or("", |(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_counted_and_taken_out() {
        let check = |html: &str, text: &str, depth: usize| {
            let stripped = strip(html);
            assert_eq!((stripped.text.as_str(), stripped.depth), (text, depth), "{html}");
        };
        check("", "", 0);
        check("a < b <3", "a < b <3", 0);
        check("<p>a<p>b<br>c", "a b c", 0);
        check("<div><b>a</b></div><i>b</i>", "a b", 2);
        check("<script>if (a<b) '<div><div>'</SCRIPT>x", "x", 0);
        check("<!-- <div> --><DIV>x", "x", 1);
        check("</div></div><div>", "", 1);
        check("<div", "", 1);
        check("<!doctype html><ä>", "<ä>", 0);
    }
}
