//! An answer in the constrained form, as it streams: words as they come, calls as soon as their arguments begin. Pure.
//!
//! A server need not hold its model to anything, so whatever is not in the form is passed on as it came.

use crate::provider::repair::Shape;

/// A piece of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::provider::openai) enum Said {
    /// Words to the user.
    Text(String),
    /// A call of that tool begins.
    Call(String),
    /// The arguments of the call that began last grow, as JSON text.
    Input(String),
    /// What is not in the form.
    Plain(String),
}

/// Bytes of a part before its text or arguments begin: a tool's name, and space.
const HEAD_BYTES: usize = 1024;

/// Follows the text of one answer.
#[derive(Debug, Default)]
pub(in crate::provider::openai) struct Reader {
    place: Place,
    /// How the part begins, as it came, until it is known what it is.
    head: String,
    /// The answer is a list of parts.
    is_list: bool,
    /// The part before was a text.
    spoke: bool,
    /// The tool of the call that begins.
    name: String,
    out: Vec<Said>,
}

/// Where in the form the answer is.
#[derive(Debug, Default)]
enum Place {
    /// Before the bracket that begins a part, or the list.
    #[default]
    Before,
    /// Before a key.
    Open,
    Key(Unescape, String),
    /// Between a key and its value.
    Value(Field),
    Text(Unescape),
    Name(Unescape),
    Arguments(Shape),
    /// After a value.
    After(Field),
    /// After a part of a list.
    Between,
    /// All was said.
    Whole,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Text,
    Name,
    Arguments,
}

impl Reader {
    /// Takes more of the answer.
    pub(in crate::provider::openai) fn read(&mut self, text: &str) -> Vec<Said> {
        for (at, c) in text.char_indices() {
            if matches!(self.place, Place::Lost) {
                self.plain(&text[at..]);
                break;
            }
            self.head.push(c);
            let place = std::mem::take(&mut self.place);
            let place = self.step(place, c).filter(|_| self.head.len() <= HEAD_BYTES);
            self.place = place.unwrap_or(Place::Lost);
            if matches!(self.place, Place::Lost) {
                let head = std::mem::take(&mut self.head);
                self.plain(&head);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// The answer has ended: the beginning of a part that became none.
    pub(in crate::provider::openai) fn rest(&mut self) -> String {
        self.place = Place::Lost;
        std::mem::take(&mut self.head)
    }

    /// Whether no call was left in its middle.
    pub(in crate::provider::openai) fn is_whole(&self) -> bool {
        !matches!(self.place, Place::Arguments(_))
    }

    /// Where the next character leads; nowhere if the form has none like it there.
    fn step(&mut self, place: Place, c: char) -> Option<Place> {
        Some(match place {
            Place::Text(mut within) => {
                let taken = within.take(c);
                self.head.clear();
                if let Unescaped::Char(c) = taken {
                    self.text(c);
                }
                if taken == Unescaped::End {
                    Place::After(Field::Text)
                } else {
                    Place::Text(within)
                }
            }
            Place::Arguments(shape) => self.argument(shape, c),
            Place::Name(mut within) => match within.take(c) {
                Unescaped::End => Place::After(Field::Name),
                Unescaped::Nothing => Place::Name(within),
                Unescaped::Char(c) => {
                    self.name.push(c);
                    Place::Name(within)
                }
            },
            Place::Key(mut within, mut key) => match within.take(c) {
                Unescaped::End => Place::Value(self.field(&key)?),
                Unescaped::Nothing => Place::Key(within, key),
                Unescaped::Char(c) => {
                    key.push(c);
                    Place::Key(within, key)
                }
            },
            place if c.is_whitespace() => place,
            place => return self.between(place, c),
        })
    }

    /// What a mark outside of any string means.
    fn between(&mut self, place: Place, c: char) -> Option<Place> {
        Some(match (place, c) {
            (Place::Before, '[') if !self.is_list => {
                self.is_list = true;
                Place::Before
            }
            (Place::Before, '{') | (Place::After(Field::Name), ',') => Place::Open,
            (Place::Open, '"') => Place::Key(Unescape::default(), String::new()),
            (Place::Value(field), ':') => Place::Value(field),
            (Place::Value(Field::Name), '"') => Place::Name(Unescape::default()),
            (Place::Value(Field::Text), '"') => {
                self.head.clear();
                if std::mem::replace(&mut self.spoke, true) {
                    self.text('\n');
                }
                Place::Text(Unescape::default())
            }
            (Place::Value(Field::Arguments), '{') => {
                self.spoke = false;
                let name = std::mem::take(&mut self.name);
                self.out.push(Said::Call(name));
                self.argument(Shape::default(), c)
            }
            (Place::After(Field::Text | Field::Arguments), '}') => {
                self.head.clear();
                if self.is_list { Place::Between } else { Place::Whole }
            }
            (Place::Between, ',') => Place::Before,
            (Place::Between, ']') => {
                self.head.clear();
                Place::Whole
            }
            _ => return None,
        })
    }

    /// The field of a key, where it may come: a text alone, arguments after a name.
    fn field(&self, key: &str) -> Option<Field> {
        match (key, self.name.is_empty()) {
            ("text", true) => Some(Field::Text),
            ("name", true) => Some(Field::Name),
            ("arguments", false) => Some(Field::Arguments),
            _ => None,
        }
    }

    fn argument(&mut self, mut shape: Shape, c: char) -> Place {
        self.head.clear();
        shape.feed(c.encode_utf8(&mut [0; 4]));
        match self.out.last_mut() {
            Some(Said::Input(so_far)) => so_far.push(c),
            _ => self.out.push(Said::Input(c.to_string())),
        }
        if shape.is_whole() { Place::After(Field::Arguments) } else { Place::Arguments(shape) }
    }

    fn text(&mut self, c: char) {
        match self.out.last_mut() {
            Some(Said::Text(so_far)) => so_far.push(c),
            _ => self.out.push(Said::Text(c.to_string())),
        }
    }

    fn plain(&mut self, text: &str) {
        match self.out.last_mut() {
            Some(Said::Plain(so_far)) => so_far.push_str(text),
            _ => self.out.push(Said::Plain(text.to_owned())),
        }
    }
}

/// What a JSON string says, character by character.
#[derive(Debug, Default)]
struct Unescape {
    escape: Escape,
    /// The first half of a character that is written as two.
    half: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    Begun,
    /// So many of four hexadecimal digits, and their value.
    Unit(u32, u16),
}

#[derive(Debug, PartialEq, Eq)]
enum Unescaped {
    Nothing,
    Char(char),
    End,
}

impl Unescape {
    fn take(&mut self, c: char) -> Unescaped {
        match std::mem::take(&mut self.escape) {
            Escape::None if c == '"' => Unescaped::End,
            Escape::None if c == '\\' => self.more(Escape::Begun),
            Escape::Begun if c == 'u' => self.more(Escape::Unit(0, 0)),
            Escape::None => Unescaped::Char(c),
            Escape::Begun => Unescaped::Char(match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                c => c,
            }),
            Escape::Unit(digits, value) => {
                let digit = u16::try_from(c.to_digit(16).unwrap_or(0)).expect("at most 15");
                let value = (value << 4) | digit;
                if digits == 3 {
                    self.unit(value)
                } else {
                    self.more(Escape::Unit(digits + 1, value))
                }
            }
        }
    }

    fn more(&mut self, escape: Escape) -> Unescaped {
        self.escape = escape;
        Unescaped::Nothing
    }

    /// A half that stays alone is no character.
    fn unit(&mut self, unit: u16) -> Unescaped {
        let units = self.half.take().into_iter().chain([unit]);
        match char::decode_utf16(units).last() {
            Some(Ok(c)) => Unescaped::Char(c),
            _ => {
                self.half = Some(unit);
                Unescaped::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer in these pieces says, small pieces of a kind together.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (Vec<Said>, String) {
        let mut reader = Reader::default();
        let mut said: Vec<Said> = Vec::new();
        for one in pieces.into_iter().flat_map(|piece| reader.read(piece)) {
            match (said.last_mut(), one) {
                (Some(Said::Text(so_far)), Said::Text(more))
                | (Some(Said::Input(so_far)), Said::Input(more))
                | (Some(Said::Plain(so_far)), Said::Plain(more)) => so_far.push_str(&more),
                (_, one) => said.push(one),
            }
        }
        (said, reader.rest())
    }

    #[test]
    fn the_form_is_read_wherever_the_stream_cuts_it_and_all_else_is_passed_on() {
        let text = |text: &str| Said::Text(text.into());
        let plain = |text: &str| Said::Plain(text.into());
        let call = |name: &str, input: &str| [Said::Call(name.into()), Said::Input(input.into())];
        let ls = || call("bash", r#"{ "command": "ls \"}\"", "deep": {"a": []} }"#);
        let ls_said =
            r#"{"name": "bash", "arguments": { "command": "ls \"}\"", "deep": {"a": []} }}"#;
        let check = |answer: &str, said: Vec<Said>, rest: &str| {
            let whole = read([answer]);
            assert_eq!(whole, (said, rest.to_owned()), "{answer}");
            for (at, _) in answer.char_indices() {
                let (head, tail) = answer.split_at(at);
                assert_eq!(read([head, tail]), whole, "{answer:?} cut at {at}");
            }
        };
        check(r#"{"text": "a\n\"b\" \\ \u00e9\ud83d\ude00é"}"#, vec![text("a\n\"b\" \\ é😀é")], "");
        check(ls_said, ls().into(), "");
        check(
            &format!(" \n{}\n", ls_said.replace(": ", " :\n")),
            call("bash", &r#"{ "command": "ls \"}\"", "deep": {"a": []} }"#.replace(": ", " :\n"))
                .into(),
            "\n",
        );
        let mut several = vec![text("I look.")];
        several.extend(ls());
        several.extend(call("read", "{}"));
        several.push(text("one\ntwo"));
        check(
            &format!(
                r#"[{{"text": "I look."}}, {ls_said},{{"name":"read","arguments":{{}}}}, {{"text":"one"}}, {{"text":"two"}}]"#
            ),
            several,
            "",
        );
        check("[]", vec![plain("[]")], "");
        check("Hello {\"text\": \"a\"}", vec![plain("Hello {\"text\": \"a\"}")], "");
        check(r#"{"command": "ls"}"#, vec![plain(r#"{"command": "ls"}"#)], "");
        check(r#"{"name": "x", "text": "ls"}"#, vec![plain(r#"{"name": "x", "text": "ls"}"#)], "");
        check(
            r#"{"name": "x", "arguments": "ls"}"#,
            vec![plain(r#"{"name": "x", "arguments": "ls"}"#)],
            "",
        );
        check(r#"{"text": "a"} b"#, vec![text("a"), plain(" b")], "");
        // Cut: words count as far as they came, a call from where its arguments begin.
        check(r#"{"text": "a\u00"#, vec![text("a")], "");
        check(r#"{"name": "bash", "arg"#, vec![], r#"{"name": "bash", "arg"#);
        check(r#"{"name": "bash", "arguments": {"c"#, call("bash", r#"{"c"#).into(), "");
    }

    #[test]
    fn no_more_is_held_back_than_a_part_can_begin_with() {
        let mut reader = Reader::default();
        let long = format!("{{\"name\": \"{}", "x".repeat(5000));
        assert_eq!(reader.read(&long), [Said::Plain(long.clone())]);
        assert_eq!(reader.read("more"), [Said::Plain("more".to_owned())]);
    }
}
