//! The network door against no door: the same client and server, inside of a sandbox and beside it, in interleaved
//! rounds. The server listens on an address of this machine, so that both ways are loopback and only the door differs.
//!
//! The client is this program too: it measures, and writes its figures into the workspace.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use casemate::environment::Environment;
use casemate::environment::networking::{Host, HostRule, Networking};
use casemate::runtime::{Registries, sandbox_exec};
use casemate::tool::inside;

type AnyError = Box<dyn std::error::Error>;

const FIGURES: [&str; 4] = ["download MB/s", "upload MB/s", "round trip us", "connect us"];

/// How much each round does.
struct Size {
    pairs: usize,
    bytes: usize,
    trips: usize,
    connects: usize,
}

const MEASURED: Size = Size { pairs: 7, bytes: 256 << 20, trips: 5000, connects: 300 };
/// `cargo test --benches` runs this too, and only wants to know that it works.
const TRIED: Size = Size { pairs: 1, bytes: 1 << 20, trips: 20, connects: 5 };

fn main() -> ExitCode {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().collect();
    let done = match &arguments[..] {
        [_, word, address, file, size] if word == "client" => client(address, file, size),
        _ => compare(arguments.iter().any(|word| word == "--bench")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone too, the exit code is all that can be said.
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

/// An address that is this machine's and not loopback, which a sandbox has of its own.
fn own_address() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    let v4 = addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    v4.map(IpAddr::V4).find(|address| !address.is_loopback())
}

fn compare(measured: bool) -> Result<(), AnyError> {
    let mut out = std::io::stdout().lock();
    let Some(own) = own_address() else {
        writeln!(out, "not measured: this machine has no address but loopback")?;
        return Ok(());
    };
    let Size { pairs, .. } = if measured { MEASURED } else { TRIED };
    let word = if measured { "measured" } else { "tried" };
    let address = serve(own)?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let program = dir.path().join("bench");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let mut environment = Environment::new(dir.path().canonicalize()?);
    environment.networking = Networking::Limited {
        allowed_hosts: vec![HostRule::exactly(Host::Address(own), address.port())],
        allow_package_managers: false,
        allow_mcp_servers: false,
    };
    let words = |file: &str| {
        let file = environment.workspace.join(file).display().to_string();
        let program = environment.workspace.join("bench").display().to_string();
        [program, "client".to_owned(), address.to_string(), file, word.to_owned()]
    };
    let mut rounds = Vec::new();
    for _ in 0..pairs {
        let [direct, door] = [words("direct"), words("door")];
        let beside = Command::new(&direct[0]).args(&direct[1..]).status()?;
        let done = sandbox_exec(&environment, &Registries::default(), &door, None, None)?;
        if !beside.success() || done.code != 0 {
            return Err("a client failed".into());
        }
        rounds.push((figures(Path::new(&direct[3]))?, figures(Path::new(&door[3]))?));
    }
    writeln!(
        out,
        "{:<16} {:>10} {:>10} {:>8}  (medians of {pairs} pairs)",
        "", "direct", "door", "ratio"
    )?;
    for (at, name) in FIGURES.iter().enumerate() {
        let direct = median(rounds.iter().map(|(direct, _)| direct[at]).collect());
        let door = median(rounds.iter().map(|(_, door)| door[at]).collect());
        let ratio = median(rounds.iter().map(|(direct, door)| door[at] / direct[at]).collect());
        writeln!(out, "{name:<16} {direct:>10.1} {door:>10.1} {ratio:>8.2}")?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figures(path: &Path) -> Result<Vec<f64>, AnyError> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// A server that does what the first byte says: send, take in, or echo.
fn serve(own: IpAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((own, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that has what it wanted hangs up.
            std::thread::spawn(move || drop(answer(client)));
        }
    });
    Ok(address)
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut request = [0; 9];
    client.read_exact(&mut request)?;
    let mut left = u64::from_le_bytes(request[1..].try_into().expect("eight bytes"));
    let mut buffer = vec![0; 128 * 1024];
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let moved = match request[0] {
            b'd' => client.write(&buffer[..piece])?,
            b'u' => client.read(&mut buffer[..piece])?,
            _ => {
                client.read_exact(&mut buffer[..1])?;
                client.write_all(&buffer[..1])?;
                1
            }
        };
        if moved == 0 {
            return Ok(());
        }
        left -= moved as u64;
    }
    client.write_all(b".")
}

fn client(address: &str, file: &str, size: &str) -> Result<(), AnyError> {
    let address: SocketAddr = address.parse()?;
    let Size { bytes, trips, connects, .. } = if size == "measured" { MEASURED } else { TRIED };
    let megabytes = bytes as f64 / 1e6;
    let micros = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count as f64;
    let ask = |word: u8, amount: usize| -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&[&[word][..], &(amount as u64).to_le_bytes()].concat())?;
        Ok(stream)
    };
    let mut buffer = vec![0; 128 * 1024];

    let mut stream = ask(b'd', bytes)?;
    let began = Instant::now();
    while stream.read(&mut buffer)? > 0 {}
    let download = megabytes / began.elapsed().as_secs_f64();

    let mut stream = ask(b'u', bytes)?;
    let began = Instant::now();
    for _ in 0..bytes / buffer.len() {
        stream.write_all(&buffer)?;
    }
    stream.read_exact(&mut buffer[..1])?;
    let upload = megabytes / began.elapsed().as_secs_f64();

    let mut stream = ask(b'e', trips)?;
    let began = Instant::now();
    for _ in 0..trips {
        stream.write_all(b"x")?;
        stream.read_exact(&mut buffer[..1])?;
    }
    let trip = micros(began.elapsed(), trips);

    let began = Instant::now();
    for _ in 0..connects {
        let mut stream = ask(b'e', 1)?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut buffer[..2])?;
    }
    let connect = micros(began.elapsed(), connects);
    let text = format!("{download} {upload} {trip} {connect}\n");
    std::fs::File::create(file)?.write_all(text.as_bytes())?;
    Ok(())
}
