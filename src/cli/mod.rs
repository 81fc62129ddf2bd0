//! The command line: words in, words out.
//!
//! Owns: the flags and their help ([`args`]), the commands, what people and scripts see ([`render`], [`output`],
//! [`terminal`]), exit codes and hints ([`failure`]), completions and manual pages ([`completions`]).
//! Does not: decide what a session does next, know SQL, vendors or Linux, read the environment or the clock.
//! Invariants: standard output is data and standard error is talk; only `output` writes to either; text from models and
//! tools passes through [`terminal::neutralise`] on its way to a person; an exit code is made in `failure` alone.
//! How to add a command: its arguments in `args`, a snapshot of its help, a file of its own, an arm in the dispatch.

pub mod args;
pub mod completions;
mod context;
mod demo;
mod diff;
mod doctor;
mod env;
pub mod failure;
mod history;
mod net;
pub mod output;
pub mod render;
mod run;
mod sandbox;
mod serve;
mod sessions;
mod skills;
pub mod terminal;
mod watch;

use std::process::ExitCode;

use args::{Cli, Command};
use context::Context;
use failure::{ExitStatus, Failure};
use output::Output;
use terminal::Paint;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::parse_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let paint = Paint { color: false };
            let reported = failure::report_parse(&error, &mut Output::of_process(), paint);
            return reported.unwrap_or(ExitStatus::Failed).into();
        }
    };
    let context = Context::new(cli.global);
    let status = dispatch(&context, cli.command).unwrap_or_else(|failure| {
        // If standard error is gone too, the exit code is all that can be said.
        drop(failure.report(&mut Output::of_process(), context.talk()));
        failure.status
    });
    status.into()
}

fn dispatch(context: &Context, command: Command) -> Result<ExitStatus, Failure> {
    match command {
        Command::Run(args) => block_on(run::run(context, args)),
        Command::Resume(args) => block_on(run::resume(context, args)),
        Command::Compact(args) => block_on(run::compact(context, args)),
        Command::Sessions(args) => block_on(sessions::run(context, args.command)),
        Command::Checkpoints(args) => history::checkpoints(context, &args),
        Command::Diff(args) => block_on(diff::diff(context, args)),
        Command::Apply(args) => block_on(diff::apply(context, args)),
        Command::Discard(args) => block_on(diff::discard(context, args)),
        Command::Rewind(args) => block_on(history::rewind(context, args)),
        Command::Fork(args) => block_on(history::fork(context, args)),
        Command::Net(args) => net::run(context, &args),
        Command::Skills(args) => skills::run(context, args.command),
        Command::Serve(args) => serve::run(context, args),
        Command::Key => serve::key(context),
        Command::Sandbox(args) => sandbox::run(context, args.command),
        Command::Env(args) => block_on(env::run(context, args.command)),
        Command::Doctor(args) => block_on(doctor::run(context, args)),
        Command::Demo(args) => block_on(demo::run(context, args)),
        Command::Completions(args) => print(completions::completions(args.shell)),
        Command::Man(args) => manual(args.dir.as_deref()),
    }
}

/// One thread drives everything: the work is waiting.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| {
        Failure::new(ExitStatus::Failed, "failed to start the runtime").because_of(Some(&e))
    })?;
    runtime.block_on(Box::pin(work))
}

fn print(data: impl AsRef<[u8]>) -> Result<ExitStatus, Failure> {
    let mut out = Output::of_process();
    out.data(data)?;
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn manual(dir: Option<&std::path::Path>) -> Result<ExitStatus, Failure> {
    let pages = completions::pages();
    let Some(dir) = dir else {
        return print(&pages.first().expect("the program has a page").roff);
    };
    let mut text = String::new();
    for page in &pages {
        let path = completions::write_page(dir, page).map_err(|e| Failure::failed_to(&e))?;
        text.push_str(&format!("{}\n", path.display()));
    }
    print(text)
}
