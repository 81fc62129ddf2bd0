//! The door itself: a guest asks, the policy judges, and what is allowed is dialled here and pumped.
//!
//! ```text
//! guest ── connect{host, port} ──▶ judge the name ─▶ resolve ─▶ judge each address ─▶ dial it
//!       ◀── ok + one end of a socket pair ──┘                        │
//!       ══ bytes ══▶ inspector ══════════════════════════════════════▶ server
//! ```
//!
//! The guest never holds a socket of the host's network. What it says is input from a stranger.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::address;
use super::ledger::{Ledger, Report, Traffic};
use super::policy::{Policy, Refusal, Target};
use super::sniff::Inspector;
use super::wire::{self, Answer, Ask, Outcome, Want};
use crate::environment::networking::{Host, HostError};
use crate::limits::{
    EGRESS_ADDRESSES, EGRESS_ASKS, EGRESS_CONNECTIONS, EGRESS_DIAL_TIMEOUT, EGRESS_HEAD_TIMEOUT,
    EGRESS_MESSAGE_BYTES, EGRESS_PUMP_BYTES, EGRESS_RESOLVE_TIMEOUT,
};

/// One session's way out. Dropping it closes every connection.
#[derive(Debug)]
pub struct Door {
    task: JoinHandle<()>,
    ledger: Ledger,
}

impl Door {
    /// Answers what is asked on `asks`, until its other end is closed.
    ///
    /// # Errors
    /// The system's, if it cannot be waited for.
    pub fn open(asks: OwnedFd, policy: Policy) -> io::Result<Self> {
        // A socket of packets: only its readiness is tokio's business, and that is the same for streams.
        let asks = std::os::unix::net::UnixStream::from(asks);
        asks.set_nonblocking(true)?;
        let ledger = Ledger::default();
        let keeper = Arc::new(Keeper {
            asks: UnixStream::from_std(asks)?,
            policy,
            ledger: ledger.clone(),
            connections: Arc::new(Semaphore::new(EGRESS_CONNECTIONS)),
        });
        Ok(Self { task: tokio::spawn(keeper.serve()), ledger })
    }

    /// Resolves when something was refused since the last time.
    pub async fn has_refused(&self) {
        self.ledger.has_refused().await;
    }

    /// What happened since the last time that this was asked.
    #[must_use]
    pub fn report(&self) -> Report {
        self.ledger.report()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a place was not reached.
enum No {
    Refused(Refusal),
    Failed(String),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Keeper {
    asks: UnixStream,
    policy: Policy,
    ledger: Ledger,
    connections: Arc<Semaphore>,
}

impl Keeper {
    async fn serve(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(EGRESS_ASKS));
        // Its tasks end with it.
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            // A guest that is gone, or that speaks nonsense, has no door any more.
            let Ok(Some(ask)) = self.receive().await else { return };
            let keeper = Arc::clone(&self);
            tasks.spawn(async move {
                let connected = keeper.answer(ask).await;
                drop(slot);
                if let Some(connection) = connected {
                    connection.pump(&keeper.ledger).await;
                }
            });
        }
    }

    /// The next question; `None` at the end. Descriptors that a guest sends are never taken.
    async fn receive(&self) -> io::Result<Option<Ask>> {
        let mut packet = [0; EGRESS_MESSAGE_BYTES];
        let receive = || Ok(recv(self.asks.as_raw_fd(), &mut packet, MsgFlags::MSG_TRUNC)?);
        let length = self.asks.async_io(Interest::READABLE, receive).await?;
        if length > packet.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if length == 0 { Ok(None) } else { wire::decode(&packet[..length]).map(Some) }
    }

    async fn send(&self, answer: &Answer, stream: Option<&OwnedFd>) -> io::Result<()> {
        let packet = wire::encode(answer)?;
        let fds: Vec<_> = stream.iter().map(|stream| stream.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        let parts = [IoSlice::new(&packet)];
        let send = || {
            let fd = self.asks.as_raw_fd();
            Ok(sendmsg::<()>(fd, &parts, control, MsgFlags::MSG_NOSIGNAL, None)?)
        };
        self.asks.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// Answers one question. A connection is for the caller to pump.
    async fn answer(&self, Ask { id, want }: Ask) -> Option<Connection> {
        let answered = match want {
            Want::Lookup { name } => self.may_look_up(&name).map(|()| None).map_err(No::from),
            Want::Connect { host, port } => self.connect(&host, port).await.map(Some),
        };
        let (outcome, connected) = match answered {
            Ok(connected) => (Outcome::Ok, connected),
            Err(No::Refused(refusal)) => {
                self.ledger.refused(&refusal);
                (Outcome::Refused { text: refusal.to_string() }, None)
            }
            Err(No::Failed(text)) => {
                self.ledger.failed(&text);
                (Outcome::Failed { text }, None)
            }
        };
        let (connection, stream) = connected.unzip();
        // A guest that is gone takes no answer, and the connection closes with it.
        self.send(&Answer { id, outcome }, stream.as_ref()).await.ok()?;
        connection
    }

    fn may_look_up(&self, name: &str) -> Result<(), Refusal> {
        let host = name.parse().map_err(|error| no_host(name, &error))?;
        self.policy.judge_name(&Host::Name(host))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<(Connection, OwnedFd), No> {
        let host = host.parse::<Host>().map_err(|error| no_host(host, &error))?;
        let target = Target { host, port };
        self.policy.judge(&target)?;
        let Ok(slot) = Arc::clone(&self.connections).try_acquire_owned() else {
            let text = format!(
                "{target} was not reached: the session has {EGRESS_CONNECTIONS} connections open"
            );
            return Err(No::Failed(text));
        };
        let addresses = resolve(&target).await?;
        let allowed = self.allowed(&target, &addresses)?;
        let upstream = dial(&target, &allowed).await?;
        let fail = |e: io::Error| No::Failed(format!("{target} was not reached: {e}"));
        let (inner, guests) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
        inner.set_nonblocking(true).map_err(fail)?;
        let traffic = self.ledger.traffic(&target.to_string());
        traffic.connected();
        let connection = Connection {
            inner: UnixStream::from_std(inner).map_err(fail)?,
            upstream,
            inspector: self.policy.inspector(&target),
            target,
            traffic,
            _slot: slot,
        };
        Ok((connection, guests.into()))
    }

    /// The addresses that may be dialled, a family after the other; the refusal of the first if none may.
    fn allowed(&self, target: &Target, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, No> {
        let own = address::own();
        let mut refusal = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.policy.judge_address(target, *address, own.contains(address)) {
                Ok(()) => allowed.push(*address),
                Err(no) => refusal = refusal.or(Some(no)),
            }
        }
        match refusal {
            Some(refusal) if allowed.is_empty() => Err(refusal.into()),
            _ => Ok(alternate(allowed)),
        }
    }
}

fn no_host(given: &str, error: &HostError) -> Refusal {
    let target = given.chars().take(80).flat_map(char::escape_default).collect();
    Refusal { target, rule: format!("the host {error}"), change: None }
}

async fn resolve(target: &Target) -> Result<Vec<IpAddr>, No> {
    let name = match &target.host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    let fail = |why: String| No::Failed(format!("{target} was not reached: {why}"));
    let lookup = tokio::net::lookup_host((name.as_str(), target.port));
    let found = match tokio::time::timeout(EGRESS_RESOLVE_TIMEOUT, lookup).await {
        Ok(found) => found.map_err(|e| fail(format!("it cannot be looked up: {}", words(&e))))?,
        Err(_) => return Err(fail("no name server answered in time".to_owned())),
    };
    let mut addresses = Vec::new();
    for address in found.map(|found| found.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        Err(fail("the host has no address".to_owned()))
    } else {
        Ok(addresses)
    }
}

/// The system's words, without those of the language around them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    text.replace('\n', " ")
}

/// The first family's first address, the other's first, and so on: one that is broken costs one wait.
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let longest = first.len().max(second.len());
    let pairs = (0..longest).flat_map(|i| [first.get(i).copied(), second.get(i).copied()]);
    pairs.flatten().take(EGRESS_ADDRESSES).collect()
}

async fn dial(target: &Target, addresses: &[IpAddr]) -> Result<TcpStream, No> {
    let mut last = "the host has no address".to_owned();
    for address in addresses {
        let attempt = TcpStream::connect(SocketAddr::new(*address, target.port));
        match tokio::time::timeout(EGRESS_DIAL_TIMEOUT, attempt).await {
            Ok(Ok(stream)) => {
                // Small messages must not wait; a socket that cannot be told so works too.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Ok(Err(e)) => last = words(&e),
            Err(_) => last = "it did not answer in time".to_owned(),
        }
    }
    Err(No::Failed(format!("{target} was not reached: {last}")))
}

/// A way through, from the guest's stream to the server's.
struct Connection {
    inner: UnixStream,
    upstream: TcpStream,
    inspector: Option<Inspector>,
    target: Target,
    traffic: Arc<Traffic>,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

/// How one direction ended before its time.
enum Cut {
    /// One side broke off.
    Broken,
    /// The client said what it must not.
    Refused(Refusal),
}

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Connection {
    /// Moves bytes until both sides have ended. Dropping the streams closes what is left.
    async fn pump(mut self, ledger: &Ledger) {
        let (mut from_guest, mut to_guest) = self.inner.split();
        let (mut from_server, mut to_server) = self.upstream.split();
        let out = async {
            if let Some(inspector) = self.inspector {
                inspected(&mut from_guest, &mut to_server, inspector, &self.target, &self.traffic)
                    .await?;
            }
            copy(&mut from_guest, &mut to_server, |bytes| self.traffic.sent(bytes)).await
        };
        let back = copy(&mut from_server, &mut to_guest, |bytes| self.traffic.received(bytes));
        if let Err(Cut::Refused(refusal)) = tokio::try_join!(out, back) {
            ledger.refused(&refusal);
        }
    }
}

/// Moves bytes from client to server under the inspector's eyes, until it needs to see no more or the client ends.
async fn inspected(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut inspector: Inspector,
    target: &Target,
    traffic: &Traffic,
) -> Result<(), Cut> {
    let refused =
        |rule: String| Cut::Refused(Refusal { target: target.to_string(), rule, change: None });
    let mut buffer = vec![0; EGRESS_PUMP_BYTES];
    let mut forward = Vec::new();
    while !inspector.is_done() {
        let patience = if inspector.is_waiting() { EGRESS_HEAD_TIMEOUT } else { Duration::MAX };
        let Ok(read) = tokio::time::timeout(patience, from.read(&mut buffer)).await else {
            return Err(refused("it began a request and did not finish it in time".to_owned()));
        };
        let read = read?;
        if read == 0 {
            return Ok(());
        }
        forward.clear();
        let verdict = inspector.pass(&buffer[..read], &mut forward);
        to.write_all(&forward).await?;
        traffic.sent(forward.len());
        verdict.map_err(|violation| refused(violation.to_string()))?;
    }
    Ok(())
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(usize),
) -> Result<(), Cut> {
    let mut buffer = vec![0; EGRESS_PUMP_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        // Counted first: whoever sees the bytes finds them in the ledger.
        count(read);
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as StdStream;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

    use super::*;
    use crate::egress::Usage;
    use crate::environment::networking::Networking;
    use crate::sandbox::network::receive;

    /// A door for these rules, and the guest's end of its socket.
    fn door(rules: &[String]) -> (Door, OwnedFd) {
        let networking = Networking::Limited {
            allowed_hosts: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            allow_package_managers: false,
            allow_mcp_servers: false,
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let (host, guest) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Door::open(host, Policy::new(networking, Vec::new())).unwrap(), guest)
    }

    fn say(guest: &OwnedFd, packet: &[u8]) {
        send(guest.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    /// The next answer; `None` if the door has closed.
    async fn hear(guest: &OwnedFd) -> Option<(Outcome, Option<OwnedFd>)> {
        let guest = guest.try_clone().unwrap();
        let wait = tokio::task::spawn_blocking(move || {
            let mut packet = [0; EGRESS_MESSAGE_BYTES];
            let (length, fd) = receive(&guest, &mut packet).unwrap();
            (length > 0).then(|| (wire::decode::<Answer>(&packet[..length]).unwrap().outcome, fd))
        });
        wait.await.unwrap()
    }

    fn ask(host: &str, port: u16) -> Vec<u8> {
        let host = host.to_owned();
        wire::encode(&Ask { id: 7, want: Want::Connect { host, port } }).unwrap()
    }

    #[tokio::test]
    async fn what_is_listed_is_connected_and_counted() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut word = [0; 4];
            client.read_exact(&mut word).unwrap();
            client.write_all(b"answer").unwrap();
        });
        let (door, guest) = door(&[format!("127.0.0.1:{port}")]);
        say(&guest, &ask("127.0.0.1", port));
        let Some((Outcome::Ok, Some(stream))) = hear(&guest).await else { panic!("no stream") };
        let heard = tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::from(stream);
            stream.write_all(b"word").unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).map(|_| heard).unwrap()
        });
        assert_eq!(heard.await.unwrap(), "answer");
        let target = format!("127.0.0.1:{port}");
        let usage = vec![Usage { target, connections: 1, sent: 4, received: 6 }];
        assert_eq!(door.report(), Report { usage, ..Report::default() });
    }

    #[tokio::test]
    async fn hosts_in_every_other_spelling_are_refused_and_said() {
        let (door, guest) = door(&["127.0.0.1:9".to_owned(), "a.example".to_owned()]);
        let long = "x".repeat(2000);
        let hosts = [
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "::ffff:127.0.0.1",
            "a.example\0",
            "a.example b",
            "a.example\r\n",
            "",
            "..",
            "[::1",
            "ａ.example",
            "fe80::1%lo",
            &long,
        ];
        for host in hosts {
            say(&guest, &ask(host, 9));
            let answer = hear(&guest).await;
            assert!(
                matches!(answer, Some((Outcome::Refused { .. }, None))),
                "{host:?}: {answer:?}"
            );
        }
        let report = door.report();
        assert_eq!(report.refusals.len(), hosts.len());
        let plain = |text: &str| text.chars().all(|c| (' '..='~').contains(&c)) && text.len() < 300;
        assert!(report.refusals.iter().all(|refusal| plain(&refusal.to_string())), "{report:?}");
    }

    #[tokio::test]
    async fn a_guest_that_speaks_nonsense_has_no_door() {
        let check = async |packet: &[u8]| {
            let (_door, guest) = door(&[]);
            say(&guest, packet);
            assert_eq!(hear(&guest).await.map(|(outcome, _)| outcome), None, "{packet:?}");
        };
        check(b"nonsense").await;
        check(b"").await;
        check(br#"{"id":1,"want":{"type":"lookup","name":"a"},"more":1}"#).await;
        check(br#"{"id":1,"want":{"type":"listen","port":1}}"#).await;
        check(br#"{"id":1,"want":{"type":"connect","host":"a","port":65536}}"#).await;
        check(&[b' '; EGRESS_MESSAGE_BYTES + 1]).await;
    }

    #[tokio::test]
    async fn descriptors_of_a_guest_are_not_taken() {
        let (_door, guest) = door(&[]);
        let (ours, theirs) = StdStream::pair().unwrap();
        let fds = [theirs.as_raw_fd()];
        let packet = ask("a.example", 443);
        let control = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(&packet)];
        sendmsg::<()>(guest.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).unwrap();
        drop(theirs);
        assert!(matches!(hear(&guest).await, Some((Outcome::Refused { .. }, None))));
        // Had the host kept the other end, this would wait.
        let end = tokio::task::spawn_blocking(move || (&ours).read(&mut [0; 1]).unwrap());
        assert_eq!(end.await.unwrap(), 0);
    }
}
