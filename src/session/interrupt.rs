//! The switch between whoever interrupts a session and the step that is being performed.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::event::Seq;

/// The switch between whoever appends a `user.interrupt` and the step that it stops: no other step, however late or
/// early the switch is tripped.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Mutex<Switch>>);

#[derive(Debug, Default)]
struct Switch {
    token: CancellationToken,
    /// How much of the log the present step was chosen in the light of.
    seen: Seq,
    /// The last interrupt that came after that.
    tripped: Seq,
}

impl Interrupt {
    /// Stops the step that is being performed, unless it was chosen knowing of that event. The event must be in the log
    /// before.
    pub fn trip(&self, event: Seq) {
        let mut switch = self.0.lock().expect("nothing panics under this lock");
        if event > switch.seen {
            switch.tripped = event;
            switch.token.cancel();
        }
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.0.lock().expect("nothing panics under this lock").token.is_cancelled()
    }

    /// The token of a step that is chosen in the light of the log up to `seen`.
    pub(super) fn step(&self, seen: Seq) -> CancellationToken {
        let mut switch = self.0.lock().expect("nothing panics under this lock");
        switch.seen = seen;
        if switch.token.is_cancelled() && switch.tripped <= seen {
            switch.token = CancellationToken::new();
        }
        switch.token.clone()
    }
}
