//! The start of a sandbox, beside the least that makes one, and beside bubblewrap with a similar root and the same
//! namespaces.
//!
//! `cargo bench --bench launch`, as root and as an ordinary user: root also maps the owner of the workspace, and has control
//! groups. The floor is `floor.c`, built with `cc`; without one, or without bubblewrap, that contestant is left out.
//!
//! On two cores (a virtual machine, Linux 6.18, nothing beside it, run before everything else with `chrt -f 10`), medians, and in
//! brackets the least times; the last two columns of three runs on a second machine of the same kind, whose bubblewrap takes 3.8 ms
//! where the first one's took 4.4:
//!
//! | | at first, root | with the network ahead, root | root | ordinary user | goal |
//! |---|---|---|---|---|---|
//! | launch until ready / bubblewrap | 0.89 | 0.62 (0.58) | 0.45 to 0.56 (0.32) | 0.42 to 0.43 (0.28) | 0.6 |
//! | the same / floor | 2.5 | 1.62 (1.55) | 0.94 to 1.06 (0.66) | 0.75 to 0.81 (0.57) | 1.3 |
//! | the same after a rest / floor | | | 0.74 to 0.79 (0.65) | 0.67 to 0.70 (0.62) | 1.3 |
//! | taken from those that are warm | 0.52 ms | 0.28 ms (0.20) | 0.11 ms (0.09) | 0.10 ms (0.08) | 0.1 ms |
//! | 100 at once | 359 ms | 248 ms (227) | 151 to 174 ms (138) | 147 to 152 ms (130) | 250 ms |
//! | `sandbox exec -- true` / bubblewrap | 2.9 | 2.4 | 2.5 to 2.6 | 2.6 | |
//! | a plan of 20,000 entries / their names | 18 | | 1.9 | 1.8 | |
//!
//! The first column is of a machine that was busy (load 8 to 36). One that waits takes 0.82 MB (Pss) as root and 0.42 MB as an
//! ordinary user, its share of the one that is forked ahead included. On the first machine the same program had 0.55 to 0.58 and
//! 0.47 to 0.52 of bubblewrap, 1.24 to 1.47 and 1.09 to 1.30 of the floor, 0.19 and 0.17 ms, and 242 to 268 ms.
//!
//! A launch goes through two phases of much the same length, and the first is over where a guest was forked ahead
//! (`birth.rs`): processes, namespaces and a blank root, with 15 mounts and the way out of the host's root, for which the kernel
//! waits for all processors. Where launches follow each other at once, two cores cannot keep up with that, and every other one
//! does all by itself; the least times and those after a rest are of guests that were ready. The floor runs a program too, but
//! has a fifth of the mounts.
//!
//! The goals are met on the second machine, the take's just about; on the first one, the floor's is met with a rest between
//! launches, and the last two are not, or just about. A take asks the host 75 questions about paths, as many as a launch asks;
//! of 100 at once, all but the first do everything themselves. `sandbox exec` starts this program twice, which takes 1.5 to 2.7 ms each time: 69,000 addresses are put right, which a static build has
//! packed (2.1 of bubblewrap). A workspace's entries are looked through for protected paths; each was compared with every
//! pattern at first, part by part.

#[path = "../support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use casemate::environment::{Environment, WorkspaceMode};
use casemate::sandbox::disk::Place;
use casemate::sandbox::wire::ToolCall;
use casemate::sandbox::{Guest, Plan, plan_for, prepare, settle};
use casemate::tool::inside;
use serde_json::json;
use support::{AnyError, Contestant, Effort, compare};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Long enough for all that a launch leaves behind, and for what it begins for the next.
const REST: Duration = Duration::from_millis(20);
/// How many are started at once.
const MANY: usize = 100;

fn main() -> Result<ExitCode, AnyError> {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return Ok(code);
    }
    let effort = Effort::of(11, 15);
    let workspace = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench {
        environment: Environment::new(workspace.path().to_owned()),
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    let floor = Floor::start(workspace.path())?.map(|floor| floor.contestant(effort.calls));
    let ours = bench.ours(effort.calls).into_iter().chain([bench.spare(effort.calls)?]);
    compare("a sandbox", effort.rounds, floor.into_iter().chain(ours).collect())?;
    let floor = Floor::start(workspace.path())?.map(|floor| floor.rested(effort.calls));
    let ours = [bench.rested(effort.calls)];
    compare("a sandbox after a rest", effort.rounds, floor.into_iter().chain(ours).collect())?;
    let bubblewrap = bubblewrap(workspace.path()).status().is_ok_and(|status| status.success());
    let bubblewrap = bubblewrap.then(|| {
        Contestant::timed("bwrap --unshare-all … true", effort.calls, || {
            succeed(&mut self::bubblewrap(workspace.path()))
        })
    });
    let ours = bench.ours(effort.calls).into_iter().chain([bench.command(effort.calls)]);
    compare("a sandbox", effort.rounds, bubblewrap.into_iter().chain(ours).collect())?;
    compare("many sandboxes", effort.rounds, vec![bench.many()])?;
    large_workspace(effort)?;
    bench.memory()?;
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    environment: Environment,
    runtime: Runtime,
}

impl Bench {
    fn plan(&self) -> Result<Plan, AnyError> {
        Ok(plan_for(&self.environment, None)?)
    }

    /// Sandboxes by themselves. The end of one is not waited for, as in a session.
    fn ours(&self, calls: usize) -> Vec<Contestant<'_>> {
        vec![
            Contestant::timed("casemate: plan alone", calls, || self.plan().map(drop)),
            Contestant::timed("casemate: plan and launch until ready", calls, || {
                let plan = self.plan()?;
                Ok(self.runtime.block_on(Guest::launch(&plan)).map(drop)?)
            }),
            Contestant::timed("casemate: the same, and `bash` true", calls, || {
                let plan = self.plan()?;
                self.runtime.block_on(async { run_true(&Guest::launch(&plan).await?).await })
            }),
        ]
    }

    /// The first of them where none was launched just before: the next is forked ahead by then.
    fn rested(&self, calls: usize) -> Contestant<'_> {
        after_rests("casemate: plan and launch until ready", calls, || {
            let plan = self.plan()?;
            Ok(self.runtime.block_on(Guest::launch(&plan)).map(drop)?)
        })
    }

    /// One that was brought up ahead: until it is known to be as fresh as one that is launched now.
    fn spare(&self, calls: usize) -> Result<Contestant<'_>, AnyError> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let disk = Place::of(dir.path(), "disk");
        disk.prepare(WorkspaceMode::Direct, &self.environment.workspace)?;
        let once = move || {
            let _kept = &dir;
            self.runtime.block_on(async {
                let spare = prepare(&self.environment, &disk, &[]).await?;
                let started = Instant::now();
                let guest = spare.take(&self.environment, &disk, &[]).ok_or("it is not fresh")?;
                let time = started.elapsed();
                run_true(&guest).await?;
                Ok(time)
            })
        };
        Ok(Contestant::new("casemate: taken from those that are warm", move || {
            (0..calls).map(|_| once()).collect()
        }))
    }

    /// What one costs while it waits: the share of its processes in memory (Pss), which root alone may see of a guest.
    fn memory(&self) -> Result<(), AnyError> {
        let plan = self.plan()?;
        let guests = self.runtime.block_on(async {
            let launches = (0..10).map(|_| Guest::launch(&plan));
            let guests = futures_util::future::join_all(launches).await.into_iter();
            guests.collect::<Result<Vec<_>, _>>()
        })?;
        let kib: usize = descendants().into_iter().filter_map(proportional_kib).sum();
        let mut out = std::io::stdout().lock();
        let (number, each) = (guests.len(), kib / guests.len());
        writeln!(out, "\n{number} sandboxes that wait, and their launcher: {each} KiB (Pss) each")?;
        Ok(())
    }

    fn command(&self, calls: usize) -> Contestant<'_> {
        Contestant::timed("casemate sandbox exec -- true", calls, || {
            succeed(
                Command::new(env!("CARGO_BIN_EXE_casemate"))
                    .args(["sandbox", "exec", "--workspace"])
                    .arg(&self.environment.workspace)
                    .args(["--", "true"]),
            )
        })
    }

    /// Many at once, until the last is ready. Those of the round before are gone.
    fn many(&self) -> Contestant<'_> {
        Contestant::new("casemate: 100 at once", || {
            let started = Instant::now();
            let guests = self.runtime.block_on(async {
                let plans = (0..MANY).map(|_| self.plan()).collect::<Result<Vec<_>, _>>()?;
                let launches = plans.iter().map(Guest::launch);
                let guests = futures_util::future::join_all(launches).await.into_iter();
                Ok::<_, AnyError>(guests.collect::<Result<Vec<_>, _>>()?)
            })?;
            let time = started.elapsed();
            drop(guests);
            settle();
            Ok(vec![time])
        })
    }
}

/// A plan of a workspace with as many entries as are looked at for protected paths, beside reading their names.
fn large_workspace(effort: Effort) -> Result<(), AnyError> {
    let workspace = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for directory in 0..100 {
        let directory = workspace.path().join(format!("directory-{directory}"));
        std::fs::create_dir(&directory)?;
        (0..198).try_for_each(|file| {
            std::fs::File::create(directory.join(format!("file-{file}.rs"))).map(drop)
        })?;
    }
    let environment = Environment::new(workspace.path().to_owned());
    let names = Contestant::timed("every name, read", effort.calls, || {
        for directory in std::fs::read_dir(workspace.path())? {
            for file in std::fs::read_dir(directory?.path())? {
                std::hint::black_box(file?.file_name());
            }
        }
        Ok(())
    });
    let plan = Contestant::timed("casemate: plan alone", effort.calls, || {
        Ok(plan_for(&environment, None).map(drop)?)
    });
    compare("a workspace of 20,000 entries", effort.rounds, vec![names, plan])
}

/// This process's children, and theirs.
fn descendants() -> Vec<u32> {
    let mut family = vec![std::process::id()];
    let mut at = 0;
    while let Some(pid) = family.get(at) {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    family.split_off(1)
}

fn proportional_kib(pid: u32) -> Option<usize> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

async fn run_true(guest: &Guest) -> Result<(), AnyError> {
    let input = json!({"command": "true"}).as_object().cloned().unwrap_or_default();
    let call = ToolCall::of_host("bash", input);
    let reply = guest.call(call, &CancellationToken::new()).await?;
    if reply.is_error { Err(format!("true: {:?}", reply.content).into()) } else { Ok(()) }
}

/// Something that is done now and then, and not again and again.
fn after_rests<'a>(
    name: &'static str,
    calls: usize,
    mut once: impl FnMut() -> Result<(), AnyError> + 'a,
) -> Contestant<'a> {
    let mut timed = move || {
        std::thread::sleep(REST);
        let started = Instant::now();
        once().map(|()| started.elapsed())
    };
    Contestant::new(name, move || (0..calls).map(|_| timed()).collect())
}

const FLOOR: &str = "the least that does it, and true (floor.c)";

/// The process that makes the least sandboxes; ended and reaped when dropped.
struct Floor {
    child: Child,
    ask: ChildStdin,
    answer: ChildStdout,
}

impl Floor {
    fn start(workspace: &Path) -> Result<Option<Self>, AnyError> {
        let program = workspace.with_extension("floor");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/launch/floor.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-static", "-o"]).arg(&program).arg(source);
        if !compiler.status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let mut child = Command::new(program)
            .arg(workspace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the floor has no pipes".into());
        };
        Ok(Some(Self { child, ask, answer }))
    }

    fn contestant(mut self, calls: usize) -> Contestant<'static> {
        Contestant::timed(FLOOR, calls, move || self.once())
    }

    fn rested(mut self, calls: usize) -> Contestant<'static> {
        after_rests(FLOOR, calls, move || self.once())
    }

    fn once(&mut self) -> Result<(), AnyError> {
        self.ask.write_all(&[1])?;
        Ok(self.answer.read_exact(&mut [0])?)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn succeed(command: &mut Command) -> Result<(), AnyError> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// What our default profile shows, in bubblewrap's words.
fn bubblewrap(workspace: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]);
    command.args(["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "box"]);
    for path in ["/usr", "/opt", "/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache"] {
        command.args(["--ro-bind-try", path, path]);
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        command.args(["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev"]);
    for path in ["/tmp", "/home/agent", "/run", "/var/tmp", "/dev/shm"] {
        command.args(["--tmpfs", path]);
    }
    command.arg("--bind").arg(workspace).arg(workspace).arg("--chdir").arg(workspace);
    command.args(["--remount-ro", "/", "true"]);
    command
}
