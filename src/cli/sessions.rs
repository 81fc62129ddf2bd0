//! `casemate sessions`: look at sessions beside whoever works with them, or delete them.

use serde_json::{Value, json};

use super::args::SessionsCommand;
use super::context::Context;
use super::failure::{ExitStatus, Failure, allow_all};
use super::output::Output;
use super::terminal::neutralise;
use crate::event::EventBody;
use crate::event::{Audience, StopReason, rfc3339, text_of};
use crate::runtime::{Reader, Runtime, SessionFilter, SessionRow, StoreError};

/// Runs one of the commands.
pub(super) async fn run(
    context: &Context,
    command: SessionsCommand,
) -> Result<ExitStatus, Failure> {
    let config = context.config(&[])?;
    let mut out = Output::of_process();
    match command {
        SessionsCommand::List { json, limit } => {
            let reader = match Runtime::look(&config) {
                Ok(reader) => Some(reader),
                Err(error) if error.is_no_store() => None,
                Err(error) => return Err(error.into()),
            };
            list(context, reader.as_ref(), limit as usize, json, &mut out)?;
        }
        SessionsCommand::Show { id, json } => {
            let reader = Runtime::look(&config)?;
            let row = find(&reader, &id)?;
            show(context, &reader, &row, json, &mut out)?;
        }
        SessionsCommand::Events { id, internal } => {
            let reader = Runtime::look(&config)?;
            events(&reader, &find(&reader, &id)?, internal, &mut out)?;
        }
        SessionsCommand::Delete { ids } => {
            let runtime = Runtime::open(config)?;
            // All are found before the first is gone: a wrong word deletes nothing.
            let find = |id: &String| find(runtime.reader(), id);
            let rows = ids.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            for row in rows {
                runtime.delete(&row.id).await?;
                if !context.quiet() {
                    out.talk(format!("deleted {}\n", row.id))?;
                }
            }
            runtime.shutdown().await;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

pub(super) fn find(reader: &Reader, given: &str) -> Result<SessionRow, Failure> {
    let id = reader.resolve(given)?;
    reader.session(&id)?.ok_or_else(|| StoreError::NoSession { session: id }.into())
}

fn list(
    context: &Context,
    reader: Option<&Reader>,
    limit: usize,
    as_json: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let all = SessionFilter { include_archived: true, ..SessionFilter::default() };
    let rows = reader.map(|reader| reader.sessions(&all, limit));
    let rows = rows.transpose()?.unwrap_or_default();
    let of_reader = || rows.iter().filter_map(|row| reader.map(|reader| (reader, row)));
    if as_json {
        let rows = of_reader().map(|(reader, row)| summary(reader, row));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let text = serde_json::to_string_pretty(&rows).expect("a list is JSON");
        return Ok(out.data(text + "\n")?);
    }
    if rows.is_empty() {
        return Ok(
            out.talk(format!("no sessions yet; {} run 'TASK' starts one\n", context.program()))?
        );
    }
    for (reader, row) in of_reader() {
        let title = neutralise(row.title.as_deref().unwrap_or("(no title)"));
        let (id, state, at) = (&row.id, reader.turn(row)?.as_str(), rfc3339(row.created_at));
        out.data(format!("{id}  {state:<12} {}  {title}\n", &at[..16].replace('T', " ")))?;
    }
    Ok(())
}

pub(super) fn summary(reader: &Reader, row: &SessionRow) -> Result<Value, StoreError> {
    Ok(json!({
        "id": row.id,
        "type": "session",
        "title": row.title,
        "state": reader.turn(row)?.as_str(),
        "status": row.status.as_str(),
        "stop_reason": row.stop_reason,
        "workspace": row.workspace,
        "usage": row.usage.with_hit_rate(),
        "events": row.head,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }))
}

fn show(
    context: &Context,
    reader: &Reader,
    row: &SessionRow,
    as_json: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let definition: Value = row.definition.parse().unwrap_or_default();
    if as_json {
        let mut value = summary(reader, row)?;
        value["definition"] = definition;
        let text = serde_json::to_string_pretty(&value).expect("a session is JSON");
        return Ok(out.data(text + "\n")?);
    }
    let mut last = None;
    reader.each(&row.id, 0, |event| {
        if let EventBody::AgentMessage { content } = event.body {
            last = Some(text_of(&content));
        }
    })?;
    let model = definition.pointer("/agent/model").and_then(Value::as_str).unwrap_or("?");
    let usage = row.usage;
    let mut text = format!(
        "{}\n  title      {}\n  state      {}\n  workspace  {}\n  model      {}\n  events     {}\n  \
         tokens     {} in, {} from the cache{}, {} out\n  created    {}\n  updated    {}\n",
        row.id,
        neutralise(row.title.as_deref().unwrap_or("(no title)")),
        reader.turn(row)?.as_str(),
        neutralise(&row.workspace.to_string_lossy()),
        neutralise(model),
        row.head,
        usage.input_tokens + usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.cache_hit_permille().map_or_else(String::new, |n| format!(" ({}%)", n / 10)),
        usage.output_tokens,
        rfc3339(row.created_at),
        rfc3339(row.updated_at),
    );
    let skills = definition.pointer("/skills/shown").and_then(Value::as_array);
    let names = skills.into_iter().flatten().filter_map(|skill| skill["name"].as_str());
    let names: Vec<_> = names.collect();
    if !names.is_empty() {
        text.push_str(&format!("  skills     {}\n", neutralise(&names.join(", "))));
    }
    let mut go_on = format!("{} resume {} 'MESSAGE'", context.program(), row.id);
    if let Some(StopReason::RequiresAction { event_ids }) = &row.stop_reason {
        for call in event_ids {
            text.push_str(&format!("  waits for  {call}\n"));
        }
        go_on = allow_all(&context.program(), &row.id, event_ids);
    }
    if let Some(last) = last {
        text.push_str(&format!("\n{}\n", neutralise(last.trim())));
    }
    text.push_str(&format!("\n{go_on}\n{} sessions events {}\n", context.program(), row.id));
    Ok(out.data(text)?)
}

fn events(
    reader: &Reader,
    row: &SessionRow,
    internal: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut written = Ok(());
    reader.each(&row.id, 0, |event| {
        let shown = internal || event.body.audience() == Audience::Public;
        if shown && written.is_ok() {
            written = out.data(event.to_json_line() + "\n");
        }
    })?;
    Ok(written?)
}
