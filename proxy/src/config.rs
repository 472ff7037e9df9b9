//! The whole configuration: the sum of what each part owns, read as one and checked as one.

mod address;
mod bounds;
mod files;
mod otlp;
mod overload;
mod problem;
mod secret;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wire::Tier;

pub(crate) use address::masked;
pub use otlp::Otlp;
pub use overload::{Overload, Portion};
pub use problem::{Invalid, Problem};
pub use secret::Secret;
pub(crate) use secret::file_of;

pub use crate::request_log::RequestLog;

/// Everything an operator can say. See `config/pareto.toml` for each key with its comment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub server: Server,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub keys: Keys,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub overload: Overload,
    #[serde(default)]
    pub upstream: Upstream,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub request_log: RequestLog,
    #[serde(default)]
    pub otlp: Otlp,
    #[serde(default)]
    pub routing: router::Config,
    #[serde(default)]
    pub policy: router::config::PolicyConfig,
    #[serde(default)]
    pub context: Context,
    #[serde(default)]
    pub meter: meter::Config,
    #[serde(default)]
    pub store: store::Config,
    #[serde(default, rename = "endpoint")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
    #[serde(default, rename = "budget")]
    pub budgets: Vec<meter::config::BudgetConfig>,
    #[serde(default, rename = "rate_limit")]
    pub rate_limits: Vec<meter::config::LimitConfig>,
    #[serde(default, rename = "price")]
    pub prices: Vec<meter::config::PriceConfig>,
    #[serde(default, rename = "sell")]
    pub sells: Vec<meter::config::SellConfig>,
    #[serde(default, rename = "webhook")]
    pub webhooks: Vec<Webhook>,
    #[serde(default)]
    pub orchestrator: orchestrator::Config,
    #[serde(default, rename = "mcp")]
    pub mcps: Vec<orchestrator::tool::config::ServerConfig>,
}

/// `[server]`: where callers come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    #[serde(deserialize_with = "address::listen")]
    pub listen: SocketAddr,
    /// PEM files; TLS is on when both are given.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Seconds that open streams get to end after SIGTERM.
    pub drain_s: u64,
    /// Milliseconds after SIGTERM in which new connections are still taken: whoever sends them here has to
    /// learn first that this gateway ends.
    pub drain_lag_ms: u64,
    /// Threads that serve callers; as many as there are cores for 0.
    pub workers: usize,
}

impl Default for Server {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        Self {
            listen,
            tls_cert: None,
            tls_key: None,
            drain_s: 600,
            drain_lag_ms: 100,
            workers: 0,
        }
    }
}

/// `[admin]`: the operators' own listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    #[serde(deserialize_with = "address::listen")]
    pub listen: SocketAddr,
    /// Without one, a token is made at the first start and kept in the store's folder.
    pub token: Option<Secret>,
    /// Reads pages, use and metrics, and changes nothing; made and kept in the same way.
    pub finance_token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            token: None,
            finance_token: None,
        }
    }
}

/// `[keys]`: how callers' keys are checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Without one, a pepper is made at the first start and kept in the store's folder.
    pub pepper: Option<Secret>,
}

/// `[limits]`: bounds on what callers may send and hold open.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub body_bytes: usize,
    pub head_bytes: usize,
    /// Fields of a request head.
    pub headers: usize,
    pub connections: usize,
    /// Connections of one address; a quarter of all if absent.
    pub connections_per_ip: Option<usize>,
    /// Requests of one connection, after which it closes.
    pub requests: usize,
    pub in_flight: usize,
    /// Wrong keys in a minute, of one address and for one key, that are answered at once.
    pub wrong_keys: u32,
    /// Milliseconds for a connection's first byte, and for each request head.
    pub head_timeout_ms: u64,
    /// Milliseconds for each kilobyte of a request body.
    pub body_timeout_ms: u64,
    /// Milliseconds between two requests of a connection.
    pub idle_timeout_ms: u64,
    /// Milliseconds in which a caller takes nothing of an answer that waits for it.
    pub write_timeout_ms: u64,
    /// Seconds for which the answer of a call with an `Idempotency-Key` is kept.
    pub idempotency_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            head_bytes: 32 << 10,
            headers: 100,
            connections: 10_000,
            connections_per_ip: None,
            requests: 1_000,
            in_flight: 4_096,
            wrong_keys: 20,
            head_timeout_ms: 10_000,
            body_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            idempotency_s: 3_600,
        }
    }
}

/// `[upstream]`: patience with model endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub connect_timeout_ms: u64,
    /// Milliseconds to the first content of a stream.
    pub first_byte_timeout_ms: u64,
    /// Milliseconds to the end of an answer that is not streamed.
    pub reply_timeout_ms: u64,
    /// Milliseconds between two pieces of a stream.
    pub idle_timeout_ms: u64,
    /// The longest answer taken that is not streamed, in bytes.
    pub reply_bytes: usize,
    /// Idle connections kept for each host.
    pub idle_connections: usize,
    pub breaker: Breaker,
    pub retries: Retries,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            first_byte_timeout_ms: 60_000,
            reply_timeout_ms: 600_000,
            idle_timeout_ms: 60_000,
            reply_bytes: 64 << 20,
            idle_connections: 256,
            breaker: Breaker::default(),
            retries: Retries::default(),
        }
    }
}

/// `[upstream.breaker]`: when a model at an endpoint is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row after which it is.
    pub failures: u32,
    /// Percent of successes, of at least so many calls in ten seconds, below which it is.
    pub least_success: u32,
    pub least_calls: u32,
    /// Milliseconds for which it is, times how often it was of late, and the most of them.
    pub rest_ms: u64,
    pub most_rest_ms: u64,
    /// Percent of the models of a tier that are left alone at most at a time; one always may be.
    pub most_resting: u32,
    /// Successes, one at a time, after which it gets calls like any.
    pub closing: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            least_success: 50,
            least_calls: 10,
            rest_ms: 10_000,
            most_rest_ms: 300_000,
            most_resting: 50,
            closing: 3,
        }
    }
}

/// `[upstream.retries]`: how many calls that an endpoint has seen may go on to another, or to it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Of the calls of ten seconds, for all models of a tier together.
    pub percent: u32,
    /// So many besides.
    pub per_second: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            percent: 10,
            per_second: 1,
        }
    }
}

/// `[context]`: what is kept of conversations, and how they are made to fit a window.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// Days after which responses, conversations and private parts are forgotten.
    pub keep_days: u32,
    /// Megabytes of them that are kept; where there are more, the oldest are forgotten earlier.
    pub max_mb: u64,
    /// Lines that begin with one of these are kept word for word when a conversation is shortened.
    pub pins: Vec<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            keep_days: 30,
            max_mb: 10_000,
            pins: vec!["Remember:".to_owned(), "Pinned:".to_owned()],
        }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, or directives such as `info,proxy=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// `[[endpoint]]`: a place that answers calls of one dialect.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub name: String,
    pub dialect: String,
    /// The base address, with the version part: `https://api.openai.com/v1`.
    pub url: String,
    #[serde(default)]
    pub key: Option<Secret>,
    /// More keys of the same account; each call goes with one of them.
    #[serde(default)]
    pub keys: Vec<Secret>,
    /// The field an output cap is written to where the caller set none; the dialect's own if absent.
    #[serde(default)]
    pub cap_field: Option<String>,
    /// Who is behind the address; endpoints with one origin read each other's signatures. Its host
    /// if absent.
    #[serde(default)]
    pub origin: Option<String>,
    /// Where it is, as the price book names it, for instance `us`: some vendors ask for more there.
    #[serde(default)]
    pub region: Option<String>,
    /// PEM file of the certificates that the endpoint's own has to be signed by, in place of the public ones.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Speak HTTP/2 from the first byte, without TLS negotiation.
    #[serde(default)]
    pub http2: bool,
    /// How many calls it gets at once; as many as there are if absent.
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// The header in which it is told how many milliseconds the caller waits; it is not told if absent.
    #[serde(default)]
    pub deadline_header: Option<String>,
    /// Tell it with each call which trace it belongs to, in a `traceparent`.
    #[serde(default)]
    pub traceparent: bool,
}

/// How many calls an endpoint gets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "write a number of calls, \"aimd\" or \"gradient2\""
)]
pub enum Concurrency {
    Count(u32),
    Adaptive(Adaptive),
}

/// What tells how many calls an endpoint bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adaptive {
    /// Calls that it turns away.
    Aimd,
    /// The time to the first content.
    Gradient2,
}

/// `[[model]]`: a model behind an endpoint. Within a tier, earlier ones are tried first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What callers write, and what headers and the ledger say.
    pub name: String,
    pub tier: Tier,
    /// One endpoint, or several: a call goes to one of its own dialect, and among those to the one that its
    /// conversation went to, or the less busy one.
    #[serde(deserialize_with = "one_or_more")]
    pub endpoint: Vec<String>,
    /// What the endpoint calls it; the name if absent.
    #[serde(default)]
    pub upstream_model: Option<String>,
    /// The id of its price; unpriced if absent.
    #[serde(default)]
    pub price: Option<String>,
    /// The longest answer in tokens; from the price book if absent.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// The longest prompt and answer together in tokens; from the price book if absent.
    #[serde(default)]
    pub context: Option<u64>,
    /// `o200k_base`, `cl100k_base` or the path of a `tokenizer.json`; OpenAI's, as an estimate, if
    /// absent.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// `none` where the model does not reason and refuses to be asked; `budget` or `adaptive` where a
    /// model of Anthropic's takes but one of them. What the caller writes goes on as it is if absent,
    /// and translations write a budget.
    #[serde(default)]
    pub thinking: Option<wire::dialect::ThinkingForm>,
    /// Ask another model of the tier, or another endpoint of this one, beside it when it takes longer than 95 of
    /// 100 of its calls: at most for one call in twenty, and both are paid for.
    #[serde(default)]
    pub hedge: bool,
    /// What it can not do: `tools`, `images`, `files`, `schema`, `thinking`. The router sends it no call
    /// that needs one of them.
    #[serde(default)]
    pub lacks: router::Needs,
    /// The most sensitive of `policy.labels` that it may see; the least sensitive if absent.
    #[serde(default)]
    pub label: Option<String>,
}

/// `[[webhook]]`: somebody who is told of what happens, by signed posts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What briefs of tasks call it; they can not name it if absent.
    #[serde(default)]
    pub name: Option<String>,
    pub url: String,
    /// Signs each post.
    pub secret: Secret,
    /// What it is told of: `usage`, `budget.threshold`, `budget.*` and so on; and of tasks that name it.
    #[serde(default)]
    pub topics: Vec<String>,
}

/// A name, or a list of names.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Names;
    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the name of an endpoint, or a list of names")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Vec<String>, E> {
            Ok(vec![name.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element()? {
                names.push(name);
            }
            Ok(names)
        }
    }
    from.deserialize_any(Names)
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// With every problem found, each with its line and column.
    pub fn load(path: &Path) -> Result<Self, Invalid> {
        let bytes = std::fs::read(path).map_err(|error| {
            let message = format!("can not be read: {error}; give another path with --config");
            let problem = Problem {
                line: 0,
                column: 0,
                message,
            };
            Invalid::new(path, vec![problem])
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Invalid::new(path, vec![problem::of_bytes(&error)]))?;
        let mut config = Self::parse(&text).map_err(|problems| Invalid::new(path, problems))?;
        let missing = files::problems(&config).into_iter();
        let missing: Vec<_> = missing
            .map(|(place, message)| problem::at(&text, &place, message))
            .collect();
        if !missing.is_empty() {
            return Err(Invalid::new(path, missing));
        }
        // A server's own files stand beside the file that names them, wherever the program is started.
        let home = path.parent().unwrap_or(Path::new(""));
        for cwd in config.mcps.iter_mut().filter_map(|it| it.cwd.as_mut()) {
            *cwd = home.join(&*cwd);
        }
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// With every problem found.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let (mut readable, mut problems) = (text.to_owned(), Vec::new());
        let mut config: Self = loop {
            match toml::from_str(&readable) {
                Ok(config) => break config,
                Err(error) => {
                    problems.push(problem::of_toml(text, &error));
                    // A secret that can not be had hides no other, and nothing else that is wrong.
                    if !secret::stood_in(&mut readable, &error) {
                        return Err(problems);
                    }
                }
            }
        };
        let mut found = config.look_up_secrets();
        found.extend(check::all(&config));
        let found = found.into_iter();
        problems.extend(found.map(|(path, message)| problem::at(text, &path, message)));
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }
}

impl Config {
    /// Looks up the secrets of the store and of tasks, whose part of the configuration knows no environment.
    fn look_up_secrets(&mut self) -> Vec<(String, String)> {
        use orchestrator::tool::config::Secret as Plain;
        let mut found = Vec::new();
        if let Some(address) = &mut self.store.postgres {
            match secret::resolve(&address.0) {
                Ok(text) => address.0 = text,
                Err(message) => found.push(("store.postgres".to_owned(), message)),
            }
        }
        let mut look = |place: String, secret: &mut Plain| match secret::resolve(secret.expose()) {
            Ok(text) => *secret = Plain::new(text),
            Err(message) => found.push((place, message)),
        };
        for (index, server) in self.mcps.iter_mut().enumerate() {
            for (name, value) in &mut server.env {
                look(format!("mcp[{index}].env.{name}"), value);
            }
            for (name, value) in &mut server.headers {
                look(format!("mcp[{index}].headers.{name}"), value);
            }
        }
        for (index, canary) in self.orchestrator.canaries.iter_mut().enumerate() {
            look(format!("orchestrator.canaries[{index}]"), canary);
        }
        if let Some(secret) = &mut self.orchestrator.secret {
            look("orchestrator.secret".to_owned(), secret);
        }
        found
    }
}

mod check;
