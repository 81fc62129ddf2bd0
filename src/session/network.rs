//! What a door reports, as facts of the call that caused it, and as sentences for the model. Pure.

use crate::egress::Report;
use crate::event::{ContentBlock, EventBody};
use crate::id::EventId;
use crate::limits::EGRESS_TOLD;

/// Which call the network's attempts belong to, and what the model was not told yet.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The last call that ran programs: what they left in the background is its doing.
    caller: Option<EventId>,
    /// Sentences of the background, for the next result.
    untold: Vec<String>,
}

impl Attempts {
    /// The facts of a call that has just ended, and the sentences for its result.
    pub(super) fn of_call(
        &mut self,
        caller: &EventId,
        report: Report,
    ) -> (Vec<EventBody>, Vec<String>) {
        let mut told = std::mem::take(&mut self.untold);
        told.extend(sentences(&report));
        self.caller = Some(caller.clone());
        (facts(caller, report), told)
    }

    /// The facts of what went on between calls.
    pub(super) fn in_background(&mut self, report: Report) -> Vec<EventBody> {
        // Before the first call that runs programs, nothing inside reaches for the network.
        let Some(caller) = &self.caller else { return Vec::new() };
        let room = EGRESS_TOLD.saturating_sub(self.untold.len());
        self.untold.extend(sentences(&report).into_iter().take(room));
        facts(caller, report)
    }
}

fn facts(caller: &EventId, report: Report) -> Vec<EventBody> {
    let refused = report.refusals.into_iter().map(|refusal| EventBody::EgressRefused {
        tool_use_id: caller.clone(),
        target: refusal.target,
        rule: refusal.rule,
        change: refusal.change,
    });
    let used = report.usage.into_iter().map(|usage| EventBody::EgressUsage {
        tool_use_id: caller.clone(),
        target: usage.target,
        connections: usage.connections,
        sent: usage.sent,
        received: usage.received,
    });
    refused.chain(used).collect()
}

fn sentences(report: &Report) -> Vec<String> {
    let refused = report.refusals.iter().map(ToString::to_string);
    let failed = report.failures.iter().map(|failure| format!("{failure}."));
    let mut sentences: Vec<_> = refused.chain(failed).collect();
    let kept = sentences.len() as u64;
    sentences.truncate(EGRESS_TOLD);
    let more = kept - sentences.len() as u64 + report.dropped;
    if more > 0 {
        sentences.push(format!("{more} more places were not reached."));
    }
    sentences
}

/// Adds the sentences to the call's result.
pub(super) fn tell(result: &mut EventBody, caller: &EventId, told: &[String]) {
    if told.is_empty() {
        return;
    }
    if let Some(content) = result.result_content_mut(caller) {
        content.push(ContentBlock::text(format!("[network] {}", told.join("\n[network] "))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Usage;
    use crate::egress::policy::Refusal;
    use crate::event::text_of;

    fn report(targets: &[&str]) -> Report {
        let refusal = |target: &&str| Refusal {
            target: (*target).to_owned(),
            rule: "no".to_owned(),
            change: None,
        };
        let usage = Usage { target: "u:1".to_owned(), connections: 1, sent: 2, received: 3 };
        Report {
            refusals: targets.iter().map(refusal).collect(),
            usage: vec![usage],
            ..Report::default()
        }
    }

    fn told(result: &EventBody) -> String {
        let EventBody::AgentToolResult { content, .. } = result else { panic!("no result") };
        text_of(content)
    }

    #[test]
    fn a_refusal_is_a_fact_of_its_call_and_a_sentence_in_its_result() {
        let call: EventId = "sevt_01".parse().unwrap();
        let mut attempts = Attempts::default();
        assert_eq!(attempts.in_background(report(&["a:1"])), []);
        let (facts, sentences) = attempts.of_call(&call, report(&["b:1"]));
        let expected = [
            EventBody::EgressRefused {
                tool_use_id: call.clone(),
                target: "b:1".to_owned(),
                rule: "no".to_owned(),
                change: None,
            },
            EventBody::EgressUsage {
                tool_use_id: call.clone(),
                target: "u:1".to_owned(),
                connections: 1,
                sent: 2,
                received: 3,
            },
        ];
        assert_eq!(facts, expected);
        let content = vec![ContentBlock::text("out")];
        let mut result =
            EventBody::AgentToolResult { tool_use_id: call.clone(), content, is_error: false };
        tell(&mut result, &call, &sentences);
        assert_eq!(told(&result), "out\n[network] b:1 was not reached: no.");
    }

    #[test]
    fn the_background_is_told_with_the_next_result() {
        let call: EventId = "sevt_01".parse().unwrap();
        let next: EventId = "sevt_02".parse().unwrap();
        let mut attempts = Attempts::default();
        attempts.of_call(&call, Report::default());
        let facts = attempts.in_background(report(&["a:1"]));
        assert!(
            matches!(&facts[0], EventBody::EgressRefused { tool_use_id, .. } if *tool_use_id == call)
        );
        let (facts, told) = attempts.of_call(&next, Report::default());
        assert_eq!((facts, told), (vec![], vec!["a:1 was not reached: no.".to_owned()]));
    }

    #[test]
    fn many_refusals_are_counted() {
        let many: Vec<_> = (0..EGRESS_TOLD + 3).map(|i| format!("h{i}:1")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let told = sentences(&Report { dropped: 4, ..report(&many) });
        assert_eq!(told.len(), EGRESS_TOLD + 1);
        assert_eq!(told[EGRESS_TOLD], "7 more places were not reached.");
    }
}
