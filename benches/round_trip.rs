//! A tool call from the host's side: into a resident sandbox and back, beside what carries it.
//!
//! `cargo bench --bench round_trip`. The first table compares with 200 bytes to another process and back over a socket
//! pair; the second compares the `bash` tool with what it would cost without a lasting shell.

mod support;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use casemate::environment::Environment;
use casemate::sandbox::wire::ToolCall;
use casemate::sandbox::{Guest, plan_for};
use casemate::tool::inside;
use serde_json::{Map, Value, json};
use support::{AnyError, Contestant, Effort, compare};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The argument that makes this program the other end of the floor.
const ECHO: &str = "echo-frames";
const FRAME: usize = 200;
const FILE_BYTES: usize = 8 * 1024;

fn main() -> Result<ExitCode, AnyError> {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return Ok(code);
    }
    if std::env::args().nth(1).is_some_and(|arg| arg == ECHO) {
        return echo();
    }
    let effort = Effort::of(11, 100);
    let workspace = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let file = workspace.path().join("file.txt");
    let line = format!("{}\n", "x".repeat(63));
    std::fs::File::create_new(&file)?.write_all(line.repeat(FILE_BYTES / 64).as_bytes())?;
    // As the command line has it: one thread, all of whose work is waiting.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sandbox = Sandbox::launch(&runtime, workspace.path())?;
    compare(
        "a call into the sandbox",
        effort.rounds,
        vec![
            pair(effort.calls)?,
            Contestant::timed("read(2) of 8 KiB, no sandbox", effort.calls, || {
                Ok(std::fs::read(&file).map(drop)?)
            }),
            sandbox.calls("guest: read 8 KiB", effort.calls, "read", &json!({"file_path": file})),
            sandbox.calls("guest: bash true", effort.calls, "bash", &json!({"command": "true"})),
        ],
    )?;
    let true_in = |shell: &'static str| {
        Contestant::timed("fork + exec of bash -c true", effort.calls, move || {
            Ok(Command::new(shell).args(["-c", "true"]).output().map(drop)?)
        })
    };
    compare(
        "a shell command",
        effort.rounds,
        vec![
            true_in("bash"),
            sandbox.calls("guest: bash true", effort.calls, "bash", &json!({"command": "true"})),
            sandbox.calls(
                "guest: /bin/true",
                effort.calls,
                "bash",
                &json!({"command": "/bin/true"}),
            ),
        ],
    )?;
    Ok(ExitCode::SUCCESS)
}

struct Sandbox<'a> {
    runtime: &'a Runtime,
    guest: Guest,
}

impl<'a> Sandbox<'a> {
    fn launch(runtime: &'a Runtime, workspace: &Path) -> Result<Self, AnyError> {
        let plan = plan_for(&Environment::new(workspace.to_owned()), None)?;
        Ok(Self { runtime, guest: runtime.block_on(Guest::launch(&plan))? })
    }

    fn calls(
        &self,
        name: &'static str,
        calls: usize,
        tool: &'static str,
        input: &Value,
    ) -> Contestant<'_> {
        let input: Map<String, Value> = input.as_object().cloned().unwrap_or_default();
        let never = CancellationToken::new();
        Contestant::timed(name, calls, move || {
            let call = ToolCall::of_host(tool, input.clone());
            let reply = self.runtime.block_on(self.guest.call(call, &never))?;
            if reply.is_error { Err(format!("{tool}: {:?}", reply.content).into()) } else { Ok(()) }
        })
    }
}

/// The floor: a frame to another process and back.
fn pair(calls: usize) -> Result<Contestant<'static>, AnyError> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let other = Other(
        Command::new("/proc/self/exe")
            .arg(ECHO)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?,
    );
    Ok(Contestant::timed("200 bytes over a socket pair and back", calls, move || {
        // It lives as long as it is measured.
        let _alive = &other;
        let mut frame = [7; FRAME];
        ours.write_all(&frame)?;
        Ok(ours.read_exact(&mut frame)?)
    }))
}

/// Ended and reaped when dropped.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn echo() -> Result<ExitCode, AnyError> {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut frame = [0; FRAME];
    while socket.read_exact(&mut frame).is_ok() {
        socket.write_all(&frame)?;
    }
    Ok(ExitCode::SUCCESS)
}
