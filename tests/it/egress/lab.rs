//! Two machines in network namespaces that live as long as the test: one where casemate runs, one with every other host.
//! No packet leaves this machine; addresses look public because the rules treat them so.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sched::{CloneFlags, setns};

use crate::api::Server;
use crate::support::{As, Casemate, Finished, USER, lacking, write};

/// What every test host says.
pub(crate) const MARKER: &str = "MARKER";

/// A network namespace with a process that holds it, and ends with this value or with the test.
pub(crate) struct Space(Child);

impl Space {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "no network namespace");
        Self(child)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    /// Does something in the namespace; what it opens there stays there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let work = move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(work).join().unwrap()
        })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    fn ip(&self, words: &str) {
        let done = self.command("ip").args(words.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "ip {words}: {said}");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Everything in it ends with it.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A name server whose answers a test decides: for a name and how often it was asked, addresses.
pub(crate) type Zone = fn(&str, usize) -> Vec<IpAddr>;

/// The two machines, and what the test hosts heard.
pub(crate) struct Lab {
    pub(crate) client: Space,
    pub(crate) server: Space,
    dir: tempfile::TempDir,
    /// Names that the name server was asked for.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

/// Addresses of the other machine, besides those of every test: private, metadata, carrier.
const SERVER: [&str; 9] = [
    "93.184.216.34/24",
    "93.184.216.35/24",
    "93.184.216.53/24",
    "10.77.0.1/24",
    "169.254.169.254/32",
    "100.64.0.9/24",
    "2606:2800:220:1::34/64",
    "2606:2800:220:1::35/64",
    "fd77::1/64",
];

/// The names of every test; all else is asked of the name server.
const HOSTS: &str = "\
127.0.0.1 localhost
93.184.216.34 allowed.example registry.example
2606:2800:220:1::34 v6.example
93.184.216.35 other.example evilallowed.example allowed.example.evil.example xn--llowed-2nf.example
10.77.0.1 private.example
169.254.169.254 meta.example
127.0.0.1 loop.example
93.184.216.2 self.example
10.77.0.1 mixed.example
93.184.216.34 mixed.example
";

impl Lab {
    /// The machines, or nothing where they cannot be made.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            lacking("root, for test hosts in network namespaces");
            return None;
        }
        for program in ["ip", "nsenter", "unshare", "setpriv"] {
            if find(program).is_none() {
                lacking(program);
                return None;
            }
        }
        let (client, server) = (Space::new(), Space::new());
        let peer = format!("link add v0 type veth peer name v0 netns {}", server.0.id());
        client.ip(&peer);
        for address in SERVER {
            server.ip(&format!("addr add {address} dev v0{}", no_probing(address)));
        }
        for address in ["93.184.216.2/24", "2606:2800:220:1::2/64"] {
            client.ip(&format!("addr add {address} dev v0{}", no_probing(address)));
        }
        server.ip("link set v0 up");
        client.ip("link set v0 up");
        client.ip("route add default dev v0");
        client.ip("-6 route add default dev v0");
        server.ip("route add default dev v0");
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("hosts"), HOSTS);
        write(&dir.path().join("resolv.conf"), "nameserver 93.184.216.53\n");
        Some(Self { client, server, dir, asked: Arc::default() })
    }

    /// Hosts that say [`MARKER`] and which host they were asked for, on these TCP ports of every address.
    pub(crate) fn say_marker(space: &Space, ports: &[u16]) {
        for port in ports {
            let listener = space.inside(|| TcpListener::bind(("::", *port)).unwrap());
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    std::thread::spawn(move || marker(client.unwrap()));
                }
            });
        }
    }

    /// Datagrams to this port come back with [`MARKER`].
    pub(crate) fn echo_datagrams(space: &Space, port: u16) {
        let socket = space.inside(|| UdpSocket::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((_, from)) = socket.recv_from(&mut packet) {
                socket.send_to(MARKER.as_bytes(), from).unwrap();
            }
        });
    }

    /// The name server that casemate's machine asks.
    pub(crate) fn answer_names(&self, zone: Zone) {
        let socket = self.server.inside(|| UdpSocket::bind("93.184.216.53:53").unwrap());
        let asked = Arc::clone(&self.asked);
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let answer = name_answer(&packet[..length], zone, &asked);
                socket.send_to(&answer, from).unwrap();
            }
        });
    }

    /// Gives casemate's machine this as the only source of apt.
    pub(crate) fn set_apt_source(&self, line: &str) {
        let apt = self.dir.path().join("apt");
        std::fs::create_dir_all(&apt).unwrap();
        write(&apt.join("sources.list"), line);
    }

    /// Runs words on casemate's machine, as `who`, with an installation's directory and environment.
    pub(crate) fn run(&self, casemate: &Casemate, who: As, words: &[&str]) -> Finished {
        Finished::of(self.command(casemate, who, words).output().unwrap())
    }

    pub(crate) fn command(&self, casemate: &Casemate, who: As, words: &[&str]) -> Command {
        let mount = "mount --bind \"$1/hosts\" /etc/hosts && mount --bind \"$1/resolv.conf\" /etc/resolv.conf && \
                     if [ -d \"$1/apt\" ]; then mount --bind \"$1/apt\" /etc/apt; fi && shift && exec \"$@\"";
        let mut command = self.client.command("unshare");
        command.args(["-m", "sh", "-c", mount, "sh"]).arg(self.dir.path());
        if who == As::User {
            let user = USER.to_string();
            let ids = [format!("--reuid={user}"), format!("--regid={user}")];
            command.arg("setpriv").args(ids).arg("--clear-groups");
        }
        let plain = casemate.command();
        command.args(words).env_clear().stdin(Stdio::null());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(plain.get_current_dir().unwrap());
        command
    }

    /// Runs casemate there.
    pub(crate) fn casemate(&self, casemate: &Casemate, who: As, words: &[&str]) -> Finished {
        let words = [&[env!("CARGO_BIN_EXE_casemate")], words].concat();
        self.run(casemate, who, &words)
    }

    /// A server of the protocol there, on a socket of its home, which writes its log into `server.log` there.
    pub(crate) fn serve(&self, casemate: Casemate, who: As) -> Server {
        self.serve_until(casemate, who, None)
    }

    /// The same, which stops dead at that commit.
    pub(crate) fn serve_until(
        &self,
        casemate: Casemate,
        who: As,
        crash_at: Option<&str>,
    ) -> Server {
        let key = self.casemate(&casemate, who, &["key"]).expect(0).stdout().trim().to_owned();
        let address = format!("unix:{}", casemate.home().join("socket").display());
        let line = [env!("CARGO_BIN_EXE_casemate"), "serve", "--listen", &address];
        let mut command = self.command(&casemate, who, &line);
        command.envs(crash_at.map(|at| ("CASEMATE_CRASH_AT", at)));
        let log = casemate.home().join("server.log");
        command.stderr(File::options().create(true).append(true).open(log).unwrap());
        Server::started(casemate, key, command)
    }

    /// Runs words in a sandbox there.
    pub(crate) fn sandboxed(
        &self,
        casemate: &Casemate,
        who: As,
        flags: &[&str],
        words: &[&str],
    ) -> Finished {
        self.casemate(casemate, who, &[&["sandbox", "exec"], flags, &["--"], words].concat())
    }
}

fn no_probing(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let places = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    places.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists())
}

/// Answers each request of a connection, and whatever else is said on it.
fn marker(mut client: TcpStream) {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut piece) {
        said.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&said).to_lowercase();
        let hosts = text.lines().filter_map(|line| line.strip_prefix("host:"));
        let hosts: Vec<_> = hosts.map(str::trim).collect();
        let body = format!("{MARKER} {}\n", hosts.join(","));
        // `/to/HOST` leads on to that host.
        let to = text.split_whitespace().nth(1).and_then(|path| path.strip_prefix("/to/"));
        let status = match to {
            Some(host) => format!("302 Found\r\nLocation: http://{host}/"),
            None => "200 OK".to_owned(),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        if client.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// An answer with the zone's addresses of the family that is asked for.
fn name_answer(query: &[u8], zone: Zone, asked: &Mutex<Vec<String>>) -> Vec<u8> {
    let mut name = String::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(&String::from_utf8_lossy(&query[at + 1..end]));
        name.push('.');
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let wants_v4 = kind == 1;
    let count = {
        let mut asked = asked.lock().unwrap();
        // Both families are one question of a program's.
        let before = asked.iter().filter(|own| **own == name).count();
        if wants_v4 {
            asked.push(name.clone());
        }
        before
    };
    let addresses = zone(name.trim_end_matches('.'), count);
    let mut records = Vec::new();
    let mut found = 0_u8;
    for address in addresses {
        let bytes = match address {
            IpAddr::V4(v4) if wants_v4 => v4.octets().to_vec(),
            IpAddr::V6(v6) if kind == 28 => v6.octets().to_vec(),
            IpAddr::V4(_) | IpAddr::V6(_) => continue,
        };
        found += 1;
        records.extend_from_slice(&[0xc0, 12]);
        records.extend_from_slice(&kind.to_be_bytes());
        records.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()]);
        records.extend_from_slice(&bytes);
    }
    let mut answer = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, found, 0, 0, 0, 0];
    answer.extend_from_slice(&query[12..at + 5]);
    answer.extend(records);
    answer
}
