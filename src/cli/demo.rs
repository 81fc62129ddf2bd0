//! `casemate demo`: a whole session with a model that follows a file; everything else is real.

use std::path::{Path, PathBuf};

use super::args::{DemoArgs, OutputFormat, PlaceArgs, WatchArgs};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::run::{agent, follow};
use super::sandbox;
use super::terminal::{neutralise, shell_word};
use crate::agent::Agent;
use crate::runtime::{
    Config, Input, Runtime, SessionSpec, fresh_directory, local_models, new_file,
};

const SCRIPT: &str = include_str!("../../examples/demo.yaml");
const TASK: &str = "Write a word counter with a test, and make the test pass.";

/// Runs the demo in a fresh directory and says what to do next.
pub(super) async fn run(context: &Context, args: DemoArgs) -> Result<ExitStatus, Failure> {
    let directory = directory(args.keep.as_deref())?;
    let script = directory.join("demo-model.yaml");
    new_file(&script, SCRIPT.as_bytes()).map_err(|e| {
        Failure::new(ExitStatus::Failed, format!("failed to write {}", script.display()))
            .because_of(Some(&e))
    })?;
    let config = context.config(&[])?;
    let mut flags = WatchArgs { output: OutputFormat::Text, routes: Vec::new(), on_ask: None };
    flags.routes.clear();
    let agent = Agent::with_model(format!("scripted:{}", script.display()));
    let environment = sandbox::environment(&PlaceArgs::in_directory(Some(directory.clone())))?;
    let spec = SessionSpec {
        title: Some(format!("demo: {TASK}")),
        initial: vec![Input::text(TASK)],
        ..SessionSpec::new(agent, environment)
    };
    say(
        context,
        &format!(
            "A scripted model, a real sandbox. Workspace: {}\n> {TASK}\n\n",
            neutralise(&directory.to_string_lossy())
        ),
    )?;
    let runtime = Runtime::open(config.clone())?;
    let row = runtime.create_session(spec).await?;
    let status = follow(context, &runtime, &row, 0, &flags, true).await;
    runtime.shutdown().await;
    let status = status?;
    if status == ExitStatus::Done {
        say(context, &next_steps(context, &config, row.id.as_str(), &directory).await)?;
    }
    Ok(status)
}

fn directory(keep: Option<&Path>) -> Result<PathBuf, Failure> {
    fresh_directory(keep).map_err(|e| {
        let place = keep.unwrap_or(Path::new("a temporary directory")).display().to_string();
        Failure::usage(format!("the demo cannot work in {place}")).because_of(Some(&e))
    })
}

async fn next_steps(context: &Context, config: &Config, id: &str, directory: &Path) -> String {
    let program = context.program();
    let model = match config.default_model() {
        Some(model) => Some(model),
        None => local_models(config).await.into_iter().next(),
    };
    // The same choice that `run` makes, so that what is said here is true there.
    let model = match agent(None, model.as_deref(), config).await {
        Ok(agent) => format!("`{program} run` would ask {}.", agent.model),
        Err(_) => format!(
            "`{program} run` has no model yet: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or start a local server such \
             as Ollama."
        ),
    };
    format!(
        "\nNext:\n  ls {}\n  {program} sessions events {id}\n  {program} resume {id} 'and now?'\n{model}\n",
        shell_word(&directory.to_string_lossy())
    )
}

fn say(context: &Context, text: &str) -> Result<(), Failure> {
    if context.quiet() {
        return Ok(());
    }
    let mut out = super::output::Output::of_process();
    out.talk(text)?;
    Ok(out.flush()?)
}
