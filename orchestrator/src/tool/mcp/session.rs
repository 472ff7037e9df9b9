//! A session with a server: the greeting, the list of its tools, calls, and the end.

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, InputRequest, InputRequiredResult,
    JsonObject, ListToolsRequest, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
    RequestMetaObject, ServerResult, SubscriptionFilter, Tool,
};
use rmcp::service::{
    ClientInitializeError, RoleClient, RunningService, RunningServiceCancellationToken,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, Peer, serve_client_with_lifecycle};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::handler::{self, Handler, Question, Watch};
use super::http::Web;
use super::process::Process;
use super::request::{Failed, Limits, Sender};
use super::{World, lease, result};
use crate::tool::config::{Elicitation, ServerConfig};
use crate::tool::{Definition, Outcome, ToolResult, Until};

/// Where a call's idempotency key stands.
const KEY: &str = "pareto/idempotency-key";
/// The longest line of a server on pipes. Results are cut further up; this only bounds what is read.
const LONGEST_LINE: usize = 64 << 20;
/// Pages of a list of tools, and tools in all. More than that is no list but a flood.
const PAGES: usize = 100;
const TOOLS: usize = 2_000;
/// Rounds in which a server asks for more, and is answered from the form's own defaults.
const ROUNDS: usize = 8;
/// How long the polite end of a session may take before the process is ended.
const PARTING: Duration = Duration::from_secs(3);

/// How long the end of a subscription may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// How a server is greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    /// Discovery of the newest protocol, and the old handshake where the server says that it does not
    /// know it.
    #[default]
    Newest,
    /// The old handshake at once, for servers that answer a discovery with nonsense or their end.
    Initialize,
}

/// A session that could not be begun.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) what: String,
    /// The old handshake may help.
    pub(super) may_be_old: bool,
}

/// A session with all that must be ended with it.
pub(super) struct Session {
    connection: Arc<Connection>,
    /// Ends the session politely.
    close: RunningServiceCancellationToken,
    /// Comes when the session has ended.
    closed: Shared<BoxFuture<'static, ()>>,
    process: Option<Process>,
    stop: Duration,
}

/// What calls see of a session.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    elicitation: Elicitation,
    server: String,
    result_bytes: usize,
    listing: Mutex<Listing>,
    /// Held by whoever asks for the list, so that it is asked for once.
    asking: tokio::sync::Mutex<()>,
    retired: CancellationToken,
    gone: CancellationToken,
}

#[derive(Debug)]
struct Listing {
    tools: Arc<Vec<Definition>>,
    at: Instant,
}

impl Session {
    /// Starts the server, greets it and has it tell its tools.
    pub(super) async fn start(
        config: &ServerConfig,
        world: &World,
        style: Style,
    ) -> Result<Self, StartError> {
        let watch = Arc::new(Watch::default());
        let handler = Handler {
            watch: Arc::clone(&watch),
            elicitation: config.elicitation,
        };
        let (greeted, process) = if let Some(url) = &config.url {
            (web(config, world, url, handler, style).await, None)
        } else {
            let started = Process::start(config, world.guard.as_deref(), &world.tracker);
            let (process, (stdout, stdin)) = started.map_err(|error| StartError {
                what: format!("its command can not be started: {error}"),
                may_be_old: false,
            })?;
            let pipes = lease::Pipes::new(stdout, stdin, LONGEST_LINE);
            let greeted = serve_client_with_lifecycle(handler, pipes, style.mode());
            (greeted.boxed().await, Some(process))
        };
        let service = match greeted {
            Ok(service) => service,
            Err(error) => return Err(explain(&error, process).await),
        };
        let connection = Connection {
            sender: Sender {
                peer: service.peer().clone(),
                watch,
                tracker: world.tracker.clone(),
            },
            elicitation: config.elicitation,
            server: config.name.clone(),
            result_bytes: config.result_bytes,
            listing: Mutex::new(Listing {
                tools: Arc::default(),
                at: Instant::now(),
            }),
            asking: tokio::sync::Mutex::default(),
            retired: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let session = Self {
            connection: Arc::new(connection),
            close: service.cancellation_token(),
            closed: service.waiting().map(|_| ()).boxed().shared(),
            process,
            stop: config.stop(),
        };
        let listed = session.connection.ask(super::after(config.start())).await;
        if let Err(failed) = listed {
            let what = format!("its tools can not be listed: {}", failed.into_text());
            session.end(true).await;
            return Err(StartError {
                what,
                may_be_old: false,
            });
        }
        Ok(session)
    }

    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Keeps it until it ends by itself, is retired, or everything stops.
    pub(super) async fn keep(self, stop: &CancellationToken) {
        let connection = self.connection();
        let leave = CancellationToken::new();
        let mut hearing = pin!(connection.hear(&leave));
        tokio::select! {
            () = stop.cancelled() => {}
            () = connection.retired.cancelled() => {}
            () = self.closed.clone() => {}
            () = &mut hearing => {}
        }
        leave.cancel();
        // A server may wait for the end of what it was asked to tell before it ends itself.
        if timeout(FAREWELL, hearing).await.is_err() {
            tracing::debug!(
                server = connection.server,
                "a tool server does not read its input"
            );
        }
        self.end(false).await;
    }

    /// Ends it, and its process with everything that it has started.
    async fn end(self, at_once: bool) {
        self.connection.gone.cancel();
        self.close.cancel();
        if timeout(PARTING, self.closed).await.is_err() {
            let server = &self.connection.server;
            tracing::debug!(server, "a session with a tool server is not ended politely");
        }
        if let Some(process) = self.process {
            let patience = if at_once { Duration::ZERO } else { self.stop };
            process.stop(patience).await;
        }
    }
}

impl Connection {
    /// New calls may use it.
    pub(super) fn is_alive(&self) -> bool {
        !self.gone.is_cancelled()
            && !self.retired.is_cancelled()
            && !self.sender.peer.is_transport_closed()
    }

    /// The tools that were listed last.
    pub(super) fn listed(&self) -> Arc<Vec<Definition>> {
        Arc::clone(&self.listing().tools)
    }

    /// The list must be asked for before the next call.
    pub(super) fn set_stale(&self) {
        self.sender.watch.set_stale(true);
    }

    /// Gives it up where no call is under way on it. False where one is: it would be lost.
    pub(super) fn retire_if_idle(&self) -> bool {
        let is_idle = self.sender.watch.running() == 0;
        if is_idle {
            self.retired.cancel();
        }
        is_idle
    }

    /// The tools as they were listed no longer than `max_age` ago and not announced to have changed.
    pub(super) async fn tools(
        &self,
        max_age: Duration,
        until: Instant,
    ) -> Result<Arc<Vec<Definition>>, Failed> {
        let is_good =
            |it: &Self| !it.sender.watch.is_stale() && it.listing().at.elapsed() < max_age;
        if is_good(self) {
            return Ok(self.listed());
        }
        let _asking = self.asking.lock().await;
        // Somebody else may just have asked.
        if is_good(self) {
            return Ok(self.listed());
        }
        self.ask(until).await
    }

    /// Asks for the list, page by page.
    async fn ask(&self, until: Instant) -> Result<Arc<Vec<Definition>>, Failed> {
        // What changes from now on makes it stale again.
        self.sender.watch.set_stale(false);
        let listed = self.pages(until).await;
        let tools = match listed {
            Ok(tools) => tools,
            Err(failed) => {
                self.sender.watch.set_stale(true);
                return Err(failed);
            }
        };
        let tools = Arc::new(named(&self.server, tools));
        *self.listing() = Listing {
            tools: Arc::clone(&tools),
            at: Instant::now(),
        };
        Ok(tools)
    }

    async fn pages(&self, until: Instant) -> Result<Vec<Tool>, Failed> {
        let info = self.sender.peer.peer_info();
        if info.is_some_and(|info| info.capabilities.tools.is_none()) {
            return Ok(Vec::new());
        }
        let mut tools = Vec::new();
        let mut cursor = None;
        for _ in 0..PAGES {
            let page = self.page(cursor, until).await?;
            tools.extend(page.tools);
            cursor = page.next_cursor;
            if tools.len() > TOOLS {
                return Err(Failed::Refused(format!("it has more than {TOOLS} tools")));
            }
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err(Failed::Refused(format!(
            "its list of tools has more than {PAGES} pages"
        )))
    }

    async fn page(
        &self,
        cursor: Option<String>,
        until: Instant,
    ) -> Result<ListToolsResult, Failed> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ListToolsRequest {
            params: Some(params),
            ..ListToolsRequest::default()
        };
        let limits = Limits {
            idle: Duration::from_hours(24),
            until,
        };
        let request = ClientRequest::ListToolsRequest(request);
        match self.sender.send(request, limits).await?.result {
            ServerResult::ListToolsResult(page) => Ok(page),
            _ => Err(Failed::Refused(
                "its answer to tools/list is none".to_owned(),
            )),
        }
    }

    /// Makes a call, and answers what the server asks in between as far as the operator has said how.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        key: &str,
        lease: &Until,
        limits: Limits,
    ) -> Result<Outcome, Failed> {
        let mut meta = RequestMetaObject::new();
        meta.insert(KEY.to_owned(), Value::from(key));
        let mut params = CallToolRequestParams::new(Cow::Owned(tool.to_owned()));
        params.meta = Some(meta);
        params.arguments = Some(arguments);
        for _ in 0..ROUNDS {
            let mut request = CallToolRequest::new(params.clone());
            request.extensions.insert(lease.clone());
            let request = ClientRequest::CallToolRequest(request);
            let answer = self.sender.send(request, limits).await?;
            match (answer.result, answer.asked) {
                // Declined, and failed for it: it asks. Declined, and done all the same: it is done.
                (ServerResult::CallToolResult(given), Some(question))
                    if given.is_error == Some(true) =>
                {
                    return Ok(asks(question));
                }
                (ServerResult::CallToolResult(given), _) => {
                    return Ok(Outcome::Done(result::taken(given, self.result_bytes)));
                }
                (ServerResult::InputRequiredResult(required), _) => match self.replies(&required) {
                    Reply::Ask(question) => return Ok(asks(question)),
                    Reply::Refuse(why) => return Ok(Outcome::Done(ToolResult::error(why))),
                    Reply::GoOn(responses) => {
                        params.input_responses = responses;
                        params.request_state = required.request_state;
                    }
                },
                _ => {
                    return Err(Failed::Lost("the answer is no result of a tool".to_owned()));
                }
            }
        }
        Ok(Outcome::Done(ToolResult::error(format!(
            "the server asked for more {ROUNDS} times and gave no result"
        ))))
    }

    /// What is said to a server that asks for more before it goes on.
    fn replies(&self, required: &InputRequiredResult) -> Reply {
        let mut responses = rmcp::model::InputResponses::new();
        for (name, request) in required.input_requests.iter().flatten() {
            let InputRequest::Elicitation(request) = request else {
                return Reply::Refuse("the server asks for a model or folders".to_owned());
            };
            let question = handler::question(&request.params);
            match handler::answer(self.elicitation, &question) {
                Some(content) => {
                    let accepted = serde_json::json!({ "action": "accept", "content": content });
                    responses.insert(name.clone(), accepted);
                }
                None => return Reply::Ask(question),
            }
        }
        Reply::GoOn((!responses.is_empty()).then_some(responses))
    }

    /// Hears of changes until it is told to leave. Servers of old tell them unasked; newer ones want to
    /// be asked first.
    async fn hear(&self, leave: &CancellationToken) {
        let subscribing = leave.run_until_cancelled(subscribe(&self.sender.peer));
        if let Some(Some(mut changes)) = subscribing.await {
            // What changed before the server began to tell was not told.
            self.set_stale();
            while let Some(Ok(Some(_))) = leave.run_until_cancelled(changes.next()).await {
                self.set_stale();
            }
            // Where the connection has ended, there is nothing left to cancel.
            let _cancelled = changes.cancel().await;
        }
        leave.cancelled().await;
    }

    fn listing(&self) -> std::sync::MutexGuard<'_, Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn subscribe(peer: &Peer<RoleClient>) -> Option<rmcp::service::Subscription> {
    let info = peer.peer_info()?;
    let tells = info.capabilities.tools.as_ref()?.list_changed?;
    if !tells || info.protocol_version.has_initialize() {
        return None;
    }
    let wish = SubscriptionFilter::builder().tools_list_changed().build();
    peer.listen(wish).await.ok()
}

/// What is to be done about a server that asks.
enum Reply {
    Ask(Question),
    Refuse(String),
    GoOn(Option<rmcp::model::InputResponses>),
}

fn asks(question: Question) -> Outcome {
    Outcome::Asks {
        message: question.message,
        schema: question.schema,
    }
}

impl Style {
    fn mode(self) -> ClientLifecycleMode {
        match self {
            Self::Newest => ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::LATEST],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            Self::Initialize => ClientLifecycleMode::Initialize,
        }
    }
}

async fn web(
    config: &ServerConfig,
    world: &World,
    url: &str,
    handler: Handler,
    style: Style,
) -> Result<RunningService<RoleClient, Handler>, ClientInitializeError> {
    let client = Web::new(world.outbound.clone(), config.header_map());
    let settings = StreamableHttpClientTransportConfig::with_uri(url)
        .max_concurrent_requests(config.concurrency.saturating_add(2));
    let transport = StreamableHttpClientTransport::with_client(client, settings);
    let greeted = serve_client_with_lifecycle(handler, transport, style.mode());
    greeted.boxed().await
}

/// Why a greeting failed, with what the process said last.
async fn explain(error: &ClientInitializeError, process: Option<Process>) -> StartError {
    let may_be_old = !matches!(
        error,
        ClientInitializeError::LegacyFallbackFailed { .. }
            | ClientInitializeError::TransportError { .. }
    );
    let mut what = match error {
        ClientInitializeError::TransportError { error, .. } => error.error.to_string(),
        ClientInitializeError::ConnectionClosed(_) => "it ended before it answered".to_owned(),
        // Its own words may be long and are not ours.
        ClientInitializeError::ExpectedInitResult(_)
        | ClientInitializeError::ExpectedInitResponse(_) => {
            "its answer to the greeting is none".to_owned()
        }
        other => other.to_string().chars().take(300).collect(),
    };
    if let Some(process) = process {
        let said = process.said();
        process.stop(Duration::ZERO).await;
        if let Some(line) = said.last() {
            what = format!("{what}; it said: {line}");
        }
    }
    StartError { what, may_be_old }
}

/// The definitions under the names by which models call them. What has no name that models take, or
/// one that is there already, is left out.
fn named(server: &str, tools: Vec<Tool>) -> Vec<Definition> {
    let mut seen = HashSet::new();
    let mut definitions = Vec::with_capacity(tools.len());
    for tool in tools {
        let name = format!("{server}__{}", tool.name);
        let is_fit = name.len() <= 64
            && !tool.name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_fit {
            tracing::warn!(server, "a tool is left out: its name is not one for models");
            continue;
        }
        if !seen.insert(name.clone()) {
            tracing::warn!(
                server,
                name,
                "a tool is left out: its name is there already"
            );
            continue;
        }
        let value = |schema: Arc<JsonObject>| Value::Object(Arc::unwrap_or_clone(schema));
        definitions.push(Definition {
            name,
            server: server.to_owned(),
            title: tool.title,
            description: tool.description.map(Cow::into_owned).unwrap_or_default(),
            input_schema: value(tool.input_schema),
            output_schema: tool.output_schema.map(value),
            annotations: tool
                .annotations
                .and_then(|hints| serde_json::to_value(hints).ok()),
        });
    }
    definitions.sort_by(|a, b| a.name.cmp(&b.name));
    definitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        Tool::new(name.to_owned(), "does it", JsonObject::new())
    }

    #[test]
    fn names_that_do_not_fit_or_stand_twice_are_left_out() {
        let long = "x".repeat(60);
        let names = ["b", "a.b", "a", "ü", "", "a", &long, "c__d"];
        let found = named("files", names.iter().map(|name| tool(name)).collect());
        let found: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(found, ["files__a", "files__b", "files__c__d"]);
    }
}
