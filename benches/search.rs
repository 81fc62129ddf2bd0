//! The search tools in a warm sandbox, beside the programs that people search with: `grep` and ripgrep, `glob` and fd.
//!
//! `cargo bench --bench search`. Both walk the same tree of 100,000 files in 1,000 directories, which the kernel has in
//! memory, with hidden files and without `.git`. A program that is not installed is left out, with its tool.
//!
//! On two busy cores, run before everything else (`chrt -f 10`), medians of the ratios as root:
//!
//! | | tool / peer | peer |
//! |---|---|---|
//! | grep, a word | 0.92 | rg 13: 551 ms |
//! | grep, a regular expression in any case | 0.70 | rg 13: 747 ms |
//! | grep, the files with a word, which is in all of them | 1.14 | rg 13: 556 ms |
//! | glob, 20 files of 100,000 | 0.50 | fd 8.6: 138 ms |
//! | glob, nearly all: it looks at each for the newest, fd does not | 1.88 | fd 8.6: 149 ms |

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use casemate::environment::Environment;
use casemate::sandbox::wire::ToolCall;
use casemate::sandbox::{Guest, plan_for};
use casemate::tool::inside;
use serde_json::{Value, json};
use support::{AnyError, Contestant, Effort, compare};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const DIRECTORIES: usize = 1000;
const FILES_IN_EACH: usize = 100;
/// One file in so many has the line that is looked for, and is of the kind that is looked for.
const RARE: usize = 5000;
const LINES: usize = 16;

fn main() -> Result<ExitCode, AnyError> {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return Ok(code);
    }
    let effort = Effort::of(8, 3);
    let workspace = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let root = workspace.path();
    grow(root, if effort.calls == 2 { 10 } else { DIRECTORIES })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guest =
        runtime.block_on(Guest::launch(&plan_for(&Environment::new(root.to_owned()), None)?))?;
    let sandbox = Sandbox { runtime: &runtime, guest: &guest };
    let hidden = ["--hidden", "--no-require-git", "--glob", "!.git"];
    let searches: [(&str, &[&str], Value); 3] = [
        ("a word", &["needle"], json!({"pattern": "needle"})),
        (
            "a regular expression, any case",
            &["--ignore-case", r"n[aeiou]+dle\s+\d{4}"],
            json!({"pattern": r"n[aeiou]+dle\s+\d{4}", "case_insensitive": true}),
        ),
        (
            "files with a word",
            &["--files-with-matches", "value"],
            json!({"pattern": "value", "output_mode": "files_with_matches"}),
        ),
    ];
    for (title, words, input) in &searches {
        let mut peer = Command::new("rg");
        peer.args(hidden).arg("--line-number").args(*words).arg(root);
        let ours = sandbox.calls("guest: grep", effort.calls, "grep", input);
        beside(title, effort, ("rg", peer), ours)?;
    }
    let mut peer = Command::new("fdfind");
    peer.args(["--hidden", "--exclude", ".git", "--glob", "*.rare"]).arg(root);
    let input = json!({"pattern": "*.rare"});
    let ours = sandbox.calls("guest: glob", effort.calls, "glob", &input);
    beside("files by name", effort, ("fd", peer), ours)?;
    let mut peer = Command::new("fdfind");
    peer.args(["--hidden", "--exclude", ".git", "--glob", "*.txt"]).arg(root);
    let input = json!({"pattern": "*.txt"});
    let ours = sandbox.calls("guest: glob, the newest of all", effort.calls, "glob", &input);
    beside("nearly all files", effort, ("fd", peer), ours)?;
    Ok(ExitCode::SUCCESS)
}

/// Compares a tool with its peer, if that is installed.
fn beside(
    title: &str,
    effort: Effort,
    (name, mut peer): (&str, Command),
    ours: Contestant<'_>,
) -> Result<(), AnyError> {
    peer.stdin(Stdio::null()).stdout(Stdio::null());
    if Command::new(peer.get_program()).arg("--version").output().is_err() {
        writeln!(std::io::stdout(), "{name} is not installed: {title} is not measured")?;
        return Ok(());
    }
    let theirs = Contestant::timed(name, effort.calls, || match peer.status()?.success() {
        true => Ok(()),
        false => Err(format!("{peer:?} found nothing").into()),
    });
    compare(title, effort.rounds, vec![theirs, ours])
}

/// Files of a kilobyte, most of them alike.
fn grow(root: &Path, directories: usize) -> Result<(), AnyError> {
    let line = "let value = compute(left, right); // what a line of a program is like\n";
    let common = line.repeat(LINES);
    let rare = format!("{common}the needle 2026 is here\n");
    for directory in 0..directories {
        let path = root.join(format!("part{}/module{directory}", directory % 10));
        std::fs::create_dir_all(&path)?;
        for file in 0..FILES_IN_EACH {
            let is_rare = (directory * FILES_IN_EACH + file).is_multiple_of(RARE);
            let (kind, text) = if is_rare { ("rare", &rare) } else { ("txt", &common) };
            let mut file = std::fs::File::create_new(path.join(format!("file{file}.{kind}")))?;
            file.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

struct Sandbox<'a> {
    runtime: &'a Runtime,
    guest: &'a Guest,
}

impl<'a> Sandbox<'a> {
    fn calls(&self, name: &'a str, calls: usize, tool: &str, input: &Value) -> Contestant<'a> {
        let input = input.as_object().cloned().unwrap_or_default();
        let call = ToolCall::of_host(tool, input);
        let (runtime, guest) = (self.runtime, self.guest);
        Contestant::timed(name, calls, move || {
            let reply = runtime.block_on(guest.call(call.clone(), &CancellationToken::new()))?;
            let text = casemate::event::text_of(&reply.content);
            match reply.is_error || text == "no matches" {
                true => Err(format!("{}: {text}", call.name).into()),
                false => Ok(()),
            }
        })
    }
}
