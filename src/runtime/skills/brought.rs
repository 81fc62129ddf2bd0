//! The skills that the repositories of a session bring: copied once, when a repository is there and before any tool of the
//! session has run, to where its other skills are. Of two with one name the first counts: what the session was created
//! with, then its repositories in their order.

use super::OF_REPOSITORIES;
use super::discover::{self, Found};
use crate::limits::{MAX_SESSION_SKILLS, SKILLS_PASSED_OVER};
use crate::runtime::repositories::Repository;
use crate::sandbox::disk::{DiskError, Place};
use crate::skill::{Brought, ShownSkill, Skill};

/// Gives the session what those of its repositories bring that are there and trusted: `trusted` has their directories of
/// skills. What was given before is said again as it was. Blocks.
pub(in crate::runtime) fn bring(
    repositories: &[Repository],
    trusted: &[String],
    disk: &Place,
) -> Brought {
    let mut all = Brought::default();
    let first = |repository: &Repository| format!("{}/{}", repository.path, OF_REPOSITORIES[0]);
    for repository in repositories.iter().filter(|one| trusted.contains(&first(one))) {
        match of_one(repository, disk) {
            Ok(Brought { skills, passed_over }) => {
                all.skills.extend(skills);
                all.passed_over.extend(passed_over);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let url = &repository.url;
                all.passed_over.push(format!("the skills of {url}: failed to {error}{cause}"));
            }
        }
    }
    all
}

fn of_one(repository: &Repository, disk: &Place) -> Result<Brought, DiskError> {
    let (id, path) = (&repository.id, repository.path.relative());
    if !disk.has_repository(id, path)? {
        return Ok(Brought::default());
    }
    if let Some(kept) = disk.brought(id)?
        && let Ok(brought) = serde_json::from_slice(&kept)
    {
        return Ok(brought);
    }
    let root = disk.workspace().join(path);
    let mut brought = Brought::default();
    disk.begin_bringing(id)?;
    for found in discover::of_repository(&root) {
        // A file is named as the session sees it.
        let seen =
            |text: &str| text.replace(&root.display().to_string(), &repository.path.to_string());
        let place = seen(&found.path.display().to_string());
        match usable(&found, &brought, disk) {
            Ok(skill) => brought.skills.push(ShownSkill {
                name: skill.name.clone(),
                description: skill.description.clone(),
                from: format!("{} {place}", repository.url),
                digest: disk.copy_brought(id, &skill.name, &found.path)?,
            }),
            Err(why) => brought.passed_over.push(seen(&why)),
        }
    }
    brought.passed_over.truncate(SKILLS_PASSED_OVER);
    let record = serde_json::to_vec(&brought).expect("a list of skills is JSON");
    disk.bring(id, &record)?;
    Ok(brought)
}

/// The skill, if the session can be shown it, or else why not.
fn usable<'f>(found: &'f Found, brought: &Brought, disk: &Place) -> Result<&'f Skill, String> {
    let place = found.path.display();
    let Some(skill) = &found.skill else {
        let said = found.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
        return Err(said.join("; "));
    };
    let taken = |skills: &[ShownSkill]| skills.iter().any(|known| known.name == skill.name);
    if taken(&brought.skills) || disk.skills().join(&skill.name).exists() {
        return Err(format!("{place}: another skill of the session is called `{}`", skill.name));
    }
    if brought.skills.len() >= MAX_SESSION_SKILLS {
        return Err(format!("{place}: a repository brings {MAX_SESSION_SKILLS} skills at most"));
    }
    Ok(skill)
}
