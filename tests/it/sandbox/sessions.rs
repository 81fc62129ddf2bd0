//! Other sessions: two sandboxes at the same time, of the same user, and what one finds of the other.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::{As, Place, Probe, Scene, Tally, anyone, judge};

/// The first session: leaves everything that can be shared, and stays.
const HOLDER: &str = r#"
    for dir in /tmp /dev/shm /var/tmp; do echo held > $dir/casemate-held-$PORT; done
    echo held > $WORK/held
    for what in memory messages queue; do $PROBE shared leave-$what $PORT; done
    sleep 86425.5 & sleeper=$!
    $PROBE listen held-$PORT & listener=$!
    read
    kill $sleeper $listener
    $PROBE shared remove $PORT
    rm /tmp/casemate-held-$PORT /dev/shm/casemate-held-$PORT /var/tmp/casemate-held-$PORT
"#;

const PROBES: &[Probe] = &[
    anyone("a file of the other's workspace", "grep -q held $WORK/../../$OTHER/work/held"),
    anyone("a temporary file of the other", "grep -q held /tmp/casemate-held-$OTHER_PORT"),
    anyone(
        "a lasting temporary file of the other",
        "grep -q held /var/tmp/casemate-held-$OTHER_PORT",
    ),
    anyone("a shared file of the other", "grep -q held /dev/shm/casemate-held-$OTHER_PORT"),
    anyone("a shared memory segment of the other", "$PROBE shared memory $OTHER_PORT"),
    anyone("a message queue of the other", "$PROBE shared messages $OTHER_PORT"),
    anyone("a named message queue of the other", "$PROBE shared queue $OTHER_PORT"),
    anyone("an abstract socket of the other", "$PROBE abstract held-$OTHER_PORT"),
    anyone("a socket of the other in a list", "grep -q held-$OTHER_PORT /proc/net/unix"),
    anyone("a process of the other", "cat /proc/[0-9]*/cmdline | grep -qa '86425[.]5'"),
    anyone(
        "a signal to a process of the other",
        "for p in /proc/[0-9]*; do grep -qsa '86425[.]5' $p/cmdline && kill -0 ${p#/proc/} && exit 0; done; exit 1",
    ),
    anyone("the data of the other", "ls $WORK/../../$OTHER/home/data | grep -q key"),
];

struct Holder(Child);

impl Holder {
    fn begin(scene: &Scene, place: Place) -> Self {
        let script = scene.casemate.put("holder.sh", &format!("{}{HOLDER}", scene.names(place)));
        let mut command = scene.bash(place, &script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n", "{}", scene.transcript());
        Self(child)
    }

    fn end(mut self, transcript: impl Fn() -> String) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success(), "{}", transcript());
    }
}

/// Tries all probes beside another session.
fn attempt(who: As, place: Place) -> Vec<bool> {
    let (other, mut scene) = (Scene::new(who), Scene::new(who));
    let holder = Holder::begin(&other, place);
    let home = other.casemate.home();
    let name = home.parent().and_then(|dir| dir.file_name()).unwrap().to_str().unwrap();
    scene.more = format!("OTHER={name}; OTHER_PORT={}\n", other.tcp.local_addr().unwrap().port());
    let outcome = scene.attempt(place, PROBES);
    holder.end(|| other.transcript());
    outcome
}

#[test]
fn one_session_finds_nothing_of_another() {
    if super::ATTACKER.is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for who in As::all() {
        let mut tally = Tally::default();
        let (outside, inside) = (attempt(who, Place::Outside), attempt(who, Place::Inside));
        wrong.extend(judge(PROBES, who, &outside, &inside, &mut tally));
        tally.report("other sessions", who);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n  "));
}
