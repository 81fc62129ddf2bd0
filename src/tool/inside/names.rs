//! The resolver: a name that the host allows gets an address that only this session knows. Nothing is looked up here.
//!
//! A refused name does not exist (NXDOMAIN): resolvers ask again after REFUSED and SERVFAIL, and programs then report a
//! temporary failure and try again; after NXDOMAIN they say at once that the name is not known.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use super::asks::{Asks, No};
use crate::environment::networking::HostName;
use crate::limits::EGRESS_NAMES;

/// The first address of 198.18.0.0/15, which is for benchmarks between machines: no real host has one of it.
const FIRST: u32 = 0xc612_0001;

/// Which address stands for which name. None is ever used for another name.
#[derive(Default)]
struct Table {
    addresses: HashMap<HostName, Ipv4Addr>,
    names: Vec<HostName>,
}

/// The names of one session.
pub(super) struct Names {
    asks: Arc<Asks>,
    table: Mutex<Table>,
}

/// What a question gets, in the words of RFC 1035.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Address(Ipv4Addr),
    /// The name exists, and has nothing of that kind.
    Empty,
    Malformed,
    ServerFailure,
    NoSuchName,
    NotImplemented,
}

/// A question, and where it ends in its packet.
struct Question {
    name: String,
    kind: u16,
    end: usize,
}

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const HEADER: usize = 12;

impl Names {
    pub(super) fn new(asks: Arc<Asks>) -> Self {
        Self { asks, table: Mutex::default() }
    }

    /// The name that an address stands for; the address itself if it stands for none.
    pub(super) fn host_of(&self, address: IpAddr) -> String {
        let index = match address {
            IpAddr::V4(v4) => u32::from(v4).checked_sub(FIRST),
            IpAddr::V6(_) => None,
        };
        let table = self.table.lock().expect("nothing panics under this lock");
        let name = index.and_then(|index| table.names.get(usize::try_from(index).ok()?));
        name.map_or_else(|| address.to_string(), ToString::to_string)
    }

    /// The answer to a query, as a packet; `None` for what is no query.
    pub(super) fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let header = query.get(..HEADER)?;
        let is_query = header[2] & 0x80 == 0;
        let operation = header[2] & 0x78;
        if !is_query {
            return None;
        }
        if operation != 0 {
            return Some(reply(query, None, Reply::NotImplemented));
        }
        let Some(question) = question(query) else {
            return Some(reply(query, None, Reply::Malformed));
        };
        let outcome = match question.kind {
            TYPE_A => self.look_up(&question.name),
            TYPE_AAAA => match self.look_up(&question.name) {
                Reply::Address(_) => Reply::Empty,
                other => other,
            },
            _ => Reply::Empty,
        };
        Some(reply(query, Some(question.end), outcome))
    }

    fn look_up(&self, name: &str) -> Reply {
        let known = name.parse::<HostName>();
        if let Ok(name) = &known
            && let Some(address) = self.known(name)
        {
            return Reply::Address(address);
        }
        // What is no host name is told to the host all the same: it says why.
        match (self.asks.may_look_up(name), known) {
            (Ok(()), Ok(name)) => self.assign(name).map_or(Reply::ServerFailure, Reply::Address),
            (Ok(()) | Err(No::Refused(_)), _) => Reply::NoSuchName,
            (Err(No::Failed(_)), _) => Reply::ServerFailure,
        }
    }

    fn known(&self, name: &HostName) -> Option<Ipv4Addr> {
        let table = self.table.lock().expect("nothing panics under this lock");
        table.addresses.get(name).copied()
    }

    fn assign(&self, name: HostName) -> Option<Ipv4Addr> {
        let mut table = self.table.lock().expect("nothing panics under this lock");
        if let Some(address) = table.addresses.get(&name) {
            return Some(*address);
        }
        let index =
            u32::try_from(table.names.len()).ok().filter(|_| table.names.len() < EGRESS_NAMES)?;
        let address = Ipv4Addr::from(FIRST + index);
        table.names.push(name.clone());
        table.addresses.insert(name, address);
        Some(address)
    }
}

/// The one question of a query. Names in questions are not compressed.
fn question(query: &[u8]) -> Option<Question> {
    const CLASS_INTERNET: u16 = 1;
    let number = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
    if number(4)? != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length).filter(|_| length <= HostName::MAX_LABEL_BYTES)?;
        if !name.is_empty() {
            name.push('.');
        }
        // A dot within a label would make another name of it.
        name.extend(label.iter().map(|b| if *b == b'.' { '\\' } else { char::from(*b) }));
        at += length;
        if name.len() > 2 * HostName::MAX_BYTES {
            return None;
        }
    }
    let (kind, class) = (number(at)?, number(at + 2)?);
    (class == CLASS_INTERNET).then_some(Question { name, kind, end: at + 4 })
}

fn reply(query: &[u8], question_end: Option<usize>, outcome: Reply) -> Vec<u8> {
    const TIME_TO_LIVE: [u8; 4] = 60_u32.to_be_bytes();
    let code = match outcome {
        Reply::Address(_) | Reply::Empty => 0,
        Reply::Malformed => 1,
        Reply::ServerFailure => 2,
        Reply::NoSuchName => 3,
        Reply::NotImplemented => 4,
    };
    let asked_to_recurse = query[2] & 1;
    let mut packet =
        vec![query[0], query[1], 0x80 | (query[2] & 0x78) | asked_to_recurse, 0x80 | code];
    let (questions, answers) =
        (u8::from(question_end.is_some()), u8::from(matches!(outcome, Reply::Address(_))));
    packet.extend_from_slice(&[0, questions, 0, answers, 0, 0, 0, 0]);
    packet.extend_from_slice(&query[HEADER..question_end.unwrap_or(HEADER)]);
    if let Reply::Address(address) = outcome {
        // The name of the question, type A, class IN.
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        packet.extend_from_slice(&TIME_TO_LIVE);
        packet.extend_from_slice(&[0, 4]);
        packet.extend_from_slice(&address.octets());
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&str], kind: u16) -> Vec<u8> {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    /// Names whose host allows everything that begins with `good`.
    fn names() -> Names {
        use std::os::fd::AsRawFd as _;

        use nix::sys::socket as sock;

        use crate::egress::wire::{self, Answer, Ask, Outcome, Want};
        let flags = sock::SockFlag::SOCK_CLOEXEC;
        let family = sock::AddressFamily::Unix;
        let (ours, theirs) =
            sock::socketpair(family, sock::SockType::SeqPacket, None, flags).unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok(length @ 1..) =
                sock::recv(ours.as_raw_fd(), &mut packet, sock::MsgFlags::empty())
            {
                let Ask { id, want } = wire::decode(&packet[..length]).unwrap();
                let Want::Lookup { name } = want else { panic!("asked for a connection") };
                let text = name.clone();
                let good = name.starts_with("good");
                let outcome = if good { Outcome::Ok } else { Outcome::Refused { text } };
                let answer = wire::encode(&Answer { id, outcome }).unwrap();
                sock::send(ours.as_raw_fd(), &answer, sock::MsgFlags::empty()).unwrap();
            }
        });
        Names::new(Asks::new(theirs).unwrap())
    }

    #[test]
    fn allowed_names_have_an_address_of_their_own_and_others_none() {
        let names = names();
        let check = |query: &[u8], code: u8, address: Option<[u8; 4]>| {
            let answer = names.answer(query).unwrap();
            let found = (answer[7] == 1).then(|| answer[answer.len() - 4..].try_into().unwrap());
            assert_eq!((answer[3] & 15, found), (code, address), "{query:?}");
            assert_eq!(answer[..2], query[..2]);
        };
        check(&query(&["good", "example"], 1), 0, Some([198, 18, 0, 1]));
        check(&query(&["good2", "example"], 1), 0, Some([198, 18, 0, 2]));
        check(&query(&["GOOD", "example"], 1), 0, Some([198, 18, 0, 1]));
        check(&query(&["good", "example"], 28), 0, None);
        check(&query(&["good", "example"], 16), 0, None);
        check(&query(&["bad", "example"], 1), 3, None);
        check(&query(&["bad", "example"], 28), 3, None);
        check(&query(&["good.a", "example"], 1), 3, None);
        check(&query(&["good", "b\0"], 1), 3, None);
        check(&query(&[], 1), 3, None);
        assert_eq!(names.host_of("198.18.0.2".parse().unwrap()), "good2.example");
        assert_eq!(names.host_of("198.18.0.3".parse().unwrap()), "198.18.0.3");
        assert_eq!(names.host_of("8.8.8.8".parse().unwrap()), "8.8.8.8");
    }

    proptest::proptest! {
        #[test]
        fn no_packet_breaks_it(packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let names = Names::new(Asks::new(std::fs::File::open("/dev/null").unwrap().into()).unwrap());
            if let Some(answer) = names.answer(&packet) {
                proptest::prop_assert_eq!(&answer[..2], &packet[..2]);
            }
        }
    }

    #[test]
    fn what_is_no_question_is_said_so() {
        let names = names();
        let check = |query: &[u8], expected: Option<u8>| {
            assert_eq!(names.answer(query).map(|answer| answer[3] & 15), expected, "{query:?}");
        };
        let whole = query(&["good", "example"], 1);
        for cut in HEADER..whole.len() {
            check(&whole[..cut], Some(1));
        }
        check(&whole[..HEADER - 1], None);
        let edited = |at: usize, byte: u8| {
            let mut query = whole.clone();
            query[at] = byte;
            query
        };
        check(&edited(2, 0x81), None);
        check(&edited(2, 0x28), Some(4));
        check(&edited(5, 2), Some(1));
        check(&edited(HEADER, 0xc0), Some(1));
        check(&edited(whole.len() - 1, 3), Some(1));
    }
}
