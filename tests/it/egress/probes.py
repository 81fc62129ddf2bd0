# Every way to a place that is not allowed, each one expression. Prints `NAME reached` or `NAME no` for each.
import socket, ssl, struct, subprocess, sys, urllib.request

MARKER = b"MARKER"
OTHER = b"GET / HTTP/1.0\r\nHost: other.example\r\n\r\n"
ALLOWED = b"GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
EVIL = b"GET / HTTP/1.1\r\nHost: other.example\r\nX: y\r\n\r\n"


def read(s, until=MARKER):
    s.settimeout(3)
    got = b""
    try:
        while until not in got:
            piece = s.recv(4096)
            if not piece:
                break
            got += piece
    except OSError:
        pass
    return got


def tcp(host, port=80, data=OTHER, until=MARKER, protocol=0):
    for family, kind, _, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as s:
            s.settimeout(3)
            s.connect(place)
            s.sendall(data)
            return until in read(s, until)


def evil(data, host="allowed.example", port=80):
    """Whether a server heard of the other host on a connection to the allowed one."""
    return tcp(host, port, data, b"other.example")


def redirect(url):
    with urllib.request.urlopen("http://" + url, timeout=4) as answer:
        return MARKER in answer.read()


def hello(name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def udp(host, port, data=b"x"):
    for family, kind, _, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            s.connect(place)
            s.send(data)
            return s.recv(2048)


def query(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\x07\x09\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01"


def resolved(answer):
    return answer[3] & 15 == 0 and answer[7] > 0


def dns_tcp(host, name):
    with socket.create_connection((host, 53), 3) as s:
        s.sendall(struct.pack("!H", len(query(name))) + query(name))
        return resolved(s.recv(2048)[2:])


def fast_open(host):
    with socket.socket() as s:
        s.sendto(OTHER, socket.MSG_FASTOPEN, (host, 80))
        return MARKER in read(s)


def ping(kind, host):
    with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as s:
        s.settimeout(2)
        s.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0), (host, 0))
        return len(s.recv(2048)) > 0


def raw_udp(host):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as s:
        return s.sendto(struct.pack("!HHHH", 9, 9001, 8, 0), (host, 0)) == 8


def opens(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return True


def abstract(name):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + name)
        return MARKER in s.recv(100)


def command(*words):
    return subprocess.run(words, capture_output=True, timeout=5).returncode == 0


def proxy(data, until):
    with socket.create_connection(("127.0.0.1", 3128), 3) as s:
        s.sendall(data)
        return until in read(s, until)


def tunnel(target, then, until=b"other.example"):
    """A CONNECT, and what is said in it."""
    with socket.create_connection(("127.0.0.1", 3128), 3) as s:
        s.sendall(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n")
        if b" 200 " not in read(s, b"\r\n\r\n"):
            return False
        s.sendall(then)
        return until in read(s, until)


def socks(kind, host, port=80, command=1, version=5):
    with socket.create_connection(("127.0.0.1", 3128), 3) as s:
        s.settimeout(3)
        s.sendall(bytes([version, 1, 0]))
        if s.recv(2) != b"\x05\0":
            return False
        place = host if kind != 3 else bytes([len(host)]) + host
        s.sendall(bytes([5, command, 0, kind]) + place + struct.pack("!H", port))
        if s.recv(10)[1] != 0:
            return False
        s.sendall(OTHER)
        return MARKER in read(s)


with open(sys.argv[1]) as probes:
    for line in probes:
        name, code = line.rstrip("\n").split("\t", 1)
        try:
            outcome = eval(code)
        except Exception as error:
            outcome = False
            if "-v" in sys.argv:
                print(name, repr(error), file=sys.stderr)
        print(name, "reached" if outcome else "no", flush=True)
