//! Out of the workspace by way of each file tool: paths, links, `/proc`, and races that swap what a path leads to.

use super::calls::Call::{Bash, Edit, Glob, Grep, Often, Read, Write};
use super::calls::Control::{SameCalls, Script, Untried};
use super::calls::Wins::{Seen, Told};
use super::calls::{Attack, Call, Wins, attack};

const fn same(name: &'static str, calls: &'static [Call], wins: Wins) -> Attack {
    Attack { name, calls, wins, outside: SameCalls }
}

const fn untried(
    name: &'static str,
    calls: &'static [Call],
    wins: Wins,
    why: &'static str,
) -> Attack {
    Attack { name, calls, wins, outside: Untried(why) }
}

const READ: Wins = Told("CANARY-4c7d");
const LISTED: Wins = Told("transcript");
const WRITTEN: Wins = Seen("[ -e $OUT/written ]");
const CHANGED: Wins = Seen("grep -q attacked $OUT/target");

/// A path that leads into the workspace now and outside a moment later.
const SWAP: Call = Bash(
    "mkdir real; echo > real/canary; echo > real/target; ln -s real d
     (for i in {1..4000}; do ln -sfn $HERE/real a; mv -T a d; ln -sfn $OUT b; mv -T b d; done) >/dev/null 2>&1 &",
);
/// The same with a directory in the place of the first link, so that no component is a link half of the time.
const SWAP_DIRECTORY: Call = Bash(
    "mkdir real; echo > real/canary; echo > real/target
     (for i in {1..4000}; do mv -T real d; mv -T d real; ln -s $OUT d; rm d; done) >/dev/null 2>&1 &",
);
const STOP: Call = Bash("kill %1; wait; true");

const ELSEWHERE: &str = "without the sandbox the guest is in another directory";

const ATTACKS: &[Attack] = &[
    same("read an absolute path", &[Read("$OUT/canary")], READ),
    same("read by dots", &[Read("../out/canary")], READ),
    same("read through a link", &[Bash("ln -s $OUT/canary l"), Read("$HERE/l")], READ),
    same(
        "read through a chain of links",
        &[Bash("ln -s $OUT a; ln -s a b; ln -s b/canary c"), Read("$HERE/c")],
        READ,
    ),
    same("read through a linked directory", &[Bash("ln -s $OUT d"), Read("$HERE/d/canary")], READ),
    same("read by /proc/self/root", &[Read("/proc/self/root$OUT/canary")], READ),
    untried("read by /proc/self/cwd", &[Read("/proc/self/cwd/../out/canary")], READ, ELSEWHERE),
    same(
        "read by a link to /proc",
        &[Bash("ln -s /proc/self/root r"), Read("$HERE/r$OUT/canary")],
        READ,
    ),
    same("read a key", &[Read("$VICTIM_HOME/.ssh/id_ed25519")], READ),
    same("read the runtime's files", &[Read("$VICTIM_HOME/data/casemate.db")], Told("SQLite")),
    same("read the model's script", &[Read("$VICTIM_HOME/script.yaml")], Told("tool_calls")),
    untried(
        "read an inherited descriptor",
        &[Bash("for f in /proc/[0-9]*/fd/*; do [ -f $f ] && head -c 99 $f; done; true")],
        READ,
        "inherited descriptors are closed in every tier",
    ),
    untried(
        "read the environment of the guest",
        &[Read("/proc/self/environ"), Read("/proc/1/environ")],
        READ,
        "the guest has a clean environment in every tier",
    ),
    same("read the users of the host", &[Read("/etc/passwd")], Told("daemon:")),
    same("write an absolute path", &[Write("$OUT/written", "x")], WRITTEN),
    same("write by dots", &[Write("../out/written", "x")], WRITTEN),
    same(
        "write through a link",
        &[Bash("ln -s $OUT/target l"), Write("$HERE/l", "attacked")],
        CHANGED,
    ),
    same(
        "write through a link to nothing",
        &[Bash("ln -s $OUT/written l"), Write("$HERE/l", "x")],
        WRITTEN,
    ),
    same(
        "write through a linked directory",
        &[Bash("ln -s $OUT d"), Write("$HERE/d/written", "x")],
        WRITTEN,
    ),
    same("write by /proc/self/root", &[Write("/proc/self/root$OUT/written", "x")], WRITTEN),
    untried(
        "write by /proc/self/cwd",
        &[Write("/proc/self/cwd/../out/written", "x")],
        WRITTEN,
        ELSEWHERE,
    ),
    same(
        "write to a new directory",
        &[Write("$OUT/new/written", "x")],
        Seen("[ -e $OUT/new/written ]"),
    ),
    untried(
        "write a setting of the kernel",
        &[Write("/proc/sys/kernel/hostname", "attacked")],
        Seen("[ $(hostname) = attacked ]"),
        "it would change the machine",
    ),
    untried(
        "write a system file",
        &[Write("/etc/attacked", "x")],
        Seen("[ -e /etc/attacked ]"),
        "it would change the machine",
    ),
    untried(
        "write a program",
        &[Write("/usr/bin/attacked", "x")],
        Seen("[ -e /usr/bin/attacked ]"),
        "it would change the machine",
    ),
    same("edit an absolute path", &[Edit("$OUT/target")], CHANGED),
    same("edit by dots", &[Edit("../out/target")], CHANGED),
    same("edit through a link", &[Bash("ln -s $OUT/target l"), Edit("$HERE/l")], CHANGED),
    same(
        "edit through a linked directory",
        &[Bash("ln -s $OUT d"), Edit("$HERE/d/target")],
        CHANGED,
    ),
    same("edit by /proc/self/root", &[Edit("/proc/self/root$OUT/target")], CHANGED),
    same("glob an absolute path", &[Glob("$OUT")], LISTED),
    same("glob by dots", &[Glob("../out")], LISTED),
    same("glob a linked directory", &[Bash("ln -s $OUT d"), Glob("$HERE/d/")], LISTED),
    same("glob by /proc/self/root", &[Glob("/proc/self/root$OUT")], LISTED),
    same("glob a home", &[Glob("$VICTIM_HOME")], Told("netrc")),
    same("grep an absolute path", &[Grep("$OUT")], READ),
    same("grep by dots", &[Grep("../out")], READ),
    same("grep through a link", &[Bash("ln -s $OUT/canary l"), Grep("$HERE/l")], READ),
    same("grep a linked directory", &[Bash("ln -s $OUT d"), Grep("$HERE/d/")], READ),
    same("grep by /proc/self/root", &[Grep("/proc/self/root$OUT")], READ),
    same("grep a home", &[Grep("$VICTIM_HOME")], READ),
    untried(
        "grep descriptors",
        &[Grep("/proc/self/fd"), Grep("/dev/fd/")],
        READ,
        "a walk passes over links in every tier",
    ),
    Attack {
        name: "a search that waits for a pipe",
        calls: &[Bash("mkfifo .gitignore"), Glob("$HERE"), Grep("$HERE"), Read("$HERE/.gitignore")],
        wins: Told("sandbox broke"),
        outside: Script("mkfifo .gitignore; timeout 1 cat .gitignore; [ $? = 124 ]"),
    },
    Attack {
        name: "a search that reads without end",
        calls: &[
            Bash("mkdir -p a/b; ln -s /dev/zero a/.ignore; ln -s /dev/zero .gitignore"),
            Glob("$HERE"),
            Grep("$HERE"),
        ],
        wins: Told("sandbox broke"),
        outside: Script("ln -s /dev/zero .gitignore; timeout 1 wc -l < .gitignore; [ $? = 124 ]"),
    },
    same("race: read", &[SWAP, Often(&Read("$HERE/d%/canary")), STOP], READ),
    same("race: write", &[SWAP, Often(&Write("$HERE/d%/written", "x")), STOP], WRITTEN),
    same("race: edit", &[SWAP, Often(&Edit("$HERE/d%/target")), STOP], CHANGED),
    same("race: glob", &[SWAP, Often(&Glob("$HERE/d%")), STOP], LISTED),
    same("race: grep", &[SWAP, Often(&Grep("$HERE/d%")), STOP], READ),
    untried(
        "race with a directory: read",
        &[SWAP_DIRECTORY, Often(&Read("$HERE/d%/canary")), STOP],
        READ,
        "the moment is too short to hit for certain",
    ),
    untried(
        "race with a directory: write",
        &[SWAP_DIRECTORY, Often(&Write("$HERE/d%/written", "x")), STOP],
        WRITTEN,
        "the moment is too short to hit for certain",
    ),
    untried(
        "race with a directory: edit",
        &[SWAP_DIRECTORY, Often(&Edit("$HERE/d%/target")), STOP],
        CHANGED,
        "the moment is too short to hit for certain",
    ),
    untried(
        "race with a directory: grep",
        &[SWAP_DIRECTORY, Often(&Grep("$HERE/d%")), STOP],
        READ,
        "the moment is too short to hit for certain",
    ),
];

#[test]
fn no_file_tool_leaves_the_workspace() {
    attack("file tools", ATTACKS);
}
