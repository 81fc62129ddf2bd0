//! The guest's side: runs in the sandbox, as its first process. Plain threads; no tokio, no store, and of the network
//! only what the relay leads to the host.

mod asks;
mod bash;
mod decode;
mod edit;
mod files;
mod glob;
mod grep;
mod hint;
mod input;
mod lists;
mod media;
mod names;
mod output;
mod page;
mod pdf;
mod processes;
mod programs;
mod proxy;
mod read;
mod relay;
mod serve;
mod shell;
mod tags;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use relay::relay;
pub use serve::serve;

use crate::limits::FILE_TOOL_TIMEOUT_MS;
use crate::sandbox::wire::ToolReply;

/// What a tool says when it cannot do what it was asked: a sentence that the model can act on.
type Refusal = String;

/// What every call has: a deadline and a way to be stopped.
#[derive(Clone)]
struct Leash {
    cancelled: Arc<AtomicBool>,
    deadline: Instant,
}

impl Leash {
    fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self { cancelled, deadline: Instant::now() + Duration::from_millis(FILE_TOOL_TIMEOUT_MS) }
    }

    /// Checked between pieces of work.
    fn check(&self) -> Result<(), Refusal> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err("The call was cancelled.".to_owned());
        }
        if Instant::now() > self.deadline {
            let seconds = FILE_TOOL_TIMEOUT_MS / 1000;
            return Err(format!("Gave up after {seconds} s; narrow the path or the pattern."));
        }
        Ok(())
    }
}

/// Where a path of the model's lies: relative ones begin at the workspace.
fn resolve(workspace: &Path, given: &str) -> Result<PathBuf, Refusal> {
    if given.is_empty() {
        return Err("file_path is empty; name a file.".to_owned());
    }
    if given.contains('\0') {
        return Err("file_path contains a NUL byte, which no path can.".to_owned());
    }
    Ok(workspace.join(given))
}

fn reply(outcome: Result<ToolReply, Refusal>) -> ToolReply {
    outcome.unwrap_or_else(ToolReply::error)
}
