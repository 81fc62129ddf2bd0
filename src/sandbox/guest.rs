//! The host's side: start the child, hand it the plan, speak with it, end it.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::canary::Canary;
use super::cgroup::Cgroup;
use super::init::GUEST_NAME;
use super::launcher::{self, Forked, Start};
use super::network::{self, Network};
use super::packages::view::View as Packages;
use super::plan::{Order, Plan, Role, Supplement};
use super::private::PrivateDirectory;
use super::profile::Resource;
use super::program::{self, Program};
use super::protect::Held;
use super::reaper::{Outer, Process};
use super::wire::{self, CallId, FromGuest, Program as Served, ToGuest, ToolCall, ToolReply};
use super::{fds, remedy};
use crate::environment::Tier;
use crate::event::text_of;
use crate::limits::{CANCEL_GRACE, LAUNCH_TIMEOUT, PACKAGES_WATCH_INTERVAL};

/// Why there is no sandbox. Says the stage, the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}{}", with_remedy(.remedy))]
pub struct LaunchError {
    /// What was being set up.
    pub stage: String,
    /// What went wrong.
    pub reason: String,
    /// The system's number for it, or 0.
    pub errno: i32,
    /// What to do about it; empty if nobody knows.
    pub remedy: String,
}

fn with_remedy(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!(". {remedy}") }
}

impl LaunchError {
    fn new(stage: &str, reason: String, errno: i32) -> Self {
        let remedy = remedy::of(stage, errno);
        Self { stage: stage.to_owned(), reason, errno, remedy }
    }

    fn io(stage: &str, error: &io::Error) -> Self {
        Self::new(stage, error.to_string(), error.raw_os_error().unwrap_or(0))
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The guest is gone.
    #[error("the sandbox ended")]
    Gone,
    /// The guest said what it must not.
    #[error("the sandbox broke its protocol: {0}")]
    Protocol(String),
    /// The guest did not end a cancelled or late call in time and was ended.
    #[error("the sandbox did not end the call and was ended")]
    Stuck,
    /// The call is larger than a frame.
    #[error("the call is too large")]
    TooLarge,
}

/// The stage of what goes wrong once the command runs.
pub(super) const COMMAND_STAGE: &str = "command";

type Answered = oneshot::Receiver<Result<ToolReply, GuestError>>;
type Waiting = HashMap<CallId, oneshot::Sender<Result<ToolReply, GuestError>>>;

/// Calls that wait for their answer; `None` once the guest is dead, with the reason.
type Calls = Arc<Mutex<Result<Waiting, GuestError>>>;

/// A running sandbox. Dropping it ends it and every process in it.
pub struct Guest {
    tier: Tier,
    layers: Vec<String>,
    held: Arc<[Held]>,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    calls: Calls,
    next: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
    asks: Mutex<Option<OwnedFd>>,
    process: Process,
}

/// A child that works on its order, what it is still to be told, and what must outlive its set-up.
struct Spawned {
    socket: StdStream,
    /// Where it has a network, the socket that it asks on.
    asks: Option<OwnedFd>,
    process: Process,
    /// The rest of the order, if the socket did not take all of it.
    rest: Vec<u8>,
    /// What follows it.
    supplement: Vec<u8>,
    canary: Option<Arc<Canary>>,
}

fn spawn(plan: &Plan) -> Result<Spawned, LaunchError> {
    let fail = |e: io::Error| LaunchError::io("start", &e);
    let (ours, theirs) = StdStream::pair().map_err(fail)?;
    let (asks, their_asks) = match plan.network {
        Network::Isolated => (None, None),
        Network::Door => {
            let (ours, theirs) = network::pair().map_err(fail)?;
            (Some(ours), Some(theirs))
        }
    };
    let canary = Canary::put(plan);
    let private = match plan.tier {
        Tier::Full => None,
        Tier::Landlock | Tier::None => Some(PrivateDirectory::make().map_err(fail)?),
    };
    let order = Order {
        plan: plan.clone(),
        canary: canary.as_ref().map(|canary| canary.path().to_owned()),
        private: private.as_ref().map(|private| private.path().to_owned()),
    };
    // The guest finds its order when it begins, and works on it while its control group is made.
    let mut rest = wire::encode(&order).map_err(fail)?;
    ours.set_nonblocking(true).map_err(fail)?;
    let sent = write_some(&ours, &rest).map_err(fail)?;
    rest.drain(..sent);
    let program = program::of(plan);
    let start = Start { socket: theirs.into(), asks: their_asks };
    let (outer, program) = match &plan.role {
        Role::Tools => {
            let Forked { process, program } =
                launcher::fork(program, plan, &start).map_err(fail)?;
            (Outer::Forked(process), program)
        }
        Role::Exec(_) => {
            let child = start_alone(&program, start).map_err(fail)?;
            (Outer::Child(child), program.layer)
        }
    };
    let mut process = Process { outer: Some(outer), cgroup: None, private };
    let cgroup = match &plan.role {
        Role::Tools => Cgroup::make(plan),
        // Entering a group takes longer than most commands.
        Role::Exec(_) => Err("a single command has no group".to_owned()),
    };
    let supplement = Supplement {
        program,
        cgroup: cgroup.as_ref().ok().map(Cgroup::entry),
        memory: counted_by(plan, &cgroup),
    };
    process.cgroup = cgroup.ok();
    let supplement = wire::encode(&supplement).map_err(fail)?;
    Ok(Spawned { socket: ours, asks, process, rest, supplement, canary })
}

/// Writes as much as there is room for; how much that was.
fn write_some(mut socket: &StdStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// A guest that belongs to this process's terminal, which a launcher has left.
fn start_alone(program: &Program, start: Start) -> io::Result<Child> {
    Command::new(&program.path)
        .arg0(GUEST_NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(start.socket))
        .stdout(start.asks.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::null())
        .spawn()
}

/// Who counts what the session uses, as a layer.
fn counted_by(plan: &Plan, cgroup: &Result<Cgroup, String>) -> String {
    let reason = match cgroup {
        Ok(cgroup) => return cgroup.layer(),
        Err(reason) => reason,
    };
    let memory = match plan.tier {
        Tier::Full => "watched by the guest",
        Tier::Landlock | Tier::None => "limited for each process alone",
    };
    let cpu = plan.limit(Resource::Cpu).map_or("", |_| ", processor time not limited");
    let io = plan.limit(Resource::Io).map_or("", |_| ", disk speed not limited");
    format!("memory {memory}{cpu}{io} ({reason})")
}

/// What the child says once it is set up.
fn ready(frame: FromGuest) -> Result<Vec<String>, LaunchError> {
    let confused = |reason: &str| LaunchError::new("handshake", reason.to_owned(), 0);
    match frame {
        FromGuest::Ready { version: wire::VERSION, layers } => Ok(layers),
        FromGuest::Ready { version, .. } => {
            Err(confused(&format!("the guest speaks version {version}, not {}", wire::VERSION)))
        }
        FromGuest::Failed { stage, reason, errno } => Err(LaunchError::new(&stage, reason, errno)),
        FromGuest::Reply { .. } | FromGuest::Exited { .. } => {
            Err(confused("the guest spoke out of turn"))
        }
    }
}

impl Guest {
    /// Starts a sandbox and waits until every layer is in force.
    ///
    /// # Errors
    /// The stage that failed, or that it took longer than [`LAUNCH_TIMEOUT`]. Nothing is left behind.
    pub async fn launch(plan: &Plan) -> Result<Self, LaunchError> {
        let Spawned { socket, asks, process, mut rest, supplement, canary } = spawn(plan)?;
        rest.extend(supplement);
        let fail = |e: io::Error| LaunchError::io("handshake", &e);
        let socket = UnixStream::from_std(socket).map_err(fail)?;
        let (mut reader, mut writer) = socket.into_split();
        let handshake = async {
            // One that has failed may be gone before it was told everything, and has said why.
            let sent = writer.write_all(&rest).await;
            let answer = receive(&mut reader).await;
            answer.map_err(|error| sent.err().unwrap_or(error))
        };
        let layers = match tokio::time::timeout(LAUNCH_TIMEOUT, handshake).await {
            Ok(frame) => ready(frame.map_err(fail)?)?,
            Err(_) => {
                let reason = format!("not up within {} s", LAUNCH_TIMEOUT.as_secs());
                return Err(LaunchError::new("handshake", reason, 0));
            }
        };
        drop(canary);
        let calls: Calls = Arc::new(Mutex::new(Ok(HashMap::new())));
        let reader = tokio::spawn(listen(reader, Arc::clone(&calls)));
        let (writer, next) = (tokio::sync::Mutex::new(writer), AtomicU64::new(1));
        let asks = Mutex::new(asks);
        let held = plan.held.as_slice().into();
        Ok(Self { tier: plan.tier, layers, held, writer, calls, next, reader, asks, process })
    }

    /// The same, with the packages that it shows among its layers.
    pub(super) fn with(mut self, packages: Option<&Packages>) -> Self {
        self.layers.extend(packages.map(Packages::layer));
        self
    }

    /// The same, with what was refused before it among its layers.
    pub(super) fn after(mut self, refused: Option<&LaunchError>) -> Self {
        self.layers.extend(
            refused.map(|e| format!("a higher tier was refused: {}: {}", e.stage, e.reason)),
        );
        self
    }

    /// How much isolation it has.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The layers in force.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// The paths that it holds, if its tier holds any.
    #[must_use]
    pub fn held(&self) -> Option<Arc<[Held]>> {
        (self.tier == Tier::Full).then(|| Arc::clone(&self.held))
    }

    /// The socket on which it asks for connections, if it has a network; once.
    #[must_use]
    pub fn take_asks(&self) -> Option<OwnedFd> {
        self.asks.lock().expect("nothing panics under this lock").take()
    }

    /// Whether it can take no more calls.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.process.outer.is_none()
            || self.calls.lock().expect("nothing panics under this lock").is_err()
    }

    /// Runs a tool in the sandbox. Any number of calls may be under way at once. A call that is cancelled or late still has
    /// its answer, or ends the guest.
    ///
    /// # Errors
    /// If the guest is gone or misbehaves; it is dead then.
    pub async fn call(
        &self,
        call: ToolCall,
        cancel: &CancellationToken,
    ) -> Result<ToolReply, GuestError> {
        let (id, mut answer) = self.expect()?;
        let patience = call.patience();
        let frame = wire::encode(&ToGuest::Call { id, call }).map_err(|_| GuestError::TooLarge);
        if let Err(error) = match frame {
            Ok(frame) => self.send(&frame).await,
            Err(error) => Err(error),
        } {
            self.forget(id);
            return Err(error);
        }
        tokio::select! {
            answer = &mut answer => return answer.unwrap_or(Err(GuestError::Gone)),
            () = cancel.cancelled() => {}
            // The guest ends late calls itself, unless what it runs keeps it from doing anything.
            () = tokio::time::sleep(patience) => {}
        }
        let frame = wire::encode(&ToGuest::Cancel { id }).expect("a cancel frame is small");
        self.send(&frame).await?;
        match tokio::time::timeout(CANCEL_GRACE, answer).await {
            Ok(answer) => answer.unwrap_or(Err(GuestError::Gone)),
            Err(_) => {
                bury(&self.calls, &GuestError::Stuck);
                self.process.kill();
                Err(GuestError::Stuck)
            }
        }
    }

    /// Starts a program in the sandbox; its number, and a stream whose other end is its standard input and output. It ends
    /// with the sandbox, and is told by the end of the stream.
    ///
    /// # Errors
    /// Why it does not run, in words.
    pub async fn start_program(&self, program: Served) -> Result<(CallId, UnixStream), String> {
        let name = program.argv.first().cloned().unwrap_or_default();
        let broken = |error: &dyn std::fmt::Display| format!("`{name}` was not started: {error}");
        let (ours, theirs) = StdStream::pair().map_err(|e| broken(&e))?;
        ours.set_nonblocking(true).map_err(|e| broken(&e))?;
        let ours = UnixStream::from_std(ours).map_err(|e| broken(&e))?;
        let (id, answer) = self.expect().map_err(|e| broken(&e))?;
        let frame = wire::encode(&ToGuest::Start { id, program });
        let frame = frame.map_err(|_| broken(&GuestError::TooLarge));
        if let Err(error) = match frame {
            Ok(frame) => self.send_with(&frame, theirs.into()).await.map_err(|e| broken(&e)),
            Err(error) => Err(error),
        } {
            self.forget(id);
            return Err(error);
        }
        let answer = tokio::time::timeout(LAUNCH_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| broken(&GuestError::Stuck))?;
        let reply = answer.unwrap_or(Err(GuestError::Gone)).map_err(|e| broken(&e))?;
        match reply.is_error {
            false => Ok((id, ours)),
            true => Err(text_of(&reply.content)),
        }
    }

    /// The last errors that a program has printed.
    pub async fn program_said(&self, id: CallId) -> String {
        let input = serde_json::Map::from_iter([("id".to_owned(), id.into())]);
        let call = ToolCall::of_host(wire::PROGRAM_SAID, input);
        let never = CancellationToken::new();
        let said = tokio::time::timeout(CANCEL_GRACE, self.call(call, &never)).await;
        said.ok().and_then(Result::ok).map(|reply| text_of(&reply.content)).unwrap_or_default()
    }

    /// A number, and where the answer to it will be.
    fn expect(&self) -> Result<(CallId, Answered), GuestError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match &mut *self.calls.lock().expect("nothing panics under this lock") {
            Ok(waiting) => drop(waiting.insert(id, sender)),
            Err(dead) => return Err(dead.clone()),
        }
        Ok((id, answer))
    }

    /// Sends a frame, and a descriptor with the byte behind it.
    async fn send_with(&self, frame: &[u8], fd: OwnedFd) -> Result<(), GuestError> {
        let mut writer = self.writer.lock().await;
        let sent = async {
            writer.write_all(frame).await?;
            let socket: &UnixStream = writer.as_ref();
            socket.async_io(Interest::WRITABLE, || fds::send(socket, &[0], &[fd.as_fd()])).await
        };
        sent.await.map_err(|_: io::Error| {
            bury(&self.calls, &GuestError::Gone);
            GuestError::Gone
        })
    }

    async fn send(&self, frame: &[u8]) -> Result<(), GuestError> {
        let sent = self.writer.lock().await.write_all(frame).await;
        sent.map_err(|_| {
            bury(&self.calls, &GuestError::Gone);
            GuestError::Gone
        })
    }

    fn forget(&self, id: CallId) {
        if let Ok(waiting) = &mut *self.calls.lock().expect("nothing panics under this lock") {
            waiting.remove(&id);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.reader.abort();
        self.process.end();
    }
}

/// Ends all hope: every waiting call, and each later one, has this answer.
fn bury(calls: &Calls, reason: &GuestError) {
    let before = std::mem::replace(
        &mut *calls.lock().expect("nothing panics under this lock"),
        Err(reason.clone()),
    );
    for (_, waiting) in before.into_iter().flatten() {
        // Whoever waited may have left.
        drop(waiting.send(Err(reason.clone())));
    }
}

async fn listen(mut reader: OwnedReadHalf, calls: Calls) {
    loop {
        let reason = match receive(&mut reader).await {
            Ok(FromGuest::Reply { id, reply }) => match hand_over(&calls, id, reply) {
                Ok(()) => continue,
                Err(reason) => reason,
            },
            Ok(_) => GuestError::Protocol("a frame out of turn".to_owned()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => GuestError::Protocol(e.to_string()),
            Err(_) => GuestError::Gone,
        };
        return bury(&calls, &reason);
    }
}

fn hand_over(calls: &Calls, id: CallId, reply: ToolReply) -> Result<(), GuestError> {
    let mut calls = calls.lock().expect("nothing panics under this lock");
    let waiting = calls.as_mut().map_err(|dead| dead.clone())?;
    let sender = waiting.remove(&id).ok_or_else(|| {
        GuestError::Protocol(format!("an answer to call {id}, which nobody made"))
    })?;
    // Whoever waited may have left.
    drop(sender.send(Ok(reply)));
    Ok(())
}

async fn receive(reader: &mut OwnedReadHalf) -> io::Result<FromGuest> {
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix).await?;
    let mut body = vec![0; wire::body_length(prefix)?];
    reader.read_exact(&mut body).await?;
    wire::decode(&body)
}

/// One command, and what it is given.
pub(super) struct Job<'a> {
    /// The program and its words.
    pub(super) argv: Vec<String>,
    /// Its standard streams.
    pub(super) streams: [BorrowedFd<'a>; 3],
    /// Takes the socket on which the sandbox asks for connections, where it has a network.
    pub(super) door: &'a mut dyn FnMut(OwnedFd),
    /// Looks at the command, by the process that waits for it, every moment while it runs: false ends it.
    pub(super) watch: Option<&'a mut dyn FnMut(u32) -> bool>,
}

/// Runs one command in a sandbox; its exit code, as a shell counts, or nothing if its watch has ended it. Blocks.
///
/// # Errors
/// If the sandbox cannot be had.
pub(super) fn exec(mut plan: Plan, job: Job<'_>) -> Result<Option<u8>, LaunchError> {
    let Job { argv, streams, door, watch } = job;
    plan.role = Role::Exec(argv);
    let Spawned { mut socket, asks, mut process, rest, supplement, canary } = spawn(&plan)?;
    let fail = |e: io::Error| LaunchError::io("handshake", &e);
    if let Some(asks) = asks {
        door(asks);
    }
    socket.set_nonblocking(false).map_err(fail)?;
    socket.set_read_timeout(Some(LAUNCH_TIMEOUT)).map_err(fail)?;
    let sent = socket.write_all(&rest).and_then(|()| send_streams(&socket, streams));
    let sent = sent.and_then(|()| socket.write_all(&supplement));
    // One that has failed may be gone before it was told everything, and has said why.
    let answer = wire::read_frame(&mut socket);
    let answer = answer.map_err(|error| fail(sent.err().unwrap_or(error)))?;
    let closed = || LaunchError::new("handshake", "the guest ended without a word".to_owned(), 0);
    ready(answer.ok_or_else(closed)?)?;
    drop(canary);
    socket.set_read_timeout(None::<Duration>).map_err(fail)?;
    if let (Some(watch), Some(Outer::Child(child))) = (watch, &process.outer) {
        let pid = child.id();
        while !is_heard(&socket).map_err(fail)? {
            if !watch(pid) {
                process.end_now().map_err(fail)?;
                return Ok(None);
            }
        }
    }
    let code = match wire::read_frame(&mut socket).map_err(fail)? {
        Some(FromGuest::Exited { code }) => code,
        Some(_) | None => {
            return Err(LaunchError::new(
                COMMAND_STAGE,
                "the sandbox ended before its command".to_owned(),
                0,
            ));
        }
    };
    if let Some(mut outer) = process.outer.take() {
        outer.wait().map_err(fail)?;
    }
    Ok(Some(code))
}

/// Whether there is something to be read within a moment.
fn is_heard(socket: &StdStream) -> io::Result<bool> {
    let mut one = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let moment = PollTimeout::try_from(PACKAGES_WATCH_INTERVAL).expect("it is short");
    match poll(&mut one, moment) {
        Err(nix::Error::EINTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

fn send_streams(socket: &StdStream, streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    fds::send(socket, &[0], &streams)
}
