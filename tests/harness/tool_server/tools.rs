//! The tools, and what each of them does.

use std::borrow::Cow;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode,
    InputRequests, InputRequiredResult, JsonObject, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig,
    SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use crate::book::Book;

/// Names, and the arguments that must be there.
const TOOLS: &[(&str, &[(&str, &str)])] = &[
    ("record_send", &[("to", "string"), ("text", "string")]),
    ("record_put", &[("id", "string"), ("text", "string")]),
    ("record_draft", &[("marker", "string"), ("text", "string")]),
    ("record_find", &[("marker", "string")]),
    ("record_read", &[("id", "string")]),
    ("slow", &[("ms", "integer")]),
    ("hang", &[]),
    ("crash_before", &[]),
    ("crash_after", &[]),
    ("answer_then_hang", &[]),
    ("spawn_grandchild", &[]),
    ("big", &[("bytes", "integer")]),
    ("fail", &[("text", "string")]),
    ("mutate", &[]),
    ("ask", &[]),
    ("environment", &[]),
];
/// Where an idempotency key stands in `_meta`.
const KEY: &str = "pareto/idempotency-key";

/// What the server knows.
#[derive(Debug)]
pub struct State {
    book: Book,
    /// Which of its schemas `record_send` has; who listens is told of changes.
    schema: watch::Sender<u32>,
    is_legacy: bool,
    /// It does not end with its input.
    pub stays: AtomicBool,
    sent: AtomicU32,
    /// How long it waits before it acts, and before it answers.
    pause: Duration,
}

impl State {
    /// A server that has not been asked anything yet.
    pub fn new(book: Book, schema: u32, is_legacy: bool, pause: Duration) -> Self {
        Self {
            book,
            schema: watch::Sender::new(schema),
            is_legacy,
            stays: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            pause,
        }
    }
}

/// The server's side of a connection.
#[derive(Debug, Clone)]
pub struct Recorder(pub Arc<State>);

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

fn text(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

impl Recorder {
    fn tools(&self) -> Vec<Tool> {
        let schema = *self.0.schema.borrow();
        let tool = |(name, fields): &(&'static str, &[(&str, &str)])| {
            let mut properties = JsonObject::new();
            for (field, kind) in *fields {
                properties.insert((*field).to_owned(), json!({ "type": kind }));
            }
            let required: Vec<_> = properties.keys().cloned().collect();
            if *name == "record_send" && schema > 0 {
                let field = format!("copy_{schema}");
                properties.insert(field, json!({ "type": "string" }));
            }
            let input = json!({ "type": "object", "properties": properties, "required": required });
            Tool::new(*name, format!("The test's {name}."), object(input))
        };
        TOOLS.iter().map(tool).collect()
    }

    /// Files a keyed call: the first one counts, repetitions get its result.
    fn put(&self, arguments: &Value, key: Option<&str>) -> String {
        let calls = self.0.book.calls("record_put");
        let first = calls
            .iter()
            .find(|call| key.is_some() && call["key"].as_str() == key && call["duplicate"] != true);
        let (result, duplicate) = match first {
            Some(first) => (first["result"].as_str().unwrap().to_owned(), true),
            None => {
                let n = calls
                    .iter()
                    .filter(|call| call["duplicate"] != true)
                    .count()
                    + 1;
                (format!("put {} as {n}", arguments["id"]), false)
            }
        };
        let more = json!({ "result": result, "duplicate": duplicate });
        self.0.book.write("record_put", arguments, key, more);
        result
    }

    /// The text of the last call of `tool` whose argument `name` is the same as here.
    fn last(&self, tool: &str, name: &str, arguments: &Value) -> Option<String> {
        let calls = self.0.book.calls(tool);
        let same = calls
            .iter()
            .rfind(|call| call["arguments"][name] == arguments[name]);
        same.map(|call| call["arguments"]["text"].to_string())
    }

    async fn slow(&self, arguments: &Value, context: &RequestContext<RoleServer>) {
        let ms = arguments["ms"].as_u64().unwrap_or(0);
        let token = context.meta.get_progress_token();
        let steps = if arguments["progress"] == true { 20 } else { 1 };
        for step in 1..=steps {
            tokio::time::sleep(Duration::from_millis(ms / steps)).await;
            if let (Some(token), true) = (token.clone(), steps > 1) {
                let done = f64::from(u32::try_from(step).unwrap());
                let progress = ProgressNotificationParam::new(token, done);
                context.peer.notify_progress(progress).await.ok();
            }
        }
    }

    async fn dispatch(
        &self,
        tool: &str,
        arguments: &Value,
        responses: bool,
        context: &RequestContext<RoleServer>,
    ) -> CallToolResponse {
        match tool {
            "record_send" => text(format!(
                "sent {}",
                self.0.sent.fetch_add(1, Ordering::Relaxed) + 1
            )),
            "record_draft" => text("drafted"),
            "record_find" => match self.last("record_draft", "marker", arguments) {
                Some(found) => text(format!("found {}: {found}", arguments["marker"])),
                None => text("nothing"),
            },
            "record_read" => match self.last("record_put", "id", arguments) {
                Some(found) => text(found),
                None => text("nothing"),
            },
            "slow" => {
                self.slow(arguments, context).await;
                text("slept")
            }
            "hang" => std::future::pending().await,
            "crash_after" => std::process::exit(3),
            "answer_then_hang" => {
                self.0.stays.store(true, Ordering::Release);
                text("answered")
            }
            "spawn_grandchild" => text(grandchild().await),
            "big" => {
                let bytes = usize::try_from(arguments["bytes"].as_u64().unwrap()).unwrap();
                let content = vec![ContentBlock::text("x".repeat(bytes))];
                match arguments["is_error"] == true {
                    true => CallToolResult::error(content).into(),
                    false => CallToolResult::success(content).into(),
                }
            }
            "fail" => {
                let told = arguments["text"].as_str().unwrap_or_default();
                CallToolResult::error(vec![ContentBlock::text(told)]).into()
            }
            "mutate" => {
                self.0.schema.send_modify(|schema| *schema += 1);
                if self.0.is_legacy {
                    context.peer.notify_tool_list_changed().await.ok();
                }
                text("changed")
            }
            "ask" if responses => text("thank you"),
            "ask" => question(),
            "environment" => {
                let names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
                text(json!(names).to_string())
            }
            _ => CallToolResult::error(vec![ContentBlock::text("unknown")]).into(),
        }
    }
}

/// Starts a process with a child, in a session of their own, and tells the ids of both.
async fn grandchild() -> String {
    let mut command = tokio::process::Command::new("setsid");
    command.args(["sh", "-c", "sleep 1000 & echo $$ $!; wait"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap()
}

/// Asks the user before it goes on.
fn question() -> CallToolResponse {
    let request = json!({ "method": "elicitation/create", "params": {
        "message": "Which colour?",
        "requestedSchema": {
            "type": "object",
            "properties": { "colour": { "type": "string", "default": "green" } },
            "required": ["colour"],
        },
    } });
    let mut requests = InputRequests::new();
    requests.insert(
        "colour".to_owned(),
        serde_json::from_value(request).unwrap(),
    );
    InputRequiredResult::from_input_requests(requests).into()
}

impl ServerHandler for Recorder {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let newest = match self.0.is_legacy {
            true => &ProtocolVersion::LATEST_WITH_INITIALIZE,
            false => &ProtocolVersion::LATEST,
        };
        Cow::Borrowed(ProtocolVersion::known_up_to(newest))
    }

    async fn discover(
        &self,
        _context: RequestContext<RoleServer>,
    ) -> Result<rmcp::model::DiscoverResult, ErrorData> {
        if self.0.is_legacy {
            let unknown = ErrorCode::METHOD_NOT_FOUND;
            return Err(ErrorData::new(unknown, "server/discover", None));
        }
        let versions = self.supported_protocol_versions().into_owned();
        Ok(rmcp::model::DiscoverResult::from_server_info(
            versions,
            self.get_info(),
        ))
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut schema = self.0.schema.subscribe();
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                Ok(()) = schema.changed() => {
                    context.sink().notify_tool_list_changed().await.ok();
                }
            }
        }
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // Two pages, so that both must be read.
        let mut tools = self.tools();
        let second = tools.split_off(tools.len() / 2);
        let cursor = request.and_then(|request| request.cursor);
        if cursor.is_some() {
            return Ok(ListToolsResult::with_all_items(second));
        }
        let mut page = ListToolsResult::with_all_items(tools);
        page.next_cursor = Some("second".to_owned());
        Ok(page)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = request.name.to_string();
        let mut arguments = Value::Object(request.arguments.unwrap_or_default());
        let in_meta = context
            .meta
            .get(KEY)
            .or_else(|| request.meta.as_ref()?.get(KEY));
        let key = in_meta.and_then(Value::as_str).map(str::to_owned);
        // Where the key stands in an argument, that one counts.
        let given = arguments
            .as_object_mut()
            .and_then(|it| it.remove("idempotency_key"));
        let key = given.and_then(|it| it.as_str().map(str::to_owned)).or(key);
        tokio::time::sleep(self.0.pause).await;
        let answer = match tool.as_str() {
            "crash_before" => std::process::exit(3),
            "record_put" => text(self.put(&arguments, key.as_deref())),
            _ => {
                let book = &self.0.book;
                book.write(&tool, &arguments, key.as_deref(), json!({}));
                let responses = request.input_responses.is_some();
                self.dispatch(&tool, &arguments, responses, &context).await
            }
        };
        tokio::time::sleep(self.0.pause).await;
        Ok(answer)
    }
}
