//! The agent of a session: a reference to a stored one, with or without overrides, becomes what runs and what is shown.

use serde_json::Value;

use super::model::Model;
use super::multiagent::read_version;
use super::stored::{self, Definition, Stored};
use crate::agent::Agent;
use crate::api::body::{Node, Object, Tri};
use crate::api::error::ApiError;
use crate::id::AgentId;
use crate::runtime::Reader;
use crate::runtime::skills::Chosen;

/// What a session is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The stored agent.
    pub id: AgentId,
    /// Its version that the session keeps.
    pub version: u32,
    /// What runs.
    pub agent: Agent,
    /// `session.agent`, as clients see it.
    pub snapshot: Value,
    /// Its skills, each at a version.
    pub skills: Vec<Chosen>,
}

/// Reads `agent` of a new session: an id, `{type: agent, id, version?}`, or `{type: agent_with_overrides, …}`. The
/// stored agent stays as it is.
///
/// # Errors
/// Names the field that is wrong; an agent that is not there or archived.
pub fn resolve(reader: &Reader, node: &Node<'_>) -> Result<Resolved, ApiError> {
    if node.value().is_string() {
        return resolved(reader, node, find(reader, node, node.string()?, None)?);
    }
    if !node.value().is_object() {
        return Err(node.refuse("must be the id of an agent, or an object"));
    }
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let overrides = match kind.string()? {
        "agent" => false,
        "agent_with_overrides" => true,
        _ => return Err(kind.refuse("must be \"agent\" or \"agent_with_overrides\"")),
    };
    let id = object.need("id")?;
    let version = object.maybe("version").map(|version| read_version(&version)).transpose()?;
    let mut stored = find(reader, &id, id.string()?, version)?;
    if overrides {
        override_fields(&mut stored.definition, &mut object)?;
    }
    object.done()?;
    if overrides {
        stored.definition.check_whole().map_err(|error| error.below(node.path()))?;
    }
    resolved(reader, node, stored)
}

/// The agent of a session after `{tools?, mcp_servers?}`: `agent` is what runs now, `snapshot` what is shown now.
///
/// # Errors
/// Names the field that is wrong.
pub fn changed(
    agent: &Agent,
    snapshot: &Value,
    node: &Node<'_>,
) -> Result<(Agent, Value), ApiError> {
    let mut object = node.object()?;
    let mut definition = Definition::of_snapshot(snapshot)?;
    definition.replace_tools(&mut object)?;
    object.done()?;
    definition.check_whole().map_err(|error| error.below(node.path()))?;
    let mut snapshot = snapshot.clone();
    snapshot["tools"] = serde_json::json!(definition.tools);
    snapshot["mcp_servers"] = serde_json::json!(definition.mcp_servers);
    let Agent { tools, custom_tools, mcp_servers, .. } = definition.runnable();
    let agent = Agent { tools, custom_tools, mcp_servers, ..agent.clone() };
    Ok((agent, snapshot))
}

fn find(
    reader: &Reader,
    node: &Node<'_>,
    id: &str,
    version: Option<u64>,
) -> Result<Stored, ApiError> {
    let Some(present) = stored::at(reader, id, None)? else {
        return Err(ApiError::no_such("agent", id));
    };
    if present.record.archived_at.is_some() {
        return Err(node.refuse(format!("the agent `{id}` is archived")));
    }
    match version {
        None => Ok(present),
        Some(version) => stored::at(reader, id, Some(version))?.ok_or_else(|| {
            ApiError::not_found(format!("the agent `{id}` has no version {version}"))
        }),
    }
}

/// An absent field stays, `null` and an empty list clear, a value replaces the whole.
fn override_fields(definition: &mut Definition, object: &mut Object<'_>) -> Result<(), ApiError> {
    match object.tri("model") {
        Tri::Absent => {}
        Tri::Null => {
            let error = object.refuse("model", "agent_model_required: a session needs a model");
            return Err(error.code("agent_model_required"));
        }
        Tri::Set(node) => definition.model = Model::read(&node)?.without_effort(),
    }
    definition.replace_lists(object)
}

fn resolved(reader: &Reader, node: &Node<'_>, mut stored: Stored) -> Result<Resolved, ApiError> {
    let skills = stored.settle_skills(reader, node.path())?;
    let broken = |what: &str| ApiError::internal(format!("the stored agent has no good {what}"));
    Ok(Resolved {
        id: stored.record.id.parse().map_err(|_| broken("id"))?,
        version: stored.record.revision.try_into().map_err(|_| broken("version"))?,
        agent: stored.definition.runnable(),
        snapshot: stored.snapshot(reader)?,
        skills,
    })
}
