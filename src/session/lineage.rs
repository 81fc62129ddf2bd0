//! Which events of a log still count: a rewind makes what it took back history, which stays readable. Pure.
//!
//! ```text
//! 1 2 3 4 5 ── rewound to 3 ──▶ 7 8        counts: 1 2 3, 6 (the rewind), 7 8
//!       └ 4 5 are history
//! ```

use std::ops::RangeInclusive;

use crate::event::{Event, EventBody, Seq};

/// The way from a session's beginning to one of its events, past all that was taken back before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage(Vec<RangeInclusive<Seq>>);

impl Lineage {
    /// The way to the event at `end`; `rewinds` are those of the log, in order.
    #[must_use]
    pub fn to(end: Seq, rewinds: &[Rewind]) -> Self {
        let mut live = Vec::new();
        let mut end = end;
        while let Some(last) = rewinds.iter().rfind(|rewind| rewind.at <= end) {
            live.push(last.at..=end);
            end = last.position;
        }
        live.push(1..=end);
        live.reverse();
        Self(live)
    }

    /// Whether the event at `seq` lies on the way. What comes after its end goes on from there.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        let beyond = self.0.last().is_none_or(|last| seq > *last.end());
        beyond || self.0.iter().any(|range| range.contains(&seq))
    }
}

/// One rewind of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// Its own position.
    pub at: Seq,
    /// The last position that counts after it.
    pub position: Seq,
    /// What home and workspace become.
    pub seal: (u64, u64),
}

impl Rewind {
    /// The rewind that an event is, if it is one.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        match event.body {
            EventBody::Rewound { position, home, work, .. } => {
                Some(Self { at: event.seq, position, seal: (home, work) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_way_to_the_end() {
        let rewind = |at, position| Rewind { at, position, seal: (0, 0) };
        let check = |end: Seq, rewinds: &[Rewind], expected: &[Seq]| {
            let lineage = Lineage::to(end, rewinds);
            let held: Vec<_> = (1..=end).filter(|seq| lineage.holds(*seq)).collect();
            assert_eq!(held, expected, "{rewinds:?}");
            assert!(lineage.holds(end + 1), "what comes next counts");
        };
        check(3, &[], &[1, 2, 3]);
        check(8, &[rewind(6, 3)], &[1, 2, 3, 6, 7, 8]);
        check(5, &[rewind(6, 3)], &[1, 2, 3, 4, 5]);
        // Back into what was taken back: the second rewind goes on from there.
        check(10, &[rewind(6, 3), rewind(9, 5)], &[1, 2, 3, 4, 5, 9, 10]);
        check(10, &[rewind(6, 3), rewind(9, 7)], &[1, 2, 3, 6, 7, 9, 10]);
        check(10, &[rewind(6, 3), rewind(9, 6)], &[1, 2, 3, 6, 9, 10]);
    }
}
