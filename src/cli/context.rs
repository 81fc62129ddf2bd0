//! What every command begins with: the flags that all share, the environment, the terminal, the output.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{GlobalArgs, OutputFormat, Route};
use super::failure::Failure;
use super::output::Output;
use super::render::{Renderer, Settings};
use super::terminal::{Facts, Paint, shell_word};
use crate::clock::{Clock, SystemClock};
use crate::runtime::config::Env;
use crate::runtime::packages::{Watcher, unwatched};
use crate::runtime::{Config, ConfigError, Overrides, SessionRow};

/// The beginning of a command.
pub(super) struct Context {
    global: GlobalArgs,
    env: Env,
    facts: Facts,
    clock: Arc<dyn Clock>,
}

impl Context {
    pub(super) fn new(global: GlobalArgs) -> Self {
        let env = Env::of_process();
        let facts =
            Facts::of_process(env.get("NO_COLOR").is_some(), env.get("TERM") == Some("dumb"));
        Self { global, env, facts, clock: Arc::new(SystemClock) }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(super) fn config(&self, routes: &[Route]) -> Result<Config, Failure> {
        let routes =
            routes.iter().map(|route| format!("{}={}", route.glob, route.target)).collect();
        let flags = Overrides {
            data_dir: self.global.data_dir.clone(),
            config_file: self.global.config.clone(),
            routes,
        };
        Ok(Config::load(&self.env, &flags)?)
    }

    /// Where sessions are kept, if there is any place for them.
    pub(super) fn data_dir(&self) -> Result<Option<PathBuf>, Failure> {
        let flags = Overrides {
            data_dir: self.global.data_dir.clone(),
            config_file: self.global.config.clone(),
            routes: Vec::new(),
        };
        match Config::place(&self.env, &flags) {
            Ok(place) => Ok(Some(place)),
            Err(ConfigError::NoHome) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether somebody sits in front of this and can be asked.
    pub(super) fn interactive(&self, format: OutputFormat) -> bool {
        format == OutputFormat::Text && self.facts.stderr_is_tty && std::io::stdin().is_terminal()
    }

    pub(super) fn quiet(&self) -> bool {
        self.global.quiet
    }

    pub(super) fn talk(&self) -> Paint {
        Paint { color: self.facts.talk_has_color(self.global.color) }
    }

    /// Shows builds of packages, unless nothing is to be shown.
    pub(super) fn packages_watcher(&self) -> Watcher {
        if self.quiet() {
            return unwatched();
        }
        let moves = self.facts.stderr_is_tty && !self.facts.dumb;
        super::env::watcher(moves, usize::from(self.facts.width))
    }

    /// A renderer for this session.
    pub(super) fn renderer(
        &self,
        format: OutputFormat,
        row: &SessionRow,
        answered: bool,
    ) -> Renderer {
        let settings = Settings {
            format,
            facts: self.facts,
            color: self.global.color,
            quiet: self.global.quiet,
            internal: false,
            answered,
            program: self.program(),
            workspace: Some(row.workspace.display().to_string()),
        };
        Renderer::new(settings, Output::of_process())
    }

    /// How to call this program so that it finds the same sessions.
    pub(super) fn program(&self) -> String {
        let mut program = "casemate".to_owned();
        if let Some(dir) = &self.global.data_dir {
            program.push_str(&format!(" --data-dir {}", shell_word(&dir.to_string_lossy())));
        }
        program
    }
}
