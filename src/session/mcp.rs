//! The session's MCP servers from the driver's side: connected when a turn begins, asked what they have, called. What they
//! have is a fact in the log; a connection is none, and is made again when it is needed.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::Definition;
use super::call::{AtServer, Call};
use super::driver::Driver;
use super::offers::{self, SEARCH};
use super::previews::Preview;
use crate::agent::Agent;
use crate::agent::mcp::{McpServer, Place, ServerTool};
use crate::event::{ContentBlock, ErrorDetail, ErrorKind, EventBody, NewEvent, RetryStatus};
use crate::limits::{TOOL_OUTPUT_CHARS, TOOL_PREVIEW_CHARS};
use crate::mcp::{Answer, Connection, Failure, Mcp};
use crate::sandbox::Guest;
use crate::sandbox::wire::{self, ToolCall};

/// Servers that are connected. Dropping them ends the connections.
#[derive(Default)]
pub(super) struct Servers {
    up: HashMap<String, Up>,
    /// They were asked in this turn.
    asked: bool,
}

struct Up {
    /// What it was connected as.
    place: Place,
    connection: Connection,
    tools: Vec<ServerTool>,
}

impl Servers {
    /// The next turn asks them anew.
    pub(super) fn turn_is_over(&mut self) {
        self.asked = false;
    }

    /// Forgets connections that have ended, or that the agent has no more.
    fn sweep(&mut self, agent: &Agent) {
        self.up.retain(|name, up| {
            let place = agent.mcp_server(name).map(|server| &server.place);
            place == Some(&up.place) && !up.connection.is_closed()
        });
    }
}

/// Whether the rules of the session's environment let it speak with a server. What a user of the command line names in a
/// file of his own needs no other leave.
fn may_speak(definition: &Definition, server: &McpServer) -> Result<(), Failure> {
    if definition.origin.is_none() || server.is_open(&definition.environment.networking) {
        return Ok(());
    }
    let problem = "the environment's network rules do not name its host; add it to `allowed_hosts`, or set \
                   `allow_mcp_servers`";
    Err(Failure::Connection(problem.to_owned()))
}

/// Connects with a server; one that is a program is started in the sandbox.
async fn connect(
    mcp: &Mcp,
    server: &McpServer,
    definition: &Definition,
    guest: Option<&Result<Arc<Guest>, String>>,
) -> Result<Connection, Failure> {
    let (command, args, env) = match &server.place {
        Place::Url { url } => {
            may_speak(definition, server)?;
            return mcp.connect(url).await;
        }
        Place::Stdio { command, args, env } => (command, args, env),
    };
    let guest = match guest {
        Some(Ok(guest)) => guest,
        Some(Err(why)) => return Err(Failure::Connection(format!("there is no sandbox: {why}"))),
        None => unreachable!("a sandbox is made for programs"),
    };
    let program = wire::Program {
        argv: std::iter::once(command).chain(args).cloned().collect(),
        env: env.clone().into_iter().collect(),
    };
    let (id, stream) = guest.start_program(program).await.map_err(Failure::Connection)?;
    match mcp.speak(stream).await {
        Ok(connection) => Ok(connection),
        Err(failure) => Err(with_last_words(failure, &guest.program_said(id).await)),
    }
}

/// What a program printed before it ended says more than that it did.
fn with_last_words(failure: Failure, said: &str) -> Failure {
    match (said.trim(), failure) {
        ("", failure) => failure,
        (said, Failure::Connection(words) | Failure::Authentication(words)) => {
            Failure::Connection(format!("{words}; it printed: {said}"))
        }
    }
}

async fn bring_up(
    mcp: &Mcp,
    server: &McpServer,
    definition: &Definition,
    guest: Option<&Result<Arc<Guest>, String>>,
) -> Result<Up, Failure> {
    let connection = connect(mcp, server, definition, guest).await?;
    let tools = connection.list().await?;
    Ok(Up { place: server.place.clone(), connection, tools })
}

impl Driver {
    /// Whether the turn is about to begin, and the agent's servers were not asked for it.
    pub(super) fn servers_are_due(&self, facts: &[NewEvent]) -> bool {
        let has_servers = !self.session.definition().agent.mcp_servers.is_empty();
        has_servers && !self.servers.asked && self.session.ahead(facts).turn().requests == 0
    }

    /// Connects with every server that is not connected, and says what is another than the log has it; nothing if that was
    /// interrupted.
    pub(super) async fn ask_servers(
        &mut self,
        token: &CancellationToken,
    ) -> Option<Vec<EventBody>> {
        let definition = Arc::clone(self.session.definition());
        self.servers.sweep(&definition.agent);
        let servers = &definition.agent.mcp_servers;
        let missing: Vec<_> =
            servers.iter().filter(|server| !self.servers.up.contains_key(&server.name)).collect();
        let guest = self.guest_for(missing.iter().copied(), token).await?;
        let mcp = Arc::clone(&self.parts.mcp);
        let begun = missing.into_iter().map(|server| {
            let begun = bring_up(&mcp, server, &definition, guest.as_ref());
            async { (server.name.clone(), Box::pin(begun).await) }
        });
        let changed = self.servers.up.iter_mut().filter(|(_, up)| up.connection.has_changed());
        let again = changed.map(|(name, up)| async {
            let listed = up.connection.list().await;
            (name.clone(), listed.map(|tools| up.tools = tools))
        });
        let (begun, again) = tokio::select! {
            done = async { tokio::join!(join_all(begun), join_all(again)) } => done,
            () = token.cancelled() => return None,
        };
        let mut failures = HashMap::new();
        for (name, outcome) in again {
            if let Err(failure) = outcome {
                self.servers.up.remove(&name);
                failures.insert(name, failure);
            }
        }
        for (name, outcome) in begun {
            match outcome {
                Ok(up) => drop(self.servers.up.insert(name, up)),
                Err(failure) => drop(failures.insert(name, failure)),
            }
        }
        self.servers.asked = true;
        Some(servers.iter().filter_map(|server| self.news_of(server, &failures)).collect())
    }

    /// What the log does not have yet of a server.
    fn news_of(
        &self,
        server: &McpServer,
        failures: &HashMap<String, Failure>,
    ) -> Option<EventBody> {
        let name = &server.name;
        if let Some(failure) = failures.get(name) {
            return Some(EventBody::SessionError { error: lost(name, failure) });
        }
        let tools = &self.servers.up.get(name)?.tools;
        if self.session.offers().of(name) == Some(tools) {
            return None;
        }
        Some(EventBody::McpListed { mcp_server_name: name.clone(), tools: tools.clone() })
    }

    /// The sandbox, if any of these servers is a program; nothing if that was interrupted.
    async fn guest_for<'s>(
        &mut self,
        mut servers: impl Iterator<Item = &'s McpServer>,
        token: &CancellationToken,
    ) -> Option<Option<Result<Arc<Guest>, String>>> {
        if !servers.any(|server| server.place.is_sandboxed()) {
            return Some(None);
        }
        tokio::select! {
            biased;
            guest = self.guest.get() => Some(Some(guest)),
            () = token.cancelled() => None,
        }
    }

    /// Calls a tool of a server; a connection that has ended is made again first.
    pub(super) async fn call_server(
        &mut self,
        call: &Call,
        at: &AtServer,
        token: &CancellationToken,
    ) -> EventBody {
        if let Err(sentence) = self.reconnect(&at.server, token).await {
            return call.failure(sentence);
        }
        let up = &self.servers.up[&at.server];
        let head = self.session.head();
        let report = |said| {
            let progress = Preview::Progress { call: call.id.clone(), said };
            self.parts.previews.send(head, progress);
        };
        match up.connection.call(&at.tool, &call.input, token, &report).await {
            Ok(answer) => self.result_from(call, answer, token).await,
            Err(error) => call.failure(error.to_string()),
        }
    }

    async fn reconnect(&mut self, name: &str, token: &CancellationToken) -> Result<(), String> {
        let definition = Arc::clone(self.session.definition());
        self.servers.sweep(&definition.agent);
        if self.servers.up.contains_key(name) {
            return Ok(());
        }
        let Some(server) = definition.agent.mcp_server(name) else {
            return Err(format!("The agent has no MCP server `{name}` any more."));
        };
        let cancelled = || "The call was cancelled.".to_owned();
        let guest = self.guest_for(std::iter::once(server), token).await.ok_or_else(cancelled)?;
        let mcp = Arc::clone(&self.parts.mcp);
        let begun = Box::pin(bring_up(&mcp, server, &definition, guest.as_ref()));
        let begun = tokio::select! {
            begun = begun => begun,
            () = token.cancelled() => return Err(cancelled()),
        };
        let up = begun.map_err(|failure| {
            format!(
                "The MCP server `{name}` cannot be reached, and the call was not made: {failure}."
            )
        })?;
        self.servers.up.insert(name.to_owned(), up);
        Ok(())
    }

    /// An answer for the log. A text that is too long for the model goes into a file of the sandbox, as a command's output
    /// does.
    async fn result_from(
        &mut self,
        call: &Call,
        answer: Answer,
        token: &CancellationToken,
    ) -> EventBody {
        let Answer { text, media, is_error } = answer;
        let mut content = media;
        let is_long = text.chars().nth(TOOL_OUTPUT_CHARS).is_some();
        let text = if is_long { self.keep(text, token).await } else { text };
        if !text.is_empty() {
            content.insert(0, ContentBlock::text(text));
        }
        if content.is_empty() {
            content.push(ContentBlock::text("(the tool returned nothing)"));
        }
        call.result(content, is_error)
    }

    async fn keep(&mut self, text: String, token: &CancellationToken) -> String {
        let head: String = text.chars().take(TOOL_PREVIEW_CHARS).collect();
        let total = text.len();
        let lost = |why: &str| {
            format!("{head}\n\n[the result has {total} bytes; the rest is lost: {why}]")
        };
        let guest = match self.guest.get().await {
            Ok(guest) => guest,
            Err(why) => return lost(&format!("there is no sandbox to keep it in: {why}")),
        };
        let input = Map::from_iter([("text".to_owned(), Value::from(text))]);
        let kept = guest.call(ToolCall::of_host(wire::KEEP_OUTPUT, input), token).await;
        match kept.map(|reply| reply.content) {
            Ok(content) => crate::event::text_of(&content),
            Err(failure) => lost(&failure.to_string()),
        }
    }

    /// Performs a search for tools: what it says, and that what it has found is the model's.
    pub(super) fn search_tools(&self, call: &Call) -> (EventBody, Option<EventBody>) {
        let agent = &self.session.definition().agent;
        let Some(query) = call.input.get("query").and_then(Value::as_str) else {
            let wrong = format!("The input of `{SEARCH}` is wrong: `query` must be a string.");
            return (call.failure(wrong), None);
        };
        let found = self.session.offers().search(agent, query);
        let text = ContentBlock::text(offers::found(&found));
        let names = offers::names(&found);
        let loaded = (!names.is_empty()).then_some(EventBody::McpLoaded { names });
        (call.result(vec![text], false), loaded)
    }
}

/// The error of a server that this turn has to do without.
fn lost(name: &str, failure: &Failure) -> ErrorDetail {
    let r#type = match failure {
        Failure::Connection(_) => ErrorKind::McpConnectionFailedError,
        Failure::Authentication(_) => ErrorKind::McpAuthenticationFailedError,
    };
    let message = format!(
        "the MCP server `{name}` is not there for this turn: {failure}; it is tried again in the next one"
    );
    ErrorDetail {
        mcp_server_name: Some(name.to_owned()),
        ..ErrorDetail::new(r#type, message, RetryStatus::Retrying)
    }
}
