//! What the model is told: the system prompt, fixed at creation, and the request for a session. Pure.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::compact;
use super::context::text_tokens;
use super::offers;
use super::skills::Skills;
use super::state::Session;
use crate::environment::networking::Networking;
use crate::environment::{OUTPUTS, UPLOADS, WorkspaceMode};
use crate::provider::{Purpose, Request, ToolSpec};

/// A file of instructions that was found in or above the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructions {
    /// Where it is, as the model may name it.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// How a file of instructions begins.
pub(super) const INSTRUCTIONS: &str = "\n<instructions file=\"";

/// The facts of the environment that a model needs in order to act in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The directory that the agent works in.
    pub workspace: &'a Path,
    /// Whose files those are.
    pub workspace_mode: WorkspaceMode,
    /// The git repositories in it: where, and of what address.
    pub repositories: &'a [(String, String)],
    /// Today, as `2026-11-24`.
    pub date: &'a str,
    /// What the sandbox may reach; `None` where it has the host's own network.
    pub networking: Option<&'a Networking>,
}

/// The system prompt: a short rule of conduct, the facts, the skills, the agent's own words, then instructions, nearest
/// last.
///
/// It is made once per session, so that the prefix of every request is the same bytes.
#[must_use]
pub fn system(
    facts: &Facts<'_>,
    skills: &Skills,
    own: Option<&str>,
    instructions: &[Instructions],
) -> String {
    let mut text = String::from(
        "You are an agent that completes the user's task by calling tools. Act, then check what you did. \
         When the task is done, answer with a short summary and no tool call.\n",
    );
    let network = facts.networking.map(reach).unwrap_or_default();
    let workspace = facts.workspace.display();
    let date = facts.date;
    let directory = match facts.workspace_mode {
        WorkspaceMode::Direct => "shared with the user",
        WorkspaceMode::Overlay | WorkspaceMode::Copy => "a version of the user's own for you alone",
        WorkspaceMode::Own => "yours alone",
    };
    write!(
        text,
        "\nWorking directory: {workspace}\nPlatform: Linux, in a sandbox: the working directory is {directory}, \
         everything else you change is private to this session.{network}\nDate: {date}\n",
    )
    .expect("writing to a string cannot fail");
    if facts.workspace_mode == WorkspaceMode::Own {
        writeln!(
            text,
            "Files that the user gave you lie below {UPLOADS} and cannot be changed. What you leave below {OUTPUTS} is \
             handed to the user when you have finished; nothing else is."
        )
        .expect("writing to a string cannot fail");
    }
    for (path, url) in facts.repositories {
        writeln!(text, "The git repository {url} is checked out at {path}.")
            .expect("writing to a string cannot fail");
    }
    text.push_str(&skills.told());
    if let Some(own) = own.map(str::trim).filter(|own| !own.is_empty()) {
        write!(text, "\n{own}\n").expect("writing to a string cannot fail");
    }
    for file in instructions {
        let (path, body) = (&file.path, file.text.trim());
        write!(text, "{INSTRUCTIONS}{path}\">\n{body}\n</instructions>\n")
            .expect("writing to a string cannot fail");
    }
    text
}

/// What can be reached, in words.
fn reach(networking: &Networking) -> String {
    /// Hosts that are named: a model reads them before every answer.
    const NAMED: usize = 20;
    let (hosts, registries) = match networking {
        Networking::None => return " There is no network.".to_owned(),
        Networking::Unrestricted => {
            return " Public hosts can be reached over TCP; private addresses cannot.".to_owned();
        }
        Networking::Limited { allowed_hosts, allow_package_managers, .. } => {
            (allowed_hosts, *allow_package_managers)
        }
    };
    let mut named: Vec<_> = hosts.iter().take(NAMED).map(ToString::to_string).collect();
    if hosts.len() > NAMED {
        named.push(format!("{} more", hosts.len() - NAMED));
    }
    if registries {
        named.push("the registries of the user's package managers".to_owned());
    }
    if named.is_empty() {
        return " No host can be reached.".to_owned();
    }
    format!(" Of the network, only this can be reached, over TCP: {}.", named.join(", "))
}

/// The next request. `tools` is the same for the whole session.
#[must_use]
pub fn request(
    session: &Session,
    model: &str,
    system: &Arc<str>,
    tools: &Arc<[ToolSpec]>,
) -> Request {
    let agent = &session.definition().agent;
    Request {
        model: model.to_owned(),
        system: Arc::clone(system),
        tools: Arc::clone(tools),
        messages: session.messages().to_vec(),
        max_tokens: compact::answer_tokens(session),
        effort: agent.effort,
        answer: None,
        purpose: Purpose::Answer { gone: session.context().gone() },
    }
}

/// A request for a summary of the conversation. It has no tools, so that it cannot be answered with a call.
#[must_use]
pub fn summary_request(session: &Session, model: &str) -> Request {
    let (system, message) = compact::request(session);
    Request {
        model: model.to_owned(),
        system: system.into(),
        tools: [].into(),
        messages: vec![Arc::new(message)],
        max_tokens: compact::answer_tokens(session),
        effort: session.definition().agent.effort,
        answer: None,
        purpose: Purpose::Summary { nth: session.context().compactions() },
    }
}

/// Tokens that system prompt and tools take of every request, about.
#[must_use]
pub fn fixed_tokens(system: &str, tools: &[ToolSpec]) -> u64 {
    text_tokens(system) + tools.iter().map(offers::tokens).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_told_what_it_can_reach() {
        let limited = |hosts: &[&str], allow_package_managers| Networking::Limited {
            allowed_hosts: hosts.iter().map(|host| host.parse().expect("a rule")).collect(),
            allow_package_managers,
            allow_mcp_servers: false,
        };
        let check = |networking: Networking, expected: &str| {
            assert_eq!(reach(&networking), expected);
        };
        check(Networking::None, " There is no network.");
        check(
            Networking::Unrestricted,
            " Public hosts can be reached over TCP; private addresses cannot.",
        );
        check(limited(&[], false), " No host can be reached.");
        check(
            limited(&["a.example", "*.b.example:8443"], true),
            " Of the network, only this can be reached, over TCP: a.example, *.b.example:8443, the registries of the \
             user's package managers.",
        );
        let many: Vec<_> = (0..22).map(|i| format!("h{i}.example")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(reach(&limited(&many, false)).ends_with(", h19.example, 2 more."));
    }

    #[test]
    fn a_repository_is_named_with_its_place_and_address() {
        let repository = ("/workspace/hello".to_owned(), "https://git.example/hello".to_owned());
        let facts = Facts {
            workspace: Path::new("/workspace"),
            workspace_mode: WorkspaceMode::Own,
            repositories: &[repository],
            date: "2026-01-31",
            networking: None,
        };
        let text = system(&facts, &Skills::default(), None, &[]);
        let told =
            "\nThe git repository https://git.example/hello is checked out at /workspace/hello.\n";
        assert!(text.contains(told), "{text}");
    }
}
