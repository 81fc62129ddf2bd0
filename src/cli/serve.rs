//! `casemate serve` and `casemate key`: the protocol's server in this process, and the key to it.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::ServeArgs;
use super::context::Context;
use super::failure::{ExitStatus, Failure};
use super::output::Output;
use crate::api::key::ApiKey;
use crate::api::serve::{Listener, serve};
use crate::api::{App, Log, Options};
use crate::runtime::Runtime;
use crate::runtime::packages::{Progress, Watcher, unwatched};

/// Serves until it is told to stop; a second signal ends it at once.
pub(super) fn run(context: &Context, args: ServeArgs) -> Result<ExitStatus, Failure> {
    if !args.listen.is_local() && !args.public {
        let message = format!("{} can be reached by other machines", args.listen);
        let mut failure = Failure::usage(message);
        failure.hint = Some(
            "--public, if that is what you want; without TLS the key can be read on the way"
                .to_owned(),
        );
        return Err(failure);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed("failed to start the runtime", &e))?;
    runtime.block_on(Box::pin(listen(context, args)))
}

/// Prints the key, which is made if there is none yet.
pub(super) fn key(context: &Context) -> Result<ExitStatus, Failure> {
    let config = context.config(&[])?;
    let data_dir = config.data_dir.clone();
    if !data_dir.exists() {
        // Made as it is for the first session.
        drop(Runtime::open(config)?);
    }
    let key = ApiKey::of(&data_dir).map_err(|e| Failure::failed_to(&e))?;
    super::print(format!("{}\n", key.reveal()))
}

fn failed(message: &str, error: &io::Error) -> Failure {
    Failure::new(ExitStatus::Failed, message).because_of(Some(error))
}

async fn listen(context: &Context, args: ServeArgs) -> Result<ExitStatus, Failure> {
    let config = context.config(&args.routes)?;
    let data_dir = config.data_dir.clone();
    let log = log(context.quiet());
    let runtime = Runtime::open_watched(config, log.clone().map_or_else(unwatched, watcher))?;
    let key = ApiKey::of(&data_dir).map_err(|e| Failure::failed_to(&e))?;
    let listener = Listener::bind(&args.listen).await;
    let listener =
        listener.map_err(|e| failed(&format!("failed to listen on {}", args.listen), &e))?;
    let address = listener.address().map_err(|e| failed("failed to find the address", &e))?;
    // Before anybody is told the address, and may want it to stop.
    let stopped = stopped()?;
    let (stop, stopping) = watch::channel(false);
    for (session, error) in runtime.resume_all()? {
        if let Some(log) = &log {
            let reason = error.to_string();
            log(json!({ "event": "not_resumed", "session_id": session, "reason": reason }));
        }
    }
    let app = App::new(runtime.clone(), key, options(&args), log, stopping);
    let mut out = Output::of_process();
    let prefix = args.prefix.as_deref().unwrap_or_default();
    out.data(format!("{address}{prefix}\n"))?;
    out.flush()?;
    drop(out);
    let told = async move {
        stopped.await;
        stop.send_replace(true);
    };
    serve(app, listener, told).await;
    runtime.shutdown().await;
    Ok(ExitStatus::Done)
}

fn options(args: &ServeArgs) -> Options {
    let lower = |words: &[String]| words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let any = args.allowed_host.iter().any(|host| host == "*");
    // A socket in the file system has no name that a page could be made to lead to.
    let local = matches!(args.listen, crate::api::serve::Address::Unix(_));
    Options {
        strict: args.strict,
        hosts: (!any && !local).then(|| lower(&args.allowed_host)),
        origins: lower(&args.allowed_origin),
        prefix: args.prefix.clone().unwrap_or_default(),
    }
}

/// Each line goes out at once; one that cannot be written is lost, and the server goes on.
fn log(quiet: bool) -> Option<Log> {
    if quiet {
        return None;
    }
    let out = Mutex::new(Output::of_process());
    Some(Arc::new(move |mut line: Value| {
        if let Some(fields) = line.as_object_mut() {
            let now = crate::event::rfc3339(crate::clock::Clock::now(&crate::clock::SystemClock));
            fields.shift_insert(0, "time".to_owned(), json!(now));
        }
        let mut out = out.lock().expect("nothing panics under this lock");
        drop(out.talk(format!("{line}\n")).and_then(|()| out.flush()));
    }))
}

/// Puts builds of packages into the log; what the managers say is in a log of their own.
fn watcher(log: Log) -> Watcher {
    Arc::new(move |key, progress| {
        let mut line = match progress {
            Progress::Says(_) => return,
            Progress::Waiting => json!({ "event": "packages_waiting" }),
            Progress::Installing { manager, packages } => {
                json!({ "event": "packages_installing", "manager": manager, "packages": packages })
            }
            Progress::Installed { manager, packages, time } => json!({
                "event": "packages_installed",
                "manager": manager,
                "packages": packages,
                "ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            }),
            Progress::Failed { reason, log } => {
                json!({ "event": "packages_failed", "reason": reason, "log": log })
            }
        };
        line["key"] = json!(key);
        log(line);
    })
}

/// Resolves at the first signal that asks to stop.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| failed("failed to listen for signals", &e));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
