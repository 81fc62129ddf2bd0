//! What a terminal can take: text that cannot steer it, lines that fit it, colours where they are wanted.
//!
//! Text of models and tools is a stranger's. Escape sequences, direction overrides and invisible letters in it are
//! shown as what they are. Environment variables come in as values ([`Facts`]); nothing here reads them.

use std::borrow::Cow;
use std::io::IsTerminal;

use clap::ColorChoice;
use unicode_width::UnicodeWidthChar;

/// Columns assumed where nobody can tell.
pub const DEFAULT_WIDTH: u16 = 80;

/// What is known of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Standard output is a terminal.
    pub stdout_is_tty: bool,
    /// Standard error is a terminal.
    pub stderr_is_tty: bool,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `TERM` is `dumb`: no escape sequences at all.
    pub dumb: bool,
    /// Columns.
    pub width: u16,
}

impl Facts {
    /// Asks the process's streams; the environment's part is told by the caller.
    #[must_use]
    pub fn of_process(no_color: bool, dumb: bool) -> Self {
        let size = terminal_size::terminal_size_of(std::io::stderr())
            .or_else(|| terminal_size::terminal_size_of(std::io::stdout()));
        Self {
            stdout_is_tty: std::io::stdout().is_terminal(),
            stderr_is_tty: std::io::stderr().is_terminal(),
            no_color,
            dumb,
            width: size.map_or(DEFAULT_WIDTH, |(width, _)| width.0),
        }
    }

    /// No terminal anywhere: files and pipes.
    #[must_use]
    pub fn plain() -> Self {
        let (stdout_is_tty, stderr_is_tty) = (false, false);
        Self { stdout_is_tty, stderr_is_tty, no_color: false, dumb: false, width: DEFAULT_WIDTH }
    }

    /// Whether talk is coloured.
    #[must_use]
    pub fn talk_has_color(&self, choice: ColorChoice) -> bool {
        self.color(choice, self.stderr_is_tty)
    }

    /// Whether data is coloured.
    #[must_use]
    pub fn data_has_color(&self, choice: ColorChoice) -> bool {
        self.color(choice, self.stdout_is_tty)
    }

    fn color(&self, choice: ColorChoice, is_tty: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_tty && !self.no_color && !self.dumb,
        }
    }

    /// Whether a line of talk can be redrawn in place.
    #[must_use]
    pub fn can_redraw(&self) -> bool {
        self.stderr_is_tty && !self.dumb
    }

    /// Whether data and talk appear on one screen.
    #[must_use]
    pub fn one_screen(&self) -> bool {
        self.stdout_is_tty && self.stderr_is_tty
    }
}

/// The few looks that casemate gives to its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Names.
    Bold,
    /// What may be overlooked.
    Dim,
    /// Went well.
    Good,
    /// Wants attention.
    Warn,
    /// Went wrong.
    Bad,
}

/// Gives looks to words, or leaves them plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// Whether there is colour.
    pub color: bool,
}

impl Paint {
    /// `text` in that look. The text is neutral already.
    #[must_use]
    pub fn paint(self, look: Look, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match look {
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Warn => "33",
            Look::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// `text` with everything visible that could steer a terminal or hide from a reader; lines and tabs stay.
#[must_use]
pub fn neutralise(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b'\n' | b'\t' | b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut neutraliser = Neutraliser::default();
    let mut clean = neutraliser.push(text);
    clean.push_str(neutraliser.finish());
    if clean == text { Cow::Borrowed(text) } else { Cow::Owned(clean) }
}

/// JSON, or text that is neutral already, with all that could steer a terminal or hide from a reader written as JSON escapes
/// it: JSON itself escapes only the oldest controls.
#[must_use]
pub fn escape(json: &str) -> Cow<'_, str> {
    let escaped = |c| c >= '\x7f' && matches!(danger(c), Danger::Picture(_) | Danger::Hidden);
    if !json.chars().any(escaped) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len());
    for c in json.chars() {
        if escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                clean.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// [`neutralise`] for text that comes in pieces: any split gives the same whole.
#[derive(Debug, Clone, Default)]
pub struct Neutraliser {
    /// A carriage return that may be half of a line end.
    held: bool,
    /// A joiner may follow: the last letter was of a script or an emoji that uses them.
    joinable: bool,
}

/// How a carriage return is shown that does not end a line.
const LONE_CR: &str = "␍";

impl Neutraliser {
    /// The next piece, harmless.
    #[must_use]
    pub fn push(&mut self, piece: &str) -> String {
        let mut clean = String::with_capacity(piece.len());
        for c in piece.chars() {
            if std::mem::take(&mut self.held) && c != '\n' {
                clean.push_str(LONE_CR);
            }
            self.push_char(c, &mut clean);
        }
        clean
    }

    /// What was held back when the text ended.
    pub fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.held) { LONE_CR } else { "" }
    }

    fn push_char(&mut self, c: char, clean: &mut String) {
        match danger(c) {
            Danger::None => clean.push(c),
            Danger::Return => self.held = true,
            Danger::Joiner if self.joinable => clean.push(c),
            Danger::Picture(picture) => clean.push(picture),
            Danger::Joiner | Danger::Hidden => {
                clean.push_str(&format!("<U+{:04X}>", u32::from(c)));
            }
        }
        self.joinable = !c.is_ascii() && danger(c) == Danger::None;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Danger {
    None,
    /// Half of a line end, or a jump to the start of the line.
    Return,
    /// Needed within emoji and some scripts, and hides things within ASCII.
    Joiner,
    /// A control that Unicode has a picture of.
    Picture(char),
    /// Is invisible, or reorders what is visible.
    Hidden,
}

fn danger(c: char) -> Danger {
    match c {
        '\n' | '\t' | ' '..='~' => Danger::None,
        '\r' => Danger::Return,
        '\u{0}'..='\u{1f}' => {
            let picture = char::from_u32(0x2400 + u32::from(c));
            Danger::Picture(picture.expect("the pictures of all C0 controls are assigned"))
        }
        '\u{7f}' => Danger::Picture('␡'),
        '\u{200c}' | '\u{200d}' => Danger::Joiner,
        '\u{80}'..='\u{9f}' // C1: a terminal may take U+009B for ESC [
        | '\u{ad}' // soft hyphen
        | '\u{34f}' // grapheme joiner
        | '\u{61c}' | '\u{200e}' | '\u{200f}' // direction marks
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers, blank
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' // zero-width space
        | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings, overrides
        | '\u{2060}'..='\u{206f}' // word joiner, invisible operators, isolates
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' // tags and further variation selectors: a whole hidden alphabet
        => Danger::Hidden,
        _ => Danger::None,
    }
}

/// `text` as one word of a command line that a person copies into a shell, neutral.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", neutralise(text).replace('\'', r"'\''"))
}

/// `text` neutral, on one line, of at most `width` columns; what does not fit ends in `…`.
#[must_use]
pub fn one_line(text: &str, width: usize) -> String {
    // Only the head can fit: a column is at least a quarter of the bytes that a char has, joiners and marks aside.
    let head = head_of(text.trim(), width.saturating_mul(16).saturating_add(64));
    let flat = flatten(&neutralise(head));
    fit(&flat, width, head.len() < text.trim().len())
}

fn head_of(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Line ends become ` ↵ `, runs of blanks one blank.
fn flatten(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ↵ ")
}

fn fit(flat: &str, width: usize, more: bool) -> String {
    if !more && columns(flat) <= width {
        return flat.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let mut used = 0;
    let fits = |c: &char| {
        used += columns_of(*c);
        used <= room
    };
    let mut cut: String = flat.chars().take_while(fits).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// The columns that neutral text takes on one line, at most.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    // A selector may turn a narrow sign into a wide picture: it is counted as the column that it may add.
    if c == '\u{fe0f}' { 1 } else { c.width().unwrap_or(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn what_steers_or_hides_is_shown() {
        let check = |given: &str, expected: &str| assert_eq!(neutralise(given), expected);
        check("plain\n\ttext", "plain\n\ttext");
        check("Grüße, 世界 🎉", "Grüße, 世界 🎉");
        check("\x1b[31mred\x1b[0m", "␛[31mred␛[0m");
        check("\x1b]0;title\x07", "␛]0;title␇");
        check("nul\0del\x7f", "nul␀del␡");
        check("\u{9b}31m", "<U+009B>31m");
        check("dos\r\nline", "dos\nline");
        check("50%\r100%", "50%␍100%");
        check("end\r", "end␍");
        check("\r\r\n", "␍\n");
        check("a\u{202e}b\u{2066}c", "a<U+202E>b<U+2066>c");
        check("rm\u{200b} -rf", "rm<U+200B> -rf");
        check("ad\u{200d}min", "ad<U+200D>min");
        check("👨\u{200d}👩", "👨\u{200d}👩");
        check("می\u{200c}خواهم", "می\u{200c}خواهم");
        check("hi\u{e0068}\u{e0069}", "hi<U+E0068><U+E0069>");
        check("\u{feff}bom", "<U+FEFF>bom");
    }

    #[test]
    fn words_for_a_shell() {
        let check = |given: &str, expected: &str| assert_eq!(shell_word(given), expected);
        check("/home/ann/.local/share-2", "/home/ann/.local/share-2");
        check("/my files", "'/my files'");
        check("it's", r"'it'\''s'");
        check("$(id)\x1b", "'$(id)␛'");
        check("", "''");
    }

    #[test]
    fn a_line_fits_its_width() {
        let check = |given: &str, width: usize, expected: &str| {
            assert_eq!(one_line(given, width), expected, "{given:?} in {width}");
        };
        check("cargo test", 10, "cargo test");
        check("cargo test", 9, "cargo te…");
        check("cargo test", 7, "cargo…");
        check("cd x\n  cargo   test\n", 40, "cd x ↵ cargo test");
        check("世界世界", 8, "世界世界");
        check("世界世界", 7, "世界世…");
        check("世界世界", 6, "世界…");
        check("x", 0, "");
        check("\x1b[2J", 10, "␛[2J");
        check(&"long ".repeat(1000), 12, "long long l…");
    }

    #[test]
    fn colour_is_decided_by_the_flag_then_the_environment_then_the_terminal() {
        let tty = Facts { stdout_is_tty: true, stderr_is_tty: true, ..Facts::plain() };
        let check = |facts: Facts, choice, expected| {
            assert_eq!(facts.talk_has_color(choice), expected, "{facts:?} {choice:?}");
            assert_eq!(facts.data_has_color(choice), expected, "{facts:?} {choice:?}");
        };
        check(tty, ColorChoice::Auto, true);
        check(Facts { no_color: true, ..tty }, ColorChoice::Auto, false);
        check(Facts { dumb: true, ..tty }, ColorChoice::Auto, false);
        check(Facts::plain(), ColorChoice::Auto, false);
        check(Facts::plain(), ColorChoice::Always, true);
        check(Facts { no_color: true, ..tty }, ColorChoice::Always, true);
        check(tty, ColorChoice::Never, false);
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text in any::<String>()) {
            let clean = neutralise(&text);
            prop_assert!(!clean.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            prop_assert_eq!(neutralise(&clean), clean.as_ref(), "neutral text is left alone");
        }

        #[test]
        fn escaped_json_means_the_same_and_steers_nothing(text in "(\\PC|[\u{7f}\u{9b}\u{202e}\u{e0041}\u{1b}])*") {
            let json = serde_json::to_string(&text).unwrap();
            let clean = escape(&json);
            prop_assert_eq!(serde_json::from_str::<String>(&clean).unwrap(), text);
            prop_assert!(!clean.chars().any(|c| c.is_control() || danger(c) == Danger::Hidden));
        }

        #[test]
        fn every_split_gives_the_same(
            pieces in prop::collection::vec("[a\r\n\u{1b}\u{200d}é\u{202e}]{0,6}", 0..8)
        ) {
            let mut neutraliser = Neutraliser::default();
            let mut streamed: String = pieces.iter().map(|piece| neutraliser.push(piece)).collect();
            streamed.push_str(neutraliser.finish());
            prop_assert_eq!(streamed, neutralise(&pieces.concat()).into_owned());
        }

        #[test]
        fn one_line_is_one_line_and_fits(text in "(\\PC|[\n\r\t\u{1b}])*", width in 0_usize..100) {
            let line = one_line(&text, width);
            prop_assert!(line.width() <= width, "{} > {width}: {line:?}", line.width());
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
