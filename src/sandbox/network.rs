//! A sandbox's network: loopback alone, or loopback whose every road leads to the relay.
//!
//! There is no device but `lo`. For a session with a door, every address is made local, so that each attempt is seen
//! instead of failing as unreachable; TCP to any address but loopback is redirected to the relay's port, and DNS to the
//! resolver's. Where the kernel has no nftables for us, the relay listens on the web's ports of every address, and
//! programs are told of a proxy. The relay itself, and what is spoken with the host, is not known here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
    socketpair,
};
use serde::{Deserialize, Serialize};

use super::fds;
use super::init::{Failure, at};
use crate::environment::networking::WEB_PORTS;

/// What a sandbox has of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Loopback, and nothing that leads out.
    #[default]
    Isolated,
    /// A relay that asks the host for every connection.
    Door,
}

impl Network {
    /// What `/etc/resolv.conf` says.
    pub(super) fn resolv_conf(self) -> &'static str {
        match self {
            Self::Isolated => "# There is no network.\n",
            Self::Door => "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n",
        }
    }
}

/// Where the relay takes in what was redirected. No program needs to know it.
const RELAY_PORT: u16 = 3129;
/// Where the proxy listens, for programs that insist on one, and for those that want the host's loopback.
pub const PROXY_PORT: u16 = 3128;
const DNS_PORT: u16 = 53;

/// What the relay works with: bound while that was still allowed.
#[derive(Debug)]
pub struct Inside {
    /// The way to ask the host.
    pub asks: OwnedFd,
    /// Connections to anywhere, redirected or by any address of the web's ports.
    pub relay: Vec<TcpListener>,
    /// Questions for names.
    pub resolver: Vec<UdpSocket>,
    /// Long questions for names.
    pub resolver_tcp: Vec<TcpListener>,
    /// Programs that speak to a proxy.
    pub proxy: Vec<TcpListener>,
}

/// An opened network: what the relay needs, how it is reached, and variables for programs.
pub(super) struct Opened {
    pub(super) inside: Inside,
    /// How what programs send reaches the relay.
    pub(super) how: String,
    pub(super) env: Vec<(String, String)>,
}

const STAGE: &str = "network door";

/// Leads everything to the relay. Called in the new network namespace, while its capabilities are there.
pub(super) fn open(asks: OwnedFd) -> Result<Opened, Failure> {
    let fail = |thing: &'static str| move |e: io::Error| at(STAGE, &thing, &e);
    add_local_route(libc::AF_INET).map_err(fail("route"))?;
    // A host without IPv6 has none inside either.
    let families: &[Family] = if add_local_route(libc::AF_INET6).is_ok() {
        &[Family::V4, Family::V6]
    } else {
        &[Family::V4]
    };
    let listen = |port| {
        let bound = families.iter().map(|family| TcpListener::bind(family.loopback(port)));
        bound.collect::<io::Result<Vec<_>>>().map_err(fail("ports"))
    };
    let resolver = families.iter().map(|family| UdpSocket::bind(family.loopback(DNS_PORT)));
    let resolver = resolver.collect::<io::Result<Vec<_>>>().map_err(fail("ports"))?;
    let redirected = redirect(families);
    let (relay, how, env) = match redirected {
        Ok(()) => (listen(RELAY_PORT)?, "nftables redirect".to_owned(), Vec::new()),
        Err(why) => {
            let how = format!("ports 80 and 443, proxy variables; no nftables: {why}");
            (any_address(families).map_err(fail("ports"))?, how, proxy_variables())
        }
    };
    let (resolver_tcp, proxy) = (listen(DNS_PORT)?, listen(PROXY_PORT)?);
    Ok(Opened { inside: Inside { asks, relay, resolver, resolver_tcp, proxy }, how, env })
}

/// Because every address is local, a listener on any of them takes connections to all of them.
fn any_address(families: &[Family]) -> io::Result<Vec<TcpListener>> {
    // An IPv6 listener takes both families.
    let any = match families {
        [.., Family::V6] => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    WEB_PORTS.iter().map(|port| TcpListener::bind((any.ip(), *port))).collect()
}

fn proxy_variables() -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let names = ["http_proxy", "https_proxy", "all_proxy"];
    let both = names.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    let inside = ["no_proxy", "NO_PROXY"]
        .map(|name| (name.to_owned(), "localhost,127.0.0.1,::1".to_owned()));
    both.map(|name| (name, proxy.clone())).chain(inside).collect()
}

/// The two ends of the way between guest and host: whole messages, in order.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// One message from the host, and the descriptor that came with it, if any. Blocks; a length of 0 is the end.
///
/// # Errors
/// The socket's; `InvalidData` for a message that is longer than `buffer`.
pub fn receive(asks: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let (length, mut handed) = fds::receive(asks, buffer)?;
    Ok((length, handed.pop()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn loopback(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
        }
    }

    /// `NFPROTO_*`.
    fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Where the destination stands in the packet's header, and what it begins with if it is loopback.
    fn loopback_match(self) -> (u32, Vec<u8>) {
        match self {
            Self::V4 => (16, vec![127]),
            Self::V6 => (24, Ipv6Addr::LOCALHOST.octets().into()),
        }
    }
}

/// `ip route add local default dev lo`: every address is this namespace's own.
fn add_local_route(family: libc::c_int) -> io::Result<()> {
    const LOOPBACK_INDEX: u32 = 1;
    let header = [
        u8::try_from(family).expect("families are small"),
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(libc::RTM_NEWROUTE, CREATE | ACKNOWLEDGE, 1, &header);
    message.attribute(libc::RTA_OIF, &LOOPBACK_INDEX.to_ne_bytes());
    talk(SockProtocol::NetlinkRoute, &message.finish(), 1)
}

/// A table of our own with one chain: what leaves a program for anywhere but loopback goes to the relay.
fn redirect(families: &[Family]) -> io::Result<()> {
    const NEW_TABLE: u16 = 0;
    const NEW_CHAIN: u16 = 3;
    const NEW_RULE: u16 = 6;
    const LOCAL_OUT: u32 = 3;
    const DESTINATION_NAT: i32 = -100;
    let mut bodies = Vec::new();
    bodies.push((NEW_TABLE, attributes(&[(1, TABLE.to_vec())])));
    let hook = attributes(&[
        (1, LOCAL_OUT.to_be_bytes().into()),
        (2, DESTINATION_NAT.to_be_bytes().into()),
    ]);
    let chain =
        [(1, TABLE.to_vec()), (3, CHAIN.to_vec()), (4 | NESTED, hook), (7, b"nat\0".to_vec())];
    bodies.push((NEW_CHAIN, attributes(&chain)));
    for family in families {
        bodies.push((NEW_RULE, rule(&tcp_to_relay(*family))));
        bodies.push((NEW_RULE, rule(&dns_to_resolver(*family))));
    }
    let mut batch = Message::new(BATCH_BEGIN, 0, 0, &[0, 0, 0, NFTABLES]).finish();
    for (sequence, (kind, body)) in (1..).zip(&bodies) {
        let kind = (u16::from(NFTABLES) << 8) | kind;
        let mut message = Message::new(kind, CREATE | ACKNOWLEDGE, sequence, &[INET, 0, 0, 0]);
        message.0.extend_from_slice(body);
        batch.extend(message.finish());
    }
    batch.extend(Message::new(BATCH_END, 0, 0, &[0, 0, 0, NFTABLES]).finish());
    talk(SockProtocol::NetlinkNetFilter, &batch, bodies.len())
}

const TABLE: &[u8] = b"casemate\0";
const CHAIN: &[u8] = b"out\0";
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// `NFPROTO_INET`: both families.
const INET: u8 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NESTED: u16 = 0x8000;

fn tcp_to_relay(family: Family) -> Vec<Expression> {
    let (offset, loopback) = family.loopback_match();
    let mut rule = family_and_protocol(family, libc::IPPROTO_TCP);
    rule.extend([payload(NETWORK_HEADER, offset, loopback.len()), compare(NOT_EQUAL, &loopback)]);
    rule.extend(redirect_to(RELAY_PORT));
    rule
}

fn dns_to_resolver(family: Family) -> Vec<Expression> {
    let mut rule = family_and_protocol(family, libc::IPPROTO_UDP);
    rule.extend([payload(TRANSPORT_HEADER, 2, 2), compare(EQUAL, &DNS_PORT.to_be_bytes())]);
    rule.extend(redirect_to(DNS_PORT));
    rule
}

/// A name and its data; every expression works on register 1.
type Expression = (&'static [u8], Vec<u8>);

const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn family_and_protocol(family: Family, protocol: libc::c_int) -> Vec<Expression> {
    const NFPROTO: u32 = 15;
    const L4PROTO: u32 = 16;
    let meta = |key: u32| -> Expression {
        (b"meta\0", attributes(&[(1, REGISTER.into()), (2, key.to_be_bytes().into())]))
    };
    let protocol = u8::try_from(protocol).expect("protocol numbers are small");
    vec![
        meta(NFPROTO),
        compare(EQUAL, &[family.protocol()]),
        meta(L4PROTO),
        compare(EQUAL, &[protocol]),
    ]
}

fn compare(operator: u32, value: &[u8]) -> Expression {
    let value = attributes(&[(1, value.to_vec())]);
    let operator = operator.to_be_bytes().to_vec();
    (b"cmp\0", attributes(&[(1, REGISTER.into()), (2, operator), (3 | NESTED, value)]))
}

fn payload(base: u32, offset: u32, length: usize) -> Expression {
    let length = u32::try_from(length).expect("an address is short");
    let numbers = [base, offset, length].map(|number| number.to_be_bytes().to_vec());
    let [base, offset, length] = numbers;
    (b"payload\0", attributes(&[(1, REGISTER.into()), (2, base), (3, offset), (4, length)]))
}

fn redirect_to(port: u16) -> [Expression; 2] {
    const PORT_IS_GIVEN: u32 = 2;
    let value = attributes(&[(1, port.to_be_bytes().into())]);
    let flags = PORT_IS_GIVEN.to_be_bytes().to_vec();
    [
        (b"immediate\0", attributes(&[(1, REGISTER.into()), (2 | NESTED, value)])),
        (b"redir\0", attributes(&[(1, REGISTER.into()), (2, REGISTER.into()), (3, flags)])),
    ]
}

fn rule(expressions: &[Expression]) -> Vec<u8> {
    let element = |(name, data): &Expression| {
        (1 | NESTED, attributes(&[(1, name.to_vec()), (2 | NESTED, data.clone())]))
    };
    let list: Vec<_> = expressions.iter().map(element).collect();
    attributes(&[(1, TABLE.to_vec()), (2, CHAIN.to_vec()), (4 | NESTED, attributes(&list))])
}

const CREATE: u16 = 0x400;
const ACKNOWLEDGE: u16 = 0x4;

/// One netlink message (netlink(7)).
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32, header: &[u8]) -> Self {
        const REQUEST: u16 = 1;
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(attributes(&[(kind, value.to_vec())]));
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a message is short");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// Netlink attributes, one after another, each on a boundary of four bytes.
fn attributes(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in list {
        let length = u16::try_from(value.len() + 4).expect("an attribute is short");
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Sends messages and takes in as many acknowledgements. The kernel answers before the sending returns.
fn talk(protocol: SockProtocol, messages: &[u8], expected: usize) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    let fd = socket.as_raw_fd();
    sendto(fd, messages, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut acknowledged = 0;
    while acknowledged < expected {
        let mut answer = [0; 8192];
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        acknowledged += acknowledgements(&answer[..length])?;
    }
    Ok(())
}

/// How many acknowledgements a datagram holds; the error, if it holds one.
fn acknowledgements(mut answer: &[u8]) -> io::Result<usize> {
    const HEADER: usize = 16;
    const ERROR: u16 = 2;
    let mut count = 0;
    while answer.len() >= HEADER {
        let word = |at: usize| [answer[at], answer[at + 1], answer[at + 2], answer[at + 3]];
        let length = u32::from_ne_bytes(word(0)) as usize;
        if length < HEADER || length > answer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if u16::from_ne_bytes([answer[4], answer[5]]) == ERROR && length >= HEADER + 4 {
            match i32::from_ne_bytes(word(HEADER)) {
                0 => count += 1,
                errno => return Err(io::Error::from_raw_os_error(-errno)),
            }
        }
        answer = &answer[length.next_multiple_of(4).min(answer.len())..];
    }
    Ok(count)
}
