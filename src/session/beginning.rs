//! What every request of a driver begins with: the system prompt and the tools, as far as they fit into the model's context,
//! and how much of that they fill.

use std::sync::Arc;

use super::driver::Driver;
use super::offers::Offers;
use super::{Definition, Session, context, fit, prompt};
use crate::event::{EventBody, NewEvent};
use crate::limits::WINDOW_ASKS;
use crate::provider::ToolSpec;
use crate::skill::Brought;

/// The beginning as it was last, and what is known of its size.
pub(super) struct Beginning {
    shown: Shown,
    /// Of what the context was measured.
    measured: Option<Basis>,
    /// How often nobody knew how much the model can read.
    unknown: u32,
}

impl Beginning {
    pub(super) fn of(session: &Session) -> Self {
        Self { shown: Shown::of(session), measured: None, unknown: 0 }
    }
}

/// What of a session a beginning follows from.
struct Basis {
    definition: Arc<Definition>,
    offers: Arc<Offers>,
    brought: Arc<Brought>,
}

impl Basis {
    fn of(session: &Session) -> Self {
        Self {
            definition: Arc::clone(session.definition()),
            offers: Arc::clone(session.offers()),
            brought: Arc::clone(session.brought()),
        }
    }

    fn is_of(&self, session: &Session) -> bool {
        Arc::ptr_eq(&self.definition, session.definition())
            && Arc::ptr_eq(&self.offers, session.offers())
            && Arc::ptr_eq(&self.brought, session.brought())
    }

    fn tools(&self, window: Option<u64>) -> Arc<[ToolSpec]> {
        self.offers.specs(&self.definition.agent, window)
    }
}

/// What every request begins with, and what it was made of.
struct Shown {
    basis: Basis,
    window: Option<u64>,
    system: Arc<str>,
    /// All that the model has.
    tools: Arc<[ToolSpec]>,
    /// System prompt and tools as they fit into its context.
    fitted: (Arc<str>, Arc<[ToolSpec]>),
}

impl Shown {
    fn of(session: &Session) -> Self {
        let basis = Basis::of(session);
        let window = session.context().window().map(|window| window.tokens);
        let tools = basis.tools(window);
        let told = basis.definition.skills.told_of(&basis.brought);
        let system = (basis.definition.system.clone() + &told).into();
        let fitted = fit::to_window(&system, &tools, window);
        Self { basis, window, system, tools, fitted }
    }

    fn is_of(&self, session: &Session) -> bool {
        self.basis.is_of(session)
            && self.window == session.context().window().map(|window| window.tokens)
    }
}

impl Driver {
    fn shown(&mut self) -> &Shown {
        let shown = &mut self.beginning.shown;
        if !shown.is_of(&self.session) {
            *shown = Shown::of(&self.session);
        }
        shown
    }

    /// The system prompt with the skills of the repositories, the tools of the agent as it is now, and of its servers: all
    /// as it is in the log's last word about them, as far as it fits into the context.
    pub(super) fn beginning(&mut self) -> (Arc<str>, Arc<[ToolSpec]>) {
        self.shown().fitted.clone()
    }

    /// The names of the tools that the model was shown last.
    pub(super) fn tool_names(&self) -> Vec<&str> {
        self.beginning.shown.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    /// Finds out how much the model can read, unless that is known of this agent. A server may know it only once its model
    /// is loaded, and is asked again after an answer.
    pub(super) async fn measure(&mut self) -> Option<Vec<NewEvent>> {
        let Beginning { measured, unknown, .. } = &mut self.beginning;
        let is_known = measured.as_ref().is_some_and(|basis| basis.is_of(&self.session));
        if is_known || *unknown >= WINDOW_ASKS {
            return None;
        }
        let Some(tokens) = self.parts.window.tokens().await else {
            *unknown += 1;
            return None;
        };
        let tools = measured.insert(Basis::of(&self.session)).tools(Some(tokens));
        let system = Arc::clone(&self.shown().system);
        let (system, tools) = fit::to_window(&system, &tools, Some(tokens));
        let fixed = prompt::fixed_tokens(&system, &tools);
        let known = self.session.context().window();
        if known == Some(context::Window { tokens, fixed }) {
            return None;
        }
        Some(self.at_once(vec![EventBody::ContextMeasured { window: tokens, fixed }]))
    }
}
