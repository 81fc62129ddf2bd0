//! The guest's side of the network: takes in what programs connect to, and leads it to the host.
//!
//! Plain threads of the sandbox's first process, two for each connection, as many as the bound. Nothing is decided here:
//! a program that could speak to the host past this relay would be judged the same.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::asks::Asks;
use super::names::Names;
use super::proxy;
use crate::limits::{EGRESS_CONNECTIONS, EGRESS_PUMP_BYTES};
use crate::sandbox::network::Inside;

/// Threads that answer questions for names: each may wait for the host.
const RESOLVERS: usize = 4;
/// What a thread of the relay needs of a stack; its buffer is on the heap.
const STACK_BYTES: usize = 128 * 1024;
/// Time that a client of the long form of DNS may be silent.
const DNS_SILENCE: Duration = Duration::from_secs(5);
/// Wait after an accept that failed: the session is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the relay's threads share.
struct Shared {
    asks: Arc<Asks>,
    names: Names,
    open: AtomicUsize,
}

/// One of the connections that there may be.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.open.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(shared));
        (before < EGRESS_CONNECTIONS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the relay's threads.
///
/// # Errors
/// The system's, if a thread cannot be started.
pub fn relay(inside: Inside) -> io::Result<()> {
    let Inside { asks, relay, resolver, resolver_tcp, proxy } = inside;
    let asks = Asks::new(asks)?;
    let names = Names::new(Arc::clone(&asks));
    let shared = Arc::new(Shared { asks, names, open: AtomicUsize::new(0) });
    for listener in relay {
        accept(listener, &shared, redirected)?;
    }
    for listener in proxy {
        accept(listener, &shared, proxied)?;
    }
    for listener in resolver_tcp {
        accept(listener, &shared, long_question)?;
    }
    for socket in resolver {
        for _ in 0..RESOLVERS {
            let (socket, shared) = (socket.try_clone()?, Arc::clone(&shared));
            thread("names", move || questions(&socket, &shared.names))?;
        }
    }
    Ok(())
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    builder.spawn(work).map(drop)
}

type Client = fn(TcpStream, &Shared) -> io::Result<()>;

/// Gives each client of a listener a thread, while there are slots.
fn accept(listener: TcpListener, shared: &Arc<Shared>, serve: Client) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let one = move |client: TcpStream| {
        let Some(slot) = Slot::take(&shared) else { return };
        let work = move || {
            // A client whose connection broke knows it.
            drop(serve(client, &slot.0));
        };
        drop(thread("connection", work));
    };
    thread("relay", move || {
        for client in listener.incoming() {
            match client {
                Ok(client) => one(client),
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    })
}

/// A program that thinks it speaks to the server itself.
fn redirected(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let (target, own) = (original_target(&client)?, client.local_addr()?);
    // Somebody inside knocked at the relay's own door; only its redirected address tells where to.
    let knocked = target == own && target.ip().is_loopback();
    let server = if knocked {
        None
    } else {
        let host = shared.names.host_of(target.ip());
        shared.asks.connect(&host, target.port()).ok()
    };
    match server {
        Some(server) => pump(client, server),
        None => reset(&client),
    }
}

/// Where the client meant to go: before the redirect, or else the very address that it reached.
fn original_target(client: &TcpStream) -> io::Result<SocketAddr> {
    let local = client.local_addr()?;
    let before = match local {
        SocketAddr::V4(_) => getsockopt(&client, sockopt::OriginalDst).ok().map(|address| {
            let ip = IpAddr::V4(u32::from_be(address.sin_addr.s_addr).into());
            SocketAddr::new(ip, u16::from_be(address.sin_port))
        }),
        SocketAddr::V6(_) => getsockopt(&client, sockopt::Ip6tOriginalDst).ok().map(|address| {
            let ip = IpAddr::V6(address.sin6_addr.s6_addr.into());
            SocketAddr::new(ip, u16::from_be(address.sin6_port))
        }),
    };
    let target = before.unwrap_or(local);
    Ok(SocketAddr::new(target.ip().to_canonical(), target.port()))
}

/// The client shall see a failure, not an empty answer.
fn reset(client: &TcpStream) -> io::Result<()> {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(client, sockopt::Linger, &at_once)?)
}

fn proxied(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    match proxy::negotiate(&mut client, &shared.asks)? {
        Some(server) => pump(client, server),
        None => Ok(()),
    }
}

/// Moves bytes both ways until both sides have ended. This thread takes one direction.
fn pump(client: TcpStream, server: UnixStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (to_client, from_server) = (Arc::clone(&client), Arc::clone(&server));
    thread("connection", move || {
        if copy(&*from_server, &*to_client).is_ok() {
            // It may be closed already.
            drop(to_client.shutdown(Shutdown::Write));
        } else {
            // The other direction ends with it.
            drop(reset(&to_client));
            drop(to_client.shutdown(Shutdown::Both));
            drop(from_server.shutdown(Shutdown::Both));
        }
    })?;
    if copy(&*client, &*server).is_ok() {
        server.shutdown(Shutdown::Write)
    } else {
        drop(client.shutdown(Shutdown::Both));
        server.shutdown(Shutdown::Both)
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; EGRESS_PUMP_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn questions(socket: &UdpSocket, names: &Names) {
    // Larger queries than this exist only in attacks.
    let mut packet = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
        if let Some(answer) = names.answer(&packet[..length]) {
            // Who asked may be gone.
            drop(socket.send_to(&answer, from));
        }
    }
}

/// DNS over TCP: each query and answer with its length before it.
fn long_question(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(DNS_SILENCE))?;
    loop {
        let mut length = [0; 2];
        client.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        client.read_exact(&mut query)?;
        let Some(answer) = shared.names.answer(&query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).expect("an answer is as short as its question");
        client.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}
