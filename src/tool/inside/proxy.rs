//! A proxy on the sandbox's loopback, for programs that insist on one: HTTP (CONNECT and whole URLs) and SOCKS5.
//!
//! It only says where a client wants to go; the host decides, and looks at what is said on the way.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;

use super::asks::{Asks, No};
use crate::egress::http::{self, Head};
use crate::environment::networking::Host;
use crate::limits::EGRESS_HEAD_TIMEOUT;

/// Speaks with one client until it has its connection; `None` if it has none.
pub(super) fn negotiate(client: &mut TcpStream, asks: &Asks) -> io::Result<Option<UnixStream>> {
    client.set_read_timeout(Some(EGRESS_HEAD_TIMEOUT))?;
    let mut first = [0];
    client.read_exact(&mut first)?;
    let server = match first[0] {
        SOCKS5 => socks(client, asks)?,
        byte => http(client, asks, byte)?,
    };
    client.set_read_timeout(None)?;
    Ok(server)
}

fn http(client: &mut TcpStream, asks: &Asks, first: u8) -> io::Result<Option<UnixStream>> {
    let mut bytes = vec![first];
    loop {
        match http::head(&bytes) {
            Ok(Some(head)) => return forward(client, asks, &head, &bytes[head.length..]),
            Ok(None) => {}
            Err(problem) => return answer(client, "400 Bad Request", problem),
        }
        let mut piece = [0; 4096];
        match client.read(&mut piece)? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn forward(
    client: &mut TcpStream,
    asks: &Asks,
    head: &Head<'_>,
    rest: &[u8],
) -> io::Result<Option<UnixStream>> {
    let tunnel = head.method == "CONNECT";
    let authority = if tunnel { Some(head.target) } else { http::authority_of(head.target) };
    let place = authority.and_then(|authority| place(authority, (!tunnel).then_some(80)));
    let Some((host, port)) = place else {
        return answer(client, "400 Bad Request", "this proxy takes CONNECT and http:// URLs");
    };
    if !tunnel && !head.target.starts_with("http://") {
        return answer(client, "400 Bad Request", "this proxy takes CONNECT and http:// URLs");
    }
    let mut server = match asks.connect(&host, port) {
        Ok(server) => server,
        Err(No::Refused(text)) => return answer(client, "403 Forbidden", &text),
        Err(No::Failed(text)) => return answer(client, "502 Bad Gateway", &text),
    };
    if tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        server.write_all(&for_origin(head))?;
    }
    server.write_all(rest)?;
    Ok(Some(server))
}

/// Host and port of an authority.
fn place(authority: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, default_port),
    };
    // An address is passed on in its one spelling, and so is refused in every other.
    let host = host.parse::<Host>().map_or_else(|_| host.to_owned(), |host| host.to_string());
    Some((host, port?))
}

/// The head as a server expects it. One request for each connection: the next may be for another host.
fn for_origin(head: &Head<'_>) -> Vec<u8> {
    const HOP_BY_HOP: [&str; 5] =
        ["connection", "proxy-connection", "keep-alive", "proxy-authorization", "upgrade"];
    let path = head.target.splitn(4, '/').nth(3).unwrap_or_default();
    let mut text = format!("{} /{path} HTTP/1.{}\r\n", head.method, head.minor);
    for (name, value) in &head.fields {
        if !HOP_BY_HOP.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str("Connection: close\r\n\r\n");
    text.into_bytes()
}

fn answer(client: &mut TcpStream, status: &str, text: &str) -> io::Result<Option<UnixStream>> {
    let body = format!("casemate: {text}\n");
    let length = body.len();
    let head = "Content-Type: text/plain; charset=utf-8\r\nConnection: close";
    write!(client, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    Ok(None)
}

const SOCKS5: u8 = 5;

/// RFC 1928: no authentication, CONNECT alone.
fn socks(client: &mut TcpStream, asks: &Asks) -> io::Result<Option<UnixStream>> {
    const NO_AUTHENTICATION: u8 = 0;
    const CONNECT: u8 = 1;
    let methods = sized(client)?;
    if !methods.contains(&NO_AUTHENTICATION) {
        client.write_all(&[SOCKS5, 0xff])?;
        return Ok(None);
    }
    client.write_all(&[SOCKS5, NO_AUTHENTICATION])?;
    let mut request = [0; 4];
    client.read_exact(&mut request)?;
    let [SOCKS5, command, 0, kind] = request else { return Ok(None) };
    let Some(host) = socks_host(client, kind)? else { return socks_reply(client, 8) };
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    if command != CONNECT {
        return socks_reply(client, 7);
    }
    match asks.connect(&host, u16::from_be_bytes(port)) {
        Ok(server) => socks_reply(client, 0).map(|_| Some(server)),
        Err(No::Refused(_)) => socks_reply(client, 2),
        Err(No::Failed(_)) => socks_reply(client, 4),
    }
}

/// The place that a SOCKS client names; `None` for a kind that there is not.
fn socks_host(client: &mut TcpStream, kind: u8) -> io::Result<Option<String>> {
    Ok(match kind {
        1 => {
            let mut address = [0; 4];
            client.read_exact(&mut address)?;
            Some(Ipv4Addr::from(address).to_string())
        }
        3 => {
            let name = sized(client)?;
            // Every byte stands for itself, so that none is lost on the way to whoever judges it.
            Some(name.iter().map(|byte| char::from(*byte)).collect())
        }
        4 => {
            let mut address = [0; 16];
            client.read_exact(&mut address)?;
            Some(Ipv6Addr::from(address).to_string())
        }
        _ => None,
    })
}

fn sized(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0];
    client.read_exact(&mut length)?;
    let mut bytes = vec![0; length[0].into()];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn socks_reply(client: &mut TcpStream, code: u8) -> io::Result<Option<UnixStream>> {
    client.write_all(&[SOCKS5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_client_wants_to_go() {
        let check = |authority: &str, port: Option<u16>, expected: Option<(&str, u16)>| {
            let place = place(authority, port);
            let place = place.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(place, expected, "{authority}");
        };
        check("a.example:443", None, Some(("a.example", 443)));
        check("a.example", None, None);
        check("A.example", Some(80), Some(("a.example", 80)));
        check("[::1]:80", None, Some(("[::1]", 80)));
        check("[::1]", Some(80), Some(("[::1]", 80)));
        check("a.example:x", None, None);
        check("a.example:65536", None, None);
        check("u@a.example:80", None, Some(("u@a.example", 80)));
    }

    #[test]
    fn a_server_is_asked_for_a_path() {
        let text = "GET http://a.example/x/y?z=/ HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: keep-alive\r\n\r\n";
        let head = http::head(text.as_bytes()).unwrap().unwrap();
        let expected = "GET /x/y?z=/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(for_origin(&head)).unwrap(), expected);
    }
}
