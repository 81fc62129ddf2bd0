//! What tools made under protected names, as facts of the call that made it, and as sentences for the model. Pure.

use std::path::{Path, PathBuf};

use crate::event::{ContentBlock, EventBody};
use crate::id::EventId;
use crate::limits::MADE_TOLD;
use crate::sandbox::Made;

/// Whose doing it is, what was said before, and what the model was not told yet.
#[derive(Debug, Default)]
pub(super) struct Makings {
    /// The last call that may have changed files: what it left in the background is its doing.
    caller: Option<EventId>,
    /// What was named already: it is said once.
    named: Vec<PathBuf>,
    untold: Vec<String>,
}

impl Makings {
    /// A call that may change files has ended.
    pub(super) fn by(&mut self, caller: &EventId) {
        self.caller = Some(caller.clone());
    }

    /// Whether there was such a call.
    pub(super) fn are_possible(&self) -> bool {
        self.caller.is_some()
    }

    /// The facts of what was found, in a workspace.
    pub(super) fn facts(&mut self, workspace: &Path, made: Vec<Made>) -> Vec<EventBody> {
        let Some(caller) = &self.caller else { return Vec::new() };
        let mut facts = Vec::new();
        for Made { path, set_aside } in made {
            if set_aside.is_none() {
                if self.named.contains(&path) {
                    continue;
                }
                self.named.push(path.clone());
            }
            let below =
                |path: &Path| path.strip_prefix(workspace).unwrap_or(path).display().to_string();
            let (path, set_aside) = (below(&path), set_aside.as_deref().map(below));
            if self.untold.len() < MADE_TOLD {
                self.untold.push(sentence(&path, set_aside.as_deref()));
            }
            facts.push(EventBody::ProtectedMade { tool_use_id: caller.clone(), path, set_aside });
        }
        facts
    }

    /// Adds the sentences to the call's result.
    pub(super) fn tell(&mut self, result: &mut EventBody, caller: &EventId) {
        if self.untold.is_empty() {
            return;
        }
        if let Some(content) = result.result_content_mut(caller) {
            let told = std::mem::take(&mut self.untold).join("\n[workspace] ");
            content.push(ContentBlock::text(format!("[workspace] {told}")));
        }
    }
}

fn sentence(path: &str, set_aside: Option<&str>) -> String {
    match set_aside {
        Some(aside) => format!(
            "`{path}` is protected: git on the user's machine would obey it. It was moved to `{aside}`; the user is told."
        ),
        None => format!(
            "`{path}` is new, and programs on the user's machine obey it: the user is told to look at it. The next sandbox \
             cannot change it."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::text_of;

    #[test]
    fn a_making_is_a_fact_once_and_a_sentence_in_the_next_result() {
        let call: EventId = "sevt_01".parse().unwrap();
        let made = || {
            let aside = Some("/w/.git/commondir.set-aside-1".into());
            vec![
                Made { path: "/w/.git/commondir".into(), set_aside: aside },
                Made { path: "/w/AGENTS.md".into(), set_aside: None },
            ]
        };
        let fact = |path: &str, set_aside: Option<&str>| EventBody::ProtectedMade {
            tool_use_id: call.clone(),
            path: path.to_owned(),
            set_aside: set_aside.map(str::to_owned),
        };
        let aside = fact(".git/commondir", Some(".git/commondir.set-aside-1"));
        let mut makings = Makings::default();
        assert_eq!(makings.facts(Path::new("/w"), made()), []);
        makings.by(&call);
        let first = makings.facts(Path::new("/w"), made());
        assert_eq!(first, [aside.clone(), fact("AGENTS.md", None)]);
        let mut result = EventBody::AgentToolResult {
            tool_use_id: call.clone(),
            content: Vec::new(),
            is_error: false,
        };
        makings.tell(&mut result, &call);
        makings.tell(&mut result, &call);
        let EventBody::AgentToolResult { content, .. } = result else { panic!("a result") };
        let told = text_of(&content);
        assert_eq!(told.matches("[workspace] ").count(), 2, "{told}");
        assert!(told.starts_with("[workspace] `.git/commondir` is protected"), "{told}");
        // Moved again, it is said again.
        assert_eq!(makings.facts(Path::new("/w"), made()), [aside]);
    }
}
