//! What outlives its call: processes that survive it, the guest that it would kill, and tampering with later calls.

use super::calls::Call::{Bash, Edit, LateBash, Restart, Write};
use super::calls::Control::{SameCalls, Script, Untried};
use super::calls::Wins::{NotTold, Seen, Told};
use super::calls::{Attack, Call, Control, Wins, attack};

const fn one(name: &'static str, calls: &'static [Call], wins: Wins, outside: Control) -> Attack {
    Attack { name, calls, wins, outside }
}

/// Tells which of the sleepers below are there.
const WHO_SLEEPS: Call =
    Bash(r"cat /proc/[0-9]*/cmdline | tr '\0' ' ' | grep -ao 'sleep 7700[0-9]' | tr ' ' '='; true");
const SLEEPS: Wins = Told("sleep=7700");
const SURVIVES: Control = Script(
    "timeout -k .1 .3 bash -c 'setsid sleep 77008 & echo $! > pid; sleep 9'
     kill -0 $(cat pid); e=$?; kill $(cat pid); exit $e",
);

/// Hides itself from all others of its user (`PR_SET_DUMPABLE`), and leaves a mark later.
const HIDES: &str = r#"(setsid python3 -c 'import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
time.sleep(2); open("mark", "w")' &) ; sleep 9"#;

/// Puts a program that leaves a mark in the place of those that a later call runs.
const FAKE_PROGRAMS: Call = Bash(
    r#"mkdir bin; for name in ls bash sh cat env; do
         printf '#!/bin/sh\n: > %s/mark\n' $HERE > bin/$name; chmod +x bin/$name; done
       export PATH=$HERE/bin:/usr/bin:/bin"#,
);
const MARKED: Wins = Seen("[ -e mark ]");
const USED: Call = Bash("ls; cat /dev/null; env true");

const ATTACKS: &[Attack] = &[
    one("a child of a late call", &[LateBash("sleep 77001 & sleep 9"), WHO_SLEEPS], SLEEPS, SURVIVES),
    one("a child in another session", &[LateBash("setsid sleep 77002 & sleep 9"), WHO_SLEEPS], SLEEPS, SURVIVES),
    one("an orphan", &[LateBash("(setsid sleep 77003 &) ; sleep 9"), WHO_SLEEPS], SLEEPS, SURVIVES),
    one("a child that no hang-up ends", &[LateBash("nohup sleep 77004 & disown; sleep 9"), WHO_SLEEPS], SLEEPS, SURVIVES),
    one(
        "a child that ignores signals",
        &[LateBash("(trap '' TERM INT HUP QUIT URG; exec sleep 77005) & sleep 9"), WHO_SLEEPS],
        SLEEPS,
        SURVIVES,
    ),
    one("a stopped child", &[LateBash("sleep 77006 & kill -STOP $!; sleep 9"), WHO_SLEEPS], SLEEPS, SURVIVES),
    one(
        "an orphan that lets nobody look into it",
        &[LateBash(HIDES), Bash("sleep 3")],
        MARKED,
        Script(
            r#"timeout -k .1 .5 bash -c 'setsid python3 -c "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
time.sleep(2); open(\"mark\", \"w\")" & sleep 9'; sleep 3; [ -e mark ]"#,
        ),
    ),
    one("a late call that goes on", &[LateBash("sleep 9; touch mark; sleep 9"), Bash("sleep .2")], MARKED,
        Script("bash -c 'sleep .1; touch mark'; [ -e mark ]")),
    one("a late call that traps", &[LateBash("trap 'touch mark' INT TERM EXIT URG; sleep 9; touch mark"), Bash("true")],
        Seen("[ -e never ]"), Untried("a trap may run, but the call ends; see that the next one is answered")),
    one(
        "a process after the session",
        &[Bash("setsid nohup sleep 86423.01 >/dev/null 2>&1 & disown; (setsid sleep 86423.02 >/dev/null &)")],
        Seen("sleep .3; cat /proc/[0-9]*/cmdline | grep -qa '86423[.]0'"),
        Script(
            "bash -c 'setsid nohup sleep 86423.03 & echo $! > pid'; sleep .2
             kill -0 $(cat pid); e=$?; kill $(cat pid); exit $e",
        ),
    ),
    one(
        "kill the guest",
        &[Bash("kept=yes"), Bash("for s in KILL STOP SEGV ABRT TERM HUP; do kill -$s $PPID; done"), Bash("echo it-is-$kept")],
        NotTold("it-is-yes"),
        SameCalls,
    ),
    one(
        "take the guest's descriptors",
        &[Bash("prlimit --pid $PPID --nofile=1:1 --fsize=1:1 --nproc=1:1"), Bash("echo it-is-answered; seq 9")],
        NotTold("it-is-answered"),
        Script("sleep 9 & prlimit --pid $! --nofile=1:1; e=$?; kill $!; exit $e"),
    ),
    one(
        "kill everything",
        &[Bash("kept=yes"), Bash("bash -c 'kill -KILL -1'; true"), Bash("echo still-$kept-")],
        Seen("! kill -0 $VICTIM"),
        Untried("it would end every process of the user"),
    ),
    one(
        "a file that shells read",
        &[
            Bash(
                r#"for f in .bashrc .bash_profile .profile .bash_login .bash_logout .inputrc; do
                     echo "touch $HERE/mark" >> ~/$f; done; cp ~/.bashrc $WORK/.bashrc"#,
            ),
            Restart,
            USED,
        ],
        MARKED,
        Script("echo \"touch $PWD/mark\" > .bashrc; HOME=$PWD bash -ic true; [ -e mark ]"),
    ),
    one(
        "a variable that shells obey",
        &[
            Bash("echo \"touch $HERE/mark\" > env; export BASH_ENV=$HERE/env ENV=$HERE/env PROMPT_COMMAND=\"touch $HERE/mark\""),
            Restart,
            Bash("rm -f mark"),
            Bash("bash -c true"),
        ],
        MARKED,
        Script("echo \"touch $PWD/mark\" > env; BASH_ENV=$PWD/env bash -c true; [ -e mark ]"),
    ),
    one("programs found first", &[FAKE_PROGRAMS, Restart, USED], MARKED,
        Script("mkdir bin; printf '#!/bin/sh\\n: > mark\\n' > bin/ls; chmod +x bin/ls; PATH=$PWD/bin:$PATH; ls; [ -e mark ]")),
    one("programs found first, by the file tools",
        &[FAKE_PROGRAMS, Write("$HERE/file", "CANARY-4c7d"), Edit("$HERE/file")], MARKED,
        Script("mkdir bin; printf '#!/bin/sh\\n: > mark\\n' > bin/ls; chmod +x bin/ls; PATH=$PWD/bin:$PATH; ls; [ -e mark ]")),
    one(
        "functions, aliases and traps",
        &[
            Bash(
                "shopt -s expand_aliases; alias cat='touch $HERE/mark; cat'; ls() { touch $HERE/mark; }; export -f ls
                 env() { touch $HERE/mark; }; export -f env; trap 'touch $HERE/mark' EXIT; enable -n echo",
            ),
            Restart,
            Bash("rm -f mark"),
            USED,
        ],
        MARKED,
        Script("ls() { touch mark; }; export -f ls; bash -c ls; [ -e mark ]"),
    ),
    one(
        "a library in every program",
        &[Bash("export LD_PRELOAD=$HERE/none.so LD_LIBRARY_PATH=$HERE"), Restart, Bash("cat /dev/null; echo so:$LD_PRELOAD")],
        Told("none.so"),
        Script("export LD_PRELOAD=$PWD/none.so; cat /dev/null 2>&1 | grep -q none.so"),
    ),
    one(
        "the directory of long outputs, as a link",
        &[Bash("rm -rf /tmp/.casemate; ln -s $OUT /tmp/.casemate"), Bash("seq 100000")],
        Seen("ls $OUT | grep -q output-"),
        Script("ln -s $OUT l; touch l/output-0; [ -e $OUT/output-0 ]; e=$?; rm $OUT/output-0; exit $e"),
    ),
    one("a flood of output that is kept", &[Bash("yes | head -c 300000000")],
        Seen("[ $(du -sm $VICTIM_HOME/data | cut -f1) -gt 40 ]"), Untried("a flood is a flood")),
    one("a flood of errors", &[Bash("yes >&2 & sleep 1; kill %1"), Bash("echo answered")], NotTold("answered"),
        Untried("the answer is what is tested")),
];

#[test]
fn nothing_outlives_its_call() {
    attack("later calls", ATTACKS);
}
