//! Builds of this process that are under way: who needs the same waits for the same outcome, and shares it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::BuildError;

/// What came of a build: whether it was made here, or found made by another process meanwhile.
pub(super) type Outcome = Result<bool, Arc<BuildError>>;

type Arrival = watch::Receiver<Option<Outcome>>;

/// All of them, by key. A build goes on when those who wait for it do not, and ends with the program.
#[derive(Clone, Default)]
pub(super) struct Flights {
    airborne: Arc<Mutex<HashMap<String, Arrival>>>,
    over: CancellationToken,
}

impl Flights {
    /// What tells a build to end.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Waits for the build of this key, which is begun now if it is not under way.
    pub(super) async fn board(
        &self,
        key: &str,
        build: impl FnOnce() -> Result<bool, BuildError> + Send + 'static,
    ) -> Outcome {
        let mut arrival = self.find_or_begin(key, build);
        let outcome = arrival.wait_for(Option::is_some).await.expect("a build does not panic");
        outcome.clone().expect("that was waited for")
    }

    fn find_or_begin(
        &self,
        key: &str,
        build: impl FnOnce() -> Result<bool, BuildError> + Send + 'static,
    ) -> Arrival {
        let mut airborne = self.airborne.lock().expect("nothing panics under this lock");
        if let Some(arrival) = airborne.get(key) {
            return arrival.clone();
        }
        let (landed, arrival) = watch::channel(None);
        airborne.insert(key.to_owned(), arrival.clone());
        let (all, key) = (Arc::clone(&self.airborne), key.to_owned());
        tokio::task::spawn_blocking(move || {
            let outcome = build().map_err(Arc::new);
            // First, so that whoever comes now looks on the shelf again.
            all.lock().expect("nothing panics under this lock").remove(&key);
            landed.send_replace(Some(outcome));
        });
        arrival
    }

    /// Ends all builds, and waits until nothing of them is left.
    pub(super) async fn end(&self) {
        self.over.cancel();
        let airborne: Vec<Arrival> = {
            let airborne = self.airborne.lock().expect("nothing panics under this lock");
            airborne.values().cloned().collect()
        };
        for mut arrival in airborne {
            // One that is gone has ended too.
            drop(arrival.wait_for(Option::is_some).await);
        }
    }
}
