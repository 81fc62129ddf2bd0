//! A new session: checked, given its prompt and its disk, and stored together with what it is told at once.
//!
//! Invariant: what would keep its first turn from running is refused here, and then there is no session and no disk.

use std::collections::BTreeMap;

use super::admission::{Admission, Admitted, Input};
use super::resources::NewResource;
use super::sandboxes::{check_apart, check_workspace};
use super::skills::Chosen;
use super::{Runtime, RuntimeError, instructions, web};
use crate::agent::{Agent, OnAsk};
use crate::clock::Timestamp;
use crate::environment::{Environment, Tier, WorkspaceMode};
use crate::event::Budget;
use crate::id::{SessionId, ThreadId};
use crate::limits::DEFAULT_MAX_TURNS;
use crate::provider::routes;
use crate::sandbox;
use crate::session::Definition;
use crate::session::prompt::{self, Facts};
use crate::store::{NewSession, Origin, SessionRow};

/// What a new session is made of.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// The agent.
    pub agent: Agent,
    /// Where its tools run.
    pub environment: Environment,
    /// For lists; cut from the first message if absent.
    pub title: Option<String>,
    /// Most model requests for one message.
    pub max_turns: u32,
    /// The stored agent and environment that it is made of.
    pub origin: Option<Origin>,
    /// The client's own words about it.
    pub metadata: BTreeMap<String, String>,
    /// What it may use; what its agent says if absent.
    pub budget: Option<Budget>,
    /// What becomes of calls that ask; absent, they wait for a client.
    pub on_ask: Option<OnAsk>,
    /// What it is given.
    pub resources: Vec<NewResource>,
    /// Its skills, each with another name.
    pub skills: Vec<Chosen>,
    /// What it is told at once: then it works as soon as it is there.
    pub initial: Vec<Input>,
}

impl SessionSpec {
    /// A session that is told nothing yet.
    #[must_use]
    pub fn new(agent: Agent, environment: Environment) -> Self {
        Self {
            agent,
            environment,
            title: None,
            max_turns: DEFAULT_MAX_TURNS,
            origin: None,
            metadata: BTreeMap::new(),
            budget: None,
            on_ask: None,
            resources: Vec::new(),
            skills: Vec::new(),
            initial: Vec::new(),
        }
    }
}

impl Runtime {
    /// Creates a session together with what it is told at once; without that it is idle until it is told something.
    ///
    /// # Errors
    /// Anything that would keep its first turn from running: route, key, workspace, profile, store; an input that it
    /// cannot take. There is no session then.
    pub async fn create_session(&self, mut spec: SessionSpec) -> Result<SessionRow, RuntimeError> {
        self.check(&mut spec)?;
        let now = self.shared.clock.now();
        let id = SessionId::mint(now);
        let mut definition = self.define(&mut spec, now)?;
        let admission = Admission::to_new(self.reader(), &id, &definition, now);
        let Admitted { append, .. } = admission.admit(&spec.initial)?;
        // One that is all its own is made when something is to lie on it: a session without tools needs none.
        let own = definition.environment.workspace_mode == WorkspaceMode::Own;
        if !own || !spec.resources.is_empty() || !spec.skills.is_empty() {
            self.make_disk(&id, &definition.environment).await?;
        }
        let put = self.put_skills(&self.disk(&id), spec.skills, &mut definition.skills).await;
        let given = match put {
            Ok(()) => self.give(&id, &spec.resources, &spec.initial).await,
            Err(error) => Err(error),
        };
        let given = match given {
            Ok(given) => given,
            Err(error) => {
                self.disk(&id).remove()?;
                return Err(error);
            }
        };
        let works = !append.events.is_empty();
        let has_tools = !definition.agent.tools.is_empty();
        let environment = definition.environment.clone();
        let new = NewSession {
            id,
            title: spec.title,
            workspace: definition.environment.workspace.clone(),
            budget: definition.budget.clone(),
            definition: serde_json::to_value(definition).expect("a definition is JSON"),
            origin: spec.origin,
            metadata: spec.metadata,
            records: given.records.clone(),
            created_at: now,
        };
        let row = given.commit(self.shared.store.create_session(new, append)).await?;
        if works {
            self.drive(&row.id)?;
        } else if has_tools {
            self.prepare(&row.id, environment);
        }
        Ok(row)
    }

    /// Settles what the agent's names mean, and refuses what could not work.
    fn check(&self, spec: &mut SessionSpec) -> Result<(), RuntimeError> {
        let agent = &mut spec.agent;
        agent.model = routes::settled(&agent.model);
        self.check_model(&agent.model)?;
        self.check_judge(agent)?;
        agent.permissions =
            std::mem::take(&mut agent.permissions).and(&self.shared.config.permissions);
        if spec.environment.workspace_mode != WorkspaceMode::Own {
            check_workspace(&spec.environment.workspace)?;
            check_apart(&spec.environment, &self.shared.config.data_dir)?;
            sandbox::plan_for(&spec.environment, None)?;
        }
        Ok(())
    }

    /// What the session will be, with its prompt.
    fn define(&self, spec: &mut SessionSpec, now: Timestamp) -> Result<Definition, RuntimeError> {
        let skills = self.announce(spec);
        let environment = &spec.environment;
        // What the user tells agents is for those that work on his files.
        let instructions = if environment.workspace_mode == WorkspaceMode::Own {
            Vec::new()
        } else {
            let global = self.shared.config.global_instructions.as_deref();
            instructions::find(&environment.workspace, global)
        };
        let repositories: Vec<_> = spec.resources.iter().filter_map(NewResource::told).collect();
        let date = now.to_string();
        let facts = Facts {
            workspace: &environment.workspace,
            workspace_mode: environment.workspace_mode,
            repositories: &repositories,
            date: &date[..10],
            networking: (environment.tier != Tier::None).then_some(&environment.networking),
        };
        let system = prompt::system(&facts, &skills, spec.agent.system.as_deref(), &instructions);
        let by_default = || spec.agent.budget.clone().or(self.shared.config.limits.clone());
        let budget = spec.budget.clone().or_else(by_default);
        budget.iter().try_for_each(|budget| self.check_budgetable(&spec.agent.model, budget))?;
        let of_client = spec.origin.is_some();
        Ok(Definition {
            agent: self.offered(spec.agent.clone(), environment, of_client),
            environment: environment.clone(),
            thread: ThreadId::mint(now),
            system,
            max_turns: spec.max_turns,
            budget,
            on_ask: spec.on_ask.clone(),
            origin: spec.origin.clone(),
            skills,
        })
    }

    /// The agent without the tools of the web that its session could not use.
    pub(super) fn offered(
        &self,
        agent: Agent,
        environment: &Environment,
        of_client: bool,
    ) -> Agent {
        web::offered(agent, environment, of_client, self.shared.config.web.search.is_some())
    }

    /// Begins to bring a session's sandbox up: whoever creates one is about to tell it something.
    fn prepare(&self, id: &SessionId, environment: Environment) {
        self.shared.warm.prepare(id.clone(), self.recipe(id, environment).0);
    }
}
