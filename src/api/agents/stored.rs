//! An agent as it is stored: read from a request, changed by an update, checked as a whole, shown to clients.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::model::Model;
use super::multiagent::{Member, Multiagent, Surroundings};
use super::tools::{self, Tool};
use crate::agent::mcp::{self, MAX_SERVER_NAME_CHARS, MAX_SERVERS, MAX_URL_CHARS};
use crate::agent::{MAX_NAME_CHARS, MAX_SYSTEM_CHARS};
use crate::api::body::{Node, Object, Tri, metadata, patched_metadata};
use crate::api::error::ApiError;
use crate::event::rfc3339;
use crate::limits::MAX_SESSION_SKILLS;
use crate::runtime::skills::{Chosen, Source, library};
use crate::runtime::{Reader, Record};

/// The kind of its records.
pub(super) const KIND: &str = "agent";

/// Bounds of the protocol, and of names that it leaves open.
const MAX_ROLE_CHARS: usize = 2048;
const MAX_SKILL_CHARS: usize = 255;
const MAX_DESCRIPTION_CHARS: usize = 10_000;

/// All of an agent that a client decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) model: Model,
    pub(super) system: Option<String>,
    pub(super) tools: Vec<Tool>,
    pub(super) mcp_servers: Vec<Server>,
    pub(super) skills: Vec<Skill>,
    pub(super) multiagent: Option<Multiagent>,
    execution_identity: Identity,
    metadata: Map<String, Value>,
}

/// An MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Server {
    r#type: String,
    pub(super) name: String,
    pub(super) url: String,
}

/// A skill, at a version or at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skill {
    r#type: String,
    skill_id: String,
    version: String,
}

impl Skill {
    /// The stored skill that is meant, at one version; from now on it is that one, also where `latest` was said.
    fn settle(&mut self, reader: &Reader, path: &str) -> Result<Chosen, ApiError> {
        if self.r#type == "anthropic" {
            let problem = format!(
                "`{}` is a skill of the hosted service's own, which this server does not have; upload a skill of your own \
                 and name it as `custom`",
                self.skill_id
            );
            return Err(ApiError::field(path, problem));
        }
        let chosen = library::choose(reader, &self.skill_id, &self.version);
        let chosen = chosen.map_err(|error| ApiError::from(error).at(path))?;
        if let Source::Stored { version, .. } = &chosen.source {
            self.version = version.to_string();
        }
        Ok(chosen)
    }
}

/// As whom its sessions run, where that means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Identity {
    ServiceAccount,
    AwsRole { role_arn: String },
}

/// An agent at one version.
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) definition: Definition,
}

/// The agent at that version, or at the present one, if there is one.
pub(super) fn at(
    reader: &Reader,
    id: &str,
    version: Option<u64>,
) -> Result<Option<Stored>, ApiError> {
    let record = match version {
        None => reader.record(KIND, id)?,
        Some(version) => reader.record_version(KIND, id, version)?,
    };
    record.map(Stored::of).transpose()
}

impl Stored {
    /// The skills of a session that is made of it now: `path` is where the session names the agent.
    pub(super) fn settle_skills(
        &mut self,
        reader: &Reader,
        path: &str,
    ) -> Result<Vec<Chosen>, ApiError> {
        let skills = self.definition.skills.iter_mut().enumerate();
        skills.map(|(at, skill)| skill.settle(reader, &format!("{path}.skills[{at}]"))).collect()
    }

    pub(super) fn of(record: Record) -> Result<Self, ApiError> {
        let definition = Definition::deserialize(&record.body).map_err(|error| {
            ApiError::internal(format!("the stored agent {} cannot be read: {error}", record.id))
        })?;
        Ok(Self { record, definition })
    }

    /// As the endpoints of agents show it.
    pub(super) fn view(&self) -> Value {
        let record = &self.record;
        let mut view = self.head();
        let roster = self.definition.multiagent.as_ref().map(|multiagent| {
            let mut reference = |member: &Member| Ok(self.reference(member));
            let Ok::<_, std::convert::Infallible>(value) = multiagent.view(&mut reference);
            value
        });
        view["multiagent"] = roster.into();
        view["metadata"] = Value::Object(self.definition.metadata.clone());
        view["created_at"] = rfc3339(record.created_at).into();
        view["updated_at"] = rfc3339(record.updated_at).into();
        view["archived_at"] = record.archived_at.map(rfc3339).into();
        view
    }

    /// As a session shows it: whoever it may start is there in full.
    pub(super) fn snapshot(&self, reader: &Reader) -> Result<Value, ApiError> {
        let mut view = self.head();
        let mut full = |member: &Member| match member {
            Member::Own => Ok(self.head()),
            Member::Advisor { .. } => Ok(json!(member)),
            Member::Agent { id, version } => match at(reader, id, Some(*version))? {
                Some(stored) => Ok(stored.head()),
                None => Err(ApiError::invalid(format!("multiagent: there is no agent `{id}`"))),
            },
        };
        let roster = self.definition.multiagent.as_ref();
        let roster = roster.map(|multiagent| multiagent.view(&mut full)).transpose()?;
        view["multiagent"] = roster.into();
        Ok(view)
    }

    /// What all of them show, and threads nothing else: not whom it may start.
    fn head(&self) -> Value {
        let Definition { name, description, model, system, tools, mcp_servers, skills, .. } =
            &self.definition;
        json!({
            "type": "agent",
            "id": self.record.id,
            "version": self.record.revision,
            "name": name,
            "description": description,
            "model": model.view(),
            "system": system,
            "tools": tools,
            "mcp_servers": mcp_servers,
            "skills": skills,
            "execution_identity": self.definition.execution_identity,
        })
    }

    fn reference(&self, member: &Member) -> Value {
        match member {
            Member::Own => {
                json!({ "type": "agent", "id": self.record.id, "version": self.record.revision })
            }
            Member::Agent { .. } | Member::Advisor { .. } => json!(member),
        }
    }
}

impl Definition {
    /// A new agent.
    pub(super) fn create(body: &Node<'_>, reader: &Reader) -> Result<Self, ApiError> {
        let mut object = body.object()?;
        let name = read_name(&object.need("name")?)?;
        let model = Model::read(&object.need("model")?)?;
        let metadata = metadata(object.maybe("metadata").as_ref())?;
        let empty = Self {
            name,
            description: None,
            model,
            system: None,
            tools: Vec::new(),
            mcp_servers: Vec::new(),
            skills: Vec::new(),
            multiagent: None,
            execution_identity: Identity::ServiceAccount,
            metadata,
        };
        let around = Surroundings { reader, own: None };
        let new = empty.changed(&mut object, &around)?;
        object.done()?;
        new.check_whole()?;
        Ok(new)
    }

    /// The agent after an update, whose `version` has been read already.
    pub(super) fn update(
        &self,
        mut object: Object<'_>,
        around: &Surroundings<'_>,
    ) -> Result<Self, ApiError> {
        let mut new = self.clone();
        match object.tri("name") {
            Tri::Absent => {}
            Tri::Null => return Err(object.refuse("name", "cannot be cleared")),
            Tri::Set(node) => new.name = read_name(&node)?,
        }
        match object.tri("model") {
            Tri::Absent => {}
            Tri::Null => return Err(object.refuse("model", "cannot be cleared")),
            Tri::Set(node) => new.model = self.model.update(&node)?,
        }
        if let Some(patch) = object.maybe("metadata") {
            new.metadata = patched_metadata(&self.metadata, &patch)?;
        }
        let new = new.changed(&mut object, around)?;
        object.done()?;
        new.check_whole()?;
        Ok(new)
    }

    /// What creating and updating share: fields that can be cleared.
    fn changed(
        mut self,
        object: &mut Object<'_>,
        around: &Surroundings<'_>,
    ) -> Result<Self, ApiError> {
        match object.tri("description") {
            Tri::Absent => {}
            Tri::Null => self.description = None,
            Tri::Set(node) => self.description = cleared(node.text(0, MAX_DESCRIPTION_CHARS)?),
        }
        self.replace_lists(object)?;
        match object.tri("multiagent") {
            Tri::Absent => {}
            Tri::Null => self.multiagent = None,
            Tri::Set(node) => {
                self.multiagent = Some(Multiagent::read(&node, self.multiagent.as_ref(), around)?);
            }
        }
        match object.tri("execution_identity") {
            Tri::Absent => {}
            Tri::Null => self.execution_identity = Identity::ServiceAccount,
            Tri::Set(node) => self.execution_identity = Identity::read(&node)?,
        }
        Ok(self)
    }

    /// What a session can override too: `system`, `tools`, `mcp_servers`, `skills`.
    pub(super) fn replace_lists(&mut self, object: &mut Object<'_>) -> Result<(), ApiError> {
        match object.tri("system") {
            Tri::Absent => {}
            Tri::Null => self.system = None,
            Tri::Set(node) => self.system = cleared(node.text(0, MAX_SYSTEM_CHARS)?),
        }
        self.replace_tools(object)?;
        match object.tri("skills") {
            Tri::Absent => {}
            Tri::Null => self.skills = Vec::new(),
            Tri::Set(node) => self.skills = read_skills(&node)?,
        }
        Ok(())
    }

    /// What a session can change while it lives: `tools` and `mcp_servers`.
    pub(super) fn replace_tools(&mut self, object: &mut Object<'_>) -> Result<(), ApiError> {
        match object.tri("tools") {
            Tri::Absent => {}
            Tri::Null => self.tools = Vec::new(),
            Tri::Set(node) => self.tools = tools::read(&node)?,
        }
        match object.tri("mcp_servers") {
            Tri::Absent => {}
            Tri::Null => self.mcp_servers = Vec::new(),
            Tri::Set(node) => self.mcp_servers = read_servers(&node)?,
        }
        Ok(())
    }

    /// What no field shows alone: servers and their toolsets, skills and the tool that reads them.
    pub(super) fn check_whole(&self) -> Result<(), ApiError> {
        let toolsets = |name: &str| {
            self.tools.iter().any(
                |tool| matches!(tool, Tool::Mcp { mcp_server_name, .. } if mcp_server_name == name),
            )
        };
        for (at, server) in self.mcp_servers.iter().enumerate() {
            if !toolsets(&server.name) {
                let problem =
                    format!("no mcp_toolset in `tools` is of the MCP server `{}`", server.name);
                return Err(ApiError::field(&format!("mcp_servers[{at}].name"), problem));
            }
        }
        for (at, tool) in self.tools.iter().enumerate() {
            if let Tool::Mcp { mcp_server_name: name, .. } = tool
                && !self.mcp_servers.iter().any(|server| server.name == *name)
            {
                let problem = format!("`mcp_servers` has no server `{name}`");
                return Err(ApiError::field(&format!("tools[{at}].mcp_server_name"), problem));
            }
        }
        let reads = self.tools.iter().filter_map(|tool| tool.built_in("read"));
        if !self.skills.is_empty() && !reads.into_iter().any(|setting| setting.enabled) {
            return Err(ApiError::field("skills", "need the tool `read`, and it is not enabled"));
        }
        Ok(())
    }

    /// What a session's snapshot says of it, as far as its tools go.
    pub(super) fn of_snapshot(snapshot: &Value) -> Result<Self, ApiError> {
        let broken = |_| ApiError::internal("the session's agent cannot be read");
        let mut body = snapshot.clone();
        // What a snapshot shows in full or not at all has no part in it.
        body["multiagent"] = Value::Null;
        body["metadata"] = json!({});
        body["model"] = json!({
            "id": snapshot["model"]["id"],
            "effort": null,
            "inference_geo": snapshot["model"]["inference_geo"],
            "speed": snapshot["model"]["speed"],
        });
        Self::deserialize(body).map_err(broken)
    }

    /// As a record's body.
    pub(super) fn body(&self) -> Value {
        serde_json::to_value(self).expect("a definition is JSON")
    }
}

impl Identity {
    fn read(node: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        let kind = object.need("type")?;
        let identity = match kind.string()? {
            "service_account" => Self::ServiceAccount,
            "aws_role" => {
                let role_arn = object.need("role_arn")?.text(1, MAX_ROLE_CHARS)?.to_owned();
                Self::AwsRole { role_arn }
            }
            _ => return Err(kind.refuse("must be \"service_account\" or \"aws_role\"")),
        };
        object.done()?;
        Ok(identity)
    }
}

/// An empty text is the same as none.
fn cleared(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_name(node: &Node<'_>) -> Result<String, ApiError> {
    let name = node.text(1, MAX_NAME_CHARS)?;
    if name.trim().is_empty() {
        return Err(node.refuse("must not be blank"));
    }
    Ok(name.to_owned())
}

fn read_servers(node: &Node<'_>) -> Result<Vec<Server>, ApiError> {
    let mut servers: Vec<Server> = Vec::new();
    for entry in node.list(MAX_SERVERS)? {
        let mut object = entry.object()?;
        let kind = object.need("type")?;
        if kind.string()? != "url" {
            return Err(kind.refuse("must be \"url\""));
        }
        let name_node = object.need("name")?;
        let name = name_node.text(1, MAX_SERVER_NAME_CHARS)?.to_owned();
        let url = object.need("url")?;
        let text = url.text(1, MAX_URL_CHARS)?;
        mcp::check_url(text).map_err(|wrong| url.refuse(wrong))?;
        object.done()?;
        if servers.iter().any(|server| server.name == name) {
            return Err(name_node.refuse(format!("there is an MCP server `{name}` already")));
        }
        servers.push(Server { r#type: "url".to_owned(), name, url: text.to_owned() });
    }
    Ok(servers)
}

fn read_skills(node: &Node<'_>) -> Result<Vec<Skill>, ApiError> {
    let mut skills: Vec<Skill> = Vec::new();
    for entry in node.list(MAX_SESSION_SKILLS)? {
        let mut object = entry.object()?;
        let kind = object.need("type")?;
        let r#type = kind.string()?.to_owned();
        if !matches!(r#type.as_str(), "anthropic" | "custom") {
            return Err(kind.refuse("must be \"anthropic\" or \"custom\""));
        }
        let skill_id = object.need("skill_id")?.text(1, MAX_SKILL_CHARS)?.to_owned();
        let version = object.maybe("version");
        let version = version.map(|version| version.text(1, MAX_SKILL_CHARS)).transpose()?;
        let version = version.unwrap_or("latest").to_owned();
        object.done()?;
        if skills.iter().any(|skill| skill.skill_id == skill_id) {
            return Err(entry.refuse(format!("the skill `{skill_id}` is there already")));
        }
        skills.push(Skill { r#type, skill_id, version });
    }
    Ok(skills)
}
