//! A running server, and the plainest client that there is: one request per connection, written by hand.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Casemate, until};

/// Nothing here takes a tenth of it, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// `casemate serve` on a free port, or on a socket in the file system. Killed with the value.
pub(crate) struct Server {
    pub(crate) casemate: Casemate,
    pub(crate) key: String,
    /// `127.0.0.1:PORT`, or the path of a socket.
    pub(crate) address: String,
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of an answer with that status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// The kind and the message of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String, String) {
        let body = self.json();
        assert_eq!(body["type"], "error", "{self:?}");
        assert_eq!(body["request_id"].as_str(), self.header("request-id"), "{self:?}");
        let part = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        (self.status, part("type"), part("message"))
    }
}

/// A connection of either kind.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    pub(crate) fn start() -> Self {
        Self::of(Casemate::new(), &[])
    }

    /// One with these arguments, for that installation.
    pub(crate) fn of(casemate: Casemate, args: &[&str]) -> Self {
        Self::with(casemate, &[], args)
    }

    /// The same with this in its environment.
    pub(crate) fn with(casemate: Casemate, env: &[(&str, String)], args: &[&str]) -> Self {
        let key = casemate.run(&["key"]).expect(0).stdout().trim().to_owned();
        let mut command = casemate.command();
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.args(["serve", "--listen", "127.0.0.1:0", "--quiet"]).args(args);
        Self::started(casemate, key, command)
    }

    /// The one that a command starts.
    pub(crate) fn started(casemate: Casemate, key: String, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let line = line.trim();
        let address = match line.strip_prefix("unix:") {
            Some(path) => path,
            None => line.strip_prefix("http://").expect("an address").split('/').next().unwrap(),
        };
        let address = address.to_owned();
        Self { casemate, key, address, child, _stdout: stdout }
    }

    /// A request with the key.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let key = format!("Bearer {}", self.key);
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, &[("authorization", &key)], body.as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, Some(body))
    }

    /// A request with these headers and no others but what HTTP needs.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let reply = self.attempt(method, path, headers, body);
        reply.unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// The same of a server that may be gone, or go meanwhile.
    pub(crate) fn attempt(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Reply> {
        let mut stream = self.connect().ok()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.host());
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        // A server that refuses a body early may close before it has all of it.
        drop(stream.write_all(body));
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        (!bytes.is_empty()).then(|| reply(&bytes))
    }

    /// Waits until it has ended by itself, or kills it.
    pub(crate) fn crashed(mut self, by_itself: bool) -> Casemate {
        if by_itself {
            until("the server's crash", || self.child.try_wait().unwrap());
        }
        std::mem::replace(&mut self.casemate, Casemate::new())
    }

    fn host(&self) -> &str {
        if self.address.starts_with('/') { "localhost" } else { &self.address }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        if self.address.starts_with('/') {
            let stream = UnixStream::connect(&self.address)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            return Ok(Box::new(stream));
        }
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Box::new(stream))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(self) -> Casemate {
        self.end(Signal::SIGTERM)
    }

    /// Ends it by a signal: it ends well unless it is killed.
    pub(crate) fn end(mut self, signal: Signal) -> Casemate {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        let status = until("the server's end", || self.child.try_wait().unwrap());
        assert_eq!(status.success(), signal == Signal::SIGTERM, "{status}");
        self.into_casemate()
    }

    fn into_casemate(mut self) -> Casemate {
        std::mem::replace(&mut self.casemate, Casemate::new())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already wherever the test stopped it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn reply(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    let headers: Vec<_> = headers.collect();
    let chunked =
        headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Reply { status, headers, body }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}
