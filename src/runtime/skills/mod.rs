//! Skills: those of this machine's directories ([`discover`]), those that are stored ([`library`]), and how a session gets
//! them. Whatever a session has is its own from its creation on, or from when its repositories are there (`brought`):
//! files that nobody changes, told by a digest.

mod archive;
pub(super) mod brought;
pub mod discover;
pub mod library;
mod tree;

use std::path::{Path, PathBuf};

use super::resources::NewResource;
use super::{Runtime, RuntimeError, SessionSpec};
use crate::agent::ToolName;
use crate::environment::{Environment, SKILLS, Tier};
use crate::id::{SkillId, SkillVersionId};
use crate::sandbox::disk::{self, DiskError, Place};
use crate::session::skills::{ShownSkill, Skills};
pub use discover::{Fate, Found, Level, SkillsConfig, Wanted};
pub use library::{SkillError, SkillFacts, SkillUpload, VersionFacts};

/// Where repositories bring their skills, from their root.
const OF_REPOSITORIES: [&str; 2] = [".agents/skills", ".claude/skills"];

/// A skill that a new session is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// Where it is.
    pub source: Source,
}

/// Where a skill is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a directory of the user's, who may change it at any time.
    Directory(PathBuf),
    /// Among the stored ones.
    Stored {
        /// Which.
        skill: SkillId,
        /// Which version of it.
        version: SkillVersionId,
        /// What its files hold and are called.
        digest: String,
    },
}

impl Source {
    fn shown(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Stored { skill, version, .. } => format!("{skill} {version}"),
        }
    }
}

/// Why the sessions of an environment cannot have skills, if they cannot: skills are shown by a mount.
///
/// # Errors
/// Says it.
pub fn check_place(environment: &Environment) -> Result<(), &'static str> {
    let holds = |path: &Path| Path::new(SKILLS).starts_with(path);
    if environment.tiers().any(|tier| tier != Tier::Full) {
        Err("only the tier `full` can show them")
    } else if environment.mounts.iter().any(|mount| holds(&mount.target)) {
        Err("a --mount has their place, /mnt/session/skills")
    } else {
        Ok(())
    }
}

impl Runtime {
    /// The skills of a new session as its definition says them, before they are there. One that cannot read them has none.
    pub(super) fn announce(&self, spec: &mut SessionSpec) -> Skills {
        let reads = spec.agent.grant(ToolName::Read.as_str()).is_some();
        if !reads || check_place(&spec.environment).is_err() {
            spec.skills.clear();
            return Skills::default();
        }
        spec.skills.sort_by(|one, other| one.name.cmp(&other.name));
        let shown = spec.skills.iter().map(|chosen| ShownSkill {
            name: chosen.name.clone(),
            description: chosen.description.clone(),
            from: chosen.source.shown(),
            digest: String::new(),
        });
        Skills { shown: shown.collect(), of_repositories: self.repository_skills(&spec.resources) }
    }

    /// Puts skills into the disk of a session that is about to be created, and completes what its definition says of them.
    pub(super) async fn put_skills(
        &self,
        place: &Place,
        chosen: Vec<Chosen>,
        skills: &mut Skills,
    ) -> Result<(), RuntimeError> {
        if !skills.of_repositories.is_empty() {
            // Its sandbox shows it, whatever comes into it later.
            place.make_skills()?;
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let (place, data_dir) = (place.clone(), self.config().data_dir.clone());
        let put = move || -> Result<Vec<String>, DiskError> {
            let put = chosen.into_iter().map(|Chosen { name, source, .. }| match source {
                Source::Directory(from) => {
                    place.copy_skill(&name, &from)?;
                    let path = place.skills().join(&name);
                    disk::digest(&path).map_err(|source| DiskError::Io {
                        what: "read",
                        path,
                        source,
                    })
                }
                Source::Stored { version, digest, .. } => {
                    place.link_skill(&name, &library::tree_of(&data_dir, &version))?;
                    Ok(digest)
                }
            });
            put.collect()
        };
        let digests = tokio::task::spawn_blocking(put).await.expect("copying does not panic")?;
        skills.shown.iter_mut().zip(digests).for_each(|(shown, digest)| shown.digest = digest);
        Ok(())
    }

    /// The directories in which the repositories of a new session may bring skills, as far as the user trusts them.
    fn repository_skills(&self, resources: &[NewResource]) -> Vec<String> {
        let trusted = &self.config().skills;
        let places = resources.iter().filter_map(|resource| match resource {
            NewResource::GithubRepository { url, mount_path, .. } => {
                trusted.trusts_repository(&url.to_string()).then(|| mount_path.to_string())
            }
            NewResource::File { .. } => None,
        });
        places.flat_map(|place| OF_REPOSITORIES.map(|dir| format!("{place}/{dir}"))).collect()
    }
}
