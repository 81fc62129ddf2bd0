//! `/v1/sessions`: create, retrieve, update, list, archive, delete; and the table of all that lies below a session.

mod describe;

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::body::{Node, Tri, metadata, patched_metadata};
use super::endpoint::{Answer, Body, Endpoint, Param};
use super::error::{self, ApiError};
use super::page::{Cursor, Page};
use super::path::Ids;
use super::query::Query;
use super::{App, JsonBody, agents, environments, events, input, resources, schema, threads};
use crate::agent::{Agent, OnAsk};
use crate::clock::Timestamp;
use crate::environment::repository::WORKSPACE;
use crate::environment::{Environment, ProfileSource, WorkspaceMode};
use crate::event::{Budget, UsageSnapshot, rfc3339};
use crate::id::{EnvironmentId, SessionId};
use crate::runtime::{
    CreatedRange, Order, Origin, SessionFilter, SessionPatch, SessionRow, SessionSpec,
    SessionStatus,
};

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
const MAX_TITLE_CHARS: usize = 1024;
/// Of which nearly all is a URL.
const MAX_ON_ASK_CHARS: usize = 2048;
/// What such a session sees of the host.
const PROFILE: &str = "hosted";

pub(super) fn endpoints() -> Vec<Endpoint> {
    let one = "/v1/sessions/{session_id}";
    let mut table = vec![
        Endpoint::post("/v1/sessions", "sessions.create", create)
            .about("Begins a session.")
            .takes(Body::Json(describe::CREATE))
            .answers(Answer::Json(describe::SESSION)),
        Endpoint::get("/v1/sessions", "sessions.list", list)
            .about("Lists sessions, the newest first unless the order says otherwise.")
            .query(list_params())
            .answers(Answer::TwoWayPage(describe::SESSION)),
        Endpoint::get(one, "sessions.retrieve", retrieve)
            .about("Shows a session.")
            .answers(Answer::Json(describe::SESSION)),
        Endpoint::post(one, "sessions.update", update)
            .about("Changes a session; a change is an event.")
            .takes(Body::Json(describe::UPDATE))
            .answers(Answer::Json(describe::SESSION)),
        Endpoint::delete(one, "sessions.delete", delete)
            .about("Deletes a session that is not at work, with its events and files.")
            .answers(Answer::Json(describe::DELETED)),
        Endpoint::post("/v1/sessions/{session_id}/archive", "sessions.archive", archive)
            .about("Ends a session that is not at work for good; it can still be read.")
            .answers(Answer::Json(describe::SESSION)),
    ];
    table.extend(below());
    table
}

fn list_params() -> Vec<Param> {
    let [limit, page] = Param::page(MAX_LIMIT as u64);
    let statuses = SessionStatus::ALL.map(SessionStatus::as_str);
    let mut params = vec![
        limit,
        page,
        Param::new("agent_id", "Only those of this agent.", schema::string()),
        Param::new("agent_version", "Only those of this version of it.", schema::integer(1)),
        Param::new("deployment_id", "Only those of this deployment.", schema::string()),
        Param::new("memory_store_id", "Only those with this memory store.", schema::string()),
        Param::new("statuses[]", "Only these.", schema::list(schema::words(&statuses))),
        Param::new("order", "Which comes first.", schema::words(&["asc", "desc"])),
        Param::include_archived(),
    ];
    params.extend(created_params());
    params
}

fn created_params() -> [Param; 4] {
    ["created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"]
        .map(Param::created_at)
}

/// What lies below a session: its events and threads.
fn below() -> Vec<Endpoint> {
    let deltas = || {
        let kinds = schema::words(&["agent.message", "agent.thinking"]);
        Param::new("event_deltas[]", "Previews of these.", schema::list_of(0, 100, kinds))
    };
    let kinds = schema::words(&super::view::TYPES);
    let mut filters = Vec::from(Param::page(1000));
    filters.push(Param::new("types[]", "Only these.", schema::list(kinds)));
    filters.push(Param::new("order", "Which comes first.", schema::words(&["asc", "desc"])));
    filters.extend(created_params());
    let statuses = SessionStatus::ALL.map(SessionStatus::as_str);
    let statuses = Param::new("statuses[]", "Only these.", schema::list(schema::words(&statuses)));
    let events = "/v1/sessions/{session_id}/events";
    let thread = "/v1/sessions/{session_id}/threads/{thread_id}";
    vec![
        Endpoint::post(events, "sessions.events.send", events::send)
            .about("Sends events to a session: all of them, or none.")
            .takes(Body::Json(describe::SEND))
            .answers(Answer::Json(describe::SENT)),
        Endpoint::get(events, "sessions.events.list", events::list)
            .about("Lists a session's events.")
            .query(filters)
            .answers(Answer::Page(describe::EVENT)),
        Endpoint::get(
            "/v1/sessions/{session_id}/events/stream",
            "sessions.events.stream",
            events::stream,
        )
        .about("Streams a session's events from now on.")
        .query([deltas()])
        .answers(Answer::Stream(describe::STREAMED)),
        Endpoint::get("/v1/sessions/{session_id}/threads", "sessions.threads.list", threads::list)
            .about("Lists a session's threads.")
            .query(Param::page(1000).into_iter().chain([statuses]))
            .answers(Answer::Page(describe::THREAD)),
        Endpoint::get(thread, "sessions.threads.retrieve", threads::retrieve)
            .about("Shows a thread.")
            .answers(Answer::Json(describe::THREAD)),
        Endpoint::post(
            "/v1/sessions/{session_id}/threads/{thread_id}/archive",
            "sessions.threads.archive",
            threads::archive,
        )
        .about("Ends a thread that is not at work; the primary one ends with its session.")
        .answers(Answer::Json(describe::THREAD)),
        Endpoint::get(
            "/v1/sessions/{session_id}/threads/{thread_id}/events",
            "sessions.threads.events.list",
            threads::events,
        )
        .about("Lists a thread's events.")
        .query(Param::page(1000))
        .answers(Answer::Page(describe::EVENT)),
        Endpoint::get(
            "/v1/sessions/{session_id}/threads/{thread_id}/stream",
            "sessions.threads.events.stream",
            threads::stream,
        )
        .about("Streams a thread's events from now on.")
        .query([deltas()])
        .answers(Answer::Stream(describe::STREAMED)),
    ]
}

/// The session of that id.
///
/// # Errors
/// 404 if there is none that was made of a stored agent: the others are the command line's.
pub(super) fn find(app: &App, id: &str) -> Result<SessionRow, ApiError> {
    let missing = || ApiError::no_such("session", id);
    let parsed: SessionId = id.parse().map_err(|_| missing())?;
    let row = app.runtime().reader().session(&parsed)?;
    row.filter(|row| row.agent_id.is_some()).ok_or_else(missing)
}

/// A session as clients see it.
#[derive(Serialize)]
struct View<'a> {
    r#type: &'static str,
    id: &'a SessionId,
    status: &'static str,
    title: Option<&'a str>,
    agent: &'a RawValue,
    environment_id: Option<&'a EnvironmentId>,
    resources: Vec<Value>,
    vault_ids: &'a [String],
    metadata: &'a BTreeMap<String, String>,
    usage: UsageSnapshot,
    stats: Stats,
    outcome_evaluations: [Value; 0],
    budget: Option<&'a Budget>,
    /// An extension; where a session has none, it is as the protocol has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_ask: Option<OnAsk>,
    deployment_id: Option<&'static str>,
    created_at: String,
    updated_at: String,
    archived_at: Option<String>,
}

#[derive(Serialize)]
struct Stats {
    active_seconds: f64,
    duration_seconds: f64,
}

/// The session in JSON. Its agent, which is nearly all of it, is passed on as it is stored.
fn view(app: &App, row: &SessionRow, now: Timestamp) -> Result<String, ApiError> {
    let view = View {
        r#type: "session",
        id: &row.id,
        status: row.status.as_str(),
        title: row.title.as_deref(),
        agent: row.agent.parse().map_err(|_| unreadable(row))?,
        environment_id: row.environment_id.as_ref(),
        resources: resources::of_session(app, row)?,
        vault_ids: &row.vault_ids,
        metadata: &row.metadata,
        usage: row.usage_by(now),
        stats: Stats {
            active_seconds: seconds(row.active_ms_by(now)),
            duration_seconds: seconds(row.duration_ms_by(now)),
        },
        outcome_evaluations: [],
        budget: row.budget.as_ref(),
        on_ask: on_ask_of(row)?,
        deployment_id: None,
        created_at: rfc3339(row.created_at),
        updated_at: rfc3339(row.updated_at),
        archived_at: row.archived_at.map(rfc3339),
    };
    Ok(serde_json::to_string(&view).expect("a view has string keys only"))
}

/// What the session's definition says of calls that ask; the rest of it is passed over.
fn on_ask_of(row: &SessionRow) -> Result<Option<OnAsk>, ApiError> {
    #[derive(Deserialize)]
    struct Defined {
        on_ask: Option<OnAsk>,
    }
    let defined: Defined = row.definition.parse().map_err(|_| unreadable(row))?;
    Ok(defined.on_ask)
}

/// A row that is not what this server wrote.
pub(super) fn unreadable(row: &SessionRow) -> ApiError {
    ApiError::internal(format!("session {} cannot be read", row.id))
}

#[expect(clippy::cast_precision_loss, reason = "exact below nine million years")]
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

fn answer(app: &App, row: &SessionRow) -> error::Answer {
    Ok(super::json_text(view(app, row, app.clock().now())?))
}

async fn create(State(app): State<App>, JsonBody(body): JsonBody) -> error::Answer {
    let body = Node::root(&body);
    match Box::pin(app.runtime().create_session(spec(&app, &body)?)).await {
        Ok(row) => answer(&app, &row),
        Err(error) => {
            // What it is made of may have gone meanwhile: that has words of its own.
            spec(&app, &body)?;
            Err(match input::attachment(&error, "initial_events") {
                Some(place) => ApiError::from(error).at(&place),
                None => resources::refused(error, "resources"),
            })
        }
    }
}

fn spec(app: &App, body: &Node<'_>) -> Result<SessionSpec, ApiError> {
    let reader = app.runtime().reader();
    let mut object = body.object()?;
    let agent = agents::resolve(reader, &object.need("agent")?)?;
    let environment = environments::resolve(reader, &object.need("environment_id")?)?;
    let title = object.maybe("title").map(|node| title(&node)).transpose()?;
    let pairs = metadata(object.maybe("metadata").as_ref())?;
    let budget = object.maybe("budget").map(|node| budget(&node)).transpose()?;
    let on_ask = object.maybe("on_ask").map(|node| on_ask(&node)).transpose()?;
    let initial = object.maybe("initial_events");
    let initial = initial.map(|node| input::initial_events(&node)).transpose()?;
    let place = Environment {
        workspace_mode: WorkspaceMode::Own,
        profile: ProfileSource::BuiltIn(PROFILE.to_owned()),
        networking: environment.networking,
        packages: environment.packages,
        ..Environment::new(WORKSPACE.into())
    };
    if let Some(server) =
        agent.agent.mcp_servers.iter().find(|server| !server.is_open(&place.networking))
    {
        let name = &server.name;
        let problem = format!(
            "mcp_egress_blocked_error: the environment's network rules do not name the host of the MCP server `{name}`, \
             and `allow_mcp_servers` is not set"
        );
        return Err(ApiError::field("environment_id", problem));
    }
    let given = object.maybe("resources");
    let given = given.map(|node| resources::all(app, &node, &place)).transpose()?;
    if let Some(list) = object.maybe("vault_ids").filter(|list| list.value() != &json!([])) {
        list.array()?;
        return Err(list.refuse("vaults are not supported by this server yet"));
    }
    object.done()?;
    let origin = Origin {
        agent_id: agent.id,
        agent_version: agent.version,
        agent: agent.snapshot,
        environment_id: environment.id,
        vault_ids: Vec::new(),
    };
    Ok(SessionSpec {
        title,
        origin: Some(origin),
        metadata: pairs.into_iter().map(|(key, value)| (key, text(&value))).collect(),
        budget,
        on_ask,
        resources: given.unwrap_or_default(),
        skills: agent.skills,
        initial: initial.unwrap_or_default(),
        ..SessionSpec::new(agent.agent, place)
    })
}

fn text(value: &Value) -> String {
    value.as_str().expect("metadata was read as text").to_owned()
}

fn title(node: &Node<'_>) -> Result<String, ApiError> {
    node.text(0, MAX_TITLE_CHARS).map(str::to_owned)
}

fn on_ask(node: &Node<'_>) -> Result<OnAsk, ApiError> {
    node.text(1, MAX_ON_ASK_CHARS)?.parse().map_err(|problem: String| node.refuse(problem))
}

fn budget(node: &Node<'_>) -> Result<Budget, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    if kind.string()? != "limit" {
        return Err(kind.refuse("must be `limit`"));
    }
    let budget: Budget =
        serde_json::from_value(node.value().clone()).map_err(|problem| node.refuse(problem))?;
    let limits = [
        budget.max_tokens,
        budget.max_active_seconds,
        budget.max_tool_seconds,
        budget.max_egress_bytes,
    ];
    if budget.max_list_cost.is_some_and(|cost| cost.cents == 0) || limits.contains(&Some(0)) {
        return Err(node.refuse("a limit must be greater than zero"));
    }
    if budget.max_list_cost.is_none() && limits.iter().all(Option::is_none) {
        return Err(ApiError::field(&object.place("max_list_cost"), "Field required"));
    }
    Ok(budget)
}

async fn retrieve(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    answer(&app, &find(&app, &id)?)
}

async fn update(
    State(app): State<App>,
    Ids([id]): Ids<1>,
    JsonBody(body): JsonBody,
) -> error::Answer {
    let row = find(&app, &id)?;
    let patch = patch(&row, &Node::root(&body))?;
    let row = app.runtime().update_session(&row.id, patch).await?;
    answer(&app, &row)
}

/// What runs in a session.
#[derive(Deserialize)]
struct Runnable {
    agent: Agent,
}

fn patch(row: &SessionRow, body: &Node<'_>) -> Result<SessionPatch, ApiError> {
    let mut object = body.object()?;
    let title = match object.tri("title") {
        Tri::Absent => None,
        Tri::Null => Some(None),
        Tri::Set(node) => Some(Some(title(&node)?)),
    };
    let budget = match object.tri("budget") {
        Tri::Absent => None,
        Tri::Null => Some(None),
        Tri::Set(node) => Some(Some(budget(&node)?)),
    };
    let pairs = object.maybe("metadata").map(|node| metadata_patch(row, &node)).transpose()?;
    let agent = match object.maybe("agent") {
        None => None,
        Some(node) if row.status != SessionStatus::Idle => {
            return Err(node.refuse("can be changed only while the session is idle"));
        }
        Some(node) => {
            let broken = |_| unreadable(row);
            let Runnable { agent } = row.definition.parse().map_err(broken)?;
            Some(agents::changed(&agent, &row.agent.parse().map_err(broken)?, &node)?)
        }
    };
    if let Tri::Null | Tri::Set(_) = object.tri("vault_ids") {
        return Err(object.refuse("vault_ids", "cannot be changed"));
    }
    object.done()?;
    Ok(SessionPatch { title, metadata: pairs, agent, budget })
}

/// The patch, once what it leads to is known to be within bounds.
fn metadata_patch(
    row: &SessionRow,
    node: &Node<'_>,
) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    let stored = row.metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
    let stored: Map<String, Value> = stored.collect();
    patched_metadata(&stored, node)?;
    let pairs = node.object()?;
    let pair = |(key, value): (&str, Node<'_>)| {
        (key.to_owned(), value.value().as_str().map(str::to_owned))
    };
    Ok(pairs.fields().map(pair).collect())
}

async fn archive(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    let row = find(&app, &id)?;
    let row = app.runtime().archive_session(&row.id).await?;
    answer(&app, &row)
}

async fn delete(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    let row = find(&app, &id)?;
    app.runtime().delete(&row.id).await?;
    Ok(super::json(&json!({ "id": id, "type": "session_deleted" })))
}

/// The statuses that are asked for.
pub(super) fn statuses(query: &Query) -> Result<Vec<SessionStatus>, ApiError> {
    let words = SessionStatus::ALL.map(SessionStatus::as_str).join(", ");
    let parse = |text: &str| {
        let problem = || ApiError::field("statuses", format!("must be of {words}"));
        SessionStatus::parse(text).ok_or_else(problem)
    };
    query.many("statuses").into_iter().map(parse).collect()
}

async fn list(State(app): State<App>, query: Query) -> error::Answer {
    let order = match query.one("order") {
        None | Some("desc") => Order::NewestFirst,
        Some("asc") => Order::OldestFirst,
        Some(_) => return Err(ApiError::field("order", "must be `asc` or `desc`")),
    };
    let list = match order {
        Order::NewestFirst => "sessions desc",
        Order::OldestFirst => "sessions asc",
    };
    let page = Page::of(&query, list, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = filter(&query, order)?;
    let cursor =
        page.cursor.as_ref().map(|cursor| Mark::of(cursor, &filter.created)).transpose()?;
    // There are neither deployments nor memory stores here: no session is of one.
    let of_none = query.one("deployment_id").or(query.one("memory_store_id")).is_some();
    let of_none = of_none || query.one("agent_id").is_some() && filter.agent.is_none();
    let found = if of_none { Found::default() } else { look(&app, &filter, &page, cursor)? };
    let now = app.clock().now();
    let data: Vec<_> =
        found.rows.iter().map(|row| view(&app, row, now)).collect::<Result<_, _>>()?;
    let cursor = |row: &SessionRow, back| Cursor { back, ..Mark::at(row).cursor(list) }.to_string();
    let next = found.rows.last().filter(|_| found.more).map(|row| cursor(row, false));
    let prev = found.rows.first().filter(|_| found.earlier).map(|row| cursor(row, true));
    let (data, next, prev) = (data.join(","), json!(next), json!(prev));
    let text = format!(r#"{{"data":[{data}],"next_page":{next},"prev_page":{prev}}}"#);
    Ok(super::json_text(text))
}

fn filter(query: &Query, order: Order) -> Result<SessionFilter, ApiError> {
    let version = query.integer("agent_version", 1, u64::from(u32::MAX))?;
    if version.is_some() && query.one("agent_id").is_none() {
        return Err(ApiError::field("agent_version", "goes together with agent_id only"));
    }
    Ok(SessionFilter {
        of_stored: true,
        statuses: statuses(query)?,
        agent: query.one("agent_id").and_then(|id| id.parse().ok()),
        agent_version: version.and_then(|version| u32::try_from(version).ok()),
        created: CreatedRange {
            gt: query.time("created_at[gt]")?,
            gte: query.time("created_at[gte]")?,
            lt: query.time("created_at[lt]")?,
            lte: query.time("created_at[lte]")?,
        },
        include_archived: query.boolean("include_archived")?,
        order,
        ..SessionFilter::default()
    })
}

/// A page, and whether there is more on either side.
#[derive(Default)]
struct Found {
    rows: Vec<SessionRow>,
    earlier: bool,
    more: bool,
}

fn look(
    app: &App,
    filter: &SessionFilter,
    page: &Page,
    from: Option<Mark>,
) -> Result<Found, ApiError> {
    let reader = app.runtime().reader();
    let back = page.cursor.as_ref().is_some_and(|cursor| cursor.back);
    let order = if back { filter.order.reversed() } else { filter.order };
    let after = from.map(|mark| mark.place);
    let wanted = SessionFilter { order, after, ..filter.clone() };
    let mut rows = reader.sessions(&wanted, page.limit + 1)?;
    let beyond = rows.len() > page.limit;
    rows.truncate(page.limit);
    // The page was not reached from nowhere: there is something on the side that it was reached from, or there was.
    let behind = match rows.first().filter(|_| from.is_some()) {
        None => false,
        Some(first) => {
            let order = order.reversed();
            let wanted = SessionFilter { order, after: Some(first.place), ..filter.clone() };
            !reader.sessions(&wanted, 1)?.is_empty()
        }
    };
    if back {
        rows.reverse();
        return Ok(Found { rows, earlier: beyond, more: behind });
    }
    Ok(Found { rows, earlier: behind, more: beyond })
}

/// A session's place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    place: u64,
    created_at: Timestamp,
}

impl Mark {
    fn at(row: &SessionRow) -> Self {
        Self { place: row.place, created_at: row.created_at }
    }

    fn cursor(self, list: &str) -> Cursor {
        Cursor::after(list, format!("{}.{}", self.place, self.created_at.as_millisecond()))
    }

    /// Reads one that lies within what is asked for now.
    fn of(cursor: &Cursor, created: &CreatedRange) -> Result<Self, ApiError> {
        let parts = cursor.key.split_once('.').and_then(|(place, millis)| {
            let created_at = Timestamp::from_millisecond(millis.parse().ok()?).ok()?;
            Some(Self { place: place.parse().ok()?, created_at })
        });
        let mark = parts.ok_or_else(|| ApiError::field("page", "is no cursor of this list"))?;
        let at = mark.created_at;
        let within = created.gt.is_none_or(|bound| at > bound)
            && created.gte.is_none_or(|bound| at >= bound)
            && created.lt.is_none_or(|bound| at < bound)
            && created.lte.is_none_or(|bound| at <= bound);
        if within {
            return Ok(mark);
        }
        Err(ApiError::field("page", "lies outside of the times that are asked for now"))
    }
}
