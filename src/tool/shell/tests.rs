//! What is read of a command line, and that bash reads the same.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

#[test]
fn a_line_is_read_word_by_word_or_not_at_all() {
    let check = |line: &str, expected: &[&[&str]]| {
        let parts = read(line).map(|line| line.parts).unwrap_or_else(|| panic!("{line}: not read"));
        assert_eq!(parts, expected, "{line}");
    };
    check("git status", &[&["git", "status"]]);
    check(" a 'b c'd\"e f\"\\ g ", &[&["a", "b cde f g"]]);
    check("a && b || c; d | e\nf", &[&["a"], &["b"], &["c"], &["d"], &["e"], &["f"]]);
    check("a &&\n b;\n\nc;", &[&["a"], &["b"], &["c"]]);
    check("git diff HEAD~1", &[&["git", "diff", "HEAD~1"]]);
    check("a '' \"\"", &[&["a", "", ""]]);
    check("a 2>&1 >/dev/null 2> /dev/null | b </dev/null", &[&["a"], &["b"]]);
    for opaque in [
        "",
        ";",
        "a &&",
        "a |",
        "a;;b",
        "a & b",
        "a &",
        "a |& b",
        "a $b",
        "a `b`",
        "a $(b)",
        "a \"$b\"",
        "a <(b)",
        "a > f",
        "a >> f",
        "a < f",
        "a << E\nx\nE",
        "a <<< b",
        "a 3>/dev/null",
        "a >/dev/nullx",
        "a \"2\">/dev/null",
        "a \\2>/dev/null",
        "a * b",
        "a ?",
        "a [b]",
        "a {b,c}",
        "a ~/b",
        "a !b",
        "a \"!b\"",
        "^a^b",
        "# a",
        "a # b",
        "(a)",
        "{ a; }",
        "a 'b",
        "a \"b",
        "a \\",
        "a \\\nb",
        "a \u{a0}b",
        "a\tb\u{b}c",
        "a 'b\nc'",
        "a\r",
        "a 'b\0'",
    ] {
        assert_eq!(read(opaque), None, "{opaque:?}");
    }
    assert_eq!(read(&"a ".repeat(JUDGED_COMMAND_BYTES)), None, "too long to be judged");
}

/// Pieces of which lines are made: more of what is nasty than of what is not.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[a-z0-9_./:@%+=,-]{1,4}",
        2 => Just(" ".to_owned()),
        1 => "['\"\\\\ \t;|&<>$`!*?#(){}~^\n-]",
        1 => Just("'a b'".to_owned()),
        1 => Just("\"c d\"".to_owned()),
        1 => Just("2>/dev/null".to_owned()),
        1 => Just("2>&1".to_owned()),
        1 => Just(" && ".to_owned()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The words that bash makes of each of these commands.
fn words_of_bash(lines: &[String]) -> Vec<Vec<String>> {
    // The commands' names become arguments of a printer, which marks where words end and where a command does.
    let mut script = String::from("p() { printf '%s\\0' \"$@\"; printf '\\1'; }\n");
    for line in lines {
        writeln!(script, "p {line}").expect("writing to a string cannot fail");
    }
    let mut bash = Command::new("bash");
    bash.arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = bash.spawn().expect("bash is there");
    let mut input = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().expect("bash ends");
    writer.join().expect("the writer does not panic").expect("bash reads it all");
    let said = String::from_utf8(output.stdout).expect("words are text");
    let commands = said.split_terminator('\u{1}');
    commands.map(|words| words.split_terminator('\0').map(str::to_owned).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_makes_it_panic(line in "\\PC*", nasty in pieces()) {
        drop((read(&line), read(&nasty)));
    }

    #[test]
    fn bash_reads_the_same_words(lines in proptest::collection::vec(pieces(), 200)) {
        let one = |line: &String| match read(line) {
            // Output that goes elsewhere cannot be compared.
            Some(Line { parts, .. }) if parts.len() == 1 && !line.contains('>') => Some(parts),
            _ => None,
        };
        let (read, lines): (Vec<_>, Vec<_>) = lines
            .iter()
            .filter_map(|line| Some((one(line)?.remove(0), line.trim().to_owned())))
            .unzip();
        prop_assert_eq!(words_of_bash(&lines), read);
    }
}
