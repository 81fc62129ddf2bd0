//! The tools as the host uses them: over a socket, with a real shell and real files.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{edit, serve};
use crate::event::{ContentBlock, text_of};
use crate::limits::{DOCUMENT_PAGES, GLOB_RESULTS, TOOL_OUTPUT_CHARS};
use crate::sandbox::GuestContext;
use crate::sandbox::wire::{FromGuest, ToGuest, ToolCall, ToolReply, read_frame, write_frame};

/// A guest in this process, in a directory of its own.
struct Guest {
    dir: tempfile::TempDir,
    socket: UnixStream,
    next: u64,
    takes_documents: bool,
    thread: Option<JoinHandle<i32>>,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, theirs) = UnixStream::pair().unwrap();
        let workspace = dir.path().join("w");
        std::fs::create_dir(&workspace).unwrap();
        let env = vec![
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        let context = GuestContext {
            workspace,
            home: dir.path().into(),
            spool: dir.path().join("spool"),
            env,
            bounds: crate::sandbox::Bounds::default(),
        };
        let thread = std::thread::spawn(move || serve(theirs, &context));
        Self { dir, socket, next: 1, takes_documents: true, thread: Some(thread) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("w").join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes.as_ref())
            .unwrap();
        self
    }

    fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn send(&mut self, tool: &str, input: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        let Value::Object(input) = input else { panic!("an input is an object") };
        let call = ToolCall { name: tool.to_owned(), input, takes_documents: self.takes_documents };
        write_frame(&mut self.socket, &ToGuest::Call { id, call }).unwrap();
        id
    }

    fn receive(&mut self) -> (u64, ToolReply) {
        match read_frame(&mut self.socket).unwrap() {
            Some(FromGuest::Reply { id, reply }) => (id, reply),
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, tool: &str, input: Value) -> ToolReply {
        let id = self.send(tool, input);
        let (answered, reply) = self.receive();
        assert_eq!(answered, id);
        reply
    }

    /// The text of a call that must go well.
    #[track_caller]
    fn ok(&mut self, tool: &str, input: Value) -> String {
        let reply = self.call(tool, input);
        assert!(!reply.is_error, "{}", text_of(&reply.content));
        text_of(&reply.content)
    }

    /// The text of a call that must fail.
    #[track_caller]
    fn err(&mut self, tool: &str, input: Value) -> String {
        let reply = self.call(tool, input);
        assert!(reply.is_error, "{}", text_of(&reply.content));
        text_of(&reply.content)
    }

    fn bash(&mut self, command: &str) -> ToolReply {
        self.call("bash", json!({ "command": command }))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(self.thread.take().unwrap().join().unwrap(), 0);
    }
}

#[track_caller]
fn check_bash(guest: &mut Guest, command: &str, is_error: bool, expected: &str) {
    let reply = guest.bash(command);
    let text = text_of(&reply.content);
    assert_eq!((text.as_str(), reply.is_error), (expected, is_error), "{command}");
}

#[test]
fn the_shell_lasts_from_call_to_call() {
    let mut guest = Guest::new();
    check_bash(&mut guest, "true", false, "(no output)");
    check_bash(&mut guest, "X=5; f() { echo f$X; }; mkdir d && cd d", false, "(no output)");
    check_bash(&mut guest, "f; basename $PWD", false, "f5\nd");
    check_bash(&mut guest, "echo out; echo err >&2; echo out", false, "out\nerr\nout");
    check_bash(&mut guest, "false", true, "[exit code 1]");
    check_bash(&mut guest, "echo no; (exit 3)", true, "no\n[exit code 3]");
    check_bash(&mut guest, "cat", false, "(no output)");
    let killed = guest.bash("echo before; sh -c 'kill -KILL $$'");
    let said = text_of(&killed.content);
    assert!(said.starts_with("before\n") && said.ends_with("[exit code 137]"), "{said}");
    assert!(killed.is_error && !said.contains("tcsetattr"), "{said}");
    assert_eq!(guest.ok("bash", json!({"restart": true})), "bash session restarted");
    check_bash(&mut guest, "echo \"[$X]\"; basename $PWD", false, "[]\nw");
}

#[test]
fn whatever_is_quoted_arrives_as_it_was_written() {
    let mut guest = Guest::new();
    for (command, expected) in [
        ("echo \"it's\" # comment", "it's"),
        ("cat <<'EOF'\n$x 'y' \"z\"\n\\n\nEOF", "$x 'y' \"z\"\n\\n"),
        ("printf '%s\\n' 'a''b' \"$(echo c)\"", "ab\nc"),
        ("for i in 1 2\ndo\necho $i\ndone", "1\n2"),
        ("echo '!history' !x", "!history !x"),
        ("echo ünï çødé 漢字", "ünï çødé 漢字"),
        ("printf '\\033[31mred\\033[0m\\r\\nline'", "red\nline"),
        ("printf 'a\\377b'", "a\u{fffd}b"),
        ("echo x  # trailing\n", "x"),
    ] {
        check_bash(&mut guest, command, false, expected);
    }
    let large = format!("echo {} | wc -c", "x".repeat(200_000));
    check_bash(&mut guest, &large, false, "200001");
}

#[test]
fn what_is_not_a_command_leaves_the_shell_alive() {
    let mut guest = Guest::new();
    for (command, words) in [
        ("echo 'unterminated", "unexpected EOF"),
        ("if true; then", "unexpected end of file"),
        ("no-such-command", "command not found"),
        ("cd /gone", "No such file"),
        (")", "syntax error"),
    ] {
        let reply = guest.bash(command);
        let text = text_of(&reply.content);
        assert!(reply.is_error && text.contains(words), "{command}: {text}");
    }
    check_bash(&mut guest, "echo alive", false, "alive");
    assert!(guest.err("bash", json!({"command": "echo \u{0}"})).contains("NUL"));
    assert!(guest.err("bash", json!({})).contains("`command` is missing"));
}

#[test]
fn a_shell_that_ends_is_replaced_where_it_was() {
    let mut guest = Guest::new();
    check_bash(&mut guest, "mkdir d; cd d; X=1", false, "(no output)");
    let text = guest.err("bash", json!({"command": "set -e; false; echo no"}));
    assert!(
        text.starts_with("[exit code 1; the shell itself ended") && text.contains("/w/d"),
        "{text}"
    );
    check_bash(&mut guest, "basename $PWD; echo \"[$X]\"", false, "d\n[]");
    let text = guest.err("bash", json!({"command": "echo bye; exit 3"}));
    assert!(text.starts_with("bye\n[exit code 3; the shell"), "{text}");
    let text = guest.ok("bash", json!({"command": "exec true"}));
    assert!(text.contains("the shell itself ended"), "{text}");
    check_bash(&mut guest, "exec 2>&1; echo on", false, "on");
}

#[test]
fn a_late_command_dies_with_its_tree_and_the_shell_stays() {
    let mut guest = Guest::new();
    check_bash(&mut guest, "X=kept", false, "(no output)");
    for command in [
        "sleep 131; echo no > ran",
        "while :; do :; done; echo no > ran",
        "for i in 1 2 3; do sleep 131; echo no > ran; done",
        "sleep 131 | cat; echo no > ran",
        "f() { sleep 131; echo no > ran; }; f; echo no > ran",
        "bash -c 'trap \"\" INT TERM URG; sleep 131; sleep 131'; echo no > ran",
        "(setsid sleep 131 & sleep 131); echo no > ran",
        "sleep 131 & wait; echo no > ran",
    ] {
        let text = guest.err("bash", json!({"command": command, "timeout_ms": 150}));
        assert!(
            text.contains("timed out after 150 ms") && text.contains("the shell is kept"),
            "{command}: {text}"
        );
        check_bash(&mut guest, "echo $X", false, "kept");
        assert!(!guest.path("ran").exists(), "{command} went on");
    }
    let text = guest.err("bash", json!({"command": "mkfifo p; read x < p", "timeout_ms": 100}));
    assert!(text.contains("timed out"), "{text}");
    check_bash(&mut guest, "echo alive", false, "alive");
    let left = "ps -e -o args= | grep -c '^sleep 131$'";
    check_bash(&mut guest, left, true, "0\n[exit code 1]");
}

#[test]
fn a_background_job_holds_no_call_and_is_heard_later() {
    let mut guest = Guest::new();
    let text = guest.ok(
        "bash",
        json!({"command": "(while [ ! -e go ]; do sleep 0.01; done; echo late; touch done) &"}),
    );
    assert!(text.starts_with('['), "the job's number: {text}");
    let text =
        guest.ok("bash", json!({"command": "touch go; while [ ! -e done ]; do sleep 0.01; done"}));
    assert!(text.contains("late"), "{text}");
    guest.ok("bash", json!({"command": "rm go; (while [ ! -e go ]; do sleep 0.01; done; yes | head -c 300000; touch over) > /dev/stdout &"}));
    guest.put("go", "");
    // The job can only end if somebody empties the pipe between the calls.
    let over = guest.path("over");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !over.exists() {
        assert!(std::time::Instant::now() < deadline, "the background job is stuck");
        std::thread::yield_now();
    }
    let text = guest.ok("bash", json!({"command": "echo now"}));
    assert!(
        text.starts_with("[output of background jobs since the last command]")
            && text.ends_with("now"),
        "{text}"
    );
}

#[test]
fn output_without_end_is_bounded_and_the_whole_of_a_long_one_is_in_a_file() {
    let mut guest = Guest::new();
    let text = guest.ok("bash", json!({"command": "seq 1 200000"}));
    assert!(text.chars().count() < TOOL_OUTPUT_CHARS, "{}", text.len());
    assert!(text.starts_with("1\n2\n") && text.ends_with("199999\n200000"));
    let path = text.split("all of it is in ").nth(1).unwrap().split(';').next().unwrap();
    let whole = std::fs::read_to_string(path).unwrap();
    assert_eq!(whole, (1..=200_000).map(|n| format!("{n}\n")).collect::<String>());
    let text = guest.err("bash", json!({"command": "yes", "timeout_ms": 300}));
    assert!(text.contains("timed out") && text.len() < 2 * TOOL_OUTPUT_CHARS, "{}", text.len());
}

#[test]
fn calls_run_beside_each_other_and_can_be_cancelled() {
    let mut guest = Guest::new();
    guest.put("a.txt", "hello\n");
    let slow = guest.send("bash", json!({"command": "sleep 100"}));
    assert_eq!(guest.ok("read", json!({"file_path": "a.txt"})), "hello\n");
    write_frame(&mut guest.socket, &ToGuest::Cancel { id: slow }).unwrap();
    let (id, reply) = guest.receive();
    assert_eq!(id, slow);
    assert!(reply.is_error && text_of(&reply.content).contains("cancelled"), "{reply:?}");
    check_bash(&mut guest, "echo on", false, "on");
}

#[test]
fn wrong_inputs_are_answered_with_the_field_and_what_it_must_be() {
    let mut guest = Guest::new();
    guest.put("f", "x");
    for (tool, input, words) in [
        ("bash", json!({"command": 5}), "`command`"),
        ("bash", json!({"command": "x", "timeout_ms": "soon"}), "`timeout_ms`"),
        ("bash", json!({"comand": "x"}), "comand"),
        ("read", json!({}), "file_path"),
        ("read", json!({"file_path": ["a"]}), "`file_path`"),
        ("read", json!({"file_path": "f", "view_range": [1]}), "`view_range`"),
        ("read", json!({"file_path": "f", "view_range": "1-2"}), "[first, last]"),
        ("write", json!({"file_path": "f"}), "content"),
        (
            "edit",
            json!({"file_path": "f", "old_string": "x", "new_string": "y", "replace_all": "maybe"}),
            "`replace_all`",
        ),
        ("grep", json!({"pattern": "x", "output_mode": "all"}), "`output_mode`"),
        ("grep", json!({"pattern": "x", "context": -1}), "`context`"),
        ("glob", json!({"pattern": 1}), "`pattern`"),
        ("nope", json!({}), "There is no tool `nope`"),
    ] {
        let text = guest.err(tool, input.clone());
        assert!(text.contains(words), "{tool} {input}: {text}");
    }
    // What models commonly write is understood.
    guest.ok("read", json!({"path": "f", "view_range": ["1", "-1"]}));
    guest.ok("bash", json!({"command": "true", "timeout": "1000", "restart": "false"}));
    guest.ok("read", json!({"file_path": "f", "view_range": null}));
}

#[test]
fn read_shows_text_and_refuses_the_rest_in_words() {
    let mut guest = Guest::new();
    guest
        .put("t", "one\ntwo\nthree")
        .put("empty", "")
        .put("bin", b"\x7fELF\0\0")
        .put("data", b"\x00\x01\x02");
    guest
        .put("utf16", b"\xff\xfeh\x00i\x00")
        .put("latin1", b"caf\xe9 ol\xe9, all the rest is plain text");
    guest.put("long", format!("{}\nshort\n", "x".repeat(5000)));
    for (input, expected) in [
        (json!({"file_path": "t"}), "one\ntwo\nthree"),
        (json!({"file_path": "t", "view_range": [2, 2]}), "two\n"),
        (json!({"file_path": "t", "view_range": [2, -1]}), "two\nthree"),
        (json!({"file_path": "t", "view_range": [2, 99]}), "two\nthree"),
        (json!({"file_path": "empty"}), "(the file is empty)"),
        (json!({"file_path": "utf16"}), "hi\n[the file is UTF-16 LE; edit keeps it so]"),
    ] {
        assert_eq!(guest.ok("read", input.clone()), expected, "{input}");
    }
    assert!(guest.ok("read", json!({"file_path": "latin1"})).starts_with("café olé"));
    let long = guest.ok("read", json!({"file_path": "long"}));
    assert!(
        long.contains("… [3000 more bytes]\nshort\n") && long.contains("1 lines are longer"),
        "{}",
        &long[2000..]
    );
    guest.bash("mkfifo fifo; ln -s t link; mkdir dir");
    assert_eq!(guest.ok("read", json!({"file_path": "link"})), "one\ntwo\nthree");
    for (path, words) in [
        ("gone", "does not exist"),
        ("dir", "is a directory. Use glob"),
        ("bin", "an ELF program"),
        ("data", "a binary file"),
        ("fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("t/x", "a part of the path is a file"),
        ("", "file_path is empty"),
    ] {
        let text = guest.err("read", json!({ "file_path": path }));
        assert!(text.contains(words), "{path}: {text}");
    }
    let text = guest.err("read", json!({"file_path": "t", "view_range": [9, 10]}));
    assert!(text.contains("the file has 3 lines"), "{text}");
}

#[test]
fn pictures_and_documents_come_as_blocks() {
    let mut guest = Guest::new();
    let pdf = include_bytes!("../../../tests/pdf/table.pdf");
    guest.put("p.png", b"\x89PNG\r\n\x1a\nrest").put("d.pdf", pdf).put("b.pdf", b"%PDF-1.7 rest");
    let image = guest.call("read", json!({"file_path": "p.png"}));
    assert!(matches!(&image.content[..], [ContentBlock::Image { .. }]), "{image:?}");
    let document = guest.call("read", json!({"file_path": "d.pdf"}));
    assert!(matches!(&document.content[..], [ContentBlock::Document { .. }]), "{document:?}");
    assert!(
        guest
            .err("read", json!({"file_path": "p.png", "view_range": [1, 2]}))
            .contains("view_range")
    );
    // A provider would refuse it, and every later request with it.
    let text = guest.err("read", json!({"file_path": "b.pdf"}));
    assert!(
        text.ends_with("b.pdf cannot be read as a PDF: it is broken: no page can be found in it."),
        "{text}"
    );
}

#[test]
fn a_pdf_is_text_where_it_cannot_be_a_block() {
    /// A file of so many pages, each of which says its number.
    fn pages(count: usize) -> String {
        let mut file = "%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n".to_owned();
        let kids: String = (0..count).map(|n| format!("{} 0 R ", 10 + 2 * n)).collect();
        file +=
            &format!("2 0 obj<</Type/Pages/Kids[{kids}]/Resources<</Font<</F 3 0 R>>>>>>endobj\n");
        file += "3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n";
        for n in 0..count {
            let program = format!("BT /F 12 Tf 72 700 Td (This is {n}.) Tj ET");
            file +=
                &format!("{} 0 obj<</Type/Page/Contents {} 0 R>>endobj\n", 10 + 2 * n, 11 + 2 * n);
            file += &format!("{} 0 obj<<>>stream\n{program}\nendstream endobj\n", 11 + 2 * n);
        }
        file + "trailer<</Root 1 0 R>>"
    }
    let mut guest = Guest::new();
    guest.put("one.pdf", pages(1)).put("many.pdf", pages(DOCUMENT_PAGES + 1));
    guest.put("fits.pdf", pages(DOCUMENT_PAGES)).put("none.pdf", pages(1).replace("Tj", "xx"));
    let is_block = |reply: ToolReply| matches!(reply.content[..], [ContentBlock::Document { .. }]);
    assert!(is_block(guest.call("read", json!({"file_path": "fits.pdf"}))));
    let text = guest.ok("read", json!({"file_path": "many.pdf"}));
    assert!(text.starts_with("[page 1]\nThis is 0.\n\n[page 2]\n"), "{text}");
    assert!(
        text.contains("a PDF of 101 pages") && text.contains("too large to be shown"),
        "{text}"
    );
    guest.takes_documents = false;
    assert_eq!(guest.ok("read", json!({"file_path": "one.pdf"})), "This is 0.");
    let text = guest.err("read", json!({"file_path": "none.pdf"}));
    assert!(text.contains("a PDF of 1 pages in which there is no text"), "{text}");
    let page = json!({
        "url": "http://a.example/one.pdf", "content_type": "application/pdf", "data": STANDARD.encode(pages(3)),
        "is_cut": true, "max_content_tokens": 5,
    });
    let text = guest.ok("web_fetch", page);
    assert!(text.starts_with("http://a.example/one.pdf\n\n[page 1]\nThis is 0."), "{text}");
    assert!(text.contains("cut at 20 of") && text.contains("only the page's first"), "{text}");
}

#[test]
fn write_replaces_whole_and_keeps_mode_and_links() {
    let mut guest = Guest::new();
    let path = guest.path("new/dir/f").display().to_string();
    assert_eq!(
        guest.ok("write", json!({"file_path": "new/dir/f", "content": "abc"})),
        format!("wrote 3 bytes to {path}")
    );
    guest.put("run.sh", "old").bash_mode("run.sh", 0o750);
    guest.ok("write", json!({"file_path": "run.sh", "content": "new"}));
    assert_eq!(guest.path("run.sh").metadata().unwrap().permissions().mode() & 0o7777, 0o750);
    std::os::unix::fs::symlink("run.sh", guest.path("link")).unwrap();
    guest.ok("write", json!({"file_path": "link", "content": "through"}));
    assert!(guest.path("link").is_symlink());
    assert_eq!(guest.get("run.sh"), b"through");
    assert!(
        guest.err("write", json!({"file_path": "new", "content": ""})).contains("is a directory")
    );
    assert!(
        guest.err("write", json!({"file_path": "x/", "content": ""})).contains("names a directory")
    );
    assert!(
        guest
            .err("write", json!({"file_path": "run.sh/x", "content": ""}))
            .contains("a part of the path is a file")
    );
    let names = std::fs::read_dir(guest.path(""))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains(".tmp")), "a temporary file is left");
}

impl Guest {
    fn bash_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[track_caller]
fn check_edit(before: &[u8], old: &str, new: &str, all: bool, expected: Result<&[u8], &str>) {
    let mut guest = Guest::new();
    guest.put("f", before);
    let input = json!({"file_path": "f", "old_string": old, "new_string": new, "replace_all": all});
    let reply = guest.call("edit", input);
    let text = text_of(&reply.content);
    match expected {
        Ok(after) => {
            assert!(!reply.is_error, "{text}");
            assert_eq!(String::from_utf8_lossy(&guest.get("f")), String::from_utf8_lossy(after));
        }
        Err(words) => {
            assert!(reply.is_error && text.contains(words), "{text}");
            assert_eq!(guest.get("f"), before, "a refused edit changes nothing");
        }
    }
}

#[test]
fn edit_changes_one_place_and_nothing_else() {
    check_edit(b"a b c", "b", "x", false, Ok(b"a x c"));
    check_edit(b"a a", "a", "b", true, Ok(b"b b"));
    check_edit(b"a\nb\na\n", "a", "x", false, Err("matches 2 times, at lines 1, 3"));
    check_edit(b"one\r\ntwo\r\nthree\r\n", "two\nthree", "2\n3", false, Ok(b"one\r\n2\r\n3\r\n"));
    check_edit(b"one\r\ntwo\r\n", "two", "a\nb", false, Ok(b"one\r\na\r\nb\r\n"));
    check_edit(b"\xef\xbb\xbfx y", "y", "z", false, Ok(b"\xef\xbb\xbfx z"));
    check_edit(b"\xff\xfeh\x00i\x00", "hi", "ho", false, Ok(b"\xff\xfeh\x00o\x00"));
    check_edit(
        b"caf\xe9 and the rest of the text",
        "rest",
        "end",
        false,
        Ok(b"caf\xe9 and the end of the text"),
    );
    check_edit(
        b"caf\xe9 and the rest of the text",
        "rest",
        "\u{4e2d}",
        false,
        Err("lacks a character"),
    );
    check_edit(b"x", "", "y", false, Err("old_string is empty"));
    check_edit(b"x", "x", "x", false, Err("the same"));
    check_edit(
        b"fn main() {\n    let x = 1;\n}\n",
        "let  x = 1;",
        "",
        false,
        Err("     2      let x = 1;"),
    );
    check_edit(
        b"fn main() {}\n",
        "completely different words",
        "",
        false,
        Err("nor anything like it"),
    );
    check_edit(b"\0\0", "a", "b", false, Err("cannot be edited"));
}

#[test]
fn edit_refuses_a_file_that_changed_since_it_was_read() {
    let mut guest = Guest::new();
    guest.put("f", "one two");
    // One that was never read is taken as it is.
    guest.ok("edit", json!({"file_path": "f", "old_string": "one", "new_string": "1"}));
    guest.ok("edit", json!({"file_path": "f", "old_string": "1", "new_string": "one"}));
    guest.bash("echo more >> f");
    let input = json!({"file_path": "f", "old_string": "two", "new_string": "2"});
    assert!(guest.err("edit", input.clone()).contains("Read it again"));
    guest.ok("read", json!({"file_path": "f"}));
    guest.ok("edit", input);
    assert_eq!(guest.get("f"), b"one 2more\n");
}

#[test]
fn glob_lists_the_newest_first_and_leaves_out_what_git_ignores() {
    let mut guest = Guest::new();
    guest.put("src/a.rs", "").put("src/deep/b.rs", "").put("c.txt", "").put(".hidden.rs", "");
    guest.put(".gitignore", "target/\n").put("target/t.rs", "").put(".git/x.rs", "");
    guest.bash("touch -d '2020-01-01' src/a.rs .hidden.rs; touch -d '2021-01-01' src/deep/b.rs");
    let root = format!("{}/", guest.path("").display().to_string().trim_end_matches('/'));
    let mut list = |input: Value| guest.ok("glob", input).replace(&root, "");
    assert_eq!(list(json!({"pattern": "**/*.rs"})), "src/deep/b.rs\n.hidden.rs\nsrc/a.rs");
    assert_eq!(list(json!({"pattern": "*.rs", "path": "src"})), "src/deep/b.rs\nsrc/a.rs");
    assert_eq!(list(json!({"pattern": "src/*.rs"})), "src/a.rs");
    assert_eq!(list(json!({"pattern": "*.{txt,md}"})), "c.txt");
    assert_eq!(list(json!({"pattern": "*.nope"})), "no matches");
    assert!(list(json!({"pattern": "*.rs", "include_ignored": true})).contains("target/t.rs"));
    for (pattern, words) in [
        ("/etc/*", "must be relative"),
        ("../*", "without `..`"),
        ("[", "not a glob"),
        ("", "empty"),
    ] {
        let text = guest.err("glob", json!({ "pattern": pattern }));
        assert!(text.contains(words), "{pattern}: {text}");
    }
    assert!(guest.err("glob", json!({"pattern": "*", "path": "gone"})).contains("does not exist"));
    guest.bash(&format!("mkdir many; cd many; touch $(seq 1 {})", GLOB_RESULTS + 5));
    let text = guest.ok("glob", json!({"pattern": "many/*"}));
    assert_eq!(text.lines().count(), GLOB_RESULTS + 1);
    assert!(text.contains("[205 files match"), "{text}");
}

#[test]
fn grep_finds_lines_in_the_manner_of_ripgrep() {
    let mut guest = Guest::new();
    guest
        .put("a.rs", "one\nTwo fn x()\nthree\nfour\n")
        .put("b.txt", "fn y\nfn z\n")
        .put("bin", b"fn \0");
    guest.put(".gitignore", "c.rs\n").put("c.rs", "fn ignored\n");
    let mut grep = |input: Value| guest.ok("grep", input);
    assert_eq!(grep(json!({"pattern": "fn \\w"})), "a.rs:2:Two fn x()\nb.txt:1:fn y\nb.txt:2:fn z");
    assert_eq!(grep(json!({"pattern": "fn", "glob": "*.rs"})), "a.rs:2:Two fn x()");
    assert_eq!(grep(json!({"pattern": "fn", "type": "rust"})), "a.rs:2:Two fn x()");
    assert_eq!(grep(json!({"pattern": "fn", "path": "b.txt"})), "b.txt:1:fn y\nb.txt:2:fn z");
    assert_eq!(
        grep(
            json!({"pattern": "two", "case_insensitive": true, "output_mode": "files_with_matches"})
        ),
        "a.rs"
    );
    assert_eq!(grep(json!({"pattern": "fn", "output_mode": "count"})), "a.rs:1\nb.txt:2");
    assert_eq!(
        grep(json!({"pattern": "Two", "context": 1})),
        "a.rs-1-one\na.rs:2:Two fn x()\na.rs-3-three"
    );
    assert_eq!(
        grep(json!({"pattern": "x\\(\\)\\nthree", "multiline": true})),
        "a.rs:2:Two fn x()\na.rs:3:three"
    );
    assert_eq!(
        grep(json!({"pattern": "fn", "head_limit": 1})),
        "a.rs:2:Two fn x()\n[2 more lines]"
    );
    assert_eq!(grep(json!({"pattern": "nowhere"})), "no matches");
    assert!(grep(json!({"pattern": "fn", "include_ignored": true})).contains("c.rs:1:fn ignored"));
    for (input, words) in [
        (json!({"pattern": "("}), "not a regular expression"),
        (json!({"pattern": ""}), "pattern is empty"),
        (json!({"pattern": "x", "type": "klingon"}), "not a type"),
        (json!({"pattern": "x", "glob": "["}), "not a glob"),
        (json!({"pattern": "x", "path": "gone"}), "does not exist"),
    ] {
        let text = guest.err("grep", input.clone());
        assert!(text.contains(words), "{input}: {text}");
    }
}

#[test]
fn a_host_that_speaks_nonsense_ends_the_guest() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let context = GuestContext {
        workspace: "/".into(),
        home: "/".into(),
        spool: "/tmp".into(),
        env: Vec::new(),
        bounds: crate::sandbox::Bounds::default(),
    };
    let thread = std::thread::spawn(move || serve(theirs, &context));
    std::io::Write::write_all(&mut ours, b"\x05\0\0\0xxxxx").unwrap();
    assert_eq!(thread.join().unwrap(), 1);
    assert!(Path::new("/").exists());
}

proptest! {
    #[test]
    fn an_edit_keeps_everything_around_its_match(before in "[a-z\n\r]{0,40}", after in "[a-z\n\r]{0,40}", new in "[A-Z\n]{1,9}") {
        let text = format!("{before}#mark#{after}");
        let (edited, count) = edit::replace(&text, "#mark#", &new, false).unwrap();
        prop_assert_eq!(count, 1);
        prop_assert!(edited.starts_with(&before) && edited.ends_with(&after));
        let middle = &edited[before.len()..edited.len() - after.len()];
        prop_assert_eq!(middle.replace('\r', ""), new);
    }

    #[test]
    fn output_is_bounded_whatever_it_is(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70_000), 0..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = super::output::Spool::new(dir.path());
        pieces.iter().for_each(|piece| spool.push(piece));
        let text = spool.finish();
        prop_assert!(text.chars().count() <= TOOL_OUTPUT_CHARS);
    }
}
