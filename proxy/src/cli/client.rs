//! Asks a running gateway about tasks, as its callers do: JSON over HTTP, files, and streams of events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use wire::sse::{self, Splitter};

use crate::config::Upstream;
use crate::outbound;
use crate::upstream::chain;

/// The longest answer that is taken, in bytes: an artefact, or a long task.
const LONGEST: usize = 256 << 20;
/// How long an answer may take; servers of tools are started when their tools are asked for.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where `pareto task run` says how its gateway is reached.
const SESSION: &str = "gateway.json";
/// Its folder, where no other is named.
const FOLDER: &str = "pareto-tasks";
/// Where it keeps its key.
const KEY: &str = "caller.key";

/// Which gateway is asked, and as whom.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// A running gateway: HOST:PORT, or https://HOST. PARETO_ADDRESS where this is absent.
    #[arg(long)]
    pub(super) address: Option<String>,
    /// The key to send. PARETO_KEY where this is absent.
    #[arg(long)]
    pub(super) key: Option<String>,
    /// The person who acts, for approvals that name their approvers.
    #[arg(long)]
    pub(super) user: Option<String>,
    #[arg(
        long,
        help = "The folder of `pareto task run`; without an address, its gateway is asked while it runs [default: pareto-tasks]"
    )]
    pub(super) data: Option<PathBuf>,
    /// Speak to the admin listener, with its token as the key.
    #[arg(long)]
    pub(super) operator: bool,
    /// As the operator: for this tenant.
    #[arg(long, requires = "operator")]
    pub(super) tenant: Option<String>,
}

impl Place {
    /// The folder of `pareto task run`.
    pub(super) fn folder(&self) -> &Path {
        self.data.as_deref().unwrap_or_else(|| Path::new(FOLDER))
    }

    /// What another command must be told to find the same gateway, with a space before it; `local` is the
    /// folder of a gateway in this process.
    pub(super) fn words(&self, local: Option<&Path>) -> String {
        if let Some(address) = &self.address {
            return format!(" --address {address} --key KEY");
        }
        let folder = local.unwrap_or_else(|| self.folder());
        let whole = |path: &Path| std::path::absolute(path).ok();
        let is_default = whole(Path::new(FOLDER)) == whole(folder);
        if is_default || std::env::var("PARETO_ADDRESS").is_ok() {
            String::new()
        } else {
            format!(" --data {}", folder.display())
        }
    }
}

/// A gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no gateway answers at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("{message}{}", field.as_ref().map(|it| format!(" (field `{it}`)")).unwrap_or_default())]
    Refused {
        status: u16,
        code: String,
        message: String,
        field: Option<String>,
    },
    #[error("the gateway's answer to {path} can not be read: {why}")]
    Unreadable { path: String, why: String },
}

impl AskError {
    /// Whether there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// How a gateway of `pareto task run` is reached.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Session {
    pub(super) address: String,
    pub(super) admin: String,
}

impl Session {
    /// Leaves word of a gateway in its folder.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(SESSION);
        let text = serde_json::to_string(self)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The word that was left last; the gateway may be gone since.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(SESSION)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Takes the word back.
    pub(super) fn remove(folder: &Path) {
        // Where it stays, nobody answers at its address.
        drop(std::fs::remove_file(folder.join(SESSION)));
    }
}

/// The path of the key that `pareto task run` has made in a folder.
pub(super) fn kept_key(folder: &Path) -> PathBuf {
    folder.join(KEY)
}

fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Somebody who asks one gateway.
pub(super) struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `http://host:port`.
    base: String,
    place: Place,
    key: String,
}

impl Client {
    /// A client of the gateway that is named, by options, by the environment or by a folder.
    pub(super) fn of(place: &Place) -> anyhow::Result<Self> {
        let said = |option: &Option<String>, name: &str| {
            let set = std::env::var(name).ok().filter(|it| !it.is_empty());
            option.clone().or(set)
        };
        if let Some(address) = said(&place.address, "PARETO_ADDRESS") {
            let key = said(&place.key, "PARETO_KEY");
            let key = key.context("give the gateway's --key, or set PARETO_KEY")?;
            return Self::at(&address, key, place);
        }
        let session = Session::read(place.folder()).with_context(|| {
            format!(
                "no gateway is named: give --address and --key, or --data with the folder of a `pareto task run` \
                 that is under way ({} has none)",
                place.folder().display()
            )
        })?;
        let (address, file) = if place.operator {
            (session.admin, place.folder().join("admin.token"))
        } else {
            (session.address, kept_key(place.folder()))
        };
        Self::at(&address, read_secret(&file)?, place)
    }

    /// A client of the gateway at `address`.
    pub(super) fn at(address: &str, key: String, place: &Place) -> anyhow::Result<Self> {
        let base = if address.contains("://") {
            address.trim_end_matches('/').to_owned()
        } else {
            format!("http://{address}")
        };
        let uri: Result<http::Uri, _> = base.parse();
        let is_whole = uri.is_ok_and(|uri| uri.host().is_some() && uri.port_u16() != Some(0));
        anyhow::ensure!(
            is_whole,
            "`{address}` is no address; write HOST:PORT or https://HOST"
        );
        let patience = Upstream::default();
        let http = outbound::client(&patience).map_err(anyhow::Error::msg)?;
        Ok(Self {
            http,
            base,
            place: place.clone(),
            key,
        })
    }

    /// Where the gateway is.
    pub(super) fn address(&self) -> &str {
        &self.base
    }

    /// What `GET path` answers.
    pub(super) async fn get(&self, path: &str) -> Result<Value, AskError> {
        self.say(Method::GET, path, None, &[]).await
    }

    /// What `POST path` answers to `body`.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, AskError> {
        self.say(Method::POST, path, Some(body), &[]).await
    }

    /// What any call answers.
    pub(super) async fn say(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Value, AskError> {
        let bytes = self.bytes(method, path, body, headers).await?;
        serde_json::from_slice(&bytes).map_err(|error| unreadable(path, &error))
    }

    /// The bytes that a call answers.
    pub(super) async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Bytes, AskError> {
        let asking = async {
            let response = self.send(method, path, body, headers).await?;
            let body = http_body_util::Limited::new(response.into_body(), LONGEST);
            let whole = body.collect().await;
            let whole = whole.map_err(|error| unreadable(path, &*error))?;
            Ok(whole.to_bytes())
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.unwrap_or_else(|_| Err(self.unreachable("no answer within two minutes".to_owned())))
    }

    /// A call of a model as the ledger has it.
    pub(super) async fn settled(&self, request: &str) -> Result<Value, AskError> {
        // The operator asks for calls of all tenants at a place of their own.
        let path = if self.place.operator {
            format!("/calls/{}", segment(request))
        } else {
            format!("/v1/calls/{}", segment(request))
        };
        self.get(&path).await
    }

    /// The events of a task behind the event `after`, as they happen.
    pub(super) async fn events(&self, task: &str, after: u64) -> Result<Events, AskError> {
        let path = format!("/v1/tasks/{task}/events?after={after}");
        let accept = [(ACCEPT.as_str(), "text/event-stream")];
        let response = self.send(Method::GET, &path, None, &accept).await?;
        Ok(Events {
            body: response.into_body(),
            splitter: Splitter::default(),
        })
    }

    /// Sends a request; an answer that is a refusal is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, AskError> {
        // The admin listener has the same surface behind a first segment of its own.
        let prefix = if self.place.operator { "/api" } else { "" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{prefix}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", self.key));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, said) in [
            ("x-pareto-user", &self.place.user),
            ("x-pareto-tenant", &self.place.tenant),
        ] {
            if let Some(said) = said {
                request = request.header(name, said);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| unreadable(path, &error))?;
        let response = self.http.request(request).await;
        let response = response.map_err(|error| self.unreachable(chain(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = http_body_util::Limited::new(response.into_body(), 1 << 20);
        let body = body.collect().await;
        let body = body.map(http_body_util::Collected::to_bytes);
        Err(refused(status, &body.unwrap_or_default()))
    }

    fn unreachable(&self, why: String) -> AskError {
        AskError::Unreachable {
            address: self.base.clone(),
            why,
        }
    }
}

fn unreadable(path: &str, error: &dyn std::fmt::Display) -> AskError {
    AskError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

/// What a refusal says: a problem of tasks, or an error in a dialect of models.
fn refused(status: u16, body: &[u8]) -> AskError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let first = |places: [&str; 3]| {
        let mut found = places
            .iter()
            .filter_map(|at| body.pointer(at)?.as_str().map(str::to_owned));
        found.next()
    };
    AskError::Refused {
        status,
        code: first(["/code", "/error/code", "/error/type"]).unwrap_or_default(),
        message: first(["/message", "/error/message", "/error"])
            .unwrap_or_else(|| format!("the gateway answered with status {status}")),
        field: first(["/field", "/error/param", "/error/field"]),
    }
}

/// A stream of a task's events.
pub(super) struct Events {
    body: Incoming,
    splitter: Splitter,
}

/// One event of the stream.
#[derive(Debug)]
pub(super) struct Happened {
    /// `snapshot`, or the kind of the task's event.
    pub(super) kind: String,
    pub(super) data: Value,
}

impl Events {
    /// The next event; `None` when the stream ends or breaks. Nothing is lost where this is dropped.
    pub(super) async fn next(&mut self) -> Option<Happened> {
        loop {
            while let Some(event) = self.splitter.next_event() {
                let Some(data) = sse::data(&event) else {
                    continue;
                };
                return Some(Happened {
                    kind: String::from_utf8_lossy(sse::name(&event).unwrap_or_default())
                        .into_owned(),
                    data: serde_json::from_slice(&data).ok()?,
                });
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.splitter.push(data).ok()?;
            }
        }
    }
}

/// The text at a place in an answer; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, at: &str) -> &'a str {
    let found = value.pointer(at).and_then(Value::as_str);
    found.unwrap_or_default()
}

/// The whole number at a place in an answer; 0 where there is none.
pub(super) fn number(value: &Value, at: &str) -> i64 {
    let found = value.pointer(at).and_then(Value::as_i64);
    found.unwrap_or_default()
}

/// The list at a place in an answer; empty where there is none.
pub(super) fn list<'a>(value: &'a Value, at: &str) -> &'a [Value] {
    let found = value.pointer(at).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a String can not fail.
            let _written = write!(text, "%{byte:02X}");
        }
        text
    })
}
