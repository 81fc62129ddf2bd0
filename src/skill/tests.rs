//! What is read of a `SKILL.md`, and what is said of a bad one.

use super::*;

fn file(head: &str) -> String {
    format!("---\n{head}\n---\n\n# Body\n")
}

fn said(directory: &str, text: &[u8]) -> Vec<String> {
    let diagnostics = read("SKILL.md", directory, text).diagnostics;
    diagnostics.iter().map(|one| format!("{} {one}", one.severity.as_str())).collect()
}

#[test]
fn all_fields_are_read() {
    let text = file(
        "name: pdf-forms\ndescription: >\n  Fills forms.\n  Use it for PDF.\nlicense: MIT\n\
         compatibility: needs python3\nmetadata:\n  version: 1.10\n  author: \"me\"\nallowed-tools: Read Bash(git:*)",
    );
    let reading = read("SKILL.md", "pdf-forms", text.as_bytes());
    assert_eq!(reading.diagnostics, []);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        reading.skill.unwrap(),
        Skill {
            name: "pdf-forms".to_owned(),
            description: "Fills forms. Use it for PDF.".to_owned(),
            license: Some("MIT".to_owned()),
            compatibility: Some("needs python3".to_owned()),
            metadata: [pair("version", "1.10"), pair("author", "me")].into(),
            allowed_tools: Some("Read Bash(git:*)".to_owned()),
        }
    );
}

#[test]
fn what_is_wrong_is_named_by_field_with_its_fix() {
    let check = |head: &str, usable: bool, expected: &str| {
        let text = file(head);
        let reading = read("SKILL.md", "demo", text.as_bytes());
        assert_eq!(reading.skill.is_some(), usable, "{head}: {reading:?}");
        let said = said("demo", text.as_bytes());
        assert!(said.last().is_some_and(|said| said.starts_with(expected)), "{head}: {said:?}");
    };
    check("name: demo", false, "fatal SKILL.md: description: is missing; say in a sentence");
    check("name: demo\ndescription: '  '", false, "fatal SKILL.md: description: is empty");
    check("name: demo\ndescription:", false, "fatal SKILL.md: description: is missing");
    check("name: demo\ndescription: [a]", false, "fatal SKILL.md: description: ");
    check("description: d", true, "note SKILL.md: name: is missing; give it the name of the dir");
    check("name: other\ndescription: d", true, "fault SKILL.md: name: is `other`, and the dir");
    check("name: Demo\ndescription: d", true, "fault SKILL.md: name: has other characters than");
    check("name: -demo\ndescription: d", true, "fault SKILL.md: name: begins or ends with `-`");
    check("name: de--mo\ndescription: d", true, "fault SKILL.md: name: has `--` in it");
    let long = format!("name: {}\ndescription: d", "a".repeat(65));
    check(&long, true, "fault SKILL.md: name: has more than 64 characters");
    let long = format!("name: demo\ndescription: {}", "word ".repeat(300));
    check(&long, true, "fault SKILL.md: description: has more than 1024 characters");
    let long = format!("name: demo\ndescription: d\ncompatibility: {}", "c".repeat(501));
    check(&long, true, "fault SKILL.md: compatibility: has more than 500 characters");
    check("name: demo\ndescription: d\nlicense: ''", true, "note SKILL.md: license: is empty");
    check("name: demo\ndescription: d\nmodel: x", true, "note SKILL.md: model: the format has no");
    check(
        "name: demo\ndescription: d\nallowed-tools: [Read]",
        true,
        "note SKILL.md: allowed-tools",
    );
    check("name: demo\ndescription: d\nmetadata: {a: [b]}", false, "fatal SKILL.md: metadata: ");
    check("name: demo\ndescription: d\nname: demo", false, "fatal SKILL.md: ");
    check("- name", false, "fatal SKILL.md: ");
    check("", false, "fatal SKILL.md: ");
}

#[test]
fn a_colon_without_quotes_is_read_as_it_was_meant() {
    let text = file("name: demo\ndescription: Use it: always. It's good");
    let reading = read("SKILL.md", "demo", text.as_bytes());
    assert_eq!(reading.skill.unwrap().description, "Use it: always. It's good");
    let said = said("demo", text.as_bytes());
    let expected = "fault SKILL.md: description: has a colon that makes YAML another thing of it; \
                    put the text into quotes";
    assert_eq!(said, [expected]);
}

#[test]
fn what_is_no_skill_is_said_to_be_none() {
    let check = |bytes: &[u8], expected: &str| {
        assert!(read("SKILL.md", "demo", bytes).skill.is_none());
        let said = said("demo", bytes);
        assert!(said.last().unwrap().contains(expected), "{said:?}");
    };
    check(b"", "does not begin with a head");
    check(b"# Demo\n---\n", "does not begin with a head");
    check(b"---\nname: demo\n", "has a head without an end");
    check(b"---\nname: d\xff\n---\n", "is not UTF-8");
    check(&[b'a'; MAX_SKILL_MD_BYTES + 1], "has more than");
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]";
    let started = std::time::Instant::now();
    drop(read("SKILL.md", "demo", file(bomb).as_bytes()));
    assert!(started.elapsed().as_secs() < 5, "names that stand for names are bounded");
    let marked = format!("\u{feff}{}", file("name: demo\ndescription: d"));
    assert!(said("demo", marked.as_bytes())[0].contains("a byte order mark"));
}

#[test]
fn a_description_is_one_line_whatever_is_in_it() {
    let text = file("name: demo\ndescription: \"a\\n- other: b\\u0007 \\t c\"");
    let reading = read("SKILL.md", "demo", text.as_bytes());
    assert_eq!(reading.skill.unwrap().description, "a - other: b c");
}
