//! What a driver does about files between steps: looks for what was made under protected names, seals them, hands out what was
//! made for others. Each failure is a fact, told once, and the turn goes on.

use super::Session;
use super::call::{Call, CallState};
use super::driver::{Driver, with_causes};
use super::step::Step;
use crate::event::{EventBody, NewEvent};
use crate::id::EventId;
use crate::sandbox;

impl Driver {
    /// Whether the files are to be sealed first: before a call that may change them, and at the end of a turn that had
    /// one, for what went on in the background.
    pub(super) fn wants_seal(&self, step: &Step, facts: &[NewEvent]) -> bool {
        match step {
            Step::Run(calls) => {
                let ahead = self.session.ahead(facts);
                changes_files(&ahead, calls) && !ahead.files().clean
            }
            Step::Settle(_) | Step::Stop | Step::GiveUp(_) | Step::Terminate => {
                self.session.turn().wrote
            }
            Step::Rest | Step::Sample | Step::Trim(_) | Step::Compact(_) | Step::CompactFromLog => {
                false
            }
        }
    }

    /// Looks for what was made under protected names, before it is sealed: what is set aside is sealed so.
    pub(super) async fn look(&mut self) -> Vec<NewEvent> {
        let guest = self.guest.get_if_up().filter(|_| self.makings.are_possible());
        let Some(held) = guest.and_then(|guest| guest.held()) else { return Vec::new() };
        let environment = self.session.definition().environment.clone();
        let workspace = environment.workspace.clone();
        let look = move || sandbox::made::look(&environment, &held);
        let looked = tokio::task::spawn_blocking(look).await.expect("looking does not panic");
        // A workspace that cannot be read any more is named by the seal, which fails.
        let facts = self.makings.facts(&workspace, looked.unwrap_or_default());
        self.at_once(facts)
    }

    /// Seals the disk; a failure is a fact too, told once, and the turn goes on.
    pub(super) async fn seal(&mut self, facts: &[NewEvent]) -> Vec<NewEvent> {
        let known = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let body = match self.disk.seal().await {
            Ok(made) => EventBody::Sealed {
                home: made.seal.home,
                work: made.seal.work,
                files: known(made.files),
                changed: known(made.changed),
                bytes: made.bytes,
            },
            Err(error) => {
                let message = format!("failed to {}", with_causes(&error));
                if self.session.ahead(facts).files().unsealed.as_ref() == Some(&message) {
                    return Vec::new();
                }
                EventBody::Unsealed { message }
            }
        };
        self.at_once(vec![body])
    }

    /// Hands out what the session has made, before it is said to rest: whoever waits for that finds it. What could not be
    /// is a fact too, told once.
    pub(super) async fn hand_out(&mut self, facts: &[NewEvent]) -> Vec<NewEvent> {
        let Some(hand_out) = &self.parts.hand_out else { return Vec::new() };
        let Err(message) = hand_out().await else { return Vec::new() };
        if self.session.ahead(facts).files().kept_back.as_ref() == Some(&message) {
            return Vec::new();
        }
        self.at_once(vec![EventBody::KeptBack { message }])
    }
}

/// Whether one of these calls is to run and may change files.
pub(super) fn changes_files(session: &Session, calls: &[EventId]) -> bool {
    let changes =
        |call: &Call| call.effect().changes_files() && !matches!(call.state, CallState::Denied(_));
    calls.iter().any(|id| session.call(id).is_some_and(changes))
}
