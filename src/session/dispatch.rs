//! Performs `Run`: calls that were allowed go to the guest, the others get their refusal. One result for each.

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::call::{AtServer, Call, CallState, Denial};
use super::driver::{Driver, Performed};
use super::{links, network, web};
use crate::agent::{Effect, ToolName};
use crate::event::{EventBody, Permission};
use crate::id::EventId;
use crate::sandbox::wire::{ToolCall, ToolReply};
use crate::sandbox::{Guest, GuestError};
use crate::tool::policy::{self, Verdict};

/// What the model is told of a call that asks in a session that has nobody to ask.
const NOBODY: &str =
    "This call was not allowed: nobody is there who could be asked. Go on without it.";

impl Driver {
    pub(super) async fn dispatch(
        &mut self,
        ids: &[EventId],
        token: &CancellationToken,
    ) -> Performed {
        let (mut results, loaded): (Vec<_>, Vec<_>) = match self.at_server(ids) {
            // A call of a server's tool runs alone.
            Some((call, at)) => (vec![self.call_server(&call, &at, token).await], Vec::new()),
            None => {
                let guest = self.guest.get_if_up();
                let calls = ids.iter().map(|id| self.call_of(id));
                let results = calls.map(|call| self.result_of(call, guest.as_deref(), token));
                join_all(results).await.into_iter().unzip()
            }
        };
        // Only a call that runs programs reaches for the network, and it runs alone.
        let runs =
            |id: &&EventId| self.session.call(id).is_some_and(|call| call.effect() == Effect::Runs);
        let mut bodies = Vec::new();
        if let Some(caller) = ids.iter().find(runs) {
            let (events, told) = self.attempts.of_call(caller, self.guest.report());
            bodies.extend(events);
            results.iter_mut().for_each(|result| network::tell(result, caller, &told));
        }
        bodies.extend(results);
        let calls = || ids.iter().map(|id| self.call_of(id));
        bodies.extend(calls().filter_map(web::used));
        bodies.extend(loaded.into_iter().flatten());
        Performed { facts: self.at_once(bodies), pause: None }
    }

    fn call_of(&self, id: &EventId) -> &Call {
        self.session.call(id).expect("a step names calls of its session")
    }

    /// The one call, if it is to be made at an MCP server.
    fn at_server(&self, ids: &[EventId]) -> Option<(Call, AtServer)> {
        let [id] = ids else { return None };
        let call = self.call_of(id);
        let at = call.mcp.clone().filter(|_| !matches!(call.state, CallState::Denied(_)))?;
        Some((call.clone(), at))
    }

    /// The result, and the tools that the model has from now on if the call was a search for some.
    async fn result_of(
        &self,
        call: &Call,
        guest: Option<&Guest>,
        token: &CancellationToken,
    ) -> (EventBody, Option<EventBody>) {
        if let CallState::Denied(denial) = &call.state {
            return (call.failure(self.refusal_text(call, denial)), None);
        }
        if call.is_search() {
            return self.search_tools(call);
        }
        (self.outcome_of(call, guest, token).await, None)
    }

    async fn outcome_of(
        &self,
        call: &Call,
        guest: Option<&Guest>,
        token: &CancellationToken,
    ) -> EventBody {
        if let Some(tool) = call.built_in().filter(|tool| tool.asks_web()) {
            return web::body(call, self.ask_web(call, tool, guest, token).await);
        }
        let guest = guest.expect("the driver made a sandbox before it committed the intent");
        let (name, input) = (call.name.clone(), call.input.clone());
        let wire = ToolCall { name, input, takes_documents: self.parts.takes_documents };
        match guest.call(wire, token).await {
            Ok(ToolReply { content, is_error }) => call.result(content, is_error),
            Err(failure) => call.failure(broken(&failure)),
        }
    }

    /// What the policy says of a call, which may be of an MCP server's tool.
    pub(super) fn verdict(
        &self,
        name: &str,
        mcp: Option<(&str, &str)>,
        input: &Map<String, Value>,
    ) -> Verdict<'_> {
        let definition = self.session.definition();
        let environment = &definition.environment;
        let asked = policy::Asked {
            name,
            mcp,
            input,
            workspace: &environment.workspace,
            resolve: &|path| links::resolve(environment, path),
        };
        policy::evaluate(&definition.agent, &asked)
    }

    fn refusal_text(&self, call: &Call, denial: &Denial) -> String {
        let at = call.mcp.as_ref().map(|at| (at.server.as_str(), at.tool.as_str()));
        let verdict = self.verdict(&call.name, at, &call.input);
        if verdict.evaluation.is_some() {
            if let (Permission::Deny, Some(rule)) = (verdict.permission, verdict.rule) {
                return format!("The rule `{rule}` denies this call. Do not try it another way.");
            }
            return match denial {
                Denial::User(Some(message)) => {
                    format!("The user did not allow this call: {message}")
                }
                Denial::User(None) | Denial::Policy => {
                    "The user did not allow this call.".to_owned()
                }
                Denial::Judge(reason) => {
                    format!("Permission to use {} has been denied. {reason}", call.name)
                }
                Denial::Nobody => NOBODY.to_owned(),
            };
        }
        let names = self.tool_names();
        match ToolName::parse(&call.name) {
            Some(_) => {
                format!("The tool `{}` is disabled. Tools: {}.", call.name, names.join(", "))
            }
            None => format!("There is no tool `{}`. Tools: {}.", call.name, names.join(", ")),
        }
    }
}

/// A guest that broke in the middle of a call: what it did until then is unknown.
fn broken(failure: &GuestError) -> String {
    format!(
        "The sandbox broke while this call ran: {failure}. Its effect is unknown. The next call gets a new sandbox: \
         files in the working directory are kept, the shell's state and everything else is gone."
    )
}
