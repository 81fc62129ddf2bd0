//! `casemate run` and `casemate resume`: a session from the command line, watched to its end.

use std::io::Read as _;
use std::path::Path;

use super::args::{self, CompactArgs, PlaceArgs, ResumeArgs, RunArgs, WatchArgs};
use super::context::Context;
use super::failure::{ExitStatus, Failure, allow_all};
use super::render::plural;
use super::sandbox;
use super::sessions::find;
use super::skills;
use super::watch::{Presence, watch};
use crate::agent::mcp::MAX_SERVERS;
use crate::agent::{Agent, AgentParams, ModelParams};
use crate::event::{Confirmation, Seq};
use crate::limits::{DEFAULT_MAX_TURNS, MAX_AGENT_FILE_BYTES, MAX_TASK_BYTES};
use crate::runtime::{
    Config, Input, Runtime, SessionRow, SessionSpec, Standing, local_models, mcp_file, read_bounded,
};

/// What `resume` says to a session that was stopped, when the user says nothing.
const GO_ON: &str = "Continue where you stopped.";

/// `casemate run TASK`.
pub(super) async fn run(context: &Context, args: RunArgs) -> Result<ExitStatus, Failure> {
    let task = task(&args.task)?;
    let config = context.config(&args.watch.routes)?;
    let mut agent = agent(args.agent.as_deref(), args.model.as_deref(), &config).await?;
    args.mcp_config.iter().try_for_each(|file| add_servers(&mut agent, file))?;
    let mut environment = sandbox::environment(&args.place)?;
    environment.workspace_mode = args.workspace_mode.unwrap_or_default();
    let spec = SessionSpec {
        skills: skills::of_run(context, &config, &environment, args.skills.unwrap_or_default())?,
        title: Some(args.title.unwrap_or_else(|| title(&task))),
        max_turns: args.max_turns.unwrap_or(DEFAULT_MAX_TURNS),
        initial: vec![Input::text(task)],
        ..SessionSpec::new(agent, environment)
    };
    let runtime = Runtime::open(config)?;
    // Kept in use until the session ends.
    let packages = runtime.provide_packages(&spec.environment, &context.packages_watcher()).await?;
    let row = runtime.create_session(spec).await?;
    let status = follow(context, &runtime, &row, 0, &args.watch, args.yes).await;
    drop(packages);
    runtime.shutdown().await;
    status
}

/// `casemate resume [ID] [MESSAGE]`.
pub(super) async fn resume(context: &Context, args: ResumeArgs) -> Result<ExitStatus, Failure> {
    let config = context.config(&args.watch.routes)?;
    let runtime = Runtime::open(config)?;
    let status = go_on(context, &runtime, &args).await;
    runtime.shutdown().await;
    status
}

/// `casemate compact ID`.
pub(super) async fn compact(context: &Context, args: CompactArgs) -> Result<ExitStatus, Failure> {
    let runtime = Runtime::open(context.config(&args.watch.routes)?)?;
    let status = compacted(context, &runtime, &args).await;
    runtime.shutdown().await;
    status
}

async fn compacted(
    context: &Context,
    runtime: &Runtime,
    args: &CompactArgs,
) -> Result<ExitStatus, Failure> {
    let row = find(runtime.reader(), &args.id)?;
    if matches!(runtime.standing(&row.id)?, Standing::Working | Standing::Waiting(_)) {
        let program = context.program();
        return Err(Failure::usage(format!("session {} is in the middle of its work", row.id))
            .hint(format!("let it go on first: {program} resume {}", row.id)));
    }
    runtime.compact_session(&row.id).await?;
    follow(context, runtime, &row, row.head, &args.watch, false).await
}

async fn go_on(
    context: &Context,
    runtime: &Runtime,
    args: &ResumeArgs,
) -> Result<ExitStatus, Failure> {
    let row = pick(runtime, args)?;
    let standing = runtime.standing(&row.id)?;
    let inputs = inputs(context, &row, &standing, args)?;
    let environment = runtime.environment_of(&row)?;
    let _packages = runtime.provide_packages(&environment, &context.packages_watcher()).await?;
    if !inputs.is_empty() {
        runtime.submit_all(&row.id, &inputs).await?;
    }
    runtime.drive(&row.id)?;
    let from = match standing {
        // The last event says what the session waits for; told again, it puts the questions.
        Standing::Waiting(_) if inputs.is_empty() => row.head.saturating_sub(1),
        _ => row.head,
    };
    follow(context, runtime, &row, from, &args.watch, args.yes).await
}

/// Watches the session to its end and says how it ended.
pub(super) async fn follow(
    context: &Context,
    runtime: &Runtime,
    row: &SessionRow,
    from: Seq,
    flags: &WatchArgs,
    allow_all: bool,
) -> Result<ExitStatus, Failure> {
    let since = context.clock().now();
    let on_ask = flags.on_ask.clone();
    let presence = Presence { interactive: context.interactive(flags.output), allow_all, on_ask };
    let answered = presence.answers();
    let mut renderer = context.renderer(flags.output, row, answered);
    runtime.reader().each(&row.id, 0, |event| {
        if event.seq <= from {
            renderer.recall(&event);
        }
    })?;
    let watched = watch(context, runtime, &row.id, from, &mut renderer, presence).await;
    watched.map_err(|failure| {
        let (program, id) = (context.program(), &row.id);
        failure.hint(format!("nothing that was shown is lost: `{program} resume {id}` goes on"))
    })?;
    let changes = runtime.changes(row, since)?;
    Ok(renderer.finish(Some(changes))?.into())
}

/// The task as given, or as read from standard input.
fn task(given: &str) -> Result<String, Failure> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let limit = u64::try_from(MAX_TASK_BYTES).unwrap_or(u64::MAX);
        let read = std::io::stdin().lock().take(limit + 1).read_to_string(&mut text);
        read.map_err(|e| {
            Failure::usage("TASK could not be read from standard input").because_of(Some(&e))
        })?;
    }
    args::task(&text).map_err(|e| Failure::usage(format!("TASK: {e}")))?;
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

/// The agent of the file, or the default one; its model from flag, file, configuration, or a server of this machine.
pub(super) async fn agent(
    file: Option<&Path>,
    model: Option<&str>,
    config: &Config,
) -> Result<Agent, Failure> {
    let mut params = file.map(agent_file).transpose()?.unwrap_or_default();
    if let Some(model) = model {
        params.model = Some(ModelParams::Id(model.to_owned()));
    }
    let mut default = config.default_model();
    if params.model.is_none() && default.is_none() {
        default = local_models(config).await.into_iter().next();
    }
    if params.model.is_none() && default.is_none() {
        return Err(Failure::usage("there is no model to ask").hint(
            "set ANTHROPIC_API_KEY or OPENAI_API_KEY, start a local server (Ollama, llama.cpp, LM Studio, vLLM), or \
             name a model with --model PROVIDER/MODEL",
        ));
    }
    params.validate(default.as_deref()).map_err(|e| match file {
        Some(path) => Failure::usage(format!("the agent file {}: {e}", path.display())),
        None => Failure::usage(e.to_string()),
    })
}

fn agent_file(path: &Path) -> Result<AgentParams, Failure> {
    let shown = path.display();
    let unreadable = |e: std::io::Error| {
        Failure::usage(format!("the agent file {shown} cannot be read")).because_of(Some(&e))
    };
    let text = read_bounded(path, MAX_AGENT_FILE_BYTES).map_err(unreadable)?;
    serde_saphyr::from_str(&text).map_err(|e| {
        let line = e
            .location()
            .and_then(|at| text.lines().nth(usize::try_from(at.line()).ok()?.checked_sub(1)?));
        let quoted = line.map(|line| format!(": `{}`", line.trim())).unwrap_or_default();
        let wrong = e.without_snippet();
        Failure::usage(format!("the agent file {shown} is no agent definition: {wrong}{quoted}"))
            .hint("examples/agent.yaml shows every field")
    })
}

/// Adds the MCP servers of a file. Naming the file is the trust in it: nobody looks for one.
fn add_servers(agent: &mut Agent, path: &Path) -> Result<(), Failure> {
    let wrong = |what: String| Failure::usage(format!("the file {}: {what}", path.display()));
    for server in mcp_file(path).map_err(wrong)? {
        if agent.mcp_server(&server.name).is_some() {
            return Err(wrong(format!("there is an MCP server `{}` already", server.name)));
        }
        agent.mcp_servers.push(server);
    }
    if agent.mcp_servers.len() > MAX_SERVERS {
        return Err(wrong(format!("an agent has at most {MAX_SERVERS} MCP servers")));
    }
    Ok(())
}

/// The session that is meant: named, or the last one of the directory.
fn pick(runtime: &Runtime, args: &ResumeArgs) -> Result<SessionRow, Failure> {
    if let Some(id) = args.session() {
        let id = runtime.reader().resolve(id.as_str())?;
        let row = runtime.reader().session(&id)?;
        return row.ok_or_else(|| Failure::usage(format!("there is no session {id}")));
    }
    let place = PlaceArgs::in_directory(args.workspace.clone());
    let workspace = sandbox::environment(&place)?.workspace;
    runtime.reader().latest(&workspace)?.ok_or_else(|| {
        Failure::usage(format!("no session has worked in {}", workspace.display()))
            .hint("`casemate sessions list` shows all; name one by its id")
    })
}

/// What the session is told in order to go on; nothing if it was cut while it worked.
fn inputs(
    context: &Context,
    row: &SessionRow,
    standing: &Standing,
    args: &ResumeArgs,
) -> Result<Vec<Input>, Failure> {
    let mut inputs = confirmations(standing, args);
    let (program, id) = (context.program(), &row.id);
    if let Some(message) = args.message() {
        inputs.push(Input::text(message));
    } else if inputs.is_empty() {
        match standing {
            Standing::Working => {}
            Standing::Stopped => inputs.push(Input::text(GO_ON)),
            Standing::Waiting(_) if context.interactive(args.watch.output) => {}
            Standing::Waiting(calls) => {
                let wait = if calls.len() == 1 { "waits" } else { "wait" };
                let message =
                    format!("{} {wait} for your permission", plural(calls.len(), "tool call"));
                let allow = allow_all(&program, id, calls);
                let hint = format!("{allow}\nor --deny 'EVENT=why not', or --yes for all");
                return Err(Failure::new(ExitStatus::NeedsInput, message).hint(hint));
            }
            Standing::Done => {
                return Err(Failure::usage(format!("session {id} is done"))
                    .hint(format!("give it something to do: {program} resume {id} 'MESSAGE'")));
            }
            Standing::Fresh => {
                return Err(Failure::usage(format!("session {id} was never given a task"))
                    .hint(format!("give it one: {program} resume {id} 'MESSAGE'")));
            }
        }
    }
    Ok(inputs)
}

fn confirmations(standing: &Standing, args: &ResumeArgs) -> Vec<Input> {
    let allow = |call| Input::Confirm { call, result: Confirmation::Allow, message: None };
    let waiting = match standing {
        Standing::Waiting(calls) if args.yes => calls.clone(),
        _ => Vec::new(),
    };
    let denied = args.deny.iter().cloned().map(|deny| Input::Confirm {
        call: deny.event,
        result: Confirmation::Deny,
        message: deny.message,
    });
    waiting.into_iter().chain(args.allow.iter().cloned()).map(allow).chain(denied).collect()
}
