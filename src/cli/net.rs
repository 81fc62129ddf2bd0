//! `casemate net`: what a session reached of the network, what it was refused, and how much went through.

use serde_json::{Value, json};

use super::args::NetArgs;
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::terminal::neutralise;
use crate::runtime::{NetworkUse, Refused, Runtime};

/// Prints it.
pub(super) fn run(context: &Context, args: &NetArgs) -> Result<ExitStatus, Failure> {
    let reader = Runtime::look(&context.config(&[])?)?;
    let id = reader.resolve(&args.id)?;
    let network = NetworkUse::of(&reader, &id)?;
    let mut out = Output::of_process();
    if args.json {
        let text = serde_json::to_string_pretty(&summary(&network)).expect("a summary is JSON");
        out.data(text + "\n")?;
    } else if network == NetworkUse::default() {
        out.talk(format!("session {id} reached for nothing on the network\n"))?;
    } else {
        out.data(table(&network))?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn summary(network: &NetworkUse) -> Value {
    let reached = network.used.iter().map(|(target, used)| {
        json!({
            "target": target,
            "connections": used.connections,
            "sent": used.sent,
            "received": used.received,
        })
    });
    let refused = network.refused.iter().map(|Refused { call, target, rule, change }| {
        json!({"tool_use_id": call, "target": target, "rule": rule, "change": change})
    });
    let sum =
        |count: fn(&crate::runtime::Used) -> u64| network.used.values().map(count).sum::<u64>();
    json!({
        "reached": reached.collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "connections": sum(|used| used.connections),
        "sent": sum(|used| used.sent),
        "received": sum(|used| used.received),
    })
}

fn table(network: &NetworkUse) -> String {
    let mut text = String::new();
    for (target, used) in &network.used {
        text.push_str(&format!(
            "reached  {}  {} connections, {} bytes sent, {} received\n",
            neutralise(target),
            used.connections,
            used.sent,
            used.received
        ));
    }
    for refused in &network.refused {
        text.push_str(&format!(
            "refused  {}  {}\n",
            neutralise(&refused.target),
            neutralise(&refused.rule)
        ));
        if let Some(change) = &refused.change {
            text.push_str(&format!("         to allow it: {}\n", neutralise(change)));
        }
    }
    text
}
