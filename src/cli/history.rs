//! `casemate checkpoints`, `rewind` and `fork`: a session's moments.

use serde_json::{Value, json};

use super::args::{CheckpointsArgs, ForkArgs, RewindArgs};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::render::plural;
use super::sessions::{find, summary};
use crate::event::rfc3339;
use crate::runtime::{self, Checkpoint, Runtime};

/// Lists the moments, oldest first.
pub(super) fn checkpoints(
    context: &Context,
    args: &CheckpointsArgs,
) -> Result<ExitStatus, Failure> {
    let reader = Runtime::look(&context.config(&[])?)?;
    let listed = runtime::checkpoints(&reader, &find(&reader, &args.id)?)?;
    let mut out = Output::of_process();
    if args.json {
        let listed: Vec<_> = listed.iter().map(value).collect();
        json_line(&Value::from(listed), &mut out)?;
    } else if listed.is_empty() {
        out.talk("nothing was sealed yet: no call that may change files has run\n")?;
    } else {
        for Checkpoint { event, created_at, files, changed, current, .. } in &listed {
            let at = rfc3339(*created_at);
            let (changed, files) = (plural_of(*changed, "change"), plural_of(*files, "file"));
            let past = if *current { "" } else { ", taken back" };
            out.data(format!(
                "{event}  {}  {changed}, {files}{past}\n",
                &at[..19].replace('T', " ")
            ))?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn plural_of(count: u64, what: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), what)
}

fn value(checkpoint: &Checkpoint) -> Value {
    json!({
        "event": checkpoint.event,
        "created_at": rfc3339(checkpoint.created_at),
        "files": checkpoint.files,
        "changed": checkpoint.changed,
        "bytes": checkpoint.bytes,
        "current": checkpoint.current,
    })
}

/// Goes back.
pub(super) async fn rewind(context: &Context, args: RewindArgs) -> Result<ExitStatus, Failure> {
    let runtime = Runtime::open(context.config(&[])?)?;
    let mut out = Output::of_process();
    let id = find(runtime.reader(), &args.id)?.id;
    let rewound = runtime.rewind(&id, &args.to).await;
    runtime.shutdown().await;
    let rewound = rewound?;
    if args.json {
        let (home, work) = rewound.seal;
        let value = json!({
            "session": id,
            "to": args.to,
            "position": rewound.position,
            "home": home,
            "work": work,
            "undo": rewound.undo,
        });
        json_line(&value, &mut out)?;
    } else if !context.quiet() {
        let program = context.program();
        out.talk(format!(
            "session {id} is what it was at {}\n  go on    {program} resume {id} 'MESSAGE'\n  \
             undo     {program} rewind {id} --to {}\n",
            args.to, rewound.undo
        ))?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// Begins another session.
pub(super) async fn fork(context: &Context, args: ForkArgs) -> Result<ExitStatus, Failure> {
    let config = context.config(&[])?;
    let runtime = Runtime::open(config.clone())?;
    let mut out = Output::of_process();
    let id = find(runtime.reader(), &args.id)?.id;
    let forked = runtime.fork(&id, args.at.as_ref(), args.title).await;
    runtime.shutdown().await;
    let row = forked?;
    if args.json {
        json_line(&summary(&Runtime::look(&config)?, &row)?, &mut out)?;
    } else {
        out.data(format!("{}\n", row.id))?;
        if !context.quiet() {
            out.talk(format!("  go on    {} resume {} 'MESSAGE'\n", context.program(), row.id))?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

pub(super) fn json_line(value: &Value, out: &mut Output) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("a value is JSON");
    Ok(out.data(text + "\n")?)
}
