//! What the integration tests share: the built program with a home of its own, as root or as an ordinary user.

pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod running;
pub(crate) mod story;
mod terminal;
pub(crate) mod tls;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

pub(crate) use running::{Running, until};
pub(crate) use terminal::Terminal;

/// The beginning of what the model is told about a call that a crash cut.
pub(crate) const OUTCOME_UNKNOWN: &str =
    "The runtime restarted while this call ran; its effect is unknown.";

/// A page that says "The river rose."
pub(crate) const PDF: &str = "%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
    3 0 obj<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj\n\
    4 0 obj<</Length 47>>stream\nBT /F 12 Tf 72 700 Td (The river rose.) Tj ET    \nendstream endobj\n\
    5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF";

/// An ordinary user: no name, no home of the machine's, nothing owned before.
pub(crate) const USER: u32 = 20_123;

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// Whoever runs the tests.
    Me,
    /// An ordinary user; needs root to become one.
    User,
}

impl As {
    /// Both, where the tests run as root; else the one there is. CI runs as root, so CI tests both.
    pub(crate) fn all() -> Vec<Self> {
        if nix::unistd::geteuid().is_root() {
            return vec![Self::Me, Self::User];
        }
        eprintln!("not root: the tests run as this user only");
        vec![Self::Me]
    }
}

/// A variable of the environment that the tests run in.
#[expect(
    clippy::disallowed_methods,
    reason = "what a test run is asked for is no setting of the program"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says loudly what a test lacks; where everything is demanded, that is a failure.
#[track_caller]
pub(crate) fn lacking(what: &str) {
    eprintln!("NOT TESTED: {what}");
    assert!(variable("CASEMATE_TEST_REQUIRE").as_deref() != Some("all"), "not tested: {what}");
}

/// Writes a small file for a test.
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
}

/// One installation: its own data directory, home and workspace, gone with the value.
pub(crate) struct Casemate {
    dir: tempfile::TempDir,
    who: As,
}

impl Casemate {
    pub(crate) fn new() -> Self {
        Self::of(As::Me)
    }

    pub(crate) fn of(who: As) -> Self {
        Self::below(&std::env::temp_dir(), who)
    }

    /// One that lies in that directory.
    pub(crate) fn below(place: &Path, who: As) -> Self {
        let dir = tempfile::tempdir_in(place).unwrap();
        for name in ["home", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let casemate = Self { dir, who };
        casemate.give_to_user();
        casemate
    }

    /// Makes everything in the installation belong to whoever runs the program.
    pub(crate) fn give_to_user(&self) {
        if self.who == As::User {
            std::fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).unwrap();
            let owned =
                Command::new("chown").args(["-R", "20123:20123"]).arg(self.dir.path()).status();
            assert!(owned.unwrap().success());
        }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// A file of the workspace, readable by whoever runs the program.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.workspace().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, text);
        self.give_to_user();
        path
    }

    /// A script beside the workspace, as the name of a model.
    pub(crate) fn script(&self, text: &str) -> String {
        let path = self.home().join("script.yaml");
        write(&path, text);
        self.give_to_user();
        format!("scripted:{}", path.display())
    }

    /// The program, ready to be given arguments: clean environment, no terminal, no standard input.
    pub(crate) fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_casemate"))
    }

    fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home())
            .env("CASEMATE_DATA_DIR", self.data_dir())
            .current_dir(self.workspace())
            .stdin(Stdio::null());
        if self.who == As::User {
            command.uid(USER).gid(USER);
        }
        command
    }

    pub(crate) fn run(&self, args: &[impl AsRef<OsStr>]) -> Finished {
        self.run_with(&[], args)
    }

    pub(crate) fn run_with(&self, env: &[(&str, &str)], args: &[impl AsRef<OsStr>]) -> Finished {
        let mut command = self.command();
        command.envs(env.iter().copied()).args(args);
        Running::start(command).finish()
    }

    /// Runs a shell command line, in which `"$@"` is the program with these arguments.
    pub(crate) fn shell(&self, line: &str, args: &[&str]) -> Finished {
        let mut shell = self.command_of("/bin/sh");
        shell.arg("-c").arg(line).arg("sh").arg(env!("CARGO_BIN_EXE_casemate")).args(args);
        Running::start(shell).finish()
    }

    /// Starts the program and gives it back while it runs.
    pub(crate) fn start(&self, args: &[impl AsRef<OsStr>]) -> Running {
        let mut command = self.command();
        command.args(args);
        Running::start(command)
    }

    /// Starts the program on a terminal of its own, with this in its environment.
    pub(crate) fn on_terminal(&self, env: &[(&str, &str)], args: &[impl AsRef<OsStr>]) -> Terminal {
        let mut command = self.command();
        command.env("TERM", "xterm-256color").envs(env.iter().copied()).args(args);
        Terminal::start(&command, self.who)
    }

    /// Runs the program with both vendors' APIs at `url`, and looks for the key in all it says.
    pub(crate) fn ask(&self, url: &str, args: &[&str]) -> Finished {
        let mut command = self.command();
        command.envs(model::env_for(url)).args(args);
        let finished = Running::start(command).finish();
        let said = finished.stdout() + &finished.stderr();
        assert!(!said.contains(model::KEY), "{finished:?}");
        finished
    }

    /// The whole log of the only session.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let id = self.only_session();
        self.run(&["sessions", "events", &id, "--internal"]).expect(0).json_lines()
    }

    /// The ids of all sessions, newest first.
    pub(crate) fn sessions(&self) -> Vec<String> {
        let listed = self.run(&["sessions", "list", "--json"]);
        if listed.code() != Some(0) {
            return Vec::new();
        }
        let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout()).unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn only_session(&self) -> String {
        match &self.sessions()[..] {
            [id] => id.clone(),
            other => panic!("there are {} sessions", other.len()),
        }
    }
}

/// A program that ended.
pub(crate) struct Finished(Output);

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout: {}\nstderr: {}", self.0.status, self.stdout(), self.stderr())
    }
}

impl Finished {
    pub(crate) fn of(output: Output) -> Self {
        Self(output)
    }

    /// The exit code; `None` after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn was_aborted(&self) -> bool {
        self.0.status.signal() == Some(nix::sys::signal::Signal::SIGABRT as i32)
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Demands an exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self:?}");
        self
    }

    /// Standard output as one JSON value a line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout().lines().map(parse).collect()
    }
}

/// Runs the program to its end. The kernel's own record of the peak only rises, so the last reading is the
/// peak, in KiB.
pub(crate) fn peak_until_the_end(command: &mut Command) -> (ExitStatus, u64) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(ended) = child.try_wait().unwrap() {
            return (ended, peak);
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.trim().strip_suffix(" kB")) {
            peak = kib.parse().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
