//! `casemate sandbox exec`, and the place flags that it shares with `run`.

use std::path::{Path, PathBuf};

use super::args::{Mount, NetworkWord, PlaceArgs, SandboxCommand};
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::terminal::neutralise;
use crate::environment::networking::Networking;
use crate::environment::{Environment, ExtraMount};
use crate::runtime::{Executed, Registries, Report, resolve_workspace, sandbox_exec};

/// Runs the command; the exit code is the command's own.
pub(super) fn run(context: &Context, command: SandboxCommand) -> Result<ExitStatus, Failure> {
    let SandboxCommand::Exec { place, command } = command;
    let environment = environment(&place)?;
    let words = command.into_iter().map(|word| {
        word.into_string().map_err(|word| {
            Failure::usage(format!("CMD: `{}` is not UTF-8", word.to_string_lossy()))
        })
    });
    let words = words.collect::<Result<_, _>>()?;
    let registries = match environment.networking {
        Networking::Limited { allow_package_managers: true, .. } => context.config(&[])?.registries,
        _ => Registries::default(),
    };
    let Executed { code, network } = sandbox_exec(&environment, &registries, words)?;
    if !context.quiet() {
        say(&network)?;
    }
    Ok(ExitStatus::Command(code))
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

/// What the flags say of the network.
fn networking(place: &PlaceArgs) -> Result<Networking, Failure> {
    let lists = !place.allow_hosts.is_empty() || place.allow_package_managers;
    match place.network {
        None if !lists => Ok(Networking::None),
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
        environment.profile.clone_from(profile);
    }
    environment.tier = place.sandbox.unwrap_or_default();
    environment.networking = networking(place)?;
    Ok(environment)
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
