//! What one session reached, what was refused, and how much went through: counted between two reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::policy::Refusal;
use crate::limits::EGRESS_REPORTED;

/// The name under which places are counted that are too many to be counted apart.
pub const OTHER_PLACES: &str = "(other places)";

/// What one place has had since the last report.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes from the session.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes to the session.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One place of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Host and port.
    pub target: String,
    /// Connections made.
    pub connections: u64,
    /// Bytes from the session.
    pub sent: u64,
    /// Bytes to the session.
    pub received: u64,
}

/// Everything that happened since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Each place that was refused, once for each rule.
    pub refusals: Vec<Refusal>,
    /// Sentences about what was allowed and did not work.
    pub failures: Vec<String>,
    /// Refusals and failures that were too many to keep.
    pub dropped: u64,
    /// What was reached.
    pub usage: Vec<Usage>,
}

#[derive(Debug, Default)]
struct Page {
    refusals: Vec<Refusal>,
    failures: Vec<String>,
    dropped: u64,
    traffic: BTreeMap<String, Arc<Traffic>>,
}

/// The page that is being written. Shared by a door's connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    page: Arc<Mutex<Page>>,
    refusals: Arc<Notify>,
}

impl Ledger {
    fn with<T>(&self, act: impl FnOnce(&mut Page) -> T) -> T {
        act(&mut self.page.lock().expect("nothing panics under this lock"))
    }

    /// Resolves when something was refused since the last time.
    pub(super) async fn has_refused(&self) {
        self.refusals.notified().await;
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.with(|page| {
            if page.refusals.contains(refusal) {
            } else if page.refusals.len() < EGRESS_REPORTED {
                page.refusals.push(refusal.clone());
            } else {
                page.dropped += 1;
            }
        });
        self.refusals.notify_one();
    }

    pub(super) fn failed(&self, text: &str) {
        self.with(|page| {
            if page.failures.iter().any(|own| own == text) {
            } else if page.failures.len() < EGRESS_REPORTED {
                page.failures.push(text.to_owned());
            } else {
                page.dropped += 1;
            }
        });
    }

    /// The counters of a place.
    pub(super) fn traffic(&self, target: &str) -> Arc<Traffic> {
        self.with(|page| {
            let known = page.traffic.contains_key(target);
            let room = known || page.traffic.len() < EGRESS_REPORTED;
            let name = if room { target } else { OTHER_PLACES };
            Arc::clone(page.traffic.entry(name.to_owned()).or_default())
        })
    }

    /// Takes what happened since the last time.
    pub(super) fn report(&self) -> Report {
        self.with(|page| {
            let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
            let usage = page.traffic.iter().map(|(target, traffic)| Usage {
                target: target.clone(),
                connections: take(&traffic.connections),
                sent: take(&traffic.sent),
                received: take(&traffic.received),
            });
            let usage = usage.filter(|usage| usage.connections + usage.sent + usage.received > 0);
            let usage = usage.collect();
            // Those of open connections are counted on.
            page.traffic.retain(|_, traffic| Arc::strong_count(traffic) > 1);
            Report {
                refusals: std::mem::take(&mut page.refusals),
                failures: std::mem::take(&mut page.failures),
                dropped: std::mem::take(&mut page.dropped),
                usage,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(target: &str) -> Refusal {
        Refusal { target: target.to_owned(), rule: "r".to_owned(), change: None }
    }

    #[test]
    fn a_report_has_what_happened_since_the_last_one() {
        let ledger = Ledger::default();
        let open = ledger.traffic("a:443");
        open.connected();
        open.sent(3);
        ledger.traffic("b:443").received(5);
        ledger.refused(&refusal("c:443"));
        ledger.refused(&refusal("c:443"));
        ledger.failed("no");
        let usage = |target: &str, connections, sent, received| Usage {
            target: target.to_owned(),
            connections,
            sent,
            received,
        };
        let first = Report {
            refusals: vec![refusal("c:443")],
            failures: vec!["no".to_owned()],
            dropped: 0,
            usage: vec![usage("a:443", 1, 3, 0), usage("b:443", 0, 0, 5)],
        };
        assert_eq!(ledger.report(), first);
        assert_eq!(ledger.report(), Report::default());
        open.received(7);
        assert_eq!(ledger.report().usage, [usage("a:443", 0, 0, 7)]);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let ledger = Ledger::default();
        for i in 0..EGRESS_REPORTED + 5 {
            ledger.refused(&refusal(&i.to_string()));
            ledger.traffic(&i.to_string()).connected();
        }
        let report = ledger.report();
        assert_eq!((report.refusals.len(), report.dropped), (EGRESS_REPORTED, 5));
        assert_eq!(report.usage.len(), EGRESS_REPORTED + 1);
        assert_eq!(report.usage.iter().map(|usage| usage.connections).sum::<u64>(), 69);
        assert!(report.usage.iter().any(|usage| usage.target == OTHER_PLACES));
    }
}
