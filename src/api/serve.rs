//! The listener: accepts, bounds and ends connections; stops without cutting what can be finished.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::patience::Patient;
use super::{App, router};
use crate::limits::{
    CONNECTION_GRACE, EXPIRY_INTERVAL, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_HEADERS,
    REQUEST_HEAD_TIMEOUT,
};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A port, on one address of the machine.
    Tcp(SocketAddr),
    /// A socket in the file system, which its owner alone can use.
    Unix(PathBuf),
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("a path is missing after `unix:`".to_owned());
            }
            return Ok(Self::Unix(path.into()));
        }
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        let parsed = text.parse().map(Self::Tcp);
        parsed.map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:4180, or unix:PATH".to_owned())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// A bound socket.
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// In the file system; removed when dropped.
    Unix(UnixListener, Socket),
}

/// A socket's file, removed when dropped.
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        drop(std::fs::remove_file(&self.0));
    }
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// The system's: in use, not allowed, not there.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Address::Unix(path) => {
                clear(path)?;
                let listener = UnixListener::bind(path)?;
                let socket = Socket(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener, socket))
            }
        }
    }

    /// The address that was bound: a port of 0 has become a real one.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, socket) => Ok(Address::Unix(socket.0.clone())),
        }
    }
}

/// Takes away the socket of a server that is gone, and nothing else.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(facts) if !facts.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

/// Answers requests until `stop` resolves; then lets go of idle connections, gives the others [`CONNECTION_GRACE`] to
/// finish, and returns. Streams end by themselves: [`App::stopping`] tells them.
pub async fn serve(app: App, listener: Listener, stop: impl Future<Output = ()>) {
    let server = Server {
        router: router(app.clone()),
        app,
        room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        graceful: GracefulShutdown::new(),
    };
    let mut stop = std::pin::pin!(stop);
    let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        let room = Arc::clone(&server.room);
        let turn = async {
            let permit = room.acquire_owned().await.expect("nobody closes it");
            (server.accept(&listener).await, permit)
        };
        tokio::select! {
            () = &mut stop => break,
            _ = expiry.tick() => server.remove_expired(),
            (accepted, permit) = turn => match accepted {
                Ok(stream) => server.answer(stream, permit),
                // Out of descriptors, for one: others may end meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(listener);
    // What is not done by then is cut: its client sees a broken connection and asks again.
    drop(tokio::time::timeout(CONNECTION_GRACE, server.graceful.shutdown()).await);
}

struct Server {
    app: App,
    router: Router,
    room: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Server {
    /// Begins to look for files whose time is over.
    fn remove_expired(&self) {
        let runtime = self.app.runtime().clone();
        // What could not be removed is found again the next time.
        tokio::spawn(async move { drop(runtime.remove_expired().await) });
    }

    async fn accept(&self, listener: &Listener) -> io::Result<Box<dyn Stream>> {
        match listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it a small event waits for the answer to the one before: 40 ms.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Listener::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }

    fn answer(&self, stream: Box<dyn Stream>, permit: tokio::sync::OwnedSemaphorePermit) {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(Patient::new(stream)), service);
        let connection = self.graceful.watch(connection);
        let app = self.app.clone();
        app.counters().connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A client that breaks off or speaks no HTTP has had its answer.
            drop(connection.await);
            app.counters().connections.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_a_socket() {
        for (text, shown, local) in [
            ("127.0.0.1:4180", "http://127.0.0.1:4180", true),
            ("localhost:0", "http://127.0.0.1:0", true),
            ("[::1]:80", "http://[::1]:80", true),
            ("0.0.0.0:80", "http://0.0.0.0:80", false),
            ("unix:/run/c.sock", "unix:/run/c.sock", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.is_local()), (shown, local));
        }
        for text in ["", "4180", "unix:", "example.com:80", "127.0.0.1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
