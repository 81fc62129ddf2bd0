//! What stands between the program and a model server: an encrypted door, and a proxy.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server's name that only a proxy knows.
pub(crate) const NAME: &str = "models.test";

/// A listener whose every connection is served on a thread of its own. Dropping it closes its port.
struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (socket, serve) = (socket.expect("a client"), Arc::clone(&serve));
                // A client may go at any time; the test sees it in what the client tells.
                std::thread::spawn(move || drop(serve(socket)));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It looks when somebody comes.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// How an encrypted connection ends after what the server behind it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It says that it ends.
    Said,
    /// The socket closes.
    Unsaid,
    /// The socket closes in the middle of a record.
    InRecord,
}

/// An encrypted door to a plain server.
pub(crate) struct Door {
    listener: Listener,
    certificate: PathBuf,
}

impl Door {
    /// Its certificate lies in that directory, is for [`NAME`] and localhost, and is signed by nobody.
    pub(crate) fn to(server: &str, dir: &Path, ending: Ending) -> Self {
        let (certificate, key) = (dir.join("server.pem"), dir.join("server.key"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=casemate test"]);
        let names = format!("subjectAltName=DNS:{NAME},DNS:localhost");
        openssl.args(["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let made = openssl.output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        let chain = vec![CertificateDer::from_pem_file(&certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let config = Arc::new(config.expect("a certificate and its key"));
        let server = server.trim_start_matches("http://").to_owned();
        let listener = Listener::start(move |socket| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config));
            let tls = rustls::StreamOwned::new(connection.expect("a configuration"), socket);
            pass_on(tls, &server, ending)
        });
        Self { listener, certificate }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.address.port()
    }

    pub(crate) fn certificate(&self) -> &str {
        self.certificate.to_str().expect("a plain path")
    }
}

fn pass_on(
    mut tls: rustls::StreamOwned<rustls::ServerConnection, TcpStream>,
    server: &str,
    ending: Ending,
) -> io::Result<()> {
    let request = whole_request(&mut tls)?;
    let mut plain = TcpStream::connect(server)?;
    plain.write_all(&request)?;
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer)?;
    tls.write_all(&answer)?;
    tls.flush()?;
    match ending {
        Ending::Said => {
            tls.conn.send_close_notify();
            tls.flush()
        }
        Ending::Unsaid => Ok(()),
        // Type, version and length of a record of which nothing follows.
        Ending::InRecord => tls.sock.write_all(&[23, 3, 3, 0, 99, 1]),
    }
}

fn whole_request(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(from);
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let begin = request.len();
        if reader.read_until(b'\n', &mut request)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&request[begin..]).to_ascii_lowercase();
        if let Some(given) = line.strip_prefix("content-length:") {
            length = given.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let head = request.len();
    request.resize(head + length, 0);
    reader.read_exact(&mut request[head..])?;
    Ok(request)
}

/// A proxy for which every name is the same server; it notes how it was asked.
pub(crate) struct Proxy {
    listener: Listener,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Passes everything on to that port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let record = Arc::clone(&asked);
        let listener = Listener::start(move |client| {
            let mut server = TcpStream::connect(("127.0.0.1", port))?;
            let mut request = vec![0; 64 * 1024];
            let mut taken = 0;
            let end = loop {
                match (&client).read(&mut request[taken..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    more => taken += more,
                }
                if let Some(at) = request[..taken].windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
            };
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let line = head.lines().next().unwrap_or_default().to_owned();
            let connects = line.starts_with("CONNECT ");
            record.lock().unwrap_or_else(PoisonError::into_inner).push(head);
            if connects {
                (&client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
                server.write_all(&request[end..taken])?;
            } else {
                server.write_all(&request[..taken])?;
            }
            both_ways(&client, &server)
        });
        Self { listener, asked }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// The heads of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn both_ways(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let pump = |mut from: &TcpStream, mut to: &TcpStream| {
        let copied = io::copy(&mut from, &mut to);
        // Whoever is gone already needs no end.
        drop(to.shutdown(std::net::Shutdown::Write));
        copied.map(drop)
    };
    std::thread::scope(|scope| {
        let up = scope.spawn(|| pump(client, server));
        let down = pump(server, client);
        drop(client.shutdown(std::net::Shutdown::Both));
        up.join().expect("a pump does not panic").and(down)
    })
}
