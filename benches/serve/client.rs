//! Servers as processes of their own, and the plainest client: blocking sockets and a few lines of HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::AnyError;

const DEADLINE: Duration = Duration::from_secs(60);

/// A process that serves on the address that it printed. Killed with the value.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// What its requests have besides; whole lines.
    headers: String,
}

impl Server {
    pub(crate) fn start(mut command: Command, headers: String) -> Result<Self, AnyError> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().trim_start_matches("http://").to_owned();
        Ok(Self { child, address, headers })
    }

    pub(crate) fn connect(&self) -> Result<Connection<'_>, AnyError> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Connection { server: self, stream: BufReader::new(stream) })
    }

    /// An event stream.
    pub(crate) fn stream(&self, path: &str) -> Result<Connection<'_>, AnyError> {
        let mut connection = self.connect()?;
        connection.ask("GET", path, "")?;
        connection.head()?;
        Ok(connection)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64, AnyError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().next().ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which has been an error before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection that is kept.
pub(crate) struct Connection<'a> {
    server: &'a Server,
    stream: BufReader<TcpStream>,
}

impl Connection<'_> {
    /// Sends a request, and leaves its answer where it is.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(), AnyError> {
        let Server { address, headers, .. } = self.server;
        let size = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {size}\r\n{headers}\r\n{body}"
        );
        Ok(self.stream.get_mut().write_all(request.as_bytes())?)
    }

    /// The answer's body.
    pub(crate) fn answer(&mut self) -> Result<Vec<u8>, AnyError> {
        let size = self.head()?;
        let mut body = vec![0; size];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>, AnyError> {
        self.ask("GET", path, "")?;
        self.answer()
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<Value, AnyError> {
        self.ask("POST", path, body)?;
        Ok(serde_json::from_slice(&self.answer()?)?)
    }

    /// Reads the head of an answer, which must be a good one; the size of its body.
    fn head(&mut self) -> Result<usize, AnyError> {
        let mut size = 0;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            let mut rest = vec![0; 1000];
            let count = self.stream.read(&mut rest)?;
            return Err(format!("{line}{}", String::from_utf8_lossy(&rest[..count])).into());
        }
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                return Ok(size);
            }
            if let Some(given) = line.strip_prefix("content-length:") {
                size = given.trim().parse()?;
            }
        }
    }

    /// The data of the next event of a stream that is of this kind, or of any kind if it is empty.
    pub(crate) fn event(&mut self, kind: &str) -> Result<(String, String), AnyError> {
        let mut of = String::new();
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(format!("the stream ended before {kind}").into());
            }
            if let Some(name) = line.strip_prefix("event: ") {
                name.trim_end().clone_into(&mut of);
            } else if let Some(data) = line.strip_prefix("data: ")
                && (kind.is_empty() || of == kind)
            {
                return Ok((of, data.trim_end().to_owned()));
            }
        }
    }

    /// The other end of the socket, for one that is not read.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.stream.into_inner()
    }
}
