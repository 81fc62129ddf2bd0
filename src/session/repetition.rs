//! Calls that repeat themselves with the same results: what is no progress. Part of the fold; pure.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::event::ContentBlock;
use crate::limits::{NO_PROGRESS_REPEATS, REPETITION_CALLS, REPETITION_CHARS, REPETITION_TOLD};
use crate::provider::repair::excerpt;

/// The last calls of a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Repetition {
    /// Hashes of calls with their results, and the calls in words.
    last: VecDeque<(u64, String)>,
    /// How many calls take turns, and how often in a row they did, each time with the same results.
    found: (usize, usize),
    /// The model was told of it.
    pub(super) told: bool,
}

impl Repetition {
    /// One more call has its result.
    pub(super) fn add(&mut self, call: &str, content: &[ContentBlock]) {
        let mut hasher = DefaultHasher::new();
        call.hash(&mut hasher);
        serde_json::to_string(content).expect("content is JSON").hash(&mut hasher);
        self.last.push_back((hasher.finish(), excerpt(call, REPETITION_CHARS)));
        if self.last.len() > REPETITION_CALLS * (NO_PROGRESS_REPEATS + 1) {
            self.last.pop_front();
        }
        let times = |calls: usize| (calls, self.times(calls));
        // Of two that explain the same, the shorter.
        let found = (1..=REPETITION_CALLS).map(times).reduce(|a, b| if b.1 > a.1 { b } else { a });
        self.found = found.unwrap_or_default();
        self.told &= self.found.1 >= REPETITION_TOLD;
    }

    /// How often the last so many calls came in a row.
    fn times(&self, calls: usize) -> usize {
        let newest = || self.last.iter().rev().map(|(hash, _)| hash);
        let same = newest().zip(newest().skip(calls)).take_while(|(a, b)| a == b).count();
        if self.last.len() < calls { 0 } else { same / calls + 1 }
    }

    /// Whether the model should be told of it now.
    #[must_use]
    pub fn is_to_be_told(&self) -> bool {
        self.found.1 >= REPETITION_TOLD && !self.told
    }

    /// Whether it went on although the model was told.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.found.1 >= NO_PROGRESS_REPEATS && self.told
    }

    /// What is repeated, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self.found {
            (1, times) => format!("the same tool call had the same result {times} times in a row"),
            (calls, times) => {
                format!("the same {calls} tool calls had the same results {times} times in a row")
            }
        }
    }

    /// What is repeated, for the model.
    pub(super) fn note(&self) -> String {
        let (calls, _) = self.found;
        let first = self.last.len() - calls;
        let calls: Vec<_> = self.last.iter().skip(first).map(|(_, call)| call.as_str()).collect();
        format!(
            "You repeat yourself: {}: {}. Another time will not change it. Do something else, or say what keeps you from \
             going on; if you go on like this, your turn is stopped.",
            self.words(),
            calls.join(", then ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls by letter; those in capitals have another result each time.
    fn after(calls: &str) -> Repetition {
        let mut repetition = Repetition::default();
        for (n, call) in calls.chars().enumerate() {
            let result = if call.is_uppercase() { n.to_string() } else { "same".to_owned() };
            repetition.add(&format!("bash {call}"), &[ContentBlock::text(result)]);
        }
        repetition
    }

    #[test]
    fn circles_are_found_and_work_is_not() {
        let check = |calls: &str, expected: (usize, usize)| {
            assert_eq!(after(calls).found, expected, "{calls}");
        };
        check("a", (1, 1));
        check("aaa", (1, 3));
        check("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", (1, 18));
        check("ababab", (2, 3));
        check("xababab", (2, 3));
        check("abababa", (2, 3));
        check("abcabcabc", (3, 3));
        check("aabaab", (3, 2));
        check("abcdabcdabcd", (1, 1));
        check("AAAAAA", (1, 1));
        check("AbAbAb", (1, 1));
    }

    #[test]
    fn the_model_is_told_once_and_by_name() {
        let mut repetition = after("ababab");
        assert!(repetition.is_to_be_told() && !repetition.is_hopeless());
        let note = repetition.note();
        assert!(note.contains("the same 2 tool calls had the same results 3 times"), "{note}");
        assert!(note.contains(": bash a, then bash b."), "{note}");
        repetition.told = true;
        for _ in 0..2 {
            assert!(!repetition.is_to_be_told() && !repetition.is_hopeless());
            for call in ["bash a", "bash b"] {
                repetition.add(call, &[ContentBlock::text("same")]);
            }
        }
        assert!(repetition.is_hopeless());
        repetition.add("bash c", &[]);
        assert!(!repetition.is_hopeless() && !repetition.told);
    }

    #[test]
    fn many_at_once_do_not_end_the_turn_unheard() {
        let all_at_once = after("aaaaaaaa");
        assert!(all_at_once.is_to_be_told() && !all_at_once.is_hopeless());
    }
}
