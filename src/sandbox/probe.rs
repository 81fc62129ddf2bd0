//! What this machine can give, found out by doing it: each mechanism by itself, then a whole sandbox of each tier.
//!
//! Trying and judging are apart: a machine and what it answered are values, so that the words for other machines than this
//! one are tested too.

use std::path::Path;

use super::mechanism::{self, Mechanism, Outcome};
use super::plan::Plan;
use super::remedy::{self, Machine};
use super::{Guest, plan_for, settle};
use crate::environment::{Environment, Tier};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// Whether `run` needs it.
    pub required: bool,
    /// What was seen.
    pub detail: String,
    /// What to do if it does not work.
    pub remedy: Option<String>,
}

/// What a machine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answers {
    machine: Machine,
    mechanisms: Vec<(Mechanism, Outcome)>,
    /// Whole sandboxes, from the most isolation to the least.
    sandboxes: Vec<(Tier, Launched)>,
}

/// The layers of a sandbox, or what failed and its remedy.
type Launched = Result<Vec<String>, (String, String)>;

/// Tries everything on an empty directory.
pub async fn probe() -> Vec<Check> {
    let mechanisms = tokio::task::spawn_blocking(|| {
        Mechanism::ALL.map(|mechanism| (mechanism, mechanism::try_out(mechanism))).into()
    });
    let mechanisms = mechanisms.await.unwrap_or_default();
    let mut sandboxes = Vec::new();
    for tier in [Tier::Full, Tier::Landlock] {
        sandboxes.push((tier, launch(tier).await));
    }
    // A thread that panicked has nothing left to wait for.
    drop(tokio::task::spawn_blocking(settle).await);
    judge(&Answers { machine: Machine::this(), mechanisms, sandboxes })
}

async fn launch(tier: Tier) -> Launched {
    let plain = |text: String| (text, String::new());
    let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("casemate-doctor-XXXXXX"));
    let directory = directory.map_err(|e| plain(format!("no directory to try it in: {e}")))?;
    let mut environment = Environment::new(directory.clone());
    environment.tier = tier;
    let answer = match plan_for(&environment, None).map(|plan| given_to_session(plan, &directory)) {
        Ok(plan) => match Guest::launch(&plan).await {
            Ok(guest) => Ok(guest.layers().to_vec()),
            Err(e) => Err((format!("{}: {}", e.stage, e.reason), e.remedy)),
        },
        Err(e) => Err(plain(e.to_string())),
    };
    // An empty directory in /tmp that stays behind hurts nobody.
    drop(std::fs::remove_dir(directory));
    answer
}

/// Without mounts that map owners, a session that gave up root can work in a directory of its own alone.
fn given_to_session(plan: Plan, directory: &Path) -> Plan {
    if plan.from_root && plan.tier == Tier::Landlock {
        // If it fails, the launch says so.
        drop(std::os::unix::fs::chown(directory, Some(plan.uid), Some(plan.gid)));
    }
    plan
}

/// Which name, whether `run` needs it, and the stage whose remedy helps.
fn about(mechanism: Mechanism) -> (&'static str, bool, &'static str) {
    match mechanism {
        Mechanism::UserNamespace => ("user namespace", true, "user namespace"),
        Mechanism::Namespaces => ("other namespaces", true, "namespaces"),
        Mechanism::Loopback => ("network of its own", true, "network namespace"),
        Mechanism::NetworkDoor => ("network door", false, "network door"),
        Mechanism::FreshProc => ("fresh /proc", true, "proc"),
        Mechanism::Landlock => ("Landlock", true, "landlock"),
        Mechanism::Seccomp => ("system call filter", true, "seccomp"),
        Mechanism::ControlGroup => ("control group", false, "control group"),
        Mechanism::IdmappedMount => ("mapped owners", false, "workspace owner"),
        Mechanism::SealedProgram => ("sealed program", false, "sealed program"),
        Mechanism::Overlay => ("overlay", false, "overlay"),
    }
}

/// Mechanisms that are made inside of a user namespace.
fn rests_on_user_namespace(mechanism: Mechanism) -> bool {
    matches!(
        mechanism,
        Mechanism::Namespaces
            | Mechanism::Loopback
            | Mechanism::NetworkDoor
            | Mechanism::FreshProc
            | Mechanism::Overlay
    )
}

/// The findings. Pure.
fn judge(answers: &Answers) -> Vec<Check> {
    let broken = |wanted: Mechanism| {
        let mut refused = answers.mechanisms.iter().filter(|(mechanism, outcome)| {
            *mechanism == wanted && matches!(outcome, Outcome::Refused { .. })
        });
        refused.next().is_some()
    };
    let mut checks: Vec<_> = answers
        .mechanisms
        .iter()
        .map(|(mechanism, outcome)| {
            let because = rests_on_user_namespace(*mechanism) && broken(Mechanism::UserNamespace);
            of_mechanism(&answers.machine, *mechanism, outcome, because)
        })
        .collect();
    checks.extend(answers.sandboxes.iter().map(|(tier, answer)| {
        let (ok, detail, remedy) = match answer {
            Ok(layers) => (true, layers.join(", "), None),
            Err((reason, remedy)) => {
                (false, reason.clone(), Some(remedy.clone()).filter(|text| !text.is_empty()))
            }
        };
        let name = format!("sandbox, tier `{}`", tier.as_str());
        Check { name, ok, required: *tier == Tier::Full, detail, remedy }
    }));
    checks.push(best(answers));
    checks
}

fn of_mechanism(
    machine: &Machine,
    mechanism: Mechanism,
    outcome: &Outcome,
    because_of_user_namespace: bool,
) -> Check {
    let (name, required, stage) = about(mechanism);
    let (ok, detail, remedy) = match outcome {
        Outcome::Works(seen) => (true, seen.clone(), None),
        Outcome::Refused { .. } if because_of_user_namespace => {
            (false, "needs a user namespace with capabilities, see above".to_owned(), None)
        }
        Outcome::Refused { doing, errno, reason } => {
            let remedy = remedy::on(machine, stage, *errno);
            (
                false,
                format!("{doing} failed: {reason}"),
                Some(remedy).filter(|text| !text.is_empty()),
            )
        }
    };
    Check { name: name.to_owned(), ok, required, detail, remedy }
}

/// The best tier that this machine gives.
fn best(answers: &Answers) -> Check {
    let name = "best tier".to_owned();
    let best = answers.sandboxes.iter().find(|(_, answer)| answer.is_ok()).map(|(tier, _)| *tier);
    match best {
        Some(tier) => Check {
            name,
            ok: tier == Tier::Full,
            required: false,
            detail: format!("{} ({})", tier.as_str(), tier.number()),
            remedy: (tier != Tier::Full).then(|| {
                format!(
                    "`run` refuses it unless told to accept it: --require-tier {}",
                    tier.number()
                )
            }),
        },
        None => Check {
            name,
            ok: false,
            required: true,
            detail: "none: `run` refuses to start tools".to_owned(),
            remedy: Some(
                "mend what is refused above; --sandbox=none runs tools as you, without any wall"
                    .to_owned(),
            ),
        },
    }
}

/// How a session with a network would reach the host from this machine, found out by opening such a network.
pub(super) fn door() -> String {
    match mechanism::try_out(Mechanism::NetworkDoor) {
        Outcome::Works(how) => how,
        Outcome::Refused { doing, reason, .. } => format!("none: {doing} failed: {reason}"),
    }
}

#[cfg(test)]
mod tests;
