//! Launches that are killed at random moments, with what they started: afterwards nothing of them is left on the host.
//!
//! `CASEMATE_TEST_LAUNCHES=1000` makes more of them than the usual number.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{As, Casemate};

const LAUNCHES: u64 = 200;
/// Longest life of a launch at first: twice the time that it takes to come up where nothing else runs. It is doubled as long
/// as nothing that was launched came up.
const LONGEST: Duration = Duration::from_millis(60);
/// What other tests have under way at the same time ends within this.
const OTHERS_END: Duration = Duration::from_secs(180);

/// Leaves children of every kind behind.
const HOLDS_ON: &str =
    "(setsid sleep 87001 &); nohup sleep 87001 & trap '' TERM; echo x > /tmp/left; sleep 87001";

fn launches() -> u64 {
    let wanted = std::env::vars().find(|(name, _)| name == "CASEMATE_TEST_LAUNCHES");
    wanted.map_or(LAUNCHES, |(_, number)| number.parse().expect("a number of launches"))
}

/// Processes of sandboxes, anyone's: by the name of the guest, or by a user id that only sessions have.
fn processes() -> BTreeSet<String> {
    let sessions = 0x7000_0000..=0x7000_ffff;
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let of_a_sandbox = |pid: &String| {
        // One that has ended meanwhile is none.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
        };
        let by_user = field("Uid:").parse().is_ok_and(|uid: u32| sessions.contains(&uid));
        let by_name = line.starts_with(b"casemate-guest\0") || line.starts_with(b"sleep\087001");
        field("State:") != "Z" && (by_user || by_name)
    };
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())).filter(of_a_sandbox).collect()
}

/// Mounts and cgroups of the host that bear the program's name or lie in the test's place.
fn mounts_and_cgroups(place: &Path) -> BTreeSet<String> {
    let place = place.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |line: &&str| line.contains("casemate") || line.contains(&place);
    let mut found: BTreeSet<String> = mounts.lines().filter(ours).map(str::to_owned).collect();
    let cgroups =
        Command::new("find").args(["/sys/fs/cgroup", "-name", "*casemate*"]).output().unwrap();
    found.extend(String::from_utf8(cgroups.stdout).unwrap().lines().map(str::to_owned));
    found
}

/// Canaries that are there, by their names, which begin with the number of the process.
fn canaries() -> BTreeSet<String> {
    let places = ["/dev/shm", "/tmp", "/var/tmp"]
        .into_iter()
        .filter_map(|place| std::fs::read_dir(place).ok());
    let dirs = places.flatten().map(|entry| entry.unwrap().path());
    let own = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(".casemate-"))
    };
    // A directory goes with its last file, also just now.
    let names =
        dirs.filter(|path| own(path)).filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until a set of things is empty.
fn wait_for_none(what: &str, left: impl Fn() -> BTreeSet<String>) {
    let deadline = Instant::now() + OTHERS_END;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what} left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the program and kills it after a random time; its number.
fn launch_and_kill(mut command: Command, longest: Duration, random: &mut u64) -> u32 {
    // A linear congruential generator: reproducible from the seed that the test prints.
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let longest = u64::try_from(longest.as_micros()).unwrap();
    let life = Duration::from_micros((*random >> 33) % longest);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn launches_that_are_killed_leave_nothing() {
    let seed = std::hash::RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut random = seed;
    for who in As::all() {
        let casemate = Casemate::of(who);
        let turns = json!({"turns": [{"tool_calls": [{"bash": {"command": HOLDS_ON}}]}, {"text": "Done."}]});
        let model = casemate.script(&turns.to_string());
        let place = casemate.home().parent().unwrap().to_owned();
        let (before, fixtures) = (processes(), mounts_and_cgroups(&place));
        // Another test may have left one, of a process whose number is given again.
        let foreign = canaries();
        let number = launches();
        let (mut longest, mut made, mut sessions) = (LONGEST, 0, 0);
        let mut killed = BTreeSet::new();
        while made < number || sessions == 0 {
            let mut command = casemate.command();
            if made % 3 == 0 {
                command.args(["run", "--quiet", "--model", &model, "hold on"]);
            } else {
                command.args(["sandbox", "exec", "--", "bash", "-c", HOLDS_ON]);
            }
            killed.insert(launch_and_kill(command, longest, &mut random).to_string());
            made += 1;
            if made % 50 == 0 && sessions == 0 {
                sessions = casemate.sessions().len();
                longest *= if sessions == 0 { 2 } else { 1 };
                assert!(longest < OTHERS_END, "no run lives long enough to have a session");
            }
        }
        wait_for_none("processes", || &processes() - &before);
        // The next launch removes what a host that was killed could not.
        let turns =
            json!({"turns": [{"tool_calls": [{"bash": {"command": "true"}}]}, {"text": "Done."}]});
        let model = casemate.script(&turns.to_string());
        casemate.run(&["run", "--quiet", "--model", &model, "do nothing"]).expect(0);
        wait_for_none("mounts or cgroups", || &mounts_and_cgroups(&place) - &fixtures);
        assert_eq!(names_in(&casemate.workspace()), BTreeSet::new(), "in the workspace");
        assert_eq!(names_in(&place), ["home", "work"].map(str::to_owned).into(), "beside it");
        // What is left of the sessions is their log, and it is whole.
        let listed = casemate.run(&["sessions", "list", "--json", "--limit", "1000"]).expect(0);
        let sessions =
            serde_json::from_str::<Vec<serde_json::Value>>(&listed.stdout()).unwrap().len();
        let mut left = &canaries() - &foreign;
        left.retain(|name| killed.contains(name.split('-').next().unwrap()));
        assert_eq!(left, BTreeSet::new(), "{who:?}: canaries");
        println!(
            "{who:?}: {made} launches killed, {sessions} of them had a session; nothing is left"
        );
    }
}
