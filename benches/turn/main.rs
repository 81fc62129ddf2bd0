//! What a turn costs besides the model: from the last byte of an answer to the next request, with the calls of the answer
//! run in the sandbox and every event synced in between. Then the start of the program, its growth, its memory and size.
//!
//! `cargo bench --bench turn`, or with the name of one table: `-- shell`, `file`, `batch`, `start`, `growth`, `size`.
//! The floor is a program that commits twice per call to SQLite with `synchronous=FULL` and does nothing else that it
//! could leave out (`floor.rs`); both are processes of their own with a fresh database on the disk of the target
//! directory, and ask the same server in this process over loopback.

mod floor;
mod model;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use model::{Model, Seen, Task, Work};
use support::{AnyError, Contestant, Effort, compare, load, median, micros};

const FILE_BYTES: usize = 8 * 1024;
const FILES: [&str; 2] = ["one.txt", "two.txt"];
/// Calls before the first that counts: the first of a session may wait for its sandbox, and starts the shell.
const WARM_UP: usize = 2;

fn main() -> Result<ExitCode, AnyError> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, address, database] = &args[..]
        && mode == floor::FLOOR
    {
        floor::run(address, database)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bench = Bench::new()?;
    let wanted: Vec<_> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let tables: [(&str, Table); 6] = [
        ("shell", Bench::shell),
        ("file", Bench::file),
        ("batch", Bench::batch),
        ("start", Bench::start),
        ("growth", Bench::growth),
        ("size", Bench::size),
    ];
    for (name, table) in tables {
        if wanted.is_empty() || wanted.iter().any(|word| *word == name) {
            table(&bench)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Table = fn(&Bench) -> Result<(), AnyError>;

/// Who is measured.
#[derive(Clone, Copy)]
enum Who {
    Floor,
    Casemate,
}

struct Bench {
    dir: tempfile::TempDir,
    model: Model,
}

impl Bench {
    fn new() -> Result<Self, AnyError> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        std::fs::create_dir(dir.path().join("work"))?;
        let text = format!("{}\n", "x".repeat(63)).repeat(FILE_BYTES / 64);
        for name in FILES {
            let mut file = std::fs::File::create_new(dir.path().join("work").join(name))?;
            file.write_all(text.as_bytes())?;
        }
        Ok(Self { dir, model: Model::start()? })
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn read(&self) -> Work {
        Work::Read(FILES.map(|name| self.work().join(name).display().to_string()))
    }

    /// Lets one process do a task, in a home where nothing is unless it was there before; when it was started, and what
    /// the model saw of it.
    fn run(&self, who: Who, task: Task, home: &Path) -> Result<(Instant, Seen), AnyError> {
        let answers = task.answers;
        let requests = answers + 1;
        let mut command = match who {
            Who::Floor => {
                let mut command = Command::new("/proc/self/exe");
                command.arg(floor::FLOOR).arg(self.model.address.to_string());
                command.arg(home.join("floor.db"));
                command
            }
            Who::Casemate => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
                command.args(["run", "--model", "anthropic/bench", "--max-turns"]);
                command.arg(requests.to_string()).arg("do it");
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", home)
            .env("ANTHROPIC_API_KEY", "none")
            .env("ANTHROPIC_BASE_URL", format!("http://{}", self.model.address))
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.model.expect(task);
        let started = Instant::now();
        let mut child = command.spawn()?;
        self.model.client(child.id());
        let status = child.wait()?;
        let seen = self.model.seen();
        if !status.success() || seen.gaps.len() != answers {
            return Err(
                format!("{command:?}: {status} after {} requests", seen.gaps.len() + 1).into()
            );
        }
        Ok((started, seen))
    }

    /// The same, in an empty home that is gone afterwards.
    fn run_afresh(&self, who: Who, task: Task) -> Result<(Instant, Seen), AnyError> {
        let home = tempfile::tempdir_in(self.dir.path())?;
        self.run(who, task, home.path())
    }

    /// One process per round, the gaps between its requests.
    fn gaps<'a>(&'a self, name: &'a str, who: Who, task: Task) -> Contestant<'a> {
        Contestant::new(name, move || {
            let (_, seen) = self.run_afresh(who, task.clone())?;
            Ok(seen.gaps[WARM_UP..].to_vec())
        })
    }

    fn task(calls: usize, work: Work) -> (usize, Task) {
        let Effort { rounds, calls: answers } = Effort::of(11, 30);
        (rounds, Task { answers: answers + WARM_UP, calls, work })
    }

    fn shell(&self) -> Result<(), AnyError> {
        let (rounds, task) = Self::task(1, Work::True);
        let contestants = vec![
            self.gaps("floor: two commits and a lasting bash", Who::Floor, task.clone()),
            self.gaps("casemate", Who::Casemate, task),
        ];
        compare("a turn around `bash true`", rounds, contestants)
    }

    fn file(&self) -> Result<(), AnyError> {
        let (rounds, task) = Self::task(1, self.read());
        let contestants = vec![
            self.gaps("floor: two commits and a read", Who::Floor, task.clone()),
            self.gaps("casemate", Who::Casemate, task),
        ];
        compare("a turn around `read` of 8 KiB", rounds, contestants)
    }

    fn batch(&self) -> Result<(), AnyError> {
        let (rounds, one) = Self::task(1, self.read());
        let eight = Task { calls: 8, ..one.clone() };
        let contestants = vec![
            self.gaps("casemate, one call", Who::Casemate, one),
            self.gaps("casemate, eight calls in one answer", Who::Casemate, eight.clone()),
            self.gaps("floor, eight calls one after another", Who::Floor, eight),
        ];
        compare("a turn around `read` of 8 KiB", rounds, contestants)
    }

    fn start(&self) -> Result<(), AnyError> {
        let Effort { rounds, calls } = Effort::of(11, 8);
        let nothing = Task { answers: 0, calls: 0, work: Work::True };
        let first = |who, home: &Path| {
            let (started, seen) = self.run(who, nothing.clone(), home)?;
            Ok::<_, AnyError>(seen.first.ok_or("no request came")? - started)
        };
        let afresh = |who| {
            let home = tempfile::tempdir_in(self.dir.path())?;
            first(who, home.path())
        };
        let lasting = tempfile::tempdir_in(self.dir.path())?;
        let contestants = vec![
            Contestant::new("floor, empty home", || {
                (0..calls).map(|_| afresh(Who::Floor)).collect()
            }),
            Contestant::new("casemate, empty home", || {
                (0..calls).map(|_| afresh(Who::Casemate)).collect()
            }),
            Contestant::new("casemate, a store that is there", || {
                (0..calls).map(|_| first(Who::Casemate, lasting.path())).collect()
            }),
            Contestant::timed("casemate --version, until it has ended", calls, || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
                Ok(command.arg("--version").output().map(drop)?)
            }),
        ];
        compare("from exec to the first request", rounds, contestants)
    }

    /// One long session each: what a call costs at its end, beside its beginning.
    fn growth(&self) -> Result<(), AnyError> {
        const SAMPLE: usize = 20;
        let Effort { calls: answers, .. } = Effort::of(1, 1000);
        let task = Task { answers: answers.max(2 * SAMPLE), calls: 1, work: Work::True };
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\n{:<44} | early us | late us |     ratio | session s   [{}]",
            format!("call {} after call 10", task.answers),
            load()
        )?;
        for (name, who) in [("floor", Who::Floor), ("casemate", Who::Casemate)] {
            let started = Instant::now();
            let (_, seen) = self.run_afresh(who, task.clone())?;
            let took = started.elapsed();
            let late = median(seen.gaps[seen.gaps.len() - SAMPLE..].to_vec());
            let early = median(seen.gaps[WARM_UP..WARM_UP + SAMPLE].to_vec());
            let ratio = late.as_secs_f64() / early.as_secs_f64();
            writeln!(
                out,
                "{name:<44} | {:>8.0} | {:>7.0} | {ratio:>9.2} | {:>9.2}",
                micros(early),
                micros(late),
                took.as_secs_f64()
            )?;
        }
        Ok(())
    }

    fn size(&self) -> Result<(), AnyError> {
        let short = Task { answers: 10, calls: 1, work: Work::True };
        let long = Task { answers: 200, ..short.clone() };
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{:<44} | peak MB | sandbox and shell MB   [{}]", "memory", load())?;
        let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
        for task in [short, long] {
            let name = format!("casemate run, {} calls", task.answers);
            let (_, Seen { peak_kib: (own, others), .. }) = self.run_afresh(Who::Casemate, task)?;
            writeln!(out, "{name:<44} | {:>7.1} | {:>7.1}", megabytes(own), megabytes(others))?;
        }
        let bytes = std::fs::metadata(env!("CARGO_BIN_EXE_casemate"))?.len();
        writeln!(out, "\nthe program as built: {:.2} MB", bytes as f64 / 1e6)?;
        Ok(())
    }
}
