//! Thoughts that a server leaves in the text as `<think>…</think>` at its beginning. Tags elsewhere are text.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A piece of content, told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Thinking(String),
    Text(String),
}

/// Where in the content the splitter is.
#[derive(Debug)]
pub(super) enum Splitter {
    /// Nothing but the possible beginning of a tag came so far.
    Undecided(String),
    /// Within the tag; holds what may be the beginning of its end.
    Inside(String),
    /// After the tag, where blank lines are dropped until text comes.
    After,
    /// Text.
    Outside,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::Undecided(String::new())
    }
}

impl Splitter {
    pub(super) fn feed(&mut self, content: &str, out: &mut Vec<Piece>) {
        if content.is_empty() {
            return;
        }
        match self {
            Self::Undecided(held) => {
                held.push_str(content);
                let start = held.trim_start();
                if let Some(thoughts) = start.strip_prefix(OPEN) {
                    let thoughts = thoughts.to_owned();
                    *self = Self::Inside(String::new());
                    self.feed(&thoughts, out);
                } else if !OPEN.starts_with(start) {
                    out.push(Piece::Text(std::mem::take(held)));
                    *self = Self::Outside;
                }
            }
            Self::Inside(held) => {
                held.push_str(content);
                if let Some((thoughts, text)) = held.split_once(CLOSE) {
                    push(Piece::Thinking(thoughts.to_owned()), out);
                    let text = text.to_owned();
                    *self = Self::After;
                    self.feed(&text, out);
                } else {
                    let safe = held.len() - held_back(held);
                    let kept = held.split_off(safe);
                    push(Piece::Thinking(std::mem::replace(held, kept)), out);
                }
            }
            Self::After => {
                let text = content.trim_start();
                if !text.is_empty() {
                    out.push(Piece::Text(text.to_owned()));
                    *self = Self::Outside;
                }
            }
            Self::Outside => out.push(Piece::Text(content.to_owned())),
        }
    }

    /// The content has ended: what was held back is what it looks like.
    pub(super) fn finish(&mut self, out: &mut Vec<Piece>) {
        match std::mem::replace(self, Self::Outside) {
            Self::Undecided(held) => push(Piece::Text(held), out),
            Self::Inside(held) => push(Piece::Thinking(held), out),
            Self::After | Self::Outside => {}
        }
    }
}

fn push(piece: Piece, out: &mut Vec<Piece>) {
    let (Piece::Thinking(text) | Piece::Text(text)) = &piece;
    if !text.is_empty() {
        out.push(piece);
    }
}

/// How many bytes at the end of `text` may be the beginning of the closing tag.
fn held_back(text: &str) -> usize {
    (1..CLOSE.len()).rev().find(|&n| text.ends_with(&CLOSE[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Thoughts and text of `pieces`, each joined.
    fn split<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        pieces.into_iter().for_each(|piece| splitter.feed(piece, &mut out));
        splitter.finish(&mut out);
        let mut joined = (String::new(), String::new());
        for piece in out {
            match piece {
                Piece::Thinking(text) => joined.0.push_str(&text),
                Piece::Text(text) => joined.1.push_str(&text),
            }
        }
        joined
    }

    #[test]
    fn only_a_tag_at_the_beginning_counts() {
        for (content, thinking, text) in [
            ("hello", "", "hello"),
            ("<think>a</think>\n\nb", "a", "b"),
            ("\n<think>\na\n</think>b\n", "\na\n", "b\n"),
            ("<think></think>b", "", "b"),
            ("<think>a", "a", ""),
            ("<think>a</thin", "a</thin", ""),
            ("<thin", "", "<thin"),
            ("<thinker>a", "", "<thinker>a"),
            ("see <think>a</think>", "", "see <think>a</think>"),
            ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
            ("  ", "", "  "),
        ] {
            let whole = split([content]);
            assert_eq!(whole, (thinking.to_owned(), text.to_owned()), "{content:?}");
            for (at, _) in content.char_indices() {
                let (head, tail) = content.split_at(at);
                assert_eq!(split([head, tail]), whole, "{content:?} cut at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(parts in prop::collection::vec(
            prop_oneof!["<think>", "</think>", "[<>/a \n☃]{0,3}"], 0..12,
        )) {
            let whole = parts.concat();
            prop_assert_eq!(split(parts.iter().map(String::as_str)), split([whole.as_str()]));
        }
    }
}
