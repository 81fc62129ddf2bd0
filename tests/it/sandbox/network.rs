//! The network: the host's own listeners, and whatever lies beyond.

use super::{Probe, anyone, attack, untried};

const BEYOND: &str = "the machine may have no network";

const PROBES: &[Probe] = &[
    anyone("connect to a port of the host", "$PROBE tcp $PORT"),
    anyone("connect by the shell", "exec 3<>/dev/tcp/127.0.0.1/$PORT"),
    anyone("connect to an abstract socket", "$PROBE abstract casemate-$PORT"),
    anyone("connect to a socket by its path", "$PROBE unix $OUT/socket"),
    anyone("connect to a socket by a link", "ln -s $OUT/socket s; $PROBE unix s"),
    anyone("see the host's listeners", "grep -q $(printf :%04X $PORT) /proc/net/tcp"),
    anyone("see the host's sockets", "grep -q casemate-$PORT /proc/net/unix"),
    untried("see the host's interfaces", "grep -qv -e lo: -e '|' /proc/net/dev", BEYOND),
    untried("find a way out", "[ $(wc -l < /proc/net/route) -gt 1 ]", BEYOND),
    untried("send a datagram out", "echo x > /dev/udp/192.0.2.1/53", BEYOND),
    untried("connect out", "timeout 3 bash -c ': > /dev/tcp/192.0.2.1/80'; [ $? = 124 ]", BEYOND),
    untried(
        "ask for the cloud's credentials",
        "timeout 3 bash -c ': > /dev/tcp/169.254.169.254/80'",
        BEYOND,
    ),
    untried("resolve a name", "getent hosts example.com", BEYOND),
    untried("add an interface", "ip link add casemate0 type dummy", "it would change the machine"),
    untried("add an address", "ip address add 192.0.2.2/32 dev lo", "it would change the machine"),
];

#[test]
fn there_is_no_network() {
    attack("network", PROBES);
}
