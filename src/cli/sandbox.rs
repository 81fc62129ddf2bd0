//! `casemate sandbox exec`, and the place flags that it shares with `run`.

use std::path::{Path, PathBuf};

use super::args::{Mount, PlaceArgs, SandboxCommand};
use super::failure::{ExitStatus, Failure};
use crate::environment::{Environment, ExtraMount};
use crate::runtime::{resolve_workspace, sandbox_exec};

/// Runs the command; the exit code is the command's own.
pub(super) fn run(command: SandboxCommand) -> Result<ExitStatus, Failure> {
    let SandboxCommand::Exec { place, command } = command;
    let environment = environment(&place)?;
    let words = command.into_iter().map(|word| {
        word.into_string().map_err(|word| {
            Failure::usage(format!("CMD: `{}` is not UTF-8", word.to_string_lossy()))
        })
    });
    let code = sandbox_exec(&environment, words.collect::<Result<_, _>>()?)?;
    Ok(ExitStatus::Command(code))
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
