//! The command line as it is typed: every flag, its help and its bounds. No logic beyond what a word may be.

mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, ColorChoice, CommandFactory, Parser, Subcommand, value_parser};

use crate::agent::OnAsk;
use crate::api::serve::Address;
use crate::environment::networking::HostRule;
use crate::environment::{Tier, WorkspaceMode};
use crate::id::{EventId, SessionId};
use crate::limits::MAX_TURNS;
use crate::runtime::skills::Wanted;

pub use values::{Deny, Mount, NetworkWord, OutputFormat, Resumed, Route, TaskError, task};

/// Runs AI agents on your own machine, with their tools in a sandbox.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(
    name = "casemate",
    version,
    about,
    after_help = "\
Examples:
  casemate demo                              see it work; no key and no model needed
  casemate run -m MODEL \"make the tests pass\"
  casemate resume                            go on with this directory's last session

Exit codes:
  0 done           1 failed                               2 wrong usage
  3 interrupted    4 a tool call waits for permission     5 no sandbox",
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Keep sessions in DIR instead of the user's data directory
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Read settings from FILE instead of the user's configuration
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Give an agent a task and watch it work
    Run(RunArgs),
    /// Go on with a session: after a crash, with an answer, or with another message
    Resume(ResumeArgs),
    /// Replace a session's conversation by a summary, to make room in the model's context
    Compact(CompactArgs),
    /// Look at sessions, or delete them
    Sessions(SessionsArgs),
    /// List the moments to which a session can go back
    Checkpoints(CheckpointsArgs),
    /// Show what a session changed of its workspace
    Diff(DiffArgs),
    /// Take over what a session changed of its own version of the workspace
    Apply(ApplyArgs),
    /// Give a session your version of the workspace again
    Discard(DiscardArgs),
    /// Make a session's conversation and files what they were
    Rewind(RewindArgs),
    /// Begin a session that was another one up to some moment
    Fork(ForkArgs),
    /// Show what a session reached of the network, and what it was refused
    Net(NetArgs),
    /// Show which skills sessions have here, or what is wrong with one
    Skills(SkillsArgs),
    /// Serve the Managed Agents protocol over HTTP, for the official SDKs
    Serve(ServeArgs),
    /// Print the key that clients of the server need
    Key,
    /// Run a command of your own in the sandbox, or look at what it is
    Sandbox(SandboxArgs),
    /// Build the packages of environments ahead, look at them, or remove them
    Env(EnvArgs),
    /// Check what this machine can do: sandbox, storage, models
    Doctor(DoctorArgs),
    /// Watch a scripted agent fix a small program; no key and no model needed
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
}

/// `casemate serve`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate serve
  casemate serve --listen unix:/run/user/1000/casemate.sock
  ANTHROPIC_BASE_URL=http://127.0.0.1:4180 ANTHROPIC_API_KEY=$(casemate key) python app.py

The address goes to standard output, the log to standard error, one JSON object a line.")]
pub struct ServeArgs {
    /// ADDRESS:PORT or unix:PATH; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4180")]
    pub listen: Address,
    /// Listen on an address that other machines reach; whoever has the key runs agents here
    #[arg(long)]
    pub public: bool,
    /// Answer to this name in the Host header too; `*` to every name
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Answer to pages of this origin too, such as `https://app.example`
    #[arg(long, value_name = "ORIGIN")]
    pub allowed_origin: Vec<String>,
    /// Put all paths below PATH, such as /casemate
    #[arg(long, value_name = "PATH", value_parser = values::prefix)]
    pub prefix: Option<String>,
    /// Refuse what the hosted service refuses: a missing beta header, an unknown beta
    #[arg(long)]
    pub strict: bool,
    /// Send model ids that match GLOB to PROVIDER; repeatable
    #[arg(long = "route", value_name = "GLOB=PROVIDER[/MODEL]", action = ArgAction::Append)]
    pub routes: Vec<Route>,
}

/// `casemate run`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate run \"make the tests pass\"
  casemate run -m ollama/qwen3 -C ~/src/app \"explain how requests are routed\" > routing.md
  git diff | casemate run --output json - | jq -r .result

Messages of the model go to standard output, all else to standard error.")]
pub struct RunArgs {
    /// What to do; `-` reads it from standard input
    #[arg(value_parser = values::task_word)]
    pub task: String,
    /// Model id, or PROVIDER/MODEL
    #[arg(long, short)]
    pub model: Option<String>,
    /// Agent definition to use
    #[arg(long, value_name = "FILE.yaml")]
    pub agent: Option<PathBuf>,
    /// Use the MCP servers of a `.mcp.json` too; repeatable
    #[arg(long = "mcp-config", value_name = "FILE.json", action = ArgAction::Append)]
    pub mcp_config: Vec<PathBuf>,
    /// Title of the session [default: the start of the task]
    #[arg(long)]
    pub title: Option<String>,
    /// Give up after N model requests [default: 200]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=i64::from(MAX_TURNS)))]
    pub max_turns: Option<u32>,
    /// Allow every tool call that would ask
    #[arg(long)]
    pub yes: bool,
    /// Work on your files, on a layer over them, or on a copy [default: direct]
    #[arg(long, value_name = "MODE", value_parser = values::workspace_mode())]
    pub workspace_mode: Option<WorkspaceMode>,
    /// Skills to have: none, those that you trust, or all that are found [default: trusted]
    #[arg(long, value_name = "WHICH", value_parser = values::skills())]
    pub skills: Option<Wanted>,
    /// Where the agent works.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// What is printed, and which model answers.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Where tools run.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct PlaceArgs {
    /// Directory that the agent works in, and may change [default: current]
    #[arg(long, short = 'C', value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Environment definition to use: networking and packages
    #[arg(long, value_name = "FILE.yaml")]
    pub environment: Option<PathBuf>,
    /// Show the sandbox more of this machine; read-only unless `rw`; repeatable
    #[arg(long = "mount", value_name = "SRC[:DST][:ro|rw]", action = ArgAction::Append)]
    pub mounts: Vec<Mount>,
    /// Sandbox profile: a built-in one, or a file of your own [default: default]
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// Let tools use a protected path of the workspace, such as `.env`; repeatable
    #[arg(long = "allow-path", value_name = "PATH", action = ArgAction::Append)]
    pub allow_paths: Vec<PathBuf>,
    /// Isolation to use, no more and no less [default: full]
    #[arg(long, value_name = "TIER", value_parser = values::tier())]
    pub sandbox: Option<Tier>,
    /// Use the best isolation that this machine gives, and no less than N: 2 full, 1 landlock
    #[arg(long, value_name = "N", value_parser = values::tier_number(), conflicts_with = "sandbox")]
    pub require_tier: Option<Tier>,
    /// What programs can reach [default: none, or limited where hosts are allowed]
    #[arg(long, value_name = "WORD", value_parser = values::network())]
    pub network: Option<NetworkWord>,
    /// Let programs reach HOST, `*.HOST` or an address, on the web's ports or PORT; repeatable
    #[arg(long = "allow-host", value_name = "HOST[:PORT]", action = ArgAction::Append)]
    pub allow_hosts: Vec<HostRule>,
    /// Let programs reach the registries that this machine's package managers are set up to use
    #[arg(long)]
    pub allow_package_managers: bool,
}

impl PlaceArgs {
    /// Only a directory, all else as it is by default.
    #[must_use]
    pub fn in_directory(workspace: Option<PathBuf>) -> Self {
        Self {
            workspace,
            environment: None,
            mounts: Vec::new(),
            profile: None,
            allow_paths: Vec::new(),
            sandbox: None,
            require_tier: None,
            network: None,
            allow_hosts: Vec::new(),
            allow_package_managers: false,
        }
    }
}

/// What is printed, and which model answers.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WatchArgs {
    /// Text as it comes, one JSON object at the end, or every event as JSON
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = values::format())]
    pub output: OutputFormat,
    /// Send model ids that match GLOB to PROVIDER; repeatable
    #[arg(long = "route", value_name = "GLOB=PROVIDER[/MODEL]", action = ArgAction::Append)]
    pub routes: Vec<Route>,
    /// What becomes of a call that asks: deny, fail, wait=DURATION at a terminal, or webhook=URL
    #[arg(long, value_name = "WHAT")]
    pub on_ask: Option<OnAsk>,
}

/// `casemate resume`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate resume                                  this directory's last session
  casemate resume \"now write the changelog\"        the same, with another message
  casemate resume sesn_01jq… --allow sevt_01jr…    let a waiting tool call run
  casemate resume sesn_01jq… --deny 'sevt_01jr…=use the staging server'")]
pub struct ResumeArgs {
    /// Session to go on with [default: the last one of the workspace]
    #[arg(value_name = "ID")]
    pub first: Option<Resumed>,
    /// What to tell the model
    #[arg(value_name = "MESSAGE", value_parser = values::task_word)]
    pub second: Option<String>,
    /// Let this waiting tool call run; repeatable
    #[arg(long, value_name = "EVENT", action = ArgAction::Append)]
    pub allow: Vec<EventId>,
    /// Refuse this waiting tool call, and say why; repeatable
    #[arg(long, value_name = "EVENT[=MESSAGE]", action = ArgAction::Append)]
    pub deny: Vec<Deny>,
    /// Allow every tool call that waits or would ask
    #[arg(long)]
    pub yes: bool,
    /// Directory whose last session to take [default: current]
    #[arg(long, short = 'C', value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// What is printed, and which model answers.
    #[command(flatten)]
    pub watch: WatchArgs,
}

impl ResumeArgs {
    /// The session, if one was named.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match &self.first {
            Some(Resumed::Session(id)) => Some(id),
            Some(Resumed::Message(_)) | None => None,
        }
    }

    /// The message, if there is one; `-` means standard input.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match &self.first {
            Some(Resumed::Message(message)) => Some(message),
            Some(Resumed::Session(_)) | None => self.second.as_deref(),
        }
    }
}

/// `casemate compact`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Example:
  casemate compact sesn_01jq…

A session does it by itself before its conversation fills the model's context, and while one is shown in a
terminal, the line /compact asks for it. The log keeps everything.")]
pub struct CompactArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// What is printed, and which model answers.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// `casemate sessions`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate sessions list
  casemate sessions show sesn_01jq…")]
pub struct SessionsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: SessionsCommand,
}

/// What to do with sessions.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum SessionsCommand {
    /// List sessions, the latest first
    #[command(after_help = "Example:\n  casemate sessions list --json | jq -r .[].id")]
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
        /// List at most N
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one session: its state, its tokens, what it waits for
    #[command(after_help = "Example:\n  casemate sessions show sesn_01jq…")]
    Show {
        /// The session; the first or last characters of its id are enough
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a session's events, one JSON object on a line
    #[command(after_help = "\
Example:
  casemate sessions events sesn_01jq… | jq 'select(.type == \"agent.tool_use\")'")]
    Events {
        /// The session; the first or last characters of its id are enough
        id: String,
        /// Print casemate's own events too
        #[arg(long)]
        internal: bool,
    },
    /// Delete sessions and their events for good
    #[command(after_help = "Example:\n  casemate sessions delete sesn_01jq… sesn_01jr…")]
    Delete {
        /// The sessions; the first or last characters of an id are enough
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

/// `casemate checkpoints`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate checkpoints sesn_01jq… --json | jq -r .[].event")]
pub struct CheckpointsArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `casemate diff`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate diff sesn_01jq…
  casemate diff sesn_01jq… --json | jq -r .[].path

With --workspace-mode overlay or copy, the session's version beside yours; else what changed since the
session's first call that could change files.")]
pub struct DiffArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `casemate apply`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate apply sesn_01jq…
  casemate apply sesn_01jq… src/parser --ours

What you changed meanwhile and the session did too is merged where the changes do not meet. Where they do,
--ours, --theirs or --beside says whose version counts; without one, nothing is done.")]
pub struct ApplyArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// Files and directories to take over [default: all]
    pub paths: Vec<PathBuf>,
    /// Where you changed a file too, take the session's version
    #[arg(long)]
    pub ours: bool,
    /// Where you changed a file too, keep yours
    #[arg(long, conflicts_with = "ours")]
    pub theirs: bool,
    /// Keep yours where both changes meet, and put the session's beside it as FILE.casemate-session
    #[arg(long, conflicts_with_all = ["ours", "theirs"])]
    pub beside: bool,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `casemate discard`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate discard sesn_01jq… src/parser")]
pub struct DiscardArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// Files and directories to take back [default: all]
    pub paths: Vec<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `casemate rewind`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate rewind sesn_01jq… --to sevt_01jr…
  casemate rewind sesn_01jq… --to $(casemate checkpoints sesn_01jq… --json | jq -r .[0].event)

Any event of the session will do. It and all before it stay; what came after, whatever did it, is taken
back: messages, files of the workspace, what was installed. To say something else instead of a message,
go back to the event before it. Nothing is lost: what is there now is a checkpoint too.")]
pub struct RewindArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// The event to go back to
    #[arg(long, value_name = "EVENT")]
    pub to: EventId,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `casemate fork`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate fork sesn_01jq… --title 'the other way'
  casemate fork sesn_01jq… --at sevt_01jr…

The new session has files of its own. One that was forked from a session that works on your files works
on a copy of them.")]
pub struct ForkArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// The last event that both have [default: the session as it is now]
    #[arg(long, value_name = "EVENT")]
    pub at: Option<EventId>,
    /// Title of the new session [default: that of the other]
    #[arg(long)]
    pub title: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `casemate net`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate net sesn_01jq… --json | jq .refused")]
pub struct NetArgs {
    /// The session; the first or last characters of its id are enough
    pub id: String,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `casemate skills`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate skills list
  casemate skills check .agents/skills/release-notes")]
pub struct SkillsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: SkillsCommand,
}

/// What to do with skills.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum SkillsCommand {
    /// List the skills that are found here, and what becomes of each
    #[command(after_help = "\
Example:
  casemate skills list --json | jq -r '.[] | select(.state == \"used\") | .name'

They are looked for in .agents/skills and .claude/skills of the workspace and of each directory above it, up to
the repository's root, then in the user's configuration and home. Of one name, the first counts.")]
    List {
        /// Directory whose skills to list too [default: current]
        #[arg(long, short = 'C', value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with a skill; exit code 1 if anything is
    #[command(after_help = "Example:\n  casemate skills check .agents/skills/*")]
    Check {
        /// Directories with a SKILL.md in them
        #[arg(value_name = "DIR", required = true)]
        directories: Vec<PathBuf>,
    },
}

/// `casemate sandbox`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate sandbox exec -- cat /etc/shadow")]
pub struct SandboxArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: SandboxCommand,
}

/// What to do with the sandbox.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum SandboxCommand {
    /// Run one command as the agent's tools would run it, and exit with its code
    #[command(after_help = "\
Examples:
  casemate sandbox exec -- cat /etc/shadow
  casemate sandbox exec --mount ~/.cargo/registry -- cargo build --offline
  casemate sandbox exec --allow-host '*.example.com' -- curl https://www.example.com")]
    Exec {
        /// Where it runs.
        #[command(flatten)]
        place: PlaceArgs,
        /// The command and its arguments
        #[arg(
            value_name = "CMD",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        command: Vec<OsString>,
    },
    /// Print what a profile shows, allows and limits, with the reasons
    #[command(after_help = "\
Examples:
  casemate sandbox show strict
  casemate sandbox show ./mine.toml -C ~/src/app --json | jq .protected")]
    Show {
        /// A built-in profile, or a file of your own
        #[arg(value_name = "PROFILE", default_value = "default")]
        profile: String,
        /// Directory that it is for [default: current]
        #[arg(long, short = 'C', value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// `casemate env`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Examples:
  casemate env build environment.yaml
  casemate env list
  casemate env rm 3f2a")]
pub struct EnvArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: EnvCommand,
}

/// What to do with packages of environments.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum EnvCommand {
    /// Install the packages of an environment, unless they are there
    #[command(after_help = "\
Examples:
  casemate env build environment.yaml
  casemate env build environment.yaml --json | jq .resolved

They are installed in the sandbox, which reaches nothing but the registries of this machine's package
managers meanwhile. A session whose environment has packages does the same when it needs them first.
Packages of apt are unpacked over /usr without their scripts: no services, no alternatives, no users.")]
    Build {
        /// Environment definition
        #[arg(value_name = "FILE.yaml")]
        file: PathBuf,
        /// Sandbox profile of the sessions: a built-in one, or a file of your own [default: default]
        #[arg(long, value_name = "NAME|FILE")]
        profile: Option<String>,
        /// Print a JSON object, with what was installed
        #[arg(long)]
        json: bool,
    },
    /// List the packages that are there, the last used first
    #[command(after_help = "Example:\n  casemate env list --json | jq -r '.[] | .key'")]
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Remove packages that no session uses
    #[command(after_help = "Example:\n  casemate env rm 3f2a")]
    Rm {
        /// Keys; the first characters of one are enough
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// `casemate doctor`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate doctor --json | jq '.sandbox'")]
pub struct DoctorArgs {
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `casemate demo`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "Example:\n  casemate demo --keep /tmp/demo")]
pub struct DemoArgs {
    /// Work in DIR, which must be new or empty, and leave it there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `casemate completions`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = "\
Example:
  casemate completions bash > ~/.local/share/bash-completion/completions/casemate")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `casemate man`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(
    after_help = "Examples:\n  casemate man | man -l -\n  casemate man ~/.local/share/man/man1"
)]
pub struct ManArgs {
    /// Write the pages of all commands into DIR, which must exist
    pub dir: Option<PathBuf>,
}

impl Cli {
    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    /// What clap has to say: a usage error, or the help that was asked for.
    pub fn parse_words<I, W>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = W>,
        W: Into<OsString> + Clone,
    {
        let cli = Self::try_parse_from(words)?;
        if let Command::Resume(resume) = &cli.command
            && let Some(problem) = resume.problem()
        {
            let mut command = Self::command();
            command.build();
            let resume = command.find_subcommand_mut("resume").expect("resume is a command");
            return Err(resume.error(ErrorKind::ValueValidation, problem));
        }
        Ok(cli)
    }
}

impl ResumeArgs {
    /// Combinations that clap cannot see because the first word may be either.
    fn problem(&self) -> Option<&'static str> {
        match &self.first {
            Some(Resumed::Message(_)) if self.second.is_some() => {
                Some("with two words, the first must be a session id such as `sesn_01jq…`")
            }
            Some(Resumed::Session(_)) if self.workspace.is_some() => {
                Some("'--workspace <DIR>' picks a session, and '<ID>' names one: give one of them")
            }
            _ => None,
        }
    }
}
