//! `casemate skills`: which skills a session would have here and why, and what is wrong with one.

use std::path::Path;

use serde_json::{Value, json};

use super::args::SkillsCommand;
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use super::render::plural;
use super::terminal::neutralise;
use crate::environment::Environment;
use crate::runtime::skills::discover::{check, chosen, discover};
use crate::runtime::skills::{Chosen, Fate, Found, Wanted, check_place};
use crate::runtime::{Config, resolve_workspace};
use crate::skill::Diagnostic;

/// Runs it.
pub(super) fn run(context: &Context, command: SkillsCommand) -> Result<ExitStatus, Failure> {
    match command {
        SkillsCommand::List { workspace, json } => list(context, workspace.as_deref(), json),
        SkillsCommand::Check { directories } => {
            let mut out = Output::of_process();
            let mut good = true;
            for directory in &directories {
                good &= examine(directory, &mut out)?;
            }
            out.flush()?;
            Ok(if good { ExitStatus::Done } else { ExitStatus::Failed })
        }
    }
}

/// The skills of a run in that environment. Says which ones of the workspace it does not get.
pub(super) fn of_run(
    context: &Context,
    config: &Config,
    environment: &Environment,
    wanted: Wanted,
) -> Result<Vec<Chosen>, Failure> {
    if wanted == Wanted::None {
        return Ok(Vec::new());
    }
    let found = discover(&config.skills, &environment.workspace, wanted);
    let (chosen, untrusted) = (chosen(&found), names(&found, &Fate::Untrusted));
    let mut notes = Vec::new();
    if !untrusted.is_empty() {
        let count = plural(untrusted.len(), "skill");
        notes.push(format!(
            "{count} of this workspace not used: {}; if you trust who wrote them, --skills all uses them",
            untrusted.join(", ")
        ));
    }
    let unusable: Vec<_> =
        found.iter().filter(|found| found.fate == Fate::Unusable).map(name).collect();
    if !unusable.is_empty() {
        let count = plural(unusable.len(), "skill");
        notes.push(format!(
            "{count} cannot be used: {}; `casemate skills list` says why",
            unusable.join(", ")
        ));
    }
    if let (false, Err(reason)) = (chosen.is_empty(), check_place(environment)) {
        notes.push(format!("no skill is used: {reason}"));
    }
    if !context.quiet() {
        let mut out = Output::of_process();
        for note in notes {
            out.talk(format!("{}\n", neutralise(&note)))?;
        }
        out.flush()?;
    }
    Ok(chosen)
}

fn names(found: &[Found], fate: &Fate) -> Vec<String> {
    let named = found.iter().filter(|found| found.fate == *fate);
    named.filter_map(|found| found.skill.as_ref()).map(|skill| skill.name.clone()).collect()
}

fn list(context: &Context, workspace: Option<&Path>, as_json: bool) -> Result<ExitStatus, Failure> {
    let workspace = resolve_workspace(workspace.unwrap_or(Path::new(".")))?;
    let found = discover(&context.config(&[])?.skills, &workspace, Wanted::Trusted);
    let mut out = Output::of_process();
    if as_json {
        let all: Vec<_> = found.iter().map(value).collect();
        let text = serde_json::to_string_pretty(&all).expect("a list of skills is JSON");
        out.data(text + "\n")?;
    } else if found.is_empty() {
        out.talk("there are no skills here\n")?;
    } else {
        found.iter().try_for_each(|found| out.data(lines(found)))?;
    }
    if !names(&found, &Fate::Untrusted).is_empty() {
        out.talk(
            "those that are not trusted are used with --skills all, or where `trusted` under [skills] in the config \
             file names their directory\n",
        )?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// A name even for what has none.
fn name(found: &Found) -> String {
    let of_directory = || found.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    found.skill.as_ref().map_or_else(of_directory, |skill| skill.name.clone())
}

fn lines(found: &Found) -> String {
    let fate = match &found.fate {
        Fate::Used => "used".to_owned(),
        Fate::Hidden(by) => format!("hidden by {}", by.display()),
        Fate::Untrusted => "not trusted".to_owned(),
        Fate::Unusable => "not usable".to_owned(),
    };
    let path = found.path.display();
    let mut text = format!("{}  {}, {fate}\n  {path}\n", name(found), found.level.as_str());
    if let Some(skill) = &found.skill {
        text.push_str(&format!("  {}\n", skill.description));
    }
    found.diagnostics.iter().for_each(|one| text.push_str(&format!("  {}\n", said(one))));
    let safe = text.lines().map(neutralise).map(|line| format!("{line}\n"));
    safe.collect()
}

fn said(diagnostic: &Diagnostic) -> String {
    format!("{}: {diagnostic}", diagnostic.severity.as_str())
}

fn value(found: &Found) -> Value {
    let (fate, hidden_by) = match &found.fate {
        Fate::Used => ("used", None),
        Fate::Hidden(by) => ("hidden", Some(by.display().to_string())),
        Fate::Untrusted => ("untrusted", None),
        Fate::Unusable => ("unusable", None),
    };
    let diagnostics = found.diagnostics.iter().map(|one| {
        json!({
            "severity": one.severity.as_str(),
            "file": one.file,
            "field": one.field,
            "problem": one.problem,
            "fix": one.fix,
        })
    });
    json!({
        "name": name(found),
        "description": found.skill.as_ref().map(|skill| &skill.description),
        "level": found.level.as_str(),
        "path": found.path.display().to_string(),
        "state": fate,
        "hidden_by": hidden_by,
        "diagnostics": diagnostics.collect::<Vec<_>>(),
    })
}

/// Says what is wrong with a skill; whether nothing is.
fn examine(directory: &Path, out: &mut Output) -> Result<bool, Failure> {
    let real = directory.canonicalize().ok().filter(|path| path.is_dir()).ok_or_else(|| {
        Failure::usage(format!("{} is no directory", directory.display()))
            .hint("name the directory that has the SKILL.md in it")
    })?;
    let (_, diagnostics) = check(&real);
    for diagnostic in &diagnostics {
        out.data(format!("{}\n", neutralise(&said(diagnostic))))?;
    }
    if diagnostics.is_empty() {
        out.talk(format!("{}: nothing is wrong\n", neutralise(&real.to_string_lossy())))?;
    }
    Ok(diagnostics.is_empty())
}
