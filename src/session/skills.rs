//! The skills of a session: what the model is told of them from the beginning, and which results are a skill's body. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::environment::SKILLS;
use crate::limits::SKILLS_PROMPT_BYTES;
use crate::skill::SKILL_FILE;
pub use crate::skill::{Brought, ShownSkill};

/// The skills of a session, frozen with its definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skills {
    /// Those that it is shown below [`SKILLS`], by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<ShownSkill>,
    /// Directories of its workspace in which repositories may bring some more: those that the user trusts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of_repositories: Vec<String>,
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
                list(&self.shown)
            )
            .expect("writing to a string cannot fail");
        }
        text
    }

    /// What it says besides of those that the repositories brought.
    #[must_use]
    pub fn told_of(&self, brought: &Brought) -> String {
        if brought.skills.is_empty() {
            return String::new();
        }
        if self.shown.is_empty() {
            let shown = brought.skills.clone();
            return Self { shown, of_repositories: Vec::new() }.told();
        }
        format!(
            "\nThe repositories bring more of them, in the same place:\n{}",
            list(&brought.skills)
        )
    }

    /// Whether that file is the body of a skill.
    #[must_use]
    pub fn is_body(&self, path: &str) -> bool {
        let below = path.strip_prefix(SKILLS).and_then(|rest| rest.strip_prefix('/'));
        let name = below.and_then(|below| below.strip_suffix(SKILL_FILE));
        let name = name.and_then(|name| name.strip_suffix('/')).filter(|_| !self.is_empty());
        name.is_some_and(|name| !name.contains('/') && !matches!(name, "" | "." | ".."))
    }
}

/// A line for each, in bounded room: descriptions are cut alike before one is left out.
fn list(shown: &[ShownSkill]) -> String {
    let lines = |most: usize| shown.iter().map(move |skill| line(skill, most));
    let fits =
        |most: &usize| lines(*most).map(|line| line.len()).sum::<usize>() <= SKILLS_PROMPT_BYTES;
    if let Some(most) = LENGTHS.into_iter().find(fits) {
        return lines(most).collect();
    }
    let mut text = String::new();
    let mut left_out = shown.len();
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
    fn what_repositories_bring_is_told_after_the_rest() {
        let brought =
            |count| Brought { skills: skills(count, "Does it.").shown, ..Brought::default() };
        assert_eq!(skills(1, "d").told_of(&brought(0)), "");
        assert_eq!(Skills::default().told_of(&brought(1)), skills(1, "Does it.").told());
        assert_eq!(
            skills(1, "d").told_of(&brought(1)),
            "\nThe repositories bring more of them, in the same place:\n- skill-000: Does it.\n"
        );
    }

    #[test]
    fn a_body_is_the_file_of_one_skill_and_no_other() {
        let skills = skills(1, "d");
        let check = |path: &str, expected: bool| {
            assert_eq!(skills.is_body(path), expected, "{path}");
        };
        check("/mnt/session/skills/demo/SKILL.md", true);
        check("/mnt/session/skills/demo/references/SKILL.md", false);
        check("/mnt/session/skills/demo/notes.md", false);
        check("/mnt/session/skills/SKILL.md", false);
        check("/mnt/session/skills/../SKILL.md", false);
        check("/mnt/session/skillsdemo/SKILL.md", false);
        check("/workspace/app/SKILL.md", false);
        let body = "/mnt/session/skills/demo/SKILL.md";
        assert!(!Skills::default().is_body(body));
        let brings = vec!["/workspace/app/.agents/skills".to_owned()];
        assert!(Skills { shown: Vec::new(), of_repositories: brings }.is_body(body));
    }
}
