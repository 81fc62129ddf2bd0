//! Attacks on the sandbox, as data: what a hostile command does, how its success is seen, and the proof that it would
//! succeed without the sandbox. One file for each category; each runs as root and as an ordinary user.
//!
//! A [`Probe`] is a piece of bash that ends with 0 if the attack succeeded. All of a category run in one sandbox, and
//! before that once more outside of it: a probe that fails there too, for want of a program or by a typing mistake,
//! proves nothing and fails the test. Where success outside would harm the machine, the data say why it is not tried.
//! What a shell cannot ask of the kernel is in `probe.c`. Attacks by way of tool calls are [`calls::Attack`]s.

mod calls;
mod credentials;
mod devices;
mod exhaustion;
mod files;
mod kernel;
mod leaks;
mod lingering;
mod network;
mod processes;
mod repositories;
mod sessions;
mod starts;
mod terminal;
mod toolchains;
mod tools;
mod workspace;

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex};

use crate::support::{As, Casemate, USER, write};

/// What stands in every file that must not be read, and in the environment that casemate is started with.
const SECRET: &str = "CANARY-4c7d";

/// One attack.
struct Probe {
    name: &'static str,
    /// Bash that ends with 0 if the attack succeeded.
    does: &'static str,
    /// In its place: a condition that then holds on the host.
    seen: Option<&'static str>,
    outside: Outside,
}

/// Whether the attack succeeds without the sandbox.
enum Outside {
    /// Whoever tries it.
    Anyone,
    /// If root tries it.
    Root,
    /// It is not tried, because.
    Untried(&'static str),
}

/// An attack that anyone can carry out where there is no sandbox.
const fn anyone(name: &'static str, does: &'static str) -> Probe {
    Probe { name, does, seen: None, outside: Outside::Anyone }
}

/// An attack that root can carry out where there is no sandbox.
const fn root(name: &'static str, does: &'static str) -> Probe {
    Probe { name, does, seen: None, outside: Outside::Root }
}

/// An attack that is not tried outside, for a reason.
const fn untried(name: &'static str, does: &'static str, why: &'static str) -> Probe {
    Probe { name, does, seen: None, outside: Outside::Untried(why) }
}

impl Probe {
    /// The attack succeeded if this holds on the host.
    const fn seen(self, condition: &'static str) -> Self {
        Self { seen: Some(condition), ..self }
    }

    fn succeeds_outside(&self, who: As) -> bool {
        match self.outside {
            Outside::Anyone => true,
            Outside::Root => who == As::Me && nix::unistd::geteuid().is_root(),
            Outside::Untried(_) => false,
        }
    }
}

/// The compiled attacker; `None` where there is no C compiler, which CI does not accept.
static ATTACKER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sandbox/probe.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe");
    let flags = ["-O1", "-Wall", "-Wno-nonnull", "-o"];
    let built = Command::new("cc").args(flags).arg(&program).arg(source).arg("-lrt").output();
    match built {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => panic!("probe.c: {}", String::from_utf8_lossy(&output.stderr)),
        Err(e) => {
            missing(&format!("cc: {e}"));
            None
        }
    }
});

/// Says what this machine lacks; fails where nothing may be lacking.
fn missing(what: &str) {
    eprintln!("LEFT OUT, missing here: {what}");
    let required =
        std::env::vars().any(|(name, value)| name == "CASEMATE_TEST_REQUIRE" && value == "all");
    assert!(!required, "CASEMATE_TEST_REQUIRE=all, and missing: {what}");
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
}

/// What an attacker finds: a home with secrets, a directory that is none of its business, a host that listens.
struct Scene {
    casemate: Casemate,
    who: As,
    victim: Child,
    /// More names for probes.
    more: String,
    tcp: TcpListener,
    // Held open for the time of the scene.
    _udp: UdpSocket,
    _sockets: [UnixListener; 2],
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.victim.kill().expect("a sleeping child");
        self.victim.wait().expect("a killed child");
    }
}

impl Scene {
    fn new(who: As) -> Self {
        let casemate = Casemate::of(who);
        let out = casemate.home().with_file_name("out");
        for dir in [".ssh", ".aws", ".config/gh", ".gnupg", ".docker", "data"] {
            std::fs::create_dir_all(casemate.home().join(dir)).unwrap();
        }
        std::fs::create_dir(&out).unwrap();
        for name in ["canary", "transcript", "target", "doomed"] {
            write(&out.join(name), SECRET);
        }
        let secrets = [
            ".ssh/id_ed25519",
            ".aws/credentials",
            ".netrc",
            ".config/gh/hosts.yml",
            ".docker/config.json",
        ];
        for name in secrets.into_iter().chain([".gnupg/key", ".bash_history", "data/key"]) {
            write(&casemate.home().join(name), SECRET);
        }
        if let Some(attacker) = &*ATTACKER {
            std::fs::copy(attacker, casemate.workspace().join("probe")).unwrap();
        }
        for name in [".env", "app/.env.local", ".ssh/id_ed25519"] {
            casemate.put(name, SECRET);
        }
        for name in
            [".git/config", ".git/hooks/pre-push", ".vscode/tasks.json", ".envrc", "AGENTS.md"]
        {
            casemate.put(name, "# of the host\n");
        }
        let of_other_repositories =
            ["lib/.git/config", ".git/modules/libs/deep/config", ".git/worktrees/other/commondir"];
        for name in of_other_repositories.into_iter().chain([".husky/pre-commit", ".bashrc"]) {
            casemate.put(name, "# of the host\n");
        }
        let listener = UnixListener::bind(out.join("socket")).unwrap();
        casemate.give_to_user();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
        let name = SocketAddr::from_abstract_name(format!(
            "casemate-{}",
            tcp.local_addr().unwrap().port()
        ));
        let abstract_listener = UnixListener::bind_addr(&name.unwrap()).unwrap();
        let mut victim = Command::new("sleep");
        victim.arg("86421.77").env("OPENAI_API_KEY", SECRET).stdin(Stdio::null());
        let victim = as_user(&mut victim, who).spawn().unwrap();
        Self {
            casemate,
            who,
            victim,
            more: String::new(),
            tcp,
            _udp: udp,
            _sockets: [listener, abstract_listener],
        }
    }

    fn out(&self) -> PathBuf {
        self.casemate.home().with_file_name("out")
    }

    /// The names that a probe may use.
    fn names(&self, place: Place) -> String {
        let (out, home, work) = (self.out(), self.casemate.home(), self.casemate.workspace());
        let (victim, port) = (self.victim.id(), self.tcp.local_addr().unwrap().port());
        // Inside, the process to reach for is the guest.
        let first = if place == Place::Inside { 1 } else { victim };
        format!(
            "OUT={}; VICTIM_HOME={}; WORK={}; PROBE={}/probe; VICTIM={victim}; FIRST={first}; PORT={port}; \
             SECRET={SECRET}\n{}",
            out.display(),
            home.display(),
            work.display(),
            work.display(),
            self.more,
        )
    }

    /// A bash script that runs there.
    fn bash(&self, place: Place, script: &Path) -> Command {
        let mut command = self.careless();
        if place == Place::Inside {
            let program = self.casemate.command().get_program().to_owned();
            command
                .arg(program)
                .args(["sandbox", "exec", "--workspace"])
                .arg(self.casemate.workspace())
                .arg("--");
        }
        command.arg("bash").arg(script);
        command
    }

    /// Starts the program that is added as careless programs start others: with open descriptors, and with secrets in
    /// the environment.
    fn careless(&self) -> Command {
        const CARELESS: &str = r#"
            exec 7<"$0/canary" 8<"$0" 9>>"$0/sink" 251<"$0/canary" 2>>"$0/transcript"
            exec "$@""#;
        let clean = self.casemate.command();
        let mut careless = Command::new("timeout");
        careless.args(["-k", "5", "150", "bash", "-c", CARELESS]).arg(self.out()).env_clear();
        careless.envs(clean.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"]
        {
            careless.env(name, SECRET);
        }
        careless.env("SSH_AUTH_SOCK", self.out().join("socket"));
        careless.current_dir(self.casemate.workspace()).stdin(Stdio::null());
        as_user(&mut careless, self.who);
        careless
    }

    /// Lets all probes run, each in a directory of its own.
    fn run(&self, place: Place, probes: &[Probe]) -> Output {
        let mut script = format!("{}cd $WORK\n", self.names(place));
        for (i, probe) in probes.iter().enumerate() {
            let tried = place == Place::Inside || probe.succeeds_outside(self.who);
            if tried {
                let text =
                    format!("{}echo \"# {}\" >&2\n{}", self.names(place), probe.name, probe.does);
                let text = text.replace('\'', r"'\''");
                writeln!(
                    script,
                    "mkdir p{i} && cd p{i}; timeout -k 1 20 bash -c '{text}' >/dev/null </dev/null; echo {i} $?; \
                     cd $WORK"
                )
                .unwrap();
            }
        }
        let path = self.casemate.put("driver.sh", &script);
        self.bash(place, &path).output().unwrap()
    }

    /// Tries a probe in a sandbox of its own, which may be ended for it; whether it succeeded.
    fn attempt_alone(&self, place: Place, probe: &Probe) -> bool {
        const KILLED: i32 = 137;
        let one = std::slice::from_ref(probe);
        let output = self.run(place, one);
        let ended = place == Place::Inside && output.status.code() == Some(KILLED);
        !ended && self.outcome(place, one, &output)[0]
    }

    /// Tries all probes in one sandbox; which of them succeeded.
    fn attempt(&self, place: Place, probes: &[Probe]) -> Vec<bool> {
        let output = self.run(place, probes);
        self.outcome(place, probes, &output)
    }

    fn outcome(&self, place: Place, probes: &[Probe], output: &Output) -> Vec<bool> {
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{:?} {place:?}: {}\n{told}{}",
            self.who,
            output.status,
            self.transcript()
        );
        let codes = |i: usize| told.lines().find_map(|line| line.strip_prefix(&format!("{i} ")));
        let outcome = probes.iter().enumerate().map(|(i, probe)| {
            let Some(code) = codes(i) else {
                assert!(
                    place == Place::Outside,
                    "`{}` was not tried: {told}{}",
                    probe.name,
                    self.transcript()
                );
                return false;
            };
            match probe.seen {
                None => code == "0",
                Some(condition) => self.holds(condition, &format!("p{i}")),
            }
        });
        outcome.collect()
    }

    /// The errors that were said in it.
    fn transcript(&self) -> String {
        std::fs::read_to_string(self.out().join("transcript")).unwrap_or_default()
    }

    /// Whether a condition holds on the host, in a directory of the workspace.
    fn holds(&self, condition: &str, below: &str) -> bool {
        let place = self.casemate.workspace().join(below);
        let script = format!("{}{condition}", self.names(Place::Outside));
        Command::new("bash").arg("-c").arg(script).current_dir(place).status().unwrap().success()
    }
}

fn as_user(command: &mut Command, who: As) -> &mut Command {
    if who == As::User {
        command.uid(USER).gid(USER);
    }
    command
}

/// Tries a category, as everyone and on both sides, and demands that each attack fails inside and succeeds outside.
fn attack(category: &'static str, probes: &[Probe]) {
    if ATTACKER.is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for who in As::all() {
        let outside = Scene::new(who).attempt(Place::Outside, probes);
        let inside = Scene::new(who).attempt(Place::Inside, probes);
        let mut tally = Tally::default();
        wrong.extend(judge(probes, who, &outside, &inside, &mut tally));
        tally.report(category, who);
    }
    assert!(wrong.is_empty(), "{category}:\n  {}", wrong.join("\n  "));
}

/// The same, with a sandbox for each attack.
fn attack_one_by_one(category: &'static str, probes: &[Probe]) {
    if ATTACKER.is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for who in As::all() {
        let each = |place| -> Vec<bool> {
            probes.iter().map(|probe| Scene::new(who).attempt_alone(place, probe)).collect()
        };
        let (outside, inside) = (each(Place::Outside), each(Place::Inside));
        let mut tally = Tally::default();
        wrong.extend(judge(probes, who, &outside, &inside, &mut tally));
        tally.report(category, who);
    }
    assert!(wrong.is_empty(), "{category}:\n  {}", wrong.join("\n  "));
}

/// What is wrong with the outcome of probes.
fn judge(
    probes: &[Probe],
    who: As,
    outside: &[bool],
    inside: &[bool],
    tally: &mut Tally,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((probe, outside), inside) in probes.iter().zip(outside).zip(inside) {
        if let Outside::Untried(why) = probe.outside {
            assert!(why.len() > 10, "`{}` is not tried outside, without a reason", probe.name);
        }
        tally.count(*inside, *outside);
        if *inside {
            wrong.push(format!("{who:?}: LET THROUGH: {}", probe.name));
        }
        if !outside && probe.succeeds_outside(who) {
            wrong.push(format!(
                "{who:?}: proves nothing, it fails without the sandbox too: {}",
                probe.name
            ));
        }
    }
    wrong
}

/// How many attacks there were, and how they ended.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    probes: usize,
    let_through: usize,
    proven_outside: usize,
}

impl Tally {
    fn count(&mut self, inside: bool, outside: bool) {
        self.probes += 1;
        self.let_through += usize::from(inside);
        self.proven_outside += usize::from(outside);
    }

    /// Prints this category's line, and the sum of those so far.
    #[expect(clippy::print_stdout, reason = "the table is for whoever runs the suite")]
    fn report(self, category: &str, who: As) {
        static SUM: Mutex<Tally> =
            Mutex::new(Tally { probes: 0, let_through: 0, proven_outside: 0 });
        let mut sum = SUM.lock().unwrap();
        sum.probes += self.probes;
        sum.let_through += self.let_through;
        sum.proven_outside += self.proven_outside;
        let line = |name: &str, tally: Self| {
            println!(
                "{name:<24} {:>4} attacks {:>4} blocked {:>4} let through {:>4} proven without the sandbox",
                tally.probes,
                tally.probes - tally.let_through,
                tally.let_through,
                tally.proven_outside
            );
        };
        line(&format!("{category} ({})", if who == As::Me { "me" } else { "user" }), self);
        line("so far", *sum);
    }
}
