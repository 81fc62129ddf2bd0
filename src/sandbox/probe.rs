//! What this machine can give, found out by doing it: each check launches a real sandbox.

use super::plan::Plan;
use super::{Guest, plan_for};
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

/// Tries the tiers, from most to least, on an empty directory.
pub async fn probe() -> Vec<Check> {
    let mut checks = Vec::new();
    for tier in [Tier::Full, Tier::Landlock] {
        checks.push(launch(tier).await);
    }
    checks
}

async fn launch(tier: Tier) -> Check {
    let name = format!("sandbox, tier `{}`", tier.as_str());
    let required = tier == Tier::Full;
    let failed = |detail: String, remedy: Option<String>| Check {
        name: name.clone(),
        ok: false,
        required,
        detail,
        remedy,
    };
    let directory = match nix::unistd::mkdtemp(&std::env::temp_dir().join("casemate-doctor-XXXXXX"))
    {
        Ok(directory) => directory,
        Err(e) => return failed(format!("no directory to try it in: {e}"), None),
    };
    let mut environment = Environment::new(directory.clone());
    environment.tier = tier;
    let check = match plan_for(&environment) {
        Ok(plan) => up(&plan, &name, required).await,
        Err(e) => failed(e.to_string(), None),
    };
    // An empty directory in /tmp that stays behind hurts nobody.
    drop(std::fs::remove_dir(directory));
    check
}

async fn up(plan: &Plan, name: &str, required: bool) -> Check {
    let (ok, detail, remedy) = match Guest::launch(plan).await {
        Ok(guest) => (true, guest.layers().join(", "), None),
        Err(e) => {
            let remedy = (!e.remedy.is_empty()).then_some(e.remedy);
            (false, format!("{}: {}", e.stage, e.reason), remedy)
        }
    };
    Check { name: name.to_owned(), ok, required, detail, remedy }
}
