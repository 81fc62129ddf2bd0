//! What the integration tests share: the built program with a home of its own, as root or as an ordinary user.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The beginning of what the model is told about a call that a crash cut.
pub(crate) const OUTCOME_UNKNOWN: &str =
    "The runtime restarted while this call ran; its effect is unknown.";

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
        let dir = tempfile::tempdir().unwrap();
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
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
        let output = self.command().envs(env.iter().copied()).args(args).output().unwrap();
        Finished(output)
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
