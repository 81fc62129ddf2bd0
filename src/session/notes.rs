//! What the model is told by the session itself: that it repeats itself, that little of its budget is left. A note is a
//! fact, committed with the request that carries it, after what the request says anyway: so every request still begins
//! with the one before. Pure.

use super::state::Session;
use crate::event::{EventBody, NoteSubject};
use crate::limits::BUDGET_TOLD;

/// The notes of the next request.
pub(super) fn due(session: &Session) -> Vec<EventBody> {
    repetition(session).into_iter().chain(budget(session)).collect()
}

fn repetition(session: &Session) -> Option<EventBody> {
    let repetition = &session.turn().repetition;
    // Whoever speaks now says what to do instead.
    let alone = session.queued().next().is_none();
    (alone && repetition.is_to_be_told())
        .then(|| EventBody::Noted { about: NoteSubject::Repetition, text: repetition.note() })
}

fn budget(session: &Session) -> Option<EventBody> {
    let shares = session.budget()?.shares(&session.used());
    let reached = |part: u64| shares.iter().any(|share| share.leaves_less_than(part));
    let level = BUDGET_TOLD.iter().rposition(|part| reached(*part))?;
    let part = BUDGET_TOLD[level];
    let level = u8::try_from(level + 1).expect("there are two");
    if level <= session.budget_told() {
        return None;
    }
    let short: Vec<_> =
        shares.into_iter().filter(|s| s.leaves_less_than(part)).map(|s| s.words).collect();
    let text = format!(
        "Little of this session's budget is left: {} are used. You are stopped when it is used up. Finish what matters \
         most, then say what is done and what is not.",
        short.join(", ")
    );
    Some(EventBody::Noted { about: NoteSubject::Budget { level }, text })
}
