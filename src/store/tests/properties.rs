//! Random programs of writes against a model that is a vector.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Claim,
    /// Appends those bodies as client, as the driver in force or as the one before it.
    Append {
        who: Who,
        bodies: Vec<Kind>,
    },
    /// Marks the oldest queued event as processed, together with an event.
    Process,
    /// Repeats the last event's id.
    Duplicate,
    Reopen,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Client,
    Driver,
    Stale,
}

#[derive(Debug, Clone)]
enum Kind {
    Queued(String),
    Running,
    Idle,
    Rescheduled,
    Terminated,
    Usage(u64),
}

impl Kind {
    fn new_event(self, millis: i64) -> NewEvent {
        let at = at(millis);
        let body = match self {
            Self::Queued(text) => return NewEvent::queued(at, say(&text)),
            Self::Running => EventBody::StatusRunning {},
            Self::Idle => {
                EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None }
            }
            Self::Rescheduled => EventBody::StatusRescheduled {},
            Self::Terminated => EventBody::StatusTerminated {},
            Self::Usage(n) => {
                let model_usage =
                    Usage { input_tokens: n, cache_read_input_tokens: n / 2, ..Usage::default() };
                let model_request_start_id = EventId::mint(at);
                EventBody::ModelRequestEnd { model_request_start_id, is_error: false, model_usage }
            }
        };
        NewEvent::now(at, body)
    }
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        any::<String>().prop_map(Kind::Queued),
        Just(Kind::Running),
        Just(Kind::Idle),
        Just(Kind::Rescheduled),
        Just(Kind::Terminated),
        (0..u64::from(u32::MAX)).prop_map(Kind::Usage),
    ];
    let who = prop_oneof![Just(Who::Client), Just(Who::Driver), Just(Who::Stale)];
    prop_oneof![
        1 => Just(Op::Claim),
        6 => (who, prop::collection::vec(kind, 0..5)).prop_map(|(who, bodies)| Op::Append { who, bodies }),
        2 => Just(Op::Process),
        1 => Just(Op::Duplicate),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_log_is_what_was_accepted_and_the_row_is_its_fold(ops in prop::collection::vec(op(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(ops));
    }
}

async fn run(ops: Vec<Op>) {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    let mut epoch = store.claim(&id).await.unwrap();
    let mut model: Vec<Event> = Vec::new();
    for (op, millis) in ops.into_iter().zip(1..) {
        match op {
            Op::Claim => epoch = store.claim(&id).await.unwrap(),
            Op::Reopen => {
                store.close().await;
                store = Store::open(dir.path()).unwrap();
            }
            Op::Append { who, bodies } => {
                let author = match who {
                    Who::Client => Author::Client,
                    Who::Driver => Author::Driver(epoch),
                    Who::Stale => Author::Driver(Epoch(epoch.0 - 1)),
                };
                let events: Vec<_> =
                    bodies.into_iter().map(|kind| kind.new_event(millis)).collect();
                match store.append(&id, author, events).await {
                    Ok(events) => model.extend(events),
                    Err(StoreError::Ended { .. }) => {
                        let row = store.reader().session(&id).unwrap().unwrap();
                        assert_eq!((who, row.status), (Who::Client, SessionStatus::Terminated));
                    }
                    Err(error) => assert_eq!(who, Who::Stale, "{error}"),
                }
            }
            Op::Process => {
                let Some(queued) = model.iter_mut().find(|event| event.processed_at.is_none())
                else {
                    continue;
                };
                let processed = vec![(queued.id.clone(), at(millis))];
                queued.processed_at = Some(at(millis));
                let events = vec![NewEvent::now(at(millis), EventBody::StatusRunning {})];
                let append = Append { events, processed, ..Append::default() };
                model.extend(store.append(&id, Author::Driver(epoch), append).await.unwrap());
            }
            Op::Duplicate => {
                let Some(last) = model.last() else { continue };
                let again = NewEvent { id: last.id.clone(), ..event("again") };
                let error =
                    store.append(&id, Author::Driver(epoch), vec![event("new"), again]).await;
                assert!(matches!(error, Err(StoreError::DuplicateEvent { .. })), "{error:?}");
            }
        }
    }
    assert!(model.iter().map(|event| event.seq).eq(1..=model.len() as u64));
    assert_eq!(store.reader().scan(&id, 0, limits::SCAN_PAGE).unwrap(), model);
    store.reader().verify(&id).unwrap();
}
