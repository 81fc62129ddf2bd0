//! The guest's loop: frames in, a thread for each call, one reply for each call.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::bash::Bash;
use super::files::Seen;
use super::{Leash, edit, glob, grep, read, reply, write};
use crate::agent::ToolName;
use crate::limits::GUEST_PARALLEL_CALLS;
use crate::sandbox::GuestContext;
use crate::sandbox::wire::{
    CallId, FromGuest, ToGuest, ToolCall, ToolReply, read_frame, write_frame,
};

/// What the calls share.
struct Tools {
    context: GuestContext,
    seen: Seen,
    bash: Bash,
    replies: Mutex<UnixStream>,
    running: Mutex<HashMap<CallId, Arc<AtomicBool>>>,
}

/// Serves calls until the host closes the socket, then returns: the process ends, and with it everything inside.
pub fn serve(socket: UnixStream, context: &GuestContext) -> i32 {
    let Ok(replies) = socket.try_clone() else { return 1 };
    let tools = Arc::new(Tools {
        context: context.clone(),
        seen: Seen::default(),
        bash: Bash::new(context),
        replies: Mutex::new(replies),
        running: Mutex::default(),
    });
    match listen(socket, &tools) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn listen(mut socket: UnixStream, tools: &Arc<Tools>) -> io::Result<()> {
    while let Some(frame) = read_frame::<ToGuest>(&mut socket)? {
        match frame {
            ToGuest::Call { id, call } => tools.begin(id, call)?,
            ToGuest::Cancel { id } => {
                let running = tools.running.lock().expect("nothing panics under this lock");
                // It may have ended on its own.
                if let Some(cancelled) = running.get(&id) {
                    cancelled.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

impl Tools {
    fn begin(self: &Arc<Self>, id: CallId, call: ToolCall) -> io::Result<()> {
        let cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut running = self.running.lock().expect("nothing panics under this lock");
            if running.len() >= GUEST_PARALLEL_CALLS {
                drop(running);
                return self.answer(
                    id,
                    ToolReply::error("Too many calls at once; make them one after another."),
                );
            }
            running.insert(id, Arc::clone(&cancelled));
        }
        let tools = Arc::clone(self);
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| tools.run(call, &cancelled)));
            let broke = |_| ToolReply::error("The tool broke on this input. Try another way.");
            // A host that is gone needs no answer.
            drop(tools.answer(id, outcome.unwrap_or_else(broke)));
        };
        if std::thread::Builder::new().name("tool".to_owned()).spawn(work).is_err() {
            let text = "The sandbox has no process left for this call: end some of those that run, or restart bash.";
            return self.answer(id, ToolReply::error(text));
        }
        Ok(())
    }

    fn answer(&self, id: CallId, reply: ToolReply) -> io::Result<()> {
        self.running.lock().expect("nothing panics under this lock").remove(&id);
        let mut socket = self.replies.lock().expect("nothing panics under this lock");
        match write_frame(&mut *socket, &FromGuest::Reply { id, reply }) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                let reply =
                    ToolReply::error("The output is too large to send. Ask for less of it.");
                write_frame(&mut *socket, &FromGuest::Reply { id, reply })
            }
            other => other,
        }
    }

    fn run(&self, ToolCall { name, input }: ToolCall, cancelled: &Arc<AtomicBool>) -> ToolReply {
        let Some(tool) = ToolName::parse(&name) else {
            return ToolReply::error(format!("There is no tool `{name}`."));
        };
        reply(self.dispatch(tool, input, cancelled))
    }

    fn dispatch(
        &self,
        tool: ToolName,
        input: Map<String, Value>,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<ToolReply, String> {
        let (context, seen) = (&self.context, &self.seen);
        let leash = Leash::new(Arc::clone(cancelled));
        match tool {
            ToolName::Bash => self.bash.run(cancelled, input),
            ToolName::Read => read::run(context, seen, input),
            ToolName::Write => write::run(context, seen, input),
            ToolName::Edit => edit::run(context, seen, input),
            ToolName::Glob => glob::run(context, &leash, input),
            ToolName::Grep => grep::run(context, &leash, input),
        }
    }
}
