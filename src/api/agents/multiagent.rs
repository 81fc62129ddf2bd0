//! `multiagent` of an agent: whom it may start. Read, checked and shown; a session has one thread until it can have more.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::read_id;
use super::stored::{self, Stored};
use crate::api::body::{Node, Object, Tri};
use crate::api::error::ApiError;
use crate::runtime::Reader;

/// Most entries of one list: the protocol's bound.
const MAX_MEMBERS: usize = 20;

/// A checked configuration, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Multiagent {
    #[serde(rename = "coordinator")]
    Coordinator { agents: Vec<Member> },
    #[serde(rename = "multiagent_20261001")]
    Members { subagents: Team, workflows: Team, advisor: Advisor },
}

/// One that can be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Member {
    /// At the version that it had when it was named.
    Agent { id: String, version: u64 },
    /// The agent whose configuration this is, at whichever version is looked at.
    #[serde(rename = "self")]
    Own,
    /// A model to ask for advice.
    Advisor { model: String },
}

/// Subagents, or the agents of workflows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Team {
    Enabled { inline_agents: Switch, predefined_agents: Vec<Member> },
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Switch {
    Enabled,
    Disabled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Advisor {
    Enabled { model: String },
    Disabled,
}

/// What a reading needs to know besides what it reads.
pub(super) struct Surroundings<'a> {
    pub(super) reader: &'a Reader,
    /// The agent whose configuration it is, once there is one.
    pub(super) own: Option<(&'a str, u64)>,
}

impl Multiagent {
    /// Reads one. Where the stored one is of the same kind, what is left out stays (`multiagent_20261001` only).
    pub(super) fn read(
        node: &Node<'_>,
        stored: Option<&Self>,
        around: &Surroundings<'_>,
    ) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        let kind = object.need("type")?;
        let read = match kind.string()? {
            "coordinator" => {
                let agents = around.members(&object.need("agents")?, 1, true)?;
                Self::Coordinator { agents }
            }
            "multiagent_20261001" => {
                let (subagents, workflows, advisor) = match stored {
                    Some(Self::Members { subagents, workflows, advisor }) => {
                        (subagents.clone(), workflows.clone(), advisor.clone())
                    }
                    Some(Self::Coordinator { .. }) | None => {
                        (Team::default(), Team::default(), Advisor::Disabled)
                    }
                };
                Self::Members {
                    subagents: subagents.merge(object.tri("subagents"), around)?,
                    workflows: workflows.merge(object.tri("workflows"), around)?,
                    advisor: advisor.merge(object.tri("advisor"))?,
                }
            }
            _ => return Err(kind.refuse("must be \"coordinator\" or \"multiagent_20261001\"")),
        };
        object.done()?;
        Ok(read)
    }

    /// As it is shown; `member` shows those that are agents.
    pub(super) fn view<E>(
        &self,
        member: &mut dyn FnMut(&Member) -> Result<Value, E>,
    ) -> Result<Value, E> {
        Ok(match self {
            Self::Coordinator { agents } => {
                let agents = agents.iter().map(member).collect::<Result<Vec<_>, _>>()?;
                json!({ "type": "coordinator", "agents": agents })
            }
            Self::Members { subagents, workflows, advisor } => json!({
                "type": "multiagent_20261001",
                "subagents": subagents.view(member)?,
                "workflows": workflows.view(member)?,
                "advisor": advisor,
            }),
        })
    }
}

impl Default for Team {
    fn default() -> Self {
        Self::Enabled { inline_agents: Switch::Enabled, predefined_agents: Vec::new() }
    }
}

impl Team {
    fn merge(self, sent: Tri<Node<'_>>, around: &Surroundings<'_>) -> Result<Self, ApiError> {
        let node = match sent {
            Tri::Absent => return Ok(self),
            Tri::Null => return Ok(Self::default()),
            Tri::Set(node) => node,
        };
        let mut object = node.object()?;
        let team = if is_enabled(&mut object)? {
            let (mut inline_agents, mut predefined_agents) = match self {
                Self::Enabled { inline_agents, predefined_agents } => {
                    (inline_agents, predefined_agents)
                }
                Self::Disabled => (Switch::Enabled, Vec::new()),
            };
            match object.tri("inline_agents") {
                Tri::Absent => {}
                Tri::Null => inline_agents = Switch::Enabled,
                Tri::Set(node) => inline_agents = Switch::read(&node)?,
            }
            match object.tri("predefined_agents") {
                Tri::Absent => {}
                Tri::Null => predefined_agents.clear(),
                Tri::Set(node) => predefined_agents = around.members(&node, 0, false)?,
            }
            if inline_agents == Switch::Disabled && predefined_agents.is_empty() {
                let problem = "must name at least one agent where inline_agents is disabled";
                return Err(object.refuse("predefined_agents", problem));
            }
            Self::Enabled { inline_agents, predefined_agents }
        } else {
            Self::Disabled
        };
        object.done()?;
        Ok(team)
    }

    fn view<E>(&self, member: &mut dyn FnMut(&Member) -> Result<Value, E>) -> Result<Value, E> {
        Ok(match self {
            Self::Enabled { inline_agents, predefined_agents } => {
                let agents = predefined_agents.iter().map(member).collect::<Result<Vec<_>, _>>()?;
                json!({
                    "type": "enabled",
                    "inline_agents": inline_agents,
                    "predefined_agents": agents,
                })
            }
            Self::Disabled => json!({ "type": "disabled" }),
        })
    }
}

impl Switch {
    fn read(node: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        let switch = if is_enabled(&mut object)? { Self::Enabled } else { Self::Disabled };
        object.done()?;
        Ok(switch)
    }
}

impl Advisor {
    fn merge(self, sent: Tri<Node<'_>>) -> Result<Self, ApiError> {
        let node = match sent {
            Tri::Absent => return Ok(self),
            Tri::Null => return Ok(Self::Disabled),
            Tri::Set(node) => node,
        };
        let mut object = node.object()?;
        let advisor = if is_enabled(&mut object)? {
            let model = match (object.tri("model"), self) {
                (Tri::Absent, Self::Enabled { model }) => model,
                (Tri::Set(node), _) => read_id(&node)?,
                (Tri::Absent, Self::Disabled) => {
                    return Err(object.refuse("model", "Field required"));
                }
                (Tri::Null, _) => return Err(object.refuse("model", "must not be null")),
            };
            Self::Enabled { model }
        } else {
            Self::Disabled
        };
        object.done()?;
        Ok(advisor)
    }
}

fn is_enabled(object: &mut Object<'_>) -> Result<bool, ApiError> {
    let kind = object.need("type")?;
    match kind.string()? {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => Err(kind.refuse("must be \"enabled\" or \"disabled\"")),
    }
}

impl Surroundings<'_> {
    /// A list of members, the advisor last.
    fn members(
        &self,
        node: &Node<'_>,
        least: usize,
        advisors: bool,
    ) -> Result<Vec<Member>, ApiError> {
        let entries = node.list(MAX_MEMBERS)?;
        if entries.len() < least {
            return Err(node.refuse("must name at least one agent"));
        }
        let mut members: Vec<Member> = Vec::with_capacity(entries.len());
        for entry in entries {
            let member = self.member(&entry, advisors)?;
            if members.iter().any(|other| other.is_same(&member)) {
                return Err(entry.refuse(match member {
                    Member::Advisor { .. } => "there can be one advisor only",
                    Member::Agent { .. } | Member::Own => "names an agent that is there already",
                }));
            }
            members.push(member);
        }
        members.sort_by_key(|member| matches!(member, Member::Advisor { .. }));
        Ok(members)
    }

    fn member(&self, node: &Node<'_>, advisors: bool) -> Result<Member, ApiError> {
        if node.value().is_string() {
            return self.agent(node, node.string()?, None);
        }
        if !node.value().is_object() {
            return Err(node.refuse("must be the id of an agent, or an object"));
        }
        let mut object = node.object()?;
        let kind = object.need("type")?;
        let member = match kind.string()? {
            "agent" => {
                let id = object.need("id")?;
                let version =
                    object.maybe("version").map(|node| read_version(&node)).transpose()?;
                self.agent(&id, id.string()?, version)?
            }
            "self" => Member::Own,
            "advisor" if advisors => Member::Advisor { model: read_id(&object.need("model")?)? },
            _ if advisors => return Err(kind.refuse("must be one of agent, self, advisor")),
            _ => return Err(kind.refuse("must be \"agent\" or \"self\"")),
        };
        object.done()?;
        Ok(member)
    }

    fn agent(&self, node: &Node<'_>, id: &str, version: Option<u64>) -> Result<Member, ApiError> {
        if let Some((own, current)) = self.own
            && own == id
            && version.is_none_or(|version| version == current)
        {
            return Ok(Member::Own);
        }
        let missing = |problem: &str| node.refuse(problem);
        let Stored { record, definition } = stored::at(self.reader, id, version)?
            .ok_or_else(|| missing("there is no such agent, or not at this version"))?;
        if record.archived_at.is_some() {
            return Err(missing("the agent is archived"));
        }
        if definition.multiagent.is_some() {
            return Err(missing("the agent has `multiagent` itself; one level is what there is"));
        }
        Ok(Member::Agent { id: record.id, version: record.revision })
    }
}

impl Member {
    /// Whether both are one in a list of members: of an agent there is one version at most.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Agent { id: one, .. }, Self::Agent { id: other, .. }) => one == other,
            (Self::Own, Self::Own) | (Self::Advisor { .. }, Self::Advisor { .. }) => true,
            (Self::Agent { .. } | Self::Own | Self::Advisor { .. }, _) => false,
        }
    }
}

/// A version of an agent.
pub(super) fn read_version(node: &Node<'_>) -> Result<u64, ApiError> {
    node.integer(1, i64::MAX.cast_unsigned())
}
