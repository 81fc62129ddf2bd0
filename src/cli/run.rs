//! `casemate run` and `casemate resume`: a session from the command line, watched to its end.

use std::io::Read as _;
use std::path::Path;

use super::args::{self, SessionFlags};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::watch::{Ended, Presence, watch};
use crate::agent::{Agent, AgentParams};
use crate::environment::Environment;
use crate::event::{Confirmation, Seq, StopReason};
use crate::limits::{DEFAULT_MAX_TURNS, MAX_AGENT_FILE_BYTES, MAX_TASK_BYTES};
use crate::runtime::{
    Config, Input, Runtime, SessionRow, SessionSpec, SessionStatus, changed_since, local_models,
    resolve_workspace,
};

/// What `resume` says to a session that was interrupted or gave up, when the user says nothing.
const GO_ON: &str = "Continue where you stopped.";

/// `casemate run TASK`.
pub(super) async fn run(context: &Context, args: args::Run) -> Result<ExitStatus, Failure> {
    let task = task(&args.task)?;
    let workspace = resolve_workspace(args.workspace.as_deref().unwrap_or(Path::new(".")))?;
    let config = context.config(&args.session.routes)?;
    let agent = agent(&args, &config).await?;
    let environment = Environment {
        mounts: args.mounts.clone(),
        profile: args.profile.clone(),
        tier: args.sandbox,
        ..Environment::new(workspace)
    };
    let spec = SessionSpec {
        agent,
        environment,
        title: Some(args.title.clone().unwrap_or_else(|| title(&task))),
        max_turns: args.max_turns.unwrap_or(DEFAULT_MAX_TURNS),
    };
    let runtime = Runtime::open(config)?;
    let row = runtime.create_session(spec).await?;
    runtime.submit(&row.id, Input::Message(task)).await?;
    let outcome = follow(context, &runtime, &row, 0, &args.session).await;
    runtime.shutdown().await;
    outcome
}

/// `casemate resume [ID] [MESSAGE]`.
pub(super) async fn resume(context: &Context, args: args::Resume) -> Result<ExitStatus, Failure> {
    let config = context.config(&args.session.routes)?;
    let runtime = Runtime::open(config)?;
    let (row, message) = pick(&runtime, &args)?;
    for input in inputs(&row, message, &args)? {
        runtime.submit(&row.id, input).await?;
    }
    runtime.drive(&row.id)?;
    let outcome = follow(context, &runtime, &row, row.head, &args.session).await;
    runtime.shutdown().await;
    outcome
}

/// Watches the session and says how it ended.
pub(super) async fn follow(
    context: &Context,
    runtime: &Runtime,
    row: &SessionRow,
    from: Seq,
    flags: &SessionFlags,
) -> Result<ExitStatus, Failure> {
    let since = context.clock().now();
    let mut renderer = context.renderer(flags, &row.id);
    let presence =
        Presence { interactive: context.interactive(flags), allow_all: flags.yes };
    let ended = watch(runtime, &row.id, from, &mut renderer, presence).await?;
    let changes = changed_since(&row.workspace, since);
    Ok(match ended {
        Ended::Idle => renderer.finish(changes.files)?,
        Ended::Left => renderer.leave()?,
    })
}

/// The task as given, or as read from standard input.
fn task(given: &str) -> Result<String, Failure> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let limit = u64::try_from(MAX_TASK_BYTES).unwrap_or(u64::MAX);
        let read = std::io::stdin().lock().take(limit + 1).read_to_string(&mut text);
        read.map_err(|e| Failure::usage(format!("TASK could not be read from standard input: {e}")))?;
    }
    if text.trim().is_empty() {
        return Err(Failure::usage("TASK is empty: say what is to be done".to_owned()));
    }
    if text.len() > MAX_TASK_BYTES {
        return Err(Failure::usage(format!("TASK has more than {MAX_TASK_BYTES} bytes; put it into a file and name that")));
    }
    Ok(text)
}

/// The first line of the task, for lists.
fn title(task: &str) -> String {
    const CHARS: usize = 80;
    let line = task.trim().lines().next().unwrap_or_default();
    if line.chars().count() <= CHARS {
        return line.to_owned();
    }
    line.chars().take(CHARS - 1).chain(['…']).collect()
}

/// The agent of the file, or the default one; its model from flag, file, configuration, or a local server.
async fn agent(args: &args::Run, config: &Config) -> Result<Agent, Failure> {
    let mut params = match &args.agent {
        Some(path) => agent_file(path)?,
        None => AgentParams::default(),
    };
    if let Some(model) = &args.model {
        params.model = Some(crate::agent::ModelParams::Id(model.clone()));
    }
    let mut default = config.default_model();
    if params.model.is_none() && default.is_none() {
        default = local_models(config).await.into_iter().next();
    }
    if params.model.is_none() && default.is_none() {
        return Err(Failure::usage("there is no model to ask".to_owned()).with_hint(
            "set ANTHROPIC_API_KEY or OPENAI_API_KEY, start a local server (Ollama, llama.cpp, LM Studio, vLLM), \
             or name a model with --model PROVIDER/MODEL",
        ));
    }
    params.validate(default.as_deref()).map_err(|e| {
        let place = args.agent.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()));
        Failure::usage(format!("{place}{e}"))
    })
}

fn agent_file(path: &Path) -> Result<AgentParams, Failure> {
    let refuse = |reason: String| Failure::usage(format!("the agent file {} {reason}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    let read = file.take(MAX_AGENT_FILE_BYTES + 1).read_to_string(&mut text);
    let size = read.map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if size as u64 > MAX_AGENT_FILE_BYTES {
        return Err(refuse(format!("has more than {MAX_AGENT_FILE_BYTES} bytes")));
    }
    serde_saphyr::from_str(&text).map_err(|e| refuse(format!("is not an agent definition: {e}")))
}

/// The session that is meant, and the message for it. One word that is no id may be a message for the latest session.
fn pick(runtime: &Runtime, args: &args::Resume) -> Result<(SessionRow, Option<String>), Failure> {
    let store = runtime.store();
    if let Some(given) = &args.id {
        if let Some(row) = super::sessions::find(store, given)? {
            return Ok((row, args.message.clone()));
        }
        if args.message.is_some() || !given.contains(char::is_whitespace) {
            return Err(super::sessions::unknown(given));
        }
    }
    let workspace = args.workspace.as_deref().unwrap_or(Path::new("."));
    let workspace = resolve_workspace(workspace)?;
    let row = store.latest(&workspace)?.ok_or_else(|| {
        let place = workspace.display();
        Failure::usage(format!("no session has worked in {place}"))
            .with_hint("`casemate sessions list` shows all; name one by its id")
    })?;
    Ok((row, args.id.clone()))
}

/// What the session is told in order to go on; nothing if it was cut while it worked.
fn inputs(row: &SessionRow, message: Option<String>, args: &args::Resume) -> Result<Vec<Input>, Failure> {
    let mut inputs = confirmations(row, args)?;
    match (message, &row.stop_reason) {
        (Some(message), _) => inputs.push(Input::Message(message)),
        _ if row.status != SessionStatus::Idle || !inputs.is_empty() => {}
        (None, Some(StopReason::RequiresAction { event_ids })) => {
            let first = &event_ids[0];
            return Err(Failure::needs_input("tool calls wait for an answer".to_owned()).with_hint(format!(
                "casemate resume {} --allow {first}, or --deny {first}='why not', or --yes",
                row.id
            )));
        }
        (None, Some(StopReason::EndTurn)) if !args.go_on(row) => {
            return Err(Failure::usage(format!("session {} is done", row.id))
                .with_hint(format!("give it something to do: casemate resume {} 'MESSAGE'", row.id)));
        }
        (None, None) => {
            return Err(Failure::usage(format!("session {} was never given a task", row.id))
                .with_hint(format!("give it one: casemate resume {} 'MESSAGE'", row.id)));
        }
        (None, Some(_)) => inputs.push(Input::Message(GO_ON.to_owned())),
    }
    Ok(inputs)
}

fn confirmations(row: &SessionRow, args: &args::Resume) -> Result<Vec<Input>, Failure> {
    let confirm = |call, result, message| Input::Confirm { call, result, message };
    let waiting = match &row.stop_reason {
        Some(StopReason::RequiresAction { event_ids }) if args.session.yes => event_ids.clone(),
        _ => Vec::new(),
    };
    let mut inputs: Vec<_> =
        waiting.into_iter().map(|call| confirm(call, Confirmation::Allow, None)).collect();
    inputs.extend(args.allow.iter().map(|call| confirm(call.clone(), Confirmation::Allow, None)));
    inputs.extend(args.deny.iter().map(|denied| {
        confirm(denied.call.clone(), Confirmation::Deny, denied.message.clone())
    }));
    Ok(inputs)
}
