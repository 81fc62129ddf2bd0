//! `casemate diff`, `apply` and `discard`: what a session changed of its workspace.

use std::path::PathBuf;

use serde_json::{Value, json};
use similar::TextDiff;

use super::args::{ApplyArgs, DiffArgs, DiscardArgs};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::history::json_line;
use super::output::Output;
use super::sessions::find;
use super::terminal::neutralise;
use crate::runtime::{Change, ChangeKind, Choice, Outcome, Runtime, RuntimeError, on_one_line};

/// Shows the changes, text line by line.
pub(super) async fn diff(context: &Context, args: DiffArgs) -> Result<ExitStatus, Failure> {
    let runtime = Runtime::open(context.config(&[])?)?;
    let id = find(runtime.reader(), &args.id)?.id;
    let changes = runtime.diff(&id).await;
    runtime.shutdown().await;
    let changes = changes?;
    let mut out = Output::of_process();
    if args.json {
        let listed: Vec<_> = changes.iter().map(value).collect();
        json_line(&Value::from(listed), &mut out)?;
    } else {
        for change in &changes {
            out.data(neutralise(&shown(change)).as_bytes())?;
        }
        if changes.is_empty() {
            out.talk("nothing differs\n")?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Changed => "changed",
        ChangeKind::Removed => "removed",
        ChangeKind::Mode => "mode",
    }
}

/// One line that says what happened, then the text's difference.
fn shown(change: &Change) -> String {
    let path = on_one_line(&change.path.to_string_lossy());
    let conflict = if change.conflict { ", and you changed it too" } else { "" };
    format!("{} {path}{conflict}\n{}", word(change.kind), unified(change).unwrap_or_default())
}

fn unified(change: &Change) -> Option<String> {
    let (old, new) = change.texts.as_ref()?;
    let path = on_one_line(&change.path.to_string_lossy());
    let (from, to) = match change.kind {
        ChangeKind::Added => ("/dev/null".to_owned(), format!("b/{path}")),
        ChangeKind::Removed => (format!("a/{path}"), "/dev/null".to_owned()),
        ChangeKind::Changed | ChangeKind::Mode => (format!("a/{path}"), format!("b/{path}")),
    };
    let text = TextDiff::from_lines(old, new);
    Some(text.unified_diff().header(&from, &to).to_string())
}

fn value(change: &Change) -> Value {
    json!({
        "path": change.path.to_string_lossy(),
        "change": word(change.kind),
        "conflict": change.conflict,
        "diff": unified(change),
    })
}

/// Gives the session's version to the user.
pub(super) async fn apply(context: &Context, args: ApplyArgs) -> Result<ExitStatus, Failure> {
    let choices =
        [(args.ours, Choice::Ours), (args.theirs, Choice::Theirs), (args.beside, Choice::Beside)];
    let choice = choices.into_iter().find_map(|(given, choice)| given.then_some(choice));
    let since = context.clock().now();
    let runtime = Runtime::open(context.config(&[])?)?;
    let row = find(runtime.reader(), &args.id)?;
    let done = runtime.apply(&row.id, &args.paths, choice).await;
    let changes = runtime.changes(&row, since);
    runtime.shutdown().await;
    let status = report(context, done, args.json)?;
    if let Some(warning) = changes?.warning() {
        let mut out = Output::of_process();
        out.talk(format!("! {}\n", neutralise(&warning)))?;
        out.flush()?;
    }
    Ok(status)
}

/// Gives the user's version to the session.
pub(super) async fn discard(context: &Context, args: DiscardArgs) -> Result<ExitStatus, Failure> {
    let runtime = Runtime::open(context.config(&[])?)?;
    let id = find(runtime.reader(), &args.id)?.id;
    let done = runtime.discard(&id, &args.paths).await;
    runtime.shutdown().await;
    report(context, done, args.json)
}

fn report(
    context: &Context,
    done: Result<Vec<(PathBuf, Outcome)>, RuntimeError>,
    as_json: bool,
) -> Result<ExitStatus, Failure> {
    let done = done?;
    let word = |outcome: Outcome| match outcome {
        Outcome::Applied => "applied",
        Outcome::Merged => "merged",
        Outcome::Kept => "kept",
        Outcome::Beside => "beside",
        Outcome::Discarded => "discarded",
    };
    let mut out = Output::of_process();
    if as_json {
        let listed = done.iter().map(
            |(path, outcome)| json!({ "path": path.to_string_lossy(), "outcome": word(*outcome) }),
        );
        json_line(&Value::from(listed.collect::<Vec<_>>()), &mut out)?;
    } else if done.is_empty() {
        out.talk("nothing differs\n")?;
    } else if !context.quiet() {
        for (path, outcome) in &done {
            let line = format!("{} {}\n", word(*outcome), on_one_line(&path.to_string_lossy()));
            out.talk(neutralise(&line).into_owned())?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}
