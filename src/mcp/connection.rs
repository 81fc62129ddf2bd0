//! One connection: begun in whichever lifecycle the server knows, asked for its tools, and for calls of them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotificationParam, ClientCapabilities,
    ClientConfig, ClientRequest, ElicitRequestParams, ElicitResult, ElicitationAction,
    ElicitationCapability, ErrorData, FormElicitationCapability, Implementation, InputRequest,
    InputRequiredResult, ListToolsRequest, PaginatedRequestParams, ProgressNotificationParam,
    ProtocolVersion, ServerResult, SubscriptionFilter,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RequestContext, RunningService, ServiceError,
};
use rmcp::transport::IntoTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::content::{self, Answer};
use super::failure::{Failure, NotBegun, Seal};
use super::listing::Listing;
use super::progress;
use super::questions::{Asked, Questions};
use crate::agent::mcp::ServerTool;
use crate::limits::{
    MCP_CALL_TOTAL, MCP_CONNECT_TIMEOUT, MCP_CONTROL_TIMEOUT, MCP_MESSAGE_BYTES, MCP_PAGES,
    MCP_QUESTIONS, MCP_REPORTS,
};

/// A server that answers. Dropping it closes the connection.
pub struct Connection {
    service: RunningService<RoleClient, Ears>,
    seal: Seal,
    timeout: Duration,
    changed: Arc<AtomicBool>,
    asked: Option<Arc<Asked>>,
    progress: broadcast::Sender<ProgressNotificationParam>,
    listener: Option<JoinHandle<()>>,
}

/// Why a call has no answer, in a sentence for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server does not take the call.
    #[error("The server refused the call: {0}.")]
    Refused(String),
    /// The server or the way to it broke.
    #[error(
        "The connection with the server was lost while the call ran: {0}. Its effect is unknown."
    )]
    Lost(String),
    /// The server is silent.
    #[error("The server said nothing for {0} s, and the call was given up. Its effect is unknown.")]
    Late(u64),
    /// It wants what nobody here gives.
    #[error("The server asks for {0} before it answers, which nobody can give it here.")]
    Asks(&'static str),
    /// Somebody stopped it.
    #[error("The call was cancelled.")]
    Cancelled,
}

/// How a connection begins, and how long it may be silent.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) seal: Seal,
    /// Silence of a call, and of the beginning.
    pub(super) timeout: Duration,
    pub(super) lifecycle: Lifecycle,
    pub(super) questions: Questions,
}

/// How the sides agree on a version of the protocol.
#[derive(Clone, Copy)]
pub(super) enum Lifecycle {
    /// In the newest way that the server knows.
    Any,
    /// In the way of all but the newest.
    Initialize,
}

/// What a server may say unasked, as far as anybody listens.
struct Ears {
    changed: Arc<AtomicBool>,
    /// Where its questions are answered.
    asked: Option<Arc<Asked>>,
    progress: broadcast::Sender<ProgressNotificationParam>,
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("casemate", env!("CARGO_PKG_VERSION"));
        let mut able = ClientCapabilities::default();
        if self.asked.is_some() {
            let form = FormElicitationCapability::default();
            able.elicitation = Some(ElicitationCapability::new().with_form(form));
        }
        ClientConfig::new(able, own).with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.store(true, Ordering::Relaxed);
    }

    async fn create_elicitation(
        &self,
        question: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(match &self.asked {
            Some(asked) => asked.answer(&question),
            None => ElicitResult::new(ElicitationAction::Decline),
        })
    }

    async fn on_progress(
        &self,
        report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        // Nobody listens unless a call runs.
        drop(self.progress.send(report));
    }
}

/// A stream of messages, one on each line.
pub(super) fn lines(
    stream: UnixStream,
) -> AsyncRwTransport<RoleClient, OwnedReadHalf, OwnedWriteHalf> {
    let (read, write) = stream.into_split();
    AsyncRwTransport::new(read, write).with_max_line_length(MCP_MESSAGE_BYTES)
}

impl Connection {
    /// Agrees with the server on a version of the protocol: the one without a beginning if it knows that.
    pub(super) async fn begin<T, E, A>(transport: T, terms: Terms) -> Result<Self, NotBegun>
    where
        T: IntoTransport<RoleClient, E, A>,
        E: Error + Send + Sync + 'static,
    {
        let Terms { seal, timeout, lifecycle, questions } = terms;
        let changed = Arc::<AtomicBool>::default();
        let asked = (questions == Questions::Defaults).then(Arc::<Asked>::default);
        let progress = broadcast::Sender::new(MCP_REPORTS);
        let ears = Ears {
            changed: Arc::clone(&changed),
            asked: asked.clone(),
            progress: progress.clone(),
        };
        let lifecycle = match lifecycle {
            Lifecycle::Any => ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::LATEST],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            Lifecycle::Initialize => ClientLifecycleMode::Initialize,
        };
        let begun = Box::pin(ears.serve_with_lifecycle(transport, lifecycle));
        let patience = timeout.min(MCP_CONNECT_TIMEOUT);
        let service = tokio::time::timeout(patience, begun)
            .await
            .map_err(|_| late(patience))?
            .map_err(|error| seal.of_start(&error))?;
        let listener = listens(&service).then(|| {
            let (peer, changed) = (service.peer().clone(), Arc::clone(&changed));
            tokio::spawn(listen(peer, changed))
        });
        Ok(Self { service, seal, timeout, changed, asked, progress, listener })
    }

    /// Whether nothing more can be asked.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.peer().is_transport_closed()
    }

    /// Whether the server has said, since the last time, that its tools are others.
    pub fn has_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// The tools of the server that a model can be shown, by name.
    ///
    /// # Errors
    /// Why the server does not say.
    pub async fn list(&self) -> Result<Vec<ServerTool>, Failure> {
        let has_none =
            self.service.peer().peer_info().is_some_and(|info| info.capabilities.tools.is_none());
        if has_none {
            return Ok(Vec::new());
        }
        let patience = self.timeout.min(MCP_CONNECT_TIMEOUT);
        let listed = tokio::time::timeout(patience, self.pages()).await;
        listed.map_err(|_| late(patience))?
    }

    async fn pages(&self) -> Result<Vec<ServerTool>, Failure> {
        let mut listing = Listing::default();
        let mut cursor = None;
        for _ in 0..MCP_PAGES {
            let page = PaginatedRequestParams::default().with_cursor(cursor);
            let request = ListToolsRequest::with_param(page);
            let answer = self.service.peer().send_request(ClientRequest::ListToolsRequest(request));
            let answer = answer.await.map_err(|error| self.seal.of_request(&error))?;
            cursor = match answer {
                ServerResult::ListToolsResult(page) => {
                    page.tools.iter().for_each(|tool| listing.add(tool));
                    page.next_cursor
                }
                // One entry that is not as it must be makes the whole page something else.
                ServerResult::CustomResult(page) => listing.add_page(&page.0)?,
                _ => return Err(Failure::Connection("its list of tools is none".to_owned())),
            };
            if cursor.is_none() || listing.is_full() {
                break;
            }
        }
        Ok(listing.finish())
    }

    /// Calls a tool. `report` hears how far it is, in the server's words.
    ///
    /// # Errors
    /// A sentence for the model.
    pub async fn call(
        &self,
        tool: &str,
        input: &Map<String, Value>,
        cancel: &CancellationToken,
        report: &(dyn Fn(String) + Sync),
    ) -> Result<Answer, CallError> {
        // What was asked meanwhile belongs to no call.
        self.told();
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(input.clone());
        for _ in 0..=MCP_QUESTIONS {
            match self.ask(params.clone(), cancel, report).await? {
                ServerResult::CallToolResult(result) => {
                    let mut answer = content::of(result, &self.seal);
                    for told in self.told() {
                        answer.text = format!("{}\n{told}", answer.text).trim_start().to_owned();
                    }
                    return Ok(answer);
                }
                ServerResult::InputRequiredResult(wanted) => self.answer(&mut params, wanted)?,
                ServerResult::CreateTaskResult(_) => {
                    return Err(CallError::Asks("patience with a task"));
                }
                ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => {
                    return Ok(Answer::default());
                }
                _ => {
                    let wrong = "its answer is not one of the protocol";
                    return Err(CallError::Refused(wrong.to_owned()));
                }
            }
        }
        Err(CallError::Asks("ever more"))
    }

    /// Which of the server's questions were answered since the last time.
    fn told(&self) -> Vec<String> {
        self.asked.iter().flat_map(|asked| asked.tell(&self.seal)).collect()
    }

    /// Answers what a server wants to know before it takes a call, as far as it is answered at all.
    fn answer(
        &self,
        params: &mut CallToolRequestParams,
        wanted: InputRequiredResult,
    ) -> Result<(), CallError> {
        let asked = self.asked.as_ref().ok_or(CallError::Asks("input"))?;
        let answer = |(key, question)| match question {
            InputRequest::Elicitation(question) => {
                let answer = serde_json::to_value(asked.answer(&question.params));
                Ok((key, answer.expect("it has no maps but of strings")))
            }
            _ => Err(CallError::Asks("input")),
        };
        let answers = wanted.input_requests.into_iter().flatten().map(answer);
        params.input_responses = Some(answers.collect::<Result<_, _>>()?);
        params.request_state = wanted.request_state;
        Ok(())
    }

    async fn ask(
        &self,
        params: CallToolRequestParams,
        cancel: &CancellationToken,
        report: &(dyn Fn(String) + Sync),
    ) -> Result<ServerResult, CallError> {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::with_timeout(self.timeout)
            .reset_timeout_on_progress()
            .with_max_total_timeout(MCP_CALL_TOTAL);
        let peer = self.service.peer();
        let mut heard = self.progress.subscribe();
        let sent = peer.send_request_with_option(request, options).await;
        let handle = sent.map_err(|error| self.error(&error))?;
        let (id, token) = (handle.id.clone(), handle.progress_token.clone());
        let reports = async {
            loop {
                match heard.recv().await {
                    Ok(said) if said.progress_token == token => {
                        report(progress::words(&said, &self.seal));
                    }
                    // Of another call, which was given up; or the newest are still to come.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let answer = tokio::select! {
            answer = handle.await_response() => answer,
            () = reports => unreachable!("reports do not end"),
            () = cancel.cancelled() => {
                let cancelled = CancelledNotificationParam::new(Some(id), Some("the user stopped it".to_owned()));
                let told = peer.notify_cancelled(cancelled);
                // A server that does not hear it is told by the end of the connection.
                drop(tokio::time::timeout(MCP_CONTROL_TIMEOUT, told).await);
                return Err(CallError::Cancelled);
            }
        };
        answer.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &ServiceError) -> CallError {
        match error {
            ServiceError::McpError(error) => CallError::Refused(self.seal.quote(&error.message)),
            ServiceError::Timeout { timeout } => CallError::Late(timeout.as_secs()),
            other => CallError::Lost(self.seal.of_request(other).to_string()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

fn late(patience: Duration) -> Failure {
    Failure::Connection(format!("it did not answer within {} s", patience.as_secs()))
}

/// Whether the server says when its tools change to whoever asks to hear it: those of the older lifecycle say it unasked.
fn listens(service: &RunningService<RoleClient, Ears>) -> bool {
    service.peer().peer_info().is_some_and(|info| {
        let says = info.capabilities.tools.as_ref().and_then(|tools| tools.list_changed);
        !info.protocol_version.has_initialize() && says == Some(true)
    })
}

/// Hears when the tools change. When the server ends that, they may have changed meanwhile.
async fn listen(peer: Peer<RoleClient>, changed: Arc<AtomicBool>) {
    let wanted = SubscriptionFilter::builder().tools_list_changed().build();
    let Ok(mut heard) = peer.listen(wanted).await else { return };
    while let Ok(Some(_)) = heard.next().await {
        changed.store(true, Ordering::Relaxed);
    }
    changed.store(true, Ordering::Relaxed);
}
