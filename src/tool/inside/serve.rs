//! The guest's loop: frames in, one reply for each call.
//!
//! The thread that takes a call off the socket runs it at once, and the next thread listens: no call waits until a thread
//! is started or woken for it. One always listens, so that a cancel is heard whatever runs.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::bash::Bash;
use super::files::Seen;
use super::output;
use super::programs::Programs;
use super::{Leash, edit, glob, grep, page, read, reply, write};
use crate::agent::ToolName;
use crate::limits::GUEST_PARALLEL_CALLS;
use crate::sandbox::wire::{
    CallId, FromGuest, KEEP_OUTPUT, PROGRAM_SAID, ToGuest, ToolCall, ToolReply, read_frame,
    write_frame,
};
use crate::sandbox::{GuestContext, receive_one};

/// What the threads share.
struct Tools {
    context: GuestContext,
    seen: Seen,
    bash: Bash,
    programs: Programs,
    /// Held by the thread that listens.
    calls: Mutex<UnixStream>,
    replies: Mutex<UnixStream>,
    running: Mutex<HashMap<CallId, Arc<AtomicBool>>>,
    /// Threads that listen or wait for their turn.
    idle: AtomicUsize,
    end: SyncSender<i32>,
}

/// A call that is the taker's to run.
struct Taken {
    id: CallId,
    call: ToolCall,
    cancelled: Arc<AtomicBool>,
}

/// Serves calls until the host closes the socket, then returns: the process ends, and with it everything inside.
pub fn serve(socket: UnixStream, context: &GuestContext) -> i32 {
    let Ok(replies) = socket.try_clone() else { return 1 };
    let (end, ended) = sync_channel(GUEST_PARALLEL_CALLS);
    let tools = Arc::new(Tools {
        context: context.clone(),
        seen: Seen::default(),
        bash: Bash::new(context),
        programs: Programs::default(),
        calls: Mutex::new(socket),
        replies: Mutex::new(replies),
        running: Mutex::default(),
        idle: AtomicUsize::new(0),
        end,
    });
    // One to run a call, one to listen meanwhile.
    for _ in 0..2 {
        if tools.hire().is_err() {
            return 1;
        }
    }
    let code = ended.recv().unwrap_or(1);
    tools.programs.end();
    code
}

impl Tools {
    /// Starts a thread that takes its turns. There are never more than calls may run at once, and one.
    fn hire(self: &Arc<Self>) -> io::Result<()> {
        let tools = Arc::clone(self);
        self.idle.fetch_add(1, Ordering::Relaxed);
        let hired = std::thread::Builder::new().name("tool".to_owned()).spawn(move || tools.work());
        if hired.is_err() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        hired.map(drop)
    }

    fn work(self: Arc<Self>) {
        let code = loop {
            match self.take() {
                Ok(Some(taken)) => {
                    self.perform(taken);
                    self.idle.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => break 0,
                Err(_) => break 1,
            }
        };
        if self.end.try_send(code).is_err() {
            // Others have said so before, and nobody waits any more.
        }
    }

    /// Listens until a call comes; `None` when the host has closed the socket.
    fn take(self: &Arc<Self>) -> io::Result<Option<Taken>> {
        let mut socket = self.calls.lock().expect("nothing panics under this lock");
        while let Some(frame) = read_frame::<ToGuest>(&mut *socket)? {
            match frame {
                ToGuest::Call { id, call } => match self.admit(id) {
                    Ok(cancelled) => return Ok(Some(Taken { id, call, cancelled })),
                    Err(refusal) => self.answer(id, ToolReply::error(refusal))?,
                },
                ToGuest::Start { id, program } => {
                    let stream = receive_one(&*socket)?;
                    let started = self.programs.start(id, &program, stream, &self.context);
                    self.answer(
                        id,
                        started.map_or_else(ToolReply::error, |()| ToolReply::text("")),
                    )?;
                }
                ToGuest::Cancel { id } => {
                    let running = self.running.lock().expect("nothing panics under this lock");
                    // It may have ended on its own.
                    if let Some(cancelled) = running.get(&id) {
                        cancelled.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Lets a call run on this thread, if another one is left to listen.
    fn admit(self: &Arc<Self>, id: CallId) -> Result<Arc<AtomicBool>, &'static str> {
        let mut running = self.running.lock().expect("nothing panics under this lock");
        if running.len() >= GUEST_PARALLEL_CALLS {
            return Err("Too many calls at once; make them one after another.");
        }
        if self.idle.load(Ordering::Relaxed) < 2 && self.hire().is_err() {
            return Err(
                "The sandbox has no room for one more call; end processes or wait for the other calls.",
            );
        }
        self.idle.fetch_sub(1, Ordering::Relaxed);
        let cancelled = Arc::new(AtomicBool::new(false));
        running.insert(id, Arc::clone(&cancelled));
        Ok(cancelled)
    }

    fn perform(&self, Taken { id, call, cancelled }: Taken) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run(call, &cancelled)));
        let broke = |_| ToolReply::error("The tool broke on this input. Try another way.");
        // A host that is gone needs no answer.
        drop(self.answer(id, outcome.unwrap_or_else(broke)));
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

    fn run(&self, call: ToolCall, cancelled: &Arc<AtomicBool>) -> ToolReply {
        let ToolCall { name, input, takes_documents } = call;
        match name.as_str() {
            KEEP_OUTPUT => return self.keep(&input),
            PROGRAM_SAID => {
                let id = input.get("id").and_then(Value::as_u64).unwrap_or_default();
                return ToolReply::text(self.programs.said(id));
            }
            _ => {}
        }
        let Some(tool) = ToolName::parse(&name) else {
            return ToolReply::error(format!("There is no tool `{name}`."));
        };
        reply(self.dispatch(tool, input, takes_documents, cancelled))
    }

    /// What another than the sandbox has said, for the model.
    fn keep(&self, input: &Map<String, Value>) -> ToolReply {
        let text = input.get("text").and_then(Value::as_str).unwrap_or_default();
        ToolReply::text(output::bounded(text.to_owned(), &self.context.spool))
    }

    fn dispatch(
        &self,
        tool: ToolName,
        input: Map<String, Value>,
        takes_documents: bool,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<ToolReply, String> {
        let (context, seen) = (&self.context, &self.seen);
        let leash = Leash::new(Arc::clone(cancelled));
        match tool {
            ToolName::Bash => self.bash.run(cancelled, input),
            ToolName::Read => read::run(context, seen, &leash, takes_documents, input),
            ToolName::Write => write::run(context, seen, input),
            ToolName::Edit => edit::run(context, seen, input),
            ToolName::Glob => glob::run(context, &leash, input),
            ToolName::Grep => grep::run(context, &leash, input),
            ToolName::WebFetch => page::run(context, &leash, takes_documents, input),
            // The host's answer holds nothing that would have to be looked at in here.
            ToolName::WebSearch => Err("A search is not run in the sandbox.".to_owned()),
        }
    }
}
