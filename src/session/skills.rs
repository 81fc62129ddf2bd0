//! The skills of a session: what the model is told of them from the beginning, and which results are a skill's body. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::environment::SKILLS;
use crate::limits::SKILLS_PROMPT_BYTES;
use crate::skill::SKILL_FILE;

/// The skills of a session, frozen with its definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skills {
    /// Those that it is shown below [`SKILLS`], by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<ShownSkill>,
    /// Directories of its workspace in which repositories may bring some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of_repositories: Vec<String>,
}

/// A skill that a session is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSkill {
    /// Its name, and that of its directory.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// Where it is from: a directory of the host, or a stored version.
    pub from: String,
    /// What all its files hold and are called, as a SHA-256.
    pub digest: String,
}

/// Lengths to which descriptions are cut, until all are told in the room that there is.
const LENGTHS: [usize; 6] = [usize::MAX, 512, 256, 128, 64, 0];

impl Skills {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.of_repositories.is_empty()
    }

    /// What the system prompt says of them; nothing where there are none.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = String::new();
        if !self.shown.is_empty() {
            write!(
                text,
                "\nSkills are instructions for tasks of one kind. Before you begin with a task that one of these fits, read \
                 {SKILLS}/NAME/{SKILL_FILE} with the tool `read` and do as it says. What it refers to lies beside it. They \
                 cannot be changed.\n{}",
                self.list()
            )
            .expect("writing to a string cannot fail");
        }
        if !self.of_repositories.is_empty() {
            let places = self.of_repositories.join(", ");
            writeln!(
                text,
                "\nYour repositories may bring skills of their own, one in each directory of {places}. Before you begin, \
                 look for NAME/{SKILL_FILE} there with the tool `glob`, and read those that fit."
            )
            .expect("writing to a string cannot fail");
        }
        text
    }

    /// A line for each, in bounded room: descriptions are cut alike before one is left out.
    fn list(&self) -> String {
        let lines = |most: usize| self.shown.iter().map(move |skill| line(skill, most));
        let fits = |most: &usize| {
            lines(*most).map(|line| line.len()).sum::<usize>() <= SKILLS_PROMPT_BYTES
        };
        if let Some(most) = LENGTHS.into_iter().find(fits) {
            return lines(most).collect();
        }
        let mut text = String::new();
        let mut left_out = self.shown.len();
        for line in lines(0) {
            if text.len() + line.len() > SKILLS_PROMPT_BYTES {
                break;
            }
            text.push_str(&line);
            left_out -= 1;
        }
        writeln!(text, "- {left_out} more, each a directory of {SKILLS}")
            .expect("writing to a string cannot fail");
        text
    }

    /// Whether that file is the body of a skill.
    #[must_use]
    pub fn is_body(&self, path: &str) -> bool {
        let shown = (!self.shown.is_empty()).then_some(SKILLS);
        let mut places = shown.into_iter().chain(self.of_repositories.iter().map(String::as_str));
        places.any(|place| {
            let below = path.strip_prefix(place).and_then(|rest| rest.strip_prefix('/'));
            let name = below.and_then(|below| below.strip_suffix(SKILL_FILE));
            let name = name.and_then(|name| name.strip_suffix('/'));
            name.is_some_and(|name| !name.contains('/') && !matches!(name, "" | "." | ".."))
        })
    }
}

fn line(skill: &ShownSkill, most: usize) -> String {
    let (name, whole) = (&skill.name, &skill.description);
    if most == 0 {
        return format!("- {name}\n");
    }
    if whole.len() <= most {
        return format!("- {name}: {whole}\n");
    }
    format!("- {name}: {}…\n", &whole[..whole.floor_char_boundary(most)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skills(count: usize, description: &str) -> Skills {
        let shown = (0..count).map(|n| ShownSkill {
            name: format!("skill-{n:03}"),
            description: description.to_owned(),
            from: "/somewhere".to_owned(),
            digest: String::new(),
        });
        Skills { shown: shown.collect(), of_repositories: Vec::new() }
    }

    #[test]
    fn the_model_is_told_of_all_in_bounded_room() {
        assert_eq!(Skills::default().told(), "");
        let told = skills(2, "Does it.").told();
        assert!(told.ends_with("\n- skill-000: Does it.\n- skill-001: Does it.\n"), "{told}");
        assert!(told.contains("/mnt/session/skills/NAME/SKILL.md"), "{told}");
        for count in [20, 60, 300, 500, 5000] {
            let told = skills(count, &"é".repeat(1024)).told();
            assert!(told.len() < SKILLS_PROMPT_BYTES + 500, "{count}: {}", told.len());
            let lines = told.lines().filter(|line| line.starts_with("- skill-")).count();
            let more = told.lines().next_back().unwrap().strip_prefix("- ").unwrap();
            let more = more.split_once(" more").map_or(0, |(more, _)| more.parse().unwrap());
            assert_eq!(lines + more, count, "{told}");
        }
        assert!(skills(20, &"é".repeat(512)).told().contains(&"é".repeat(512)));
    }

    #[test]
    fn a_body_is_the_file_of_one_skill_and_no_other() {
        let mut skills = skills(1, "d");
        skills.of_repositories = vec!["/workspace/app/.agents/skills".to_owned()];
        let check = |path: &str, expected: bool| {
            assert_eq!(skills.is_body(path), expected, "{path}");
        };
        check("/mnt/session/skills/demo/SKILL.md", true);
        check("/workspace/app/.agents/skills/demo/SKILL.md", true);
        check("/mnt/session/skills/demo/references/SKILL.md", false);
        check("/mnt/session/skills/demo/notes.md", false);
        check("/mnt/session/skills/SKILL.md", false);
        check("/mnt/session/skills/../SKILL.md", false);
        check("/mnt/session/skillsdemo/SKILL.md", false);
        check("/workspace/app/SKILL.md", false);
        assert!(!Skills::default().is_body("/mnt/session/skills/demo/SKILL.md"));
    }
}
