//! What a command line runs, as far as that is certain. Pure.
//!
//! A rule for `git log` must not let anything else pass, so this is no parser of the shell: it knows the few constructs in
//! which every word stands for itself, and of all others it says that it does not know. What it takes, bash reads in the
//! same way, interactive as the tool's shell is (history and aliases included); a test compares the two.
//!
//! To know one more construct: an arm in [`Reader::read`], and lines in the tests of strings that try to pass.

use crate::limits::JUDGED_COMMAND_BYTES;

/// Commands that run their arguments, or change what later words mean: a rule for their name says nothing about it.
#[rustfmt::skip]
const OPEN_ENDED: &[&str] = &[
    // Run what they are given.
    "env", "xargs", "sudo", "doas", "su", "runuser", "nice", "ionice", "nohup", "timeout", "time", "stdbuf", "setsid", "chrt",
    "taskset", "unshare", "nsenter", "chroot", "setpriv", "flock", "parallel", "watch", "strace", "ltrace", "gdb", "script",
    "entr", "busybox", "toybox", "ssh", "sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh",
    "command", "builtin", "exec", "eval", "source", ".", "coproc", "fc", "trap", "prlimit", "systemd-run", "at", "batch",
    "fakeroot", "proot", "firejail", "bwrap", "pkexec", "sg", "newgrp", "setarch", "linux64", "linux32", "faketime", "rlwrap",
    "unbuffer", "expect", "xvfb-run", "dbus-run-session", "run-parts", "start-stop-daemon", "valgrind", "perf", "screen", "tmux",
    "openvt", "catchsegv", "ld.so", "logsave", "cgexec", "numactl", "ts-node", "npx", "uvx", "pipx",
    // Look like tools for text, and have a language that runs others.
    "sed", "awk", "gawk", "mawk", "nawk", "original-awk", "ed", "ex", "vi", "vim", "nvim", "view", "emacs", "m4",
    // Change what is said later.
    "alias", "unalias", "function", "export", "declare", "typeset", "local", "readonly", "set", "unset", "shopt", "enable",
    "hash", "bind", "read", "mapfile", "readarray", "getopts", "let", "complete", "compopt", "history",
    // Words of the grammar.
    "if", "for", "while", "until", "case", "select", "[[",
];

/// Options with which a program runs others or writes where it likes; a longer word that begins so counts too.
const RUNNING_OPTIONS: &[(&str, &[&str])] = &[
    (
        "git",
        &[
            "-c",
            "--config-env",
            "--exec-path",
            "--upload-pack",
            "--receive-pack",
            "--ext-diff",
            "-O",
            "--open-files-in",
            "--output",
            "--exec",
            "-x",
            "--textconv",
        ],
    ),
    ("find", &["-exec", "-ok", "-delete", "-fprint", "-fls"]),
    ("fd", &["-x", "-X", "--exec"]),
    ("rg", &["--pre", "--hostname-bin"]),
    (
        "tar",
        &[
            "--to-command",
            "--checkpoint-action",
            "-I",
            "--use-compress",
            "-F",
            "--info-script",
            "--new-volume",
            "--rsh",
        ],
    ),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("sort", &["--compress-program", "-o", "--output"]),
    ("man", &["-P", "--pager", "-H", "--html"]),
    ("cargo", &["--config", "-Z"]),
    ("go", &["-exec", "-toolexec", "-vettool", "--exec", "--toolexec", "--vettool"]),
    ("make", &["--eval", "-E", "-f", "--file", "--makefile"]),
];

/// One command and its arguments, without quotes.
pub(super) type Part = Vec<String>;

/// A command line that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The commands, one after another or joined by pipes.
    pub(super) parts: Vec<Part>,
    /// No more is run than that.
    pub(super) is_certain: bool,
}

/// What a command line says; nothing where only the shell knows.
pub(super) fn read(line: &str) -> Option<Line> {
    if line.len() > JUDGED_COMMAND_BYTES {
        return None;
    }
    let parts = Reader::read(line)?;
    let is_certain = parts.iter().all(is_certain);
    Some(Line { parts, is_certain })
}

/// Whether a command does no more than what its name says.
fn is_certain(part: &Part) -> bool {
    let Some((name, arguments)) = part.split_first() else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+');
    if name.is_empty() || !name.chars().all(plain) || name == "." {
        return false;
    }
    let program = base_name(name);
    if OPEN_ENDED.contains(&program) {
        return false;
    }
    let options = RUNNING_OPTIONS.iter().find(|(known, _)| *known == program);
    let runs = |word: &String| {
        options.is_some_and(|(_, options)| options.iter().any(|option| word.starts_with(option)))
    };
    !arguments.iter().any(runs)
}

/// The last part of a command's name: `/bin/rm` is `rm`.
pub(super) fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[derive(Default)]
struct Reader {
    parts: Vec<Part>,
    part: Part,
    /// The word that is being read, if one has begun.
    word: Option<String>,
    /// A part of it was quoted.
    quoted: bool,
    /// A command must follow: the last operator joins it.
    joined: bool,
}

impl Reader {
    fn read(line: &str) -> Option<Vec<Part>> {
        let mut reader = Self::default();
        let mut rest = line.trim_matches([' ', '\t', '\n']);
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                ' ' | '\t' => {
                    reader.end_word();
                    after
                }
                '\n' if reader.part.is_empty() && reader.word.is_none() => after,
                '\n' => reader.end_part(false, after)?,
                ';' if after.starts_with(';') => return None,
                ';' => reader.end_part(false, after)?,
                '&' => reader.end_part(true, after.strip_prefix('&')?)?,
                '|' if after.starts_with('&') => return None,
                '|' => reader.end_part(true, after.strip_prefix('|').unwrap_or(after))?,
                '<' | '>' => reader.redirection(c, after)?,
                '\'' => {
                    let (quoted, after) = after.split_once('\'')?;
                    reader.quoted = true;
                    reader.grow(quoted)?;
                    after
                }
                '"' => {
                    let (quoted, after) = after.split_once('"')?;
                    reader.quoted = true;
                    // Within these, the shell still looks for variables, commands, escapes and history.
                    if quoted.contains(['$', '`', '\\', '!']) {
                        return None;
                    }
                    reader.grow(quoted)?;
                    after
                }
                '\\' => {
                    reader.quoted = true;
                    let escaped =
                        after.chars().next().filter(|c| c.is_ascii_graphic() || *c == ' ')?;
                    reader.grow(escaped.encode_utf8(&mut [0; 4]))?;
                    &after[1..]
                }
                // Unquoted, these stand for themselves wherever they are; others do not, or only the shell knows.
                c if c.is_ascii_alphanumeric() || "_-./,:@%+=".contains(c) => {
                    reader.grow(c.encode_utf8(&mut [0; 4]))?;
                    after
                }
                // A home only where a word begins, or after a sign: `HEAD~1` is a word.
                '~' if reader.word.as_ref().is_some_and(|w| w.ends_with(char::is_alphanumeric)) => {
                    reader.grow("~")?;
                    after
                }
                _ => return None,
            };
        }
        reader.end_word();
        if reader.part.is_empty() {
            // A trailing `;` is gone with the part that it ended; an operator that joins wants another.
            return (!reader.joined && !reader.parts.is_empty()).then_some(reader.parts);
        }
        reader.parts.push(reader.part);
        Some(reader.parts)
    }

    /// Takes more of a word.
    fn grow(&mut self, text: &str) -> Option<()> {
        if text.chars().any(char::is_control) {
            return None;
        }
        self.word.get_or_insert_default().push_str(text);
        Some(())
    }

    fn end_word(&mut self) {
        self.part.extend(self.word.take());
        self.quoted = false;
    }

    fn end_part<'r>(&mut self, joined: bool, rest: &'r str) -> Option<&'r str> {
        self.end_word();
        if self.part.is_empty() {
            return None;
        }
        self.parts.push(std::mem::take(&mut self.part));
        self.joined = joined;
        Some(rest)
    }

    /// Only where nothing is read or written: to and from the null device, or one stream into another.
    fn redirection<'r>(&mut self, sign: char, after: &'r str) -> Option<&'r str> {
        let fd = self.word.take().unwrap_or_default();
        // A quoted number is a word, and no descriptor.
        if !["", "1", "2"].contains(&&fd[..]) || self.part.is_empty() || self.quoted {
            return None;
        }
        let rest = match (sign, after.strip_prefix("&1").or(after.strip_prefix("&2"))) {
            ('>', Some(rest)) => rest,
            _ => after.trim_start_matches([' ', '\t']).strip_prefix("/dev/null")?,
        };
        (rest.is_empty() || rest.starts_with([' ', '\t', '\n', ';', '|']) || rest.starts_with("&&"))
            .then_some(rest)
    }
}

#[cfg(test)]
mod tests;
