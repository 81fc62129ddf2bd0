//! `casemate sandbox`, and the place flags that it shares with `run`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Mount, NetworkWord, PlaceArgs, SandboxCommand};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::terminal::neutralise;
use crate::clock::SystemClock;
use crate::environment::networking::Networking;
use crate::environment::{Environment, ExtraMount};
use crate::runtime::packages::{Builder, Provided};
use crate::runtime::{
    Changes, Executed, Made, Registries, Report, profile_source, resolve_workspace, sandbox_exec,
    sandbox_view, was_set_aside,
};

/// Runs the command, or shows the plan.
pub(super) fn run(context: &Context, command: SandboxCommand) -> Result<ExitStatus, Failure> {
    match command {
        SandboxCommand::Exec { place, command } => exec(context, &place, command),
        SandboxCommand::Show { profile, workspace, json } => {
            let place = PlaceArgs { profile: Some(profile), ..PlaceArgs::in_directory(workspace) };
            let view = sandbox_view(&environment(&place)?)?;
            let mut out = Output::of_process();
            out.data(if json { view.json() } else { neutralise(&view.text()).into_owned() })?;
            out.flush()?;
            Ok(ExitStatus::Done)
        }
    }
}

/// The exit code is the command's own.
fn exec(
    context: &Context,
    place: &PlaceArgs,
    command: Vec<OsString>,
) -> Result<ExitStatus, Failure> {
    let environment = environment(place)?;
    let words = command.into_iter().map(|word| {
        word.into_string().map_err(|word| {
            Failure::usage(format!("CMD: `{}` is not UTF-8", word.to_string_lossy()))
        })
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let registries = match environment.networking {
        Networking::Limited { allow_package_managers: true, .. } => context.config(&[])?.registries,
        _ => Registries::default(),
    };
    let data_dir = context.data_dir()?;
    let packages = packages(context, &environment)?;
    let lease = packages.as_ref().map(|provided| &provided.lease);
    let done = sandbox_exec(&environment, &registries, &words, data_dir.as_deref(), lease)?;
    let Executed { code, network, made } = done;
    if !context.quiet() {
        say(&network)?;
        name(&environment.workspace, &made)?;
    }
    Ok(ExitStatus::Command(code))
}

/// The packages of the environment, in use as long as the result lives.
fn packages(context: &Context, environment: &Environment) -> Result<Option<Provided>, Failure> {
    if environment.packages.is_empty() {
        return Ok(None);
    }
    let builder = Builder::new(&context.config(&[])?, Arc::new(SystemClock));
    let watcher = context.packages_watcher();
    super::block_on(async { Ok(builder.provide(environment, &watcher).await?) })
}

/// What the command could not reach, for whoever reads its errors.
fn say(network: &Report) -> Result<(), Failure> {
    let mut out = Output::of_process();
    let refused = network.refusals.iter().map(ToString::to_string);
    let failed = network.failures.iter().map(|failure| format!("{failure}."));
    for sentence in refused.chain(failed) {
        out.talk(format!("casemate: {}\n", neutralise(&sentence)))?;
    }
    Ok(out.flush()?)
}

/// What the command made that programs of the user's obey.
fn name(workspace: &Path, made: &[Made]) -> Result<(), Failure> {
    let mut out = Output::of_process();
    let below = |path: &Path| path.strip_prefix(workspace).unwrap_or(path).display().to_string();
    for Made { path, set_aside } in made {
        let Some(aside) = set_aside else { continue };
        let text = was_set_aside(&below(path), &below(aside));
        out.talk(format!("casemate: {}\n", neutralise(&text)))?;
    }
    let obeyed = made.iter().filter(|made| made.set_aside.is_none()).map(|made| below(&made.path));
    let obeyed = Changes { obeyed: obeyed.collect(), ..Changes::default() };
    if let Some(warning) = obeyed.warning() {
        out.talk(format!("casemate: {}\n", neutralise(&warning)))?;
    }
    Ok(out.flush()?)
}

/// What the flags say of the network; where they say nothing, the environment file.
fn networking(place: &PlaceArgs, file: Option<Networking>) -> Result<Networking, Failure> {
    let lists = !place.allow_hosts.is_empty() || place.allow_package_managers;
    match place.network {
        None if !lists => Ok(file.unwrap_or_default()),
        Some(NetworkWord::None) if !lists => Ok(Networking::None),
        Some(NetworkWord::Unrestricted) if !lists => Ok(Networking::Unrestricted),
        None | Some(NetworkWord::Limited) => Ok(Networking::Limited {
            allowed_hosts: place.allow_hosts.clone(),
            allow_package_managers: place.allow_package_managers,
            allow_mcp_servers: false,
        }),
        Some(word @ (NetworkWord::None | NetworkWord::Unrestricted)) => {
            let word = word.as_str();
            let text =
                format!("--network {word} contradicts --allow-host and --allow-package-managers");
            Err(Failure::usage(text).hint("those two list what `--network limited` may reach"))
        }
    }
}

/// The environment that the flags describe.
pub(super) fn environment(place: &PlaceArgs) -> Result<Environment, Failure> {
    let workspace = resolve_workspace(place.workspace.as_deref().unwrap_or(Path::new(".")))?;
    let mut environment = Environment::new(workspace);
    environment.mounts = place.mounts.iter().map(mount).collect::<Result<_, _>>()?;
    if let Some(profile) = &place.profile {
        environment.profile = profile_source(profile).map_err(|e| {
            Failure::usage(format!("--profile: {profile} cannot be read")).because_of(Some(&e))
        })?;
    }
    environment.allow_paths =
        place.allow_paths.iter().map(|path| below(&environment, path)).collect();
    environment.tier = place.sandbox.unwrap_or_default();
    environment.least = place.require_tier.unwrap_or(environment.tier);
    let (from_file, packages) =
        place.environment.as_deref().map(super::env::read).transpose()?.unwrap_or_default();
    environment.networking = networking(place, from_file)?;
    environment.packages = packages;
    environment.packages.check(&environment.networking).map_err(|e| {
        Failure::usage(e.to_string())
            .hint("with flags instead of the file's networking, that is --allow-package-managers")
    })?;
    Ok(environment)
}

/// As the walk through the workspace names it.
fn below(environment: &Environment, path: &Path) -> PathBuf {
    let path = path.strip_prefix(&environment.workspace).unwrap_or(path);
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

fn mount(given: &Mount) -> Result<ExtraMount, Failure> {
    let source = given.source.canonicalize().map_err(|e| {
        Failure::usage(format!("--mount: {} cannot be shown", given.source.display()))
            .because_of(Some(&e))
    })?;
    // Without a place of its own it appears where the user sees it.
    let own_place = || std::path::absolute(&given.source).unwrap_or_else(|_| source.clone());
    let target: PathBuf = given.target.clone().unwrap_or_else(own_place);
    Ok(ExtraMount { source, target, access: given.access })
}
