//! What clients change of a session that is there: its settings, its end.

use std::collections::BTreeMap;

use super::{Json, Runtime, RuntimeError, SessionRow, SessionStatus, definition, has_work};
use crate::agent::Agent;
use crate::event::{Budget, EventBody, NewEvent, StopReason};
use crate::id::SessionId;
use crate::limits::{ADMISSION_ATTEMPTS, SCAN_PAGE};
use crate::session::Session;
use crate::session::step::end_group;
use crate::store::{Append, Author, Order, SessionFilter, StoreError};

/// What is to change of a session; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionPatch {
    /// Another title, or none.
    pub title: Option<Option<String>>,
    /// Entries of the metadata: another value, or none.
    pub metadata: Option<BTreeMap<String, Option<String>>>,
    /// Another agent, and how clients see it. From the next turn on.
    pub agent: Option<(Agent, serde_json::Value)>,
    /// Another budget, or none for good.
    pub budget: Option<Option<Budget>>,
}

impl Runtime {
    /// Changes a session. What is as it was already makes no event.
    ///
    /// # Errors
    /// A session that has ended, or works while its agent is to change; a budget that is not raised.
    pub async fn update_session(
        &self,
        id: &SessionId,
        mut patch: SessionPatch,
    ) -> Result<SessionRow, RuntimeError> {
        if let Some((agent, _)) = &mut patch.agent {
            let row = self.row(id)?;
            *agent =
                self.offered(agent.clone(), &definition(&row)?.environment, row.agent_id.is_some());
            self.check_judge(agent)?;
        }
        let change = |row: &SessionRow| {
            if let Some(Some(budget)) = &patch.budget {
                self.check_budgetable(&definition(row)?.agent.model, budget)?;
            }
            changes(row, &patch)
        };
        self.change(id, change).await?;
        // What its budget stopped goes on by itself.
        if patch.budget.is_some() {
            self.drive(id)?;
        }
        self.row(id)
    }

    /// Has a session's conversation replaced by a summary, at once if it is at rest and before its next request if not.
    ///
    /// # Errors
    /// A session that has ended, or whose conversation is as short as it can be.
    pub async fn compact_session(&self, id: &SessionId) -> Result<(), RuntimeError> {
        let change = |row: &SessionRow| {
            if row.status == SessionStatus::Terminated {
                return Err(RuntimeError::Terminated(row.id.clone()));
            }
            if !self.fold(row, |_| {})?.can_be_compacted() {
                return Err(RuntimeError::NothingToCompact(row.id.clone()));
            }
            Ok(vec![EventBody::CompactionRequested {}])
        };
        self.change(id, change).await?;
        self.drive(id)
    }

    /// Makes a session read-only.
    ///
    /// # Errors
    /// A session at work.
    pub async fn archive_session(&self, id: &SessionId) -> Result<SessionRow, RuntimeError> {
        let change = |row: &SessionRow| {
            self.check_still(row)?;
            if row.archived_at.is_some() {
                return Ok(Vec::new());
            }
            let mut facts = vec![EventBody::Archived {}];
            if row.status != SessionStatus::Terminated {
                let session = Session::new(std::sync::Arc::new(definition(row)?));
                facts.extend(end_group(&session));
            }
            Ok(facts)
        };
        self.change(id, change).await?;
        self.shared.drivers.retire(id).await;
        self.row(id)
    }

    /// Appends what `change` says in the light of a session's row, which is still so then.
    async fn change(
        &self,
        id: &SessionId,
        change: impl Fn(&SessionRow) -> Result<Vec<EventBody>, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        for _ in 0..ADMISSION_ATTEMPTS {
            let row = self.row(id)?;
            let bodies = change(&row)?;
            if bodies.is_empty() {
                return Ok(());
            }
            let now = self.shared.clock.now();
            let events = bodies.into_iter().map(|body| NewEvent::now(now, body)).collect();
            let append = Append { events, at: Some(row.head), ..Append::default() };
            match self.shared.store.append(id, Author::Client, append).await {
                Err(StoreError::Moved { .. }) => {}
                appended => return Ok(appended.map(drop)?),
            }
        }
        Err(RuntimeError::Busy(id.clone()))
    }

    /// Refuses a session that somebody works on.
    pub(super) fn check_still(&self, row: &SessionRow) -> Result<(), RuntimeError> {
        if self.shared.drivers.is_driven(&row.id) && self.would_go_on(row)? {
            return Err(RuntimeError::Busy(row.id.clone()));
        }
        Ok(())
    }

    /// Drives every session that would go on by itself: what was cut while it worked, and what was said to it since.
    /// Those that cannot be driven are named, with the reason.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn resume_all(&self) -> Result<Vec<(SessionId, RuntimeError)>, RuntimeError> {
        let mut failed = Vec::new();
        let mut filter = SessionFilter { order: Order::OldestFirst, ..SessionFilter::default() };
        loop {
            let page = self.reader().sessions(&filter, SCAN_PAGE)?;
            let Some(last) = page.last() else { return Ok(failed) };
            filter.after = Some(last.place);
            for row in page {
                let resumed = match self.would_go_on(&row) {
                    Ok(true) => self.drive(&row.id),
                    // Its questions are not left to clients.
                    Ok(false) if asks_others(&row) => self.drive(&row.id),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                };
                failed.extend(resumed.err().map(|error| (row.id, error)));
            }
        }
    }

    fn would_go_on(&self, row: &SessionRow) -> Result<bool, RuntimeError> {
        match row.status {
            SessionStatus::Running | SessionStatus::Rescheduling => Ok(true),
            SessionStatus::Terminated => Ok(false),
            // Most are as their driver left them: the last event says so, and nothing waits to be taken up.
            SessionStatus::Idle => {
                let last = self.reader().scan(&row.id, row.head.saturating_sub(1), 1)?;
                let at_rest = last
                    .first()
                    .is_none_or(|event| matches!(event.body, EventBody::StatusIdle { .. }));
                let at_rest = at_rest && self.reader().queued(&row.id)?.is_empty();
                Ok(!at_rest && has_work(&self.fold(row, |_| {})?))
            }
        }
    }
}

/// Whether calls of the session wait, and not for a client.
fn asks_others(row: &SessionRow) -> bool {
    matches!(row.stop_reason, Some(StopReason::RequiresAction { .. }))
        && definition(row).is_ok_and(|definition| definition.on_ask.is_some())
}

fn changes(row: &SessionRow, patch: &SessionPatch) -> Result<Vec<EventBody>, RuntimeError> {
    if row.status == SessionStatus::Terminated {
        return Err(RuntimeError::Terminated(row.id.clone()));
    }
    let agent = patch.agent.as_ref().filter(|(_, seen)| Json::of(seen) != row.agent);
    if agent.is_some() && row.status != SessionStatus::Idle {
        return Err(RuntimeError::Busy(row.id.clone()));
    }
    let budget = patch.budget.clone().filter(|budget| *budget != row.budget);
    check_budget(row, budget.as_ref())?;
    let title = patch.title.clone().filter(|title| *title != row.title);
    let metadata = patch.metadata.as_ref().map(|patch| patched(&row.metadata, patch));
    let metadata = metadata.filter(|metadata| *metadata != row.metadata);
    if agent.is_none() && budget.is_none() && title.is_none() && metadata.is_none() {
        return Ok(Vec::new());
    }
    let seen = agent.map(|(_, seen)| seen.clone());
    let updated = EventBody::SessionUpdated { agent: seen, title, metadata, budget };
    let replaced =
        agent.map(|(agent, _)| EventBody::AgentReplaced { agent: Box::new(agent.clone()) });
    Ok([updated].into_iter().chain(replaced).collect())
}

fn check_budget(row: &SessionRow, wanted: Option<&Option<Budget>>) -> Result<(), RuntimeError> {
    let Some(Some(wanted)) = wanted else { return Ok(()) };
    if row.budget.is_none() {
        return Err(RuntimeError::BudgetCreateOnly);
    }
    if wanted.max_list_cost.is_some_and(|limit| limit.cost() <= row.cost) {
        return Err(RuntimeError::BudgetNotRaised);
    }
    Ok(())
}

fn patched(
    metadata: &BTreeMap<String, String>,
    patch: &BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    let mut metadata = metadata.clone();
    for (key, value) in patch {
        match value {
            Some(value) => drop(metadata.insert(key.clone(), value.clone())),
            None => drop(metadata.remove(key)),
        }
    }
    metadata
}
