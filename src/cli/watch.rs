//! Watching a session until it is idle: its feed to the renderer, Ctrl-C and typed lines to the session.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::render::Renderer;
use crate::agent::OnAsk;
use crate::event::{Confirmation, Event, EventBody, Seq, StopReason};
use crate::id::{EventId, SessionId};
use crate::runtime::{FeedItem, Input, Runtime};

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);
/// The line that asks for a summary in the place of the conversation.
const COMPACT: &str = "/compact";
/// Lines typed ahead before the reader waits.
const TYPED_AHEAD: usize = 16;

/// What the person in front of the terminal may do while a session works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Presence {
    /// Somebody can type: lines steer the session, and questions are asked.
    pub(super) interactive: bool,
    /// Every tool that asks is allowed.
    pub(super) allow_all: bool,
    /// What becomes of the others; they are put to whoever sits at the terminal if it says nothing.
    pub(super) on_ask: Option<OnAsk>,
}

impl Presence {
    /// Whether a call that asks gets its answer here, as far as it is known before.
    pub(super) fn answers(&self) -> bool {
        let by_person = match &self.on_ask {
            None | Some(OnAsk::Wait(_)) => self.interactive,
            Some(OnAsk::Deny) => true,
            Some(OnAsk::Fail | OnAsk::Webhook(_)) => false,
        };
        self.allow_all || by_person
    }
}

/// What the model is told of a call that `--on-ask deny` refused.
const NOBODY: &str = "nobody is there who could be asked; go on without this call";

struct Watcher<'a> {
    runtime: &'a Runtime,
    id: &'a SessionId,
    renderer: &'a mut Renderer,
    presence: Presence,
    /// Messages in the log that no turn has taken up.
    queued: BTreeSet<EventId>,
    /// Calls that the person is being asked about, first first.
    asking: Vec<EventId>,
    /// What was answered so far: the session is told when the last answer is in.
    answers: Vec<Input>,
    interrupted: bool,
    /// When a question is given up.
    asked_until: Option<Instant>,
}

/// Shows everything after `from` until the session is idle.
pub(super) async fn watch(
    context: &Context,
    runtime: &Runtime,
    id: &SessionId,
    from: Seq,
    renderer: &mut Renderer,
    presence: Presence,
) -> Result<(), Failure> {
    let mut feed = runtime.subscribe(id, from)?;
    let mut typed = presence.interactive.then(typed_lines);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let listen = |kind| {
        signal(kind).map_err(|e| {
            Failure::new(ExitStatus::Failed, "failed to listen for signals").because_of(Some(&e))
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut watcher = Watcher {
        runtime,
        id,
        renderer,
        presence,
        queued: BTreeSet::new(),
        asking: Vec::new(),
        answers: Vec::new(),
        interrupted: false,
        asked_until: None,
    };
    loop {
        tokio::select! {
            item = feed.next() => match item? {
                FeedItem::Preview(preview) => watcher.renderer.preview(&preview)?,
                FeedItem::Deleted => return Err(Failure::new(ExitStatus::Failed, format!("session {id} was deleted"))),
                FeedItem::Event(event) => {
                    if watcher.event(&event).await? {
                        return Ok(());
                    }
                }
            },
            _ = interrupt.recv() => {
                if watcher.interrupted {
                    return Ok(());
                }
                watcher.interrupted = true;
                watcher.leave_question()?;
                runtime.submit(id, Input::Interrupt { thread: None }).await?;
            }
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            line = next_line(&mut typed) => match line {
                Some(line) => watcher.typed(&line).await?,
                None => {
                    // Nobody types any more: what is asked now waits for a resume.
                    typed = None;
                    watcher.presence.interactive = false;
                    if watcher.leave_question()? {
                        return Ok(());
                    }
                }
            },
            _ = tick.tick() => {
                watcher.renderer.tick(context.clock().now())?;
                let late = watcher.asked_until.is_some_and(|until| Instant::now() >= until);
                if late && watcher.leave_question()? {
                    return Ok(());
                }
            }
        }
    }
}

impl Watcher<'_> {
    /// Takes an event; true when there is nothing left to wait for.
    async fn event(&mut self, event: &Event) -> Result<bool, Failure> {
        self.renderer.event(event)?;
        match &event.body {
            EventBody::UserMessage { .. } => {
                self.queued.insert(event.id.clone());
            }
            EventBody::TakenUp { event_ids } | EventBody::Flushed { event_ids } => {
                self.queued.retain(|id| !event_ids.contains(id));
            }
            EventBody::StatusIdle {
                stop_reason: StopReason::RequiresAction { event_ids }, ..
            } => {
                return self.asked(event_ids).await;
            }
            EventBody::StatusIdle { .. } => return Ok(self.queued.is_empty()),
            EventBody::StatusTerminated {} => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Somebody must answer: the flag, the person, or whoever resumes the session later.
    async fn asked(&mut self, calls: &[EventId]) -> Result<bool, Failure> {
        if self.presence.allow_all {
            let allow = |call: &EventId| confirm(call.clone(), Confirmation::Allow, None);
            let answers: Vec<_> = calls.iter().map(allow).collect();
            self.runtime.submit_all(self.id, &answers).await?;
            return Ok(false);
        }
        match &self.presence.on_ask {
            Some(OnAsk::Deny) => {
                let reason = || Some(NOBODY.to_owned());
                let deny = |call: &EventId| confirm(call.clone(), Confirmation::Deny, reason());
                let answers: Vec<_> = calls.iter().map(deny).collect();
                self.runtime.submit_all(self.id, &answers).await?;
                return Ok(false);
            }
            Some(OnAsk::Webhook(url)) => {
                let answers = self.runtime.ask_webhook(url, self.id, calls).await?;
                self.runtime.submit_all(self.id, &answers).await?;
                return Ok(false);
            }
            Some(OnAsk::Fail) => return Ok(true),
            None | Some(OnAsk::Wait(_)) if !self.presence.interactive => return Ok(true),
            None => {}
            Some(OnAsk::Wait(time)) => self.asked_until = Some(Instant::now() + *time),
        }
        self.asking = calls.to_vec();
        self.answers.clear();
        self.ask()?;
        Ok(false)
    }

    /// A line is the answer to a question if there is one, else a message.
    async fn typed(&mut self, line: &str) -> Result<(), Failure> {
        let line = line.trim();
        if self.asking.is_empty() {
            if line == COMPACT {
                if let Err(refused) = self.runtime.compact_session(self.id).await {
                    return Ok(self.renderer.heard(&format!("{line}: {refused}"))?);
                }
                self.renderer.heard(line)?;
            } else if !line.is_empty() {
                self.runtime.submit(self.id, Input::text(line)).await?;
                self.renderer.heard(line)?;
            }
            return Ok(());
        }
        let call = self.asking.remove(0);
        let (result, message) = match line {
            "y" | "yes" => (Confirmation::Allow, None),
            "" | "n" | "no" => (Confirmation::Deny, None),
            reason => (Confirmation::Deny, Some(reason.to_owned())),
        };
        self.answers.push(confirm(call, result, message));
        if self.asking.is_empty() {
            self.runtime.submit_all(self.id, &std::mem::take(&mut self.answers)).await?;
        }
        self.ask()
    }

    /// Gives up on the questions; whether there were any.
    fn leave_question(&mut self) -> Result<bool, Failure> {
        if self.asking.is_empty() {
            return Ok(false);
        }
        self.asking.clear();
        self.renderer.leave_question()?;
        Ok(true)
    }

    /// Puts the next question, if there is one.
    fn ask(&mut self) -> Result<(), Failure> {
        if let Some(call) = self.asking.first() {
            self.renderer.question(call)?;
        }
        Ok(())
    }
}

fn confirm(call: EventId, result: Confirmation, message: Option<String>) -> Input {
    Input::Confirm { call, result, message }
}

/// Lines from standard input, read on a thread of their own that ends with the process.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn next_line(typed: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match typed {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
