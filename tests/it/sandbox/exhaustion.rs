//! Exhaustion: more than a session's share of anything. The numbers are small enough to be harmless where they succeed.
//! A sandbox may be ended for it, so each has its own.

use super::{Probe, Scene, anyone, attack_one_by_one, untried};
use crate::support::As;

const FILLS: &str = "it would fill the machine's own memory or disk";

const PROBES: &[Probe] = &[
    untried(
        "more processes than the bound",
        "$PROBE many processes 5000",
        "it would end other programs of the machine",
    ),
    untried(
        "more open files than the bound",
        "$PROBE many files 4200",
        "the bound of the machine may be lower",
    ),
    anyone("most watchers of the user", "$PROBE many watchers 100"),
    anyone("more terminals than the bound", "$PROBE many terminals 100"),
    untried(
        "more memory in /dev/shm than its bound",
        "head -c 300M /dev/zero > /dev/shm/fill",
        FILLS,
    ),
    untried("more memory in /run than its bound", "head -c 100M /dev/zero > /run/fill", FILLS),
    untried(
        "more memory in /var/tmp than its bound",
        "head -c 600M /dev/zero > /var/tmp/fill; e=$?; rm /var/tmp/fill; exit $e",
        FILLS,
    ),
    untried(
        "more memory in /tmp than its bound",
        "head -c 2200M /dev/zero > /tmp/fill; e=$?; rm /tmp/fill; exit $e",
        FILLS,
    ),
    untried("more files in memory than 600,000", "[ $(stat -f -c %c /tmp) -gt 600000 ]", FILLS),
    untried("anything in the root", "head -c 1 /dev/zero > /fill", FILLS),
    anyone(
        "a larger file than the bound",
        "truncate -s 20G fill; [ $(stat -c %s fill) = 21474836480 ]",
    ),
    anyone("a core dump", "ulimit -c unlimited && [ $(ulimit -c) = unlimited ]"),
    untried(
        "more open files by asking",
        "ulimit -n 65536",
        "the bound of the machine may be lower",
    ),
    untried(
        "more processes by asking",
        "ulimit -u 100000",
        "the bound of the machine may be lower",
    ),
];

/// Memory that the kernel charges to no process, by kinds of `probe unseen`, in MiB: more than the profile below has. What
/// nobody tells of is seen by what the machine has less, and newer kernels keep some 400 MiB of freed pages by processor for
/// seconds, which are not counted as free.
const UNSEEN: [(&str, &str); 4] =
    [("nameless", "400"), ("forgotten", "1000"), ("sockets", "800"), ("hidden", "400")];
const SMALL: &str = "name = 'small'\nreason = 'a test'\nextends = 'default'\n\
    [[limit]]\nresource = 'memory'\nvalue = 201326592\nreason = 'the least that is enough'\n";

#[test]
fn memory_that_no_process_is_charged_for_counts() {
    if super::ATTACKER.is_none() {
        return;
    }
    let is_told = |who: As, (kind, mib): (&str, &str)| {
        let scene = Scene::new(who);
        let profile = scene.casemate.put("small.toml", SMALL).display().to_string();
        let attack = ["./probe", "unseen", kind, mib];
        let outside = format!("ulimit -n 4096; {}", attack.join(" "));
        let proven = scene.casemate.shell(&format!("cd $(dirname {profile}); {outside}"), &[]);
        proven.expect(0);
        let words = [&["sandbox", "exec", "--profile", &profile, "--"], &attack[..]].concat();
        scene.casemate.run(&words).stderr().contains("memory limit 192 MiB")
    };
    for who in As::all() {
        for kind in UNSEEN {
            // What others of the machine let go of at that moment hides what this takes.
            assert!((0..8).any(|_| is_told(who, kind)), "{who:?}: LET THROUGH: {kind:?}");
        }
    }
}

#[test]
fn nothing_is_exhausted() {
    attack_one_by_one("exhaustion", PROBES);
}
