//! `casemate env`: the packages of environments. And what is seen of a build, whoever needs it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::EnvCommand;
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::history::json_line;
use super::output::Output;
use super::render::plural;
use super::terminal::{neutralise, one_line};
use crate::clock::{SystemClock, from_millis};
use crate::environment::Environment;
use crate::environment::networking::Networking;
use crate::environment::packages::Packages;
use crate::environment::params::EnvironmentParams;
use crate::event::rfc3339;
use crate::limits::MAX_AGENT_FILE_BYTES;
use crate::runtime::packages::{BuildError, Builder, Lock, Progress, Provided, Stored, Watcher};
use crate::runtime::{profile_source, read_bounded};

/// Builds, lists or removes.
pub(super) async fn run(context: &Context, command: EnvCommand) -> Result<ExitStatus, Failure> {
    let builder = builder(context)?;
    match command {
        EnvCommand::Build { file, profile, json } => {
            let (networking, packages) = read(&file)?;
            if packages.is_empty() {
                return Err(Failure::usage(format!("{} names no packages", file.display())).hint(
                    "list them under `config.packages`; examples/environment.yaml shows how",
                ));
            }
            let environment = environment(networking, packages, profile.as_deref())?;
            let provided = builder.provide(&environment, &context.packages_watcher()).await;
            let provided = provided?.expect("it has packages");
            show(&provided, json)
        }
        EnvCommand::List { json } => list(&builder, json),
        EnvCommand::Rm { keys, json } => remove(&builder, &keys, json),
    }
}

fn builder(context: &Context) -> Result<Builder, Failure> {
    Ok(Builder::new(&context.config(&[])?, Arc::new(SystemClock)))
}

/// An environment to build packages for: its workspace is of no account.
fn environment(
    networking: Option<Networking>,
    packages: Packages,
    profile: Option<&str>,
) -> Result<Environment, Failure> {
    let mut environment = Environment::new(Path::new("/").to_owned());
    environment.networking = networking.unwrap_or_default();
    environment.packages = packages;
    if let Some(profile) = profile {
        environment.profile = profile_source(profile).map_err(|e| {
            Failure::usage(format!("--profile: {profile} cannot be read")).because_of(Some(&e))
        })?;
    }
    Ok(environment)
}

/// What an environment file says.
pub(super) fn read(path: &Path) -> Result<(Option<Networking>, Packages), Failure> {
    let shown = path.display();
    let text = read_bounded(path, MAX_AGENT_FILE_BYTES).map_err(|e| {
        Failure::usage(format!("the environment file {shown} cannot be read")).because_of(Some(&e))
    })?;
    let params: EnvironmentParams = serde_saphyr::from_str(&text).map_err(|e| {
        let wrong = e.without_snippet();
        Failure::usage(format!("the environment file {shown} is no environment: {wrong}"))
            .hint("examples/environment.yaml shows every field")
    })?;
    params.validate().map_err(|e| Failure::usage(format!("the environment file {shown}: {e}")))
}

fn show(provided: &Provided, json: bool) -> Result<ExitStatus, Failure> {
    let Provided { lease, built } = provided;
    let mut out = Output::of_process();
    if json {
        let mut value = summary(&lease.lock);
        value["built"] = json!(built);
        value["resolved"] = json!(lease.lock.resolved);
        value["lock"] = json!(lease.directory.join("lock.json"));
        value["log"] = json!(lease.directory.join("log"));
        json_line(&value, &mut out)?;
    } else {
        for (manager, packages) in &lease.lock.resolved {
            for package in packages {
                let line = format!("{manager}  {} {}\n", package.name, package.version);
                out.data(neutralise(&line).as_bytes())?;
            }
        }
        let how = if *built { "built" } else { "there already" };
        out.talk(format!("packages {}: {how}, {}\n", lease.lock.key, size(lease.lock.bytes)))?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn summary(lock: &Lock) -> Value {
    json!({
        "key": lock.key,
        "packages": lock.packages,
        "base": lock.base,
        "bytes": lock.bytes,
        "files": lock.files,
        "built_at": lock.built_at,
        "build_ms": lock.build_ms,
    })
}

fn list(builder: &Builder, json: bool) -> Result<ExitStatus, Failure> {
    let all = builder.list().map_err(BuildError::from)?;
    let mut out = Output::of_process();
    if json {
        let values = all.iter().map(|Stored { lock, used_at, in_use }| {
            let mut value = summary(lock);
            value["used_at"] = json!(time(*used_at));
            value["in_use"] = json!(in_use);
            value
        });
        json_line(&values.collect(), &mut out)?;
    } else if all.is_empty() {
        out.talk("no packages were built yet: `casemate env build FILE.yaml` does\n")?;
    } else {
        for Stored { lock, used_at, in_use } in &all {
            let used = if *in_use { "in use" } else { &time(*used_at)[..10] };
            let (size, packages) = (size(lock.bytes), &lock.packages);
            out.data(format!("{}  {size:>9}  {used:<10}  {packages}\n", lock.key))?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn time(seconds: i64) -> String {
    rfc3339(from_millis(seconds.saturating_mul(1000)))
}

fn remove(builder: &Builder, keys: &[String], json: bool) -> Result<ExitStatus, Failure> {
    let mut out = Output::of_process();
    let mut removed = Vec::new();
    let mut freed = 0;
    for key in keys {
        let (key, bytes) = builder.remove(key).map_err(BuildError::from)?;
        freed += bytes;
        if !json {
            out.data(format!("{key}\n"))?;
        }
        removed.push(key);
    }
    if json {
        json_line(&json!({ "removed": removed, "bytes": freed }), &mut out)?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// As `12 MiB`.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes < MIB {
        format!("{} KiB", bytes.div_ceil(1024))
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

/// Shows a build on standard error: a line as each manager begins and ends, and on a terminal also what it just says.
pub(super) fn watcher(is_terminal: bool, width: usize) -> Watcher {
    let status = Mutex::new(false);
    Arc::new(move |_, progress| {
        let mut shown = status.lock().expect("nothing panics under this lock");
        let mut out = Output::of_process();
        let clear = if *shown { "\r\x1b[K" } else { "" };
        let text = match progress {
            Progress::Waiting => "packages: another process builds them; waiting\n".to_owned(),
            Progress::Installing { manager, packages } => {
                format!("packages: {manager} installs {}\n", plural(packages, "package"))
            }
            Progress::Installed { manager, packages, time } => format!(
                "packages: {manager} installed {} in {}\n",
                plural(packages, "package"),
                seconds(time)
            ),
            // Said by whoever needs them.
            Progress::Failed { .. } => return,
            Progress::Says(_) if !is_terminal => return,
            Progress::Says(line) => {
                let line = one_line(line, width.saturating_sub(3));
                *shown = true;
                // Nobody waits for a line of progress.
                drop(out.talk(format!("\r\x1b[K  {line}")).and_then(|()| out.flush()));
                return;
            }
        };
        *shown = false;
        drop(out.talk(format!("{clear}{text}")).and_then(|()| out.flush()));
    })
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
