//! What the operator says of a server of tools: how it is reached, how long it may take, and what its
//! tools do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::{Class, Manifest};
use crate::outbound;

/// A server that speaks MCP: `[[mcp]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// 1 to 32 of a-z, 0-9 and `-`. Its tools are called `name__tool`.
    pub name: String,
    /// The program and its arguments, for a server on standard input and output.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where it listens, for a server on streamable HTTP.
    #[serde(default)]
    pub url: Option<String>,
    /// What the program finds in its environment besides PATH, HOME and LANG.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// The program's folder; Pareto's own where absent.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// What is sent with each request to `url`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Milliseconds until it must have started and told its tools.
    #[serde(default = "start_ms")]
    pub start_ms: u64,
    /// Milliseconds that a call may take without a sign of progress.
    #[serde(default = "call_ms")]
    pub call_ms: u64,
    /// Milliseconds that a call may take in all, whatever progress it tells of.
    #[serde(default = "hard_call_ms")]
    pub hard_call_ms: u64,
    /// Milliseconds between the end of its input and its being killed.
    #[serde(default = "stop_ms")]
    pub stop_ms: u64,
    /// Bytes of a result; what is more is cut off, and the result says so.
    #[serde(default = "result_bytes")]
    pub result_bytes: usize,
    /// Calls at a time; more wait.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// What becomes of tools that nobody has accepted yet.
    #[serde(default)]
    pub pin: PinPolicy,
    /// What becomes of questions that the server asks its user.
    #[serde(default)]
    pub elicitation: Elicitation,
    /// What its tools do: `[[mcp.tool]]`. The first whose pattern fits counts.
    #[serde(default, rename = "tool")]
    pub tools: Vec<Manifest>,
}

/// What becomes of tools that nobody has accepted yet. A tool that has changed is withheld either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinPolicy {
    /// They are accepted as they are when they are first seen.
    #[default]
    FirstUse,
    /// They are withheld until a person accepts them.
    Strict,
}

/// What becomes of questions that a server asks its user in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elicitation {
    /// They are declined, and the task is told what was asked.
    #[default]
    Ask,
    /// Forms whose every required field has a default are answered with the defaults; others are asked.
    Defaults,
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn start_ms() -> u64 {
    15_000
}

fn call_ms() -> u64 {
    120_000
}

fn hard_call_ms() -> u64 {
    600_000
}

fn stop_ms() -> u64 {
    3_000
}

fn result_bytes() -> usize {
    1 << 20
}

fn concurrency() -> usize {
    4
}

/// Headers that are the protocol's, or the connection's, own.
const RESERVED: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];

impl ServerConfig {
    /// A server with the defaults for everything but its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            command: Vec::new(),
            url: None,
            env: BTreeMap::new(),
            cwd: None,
            headers: BTreeMap::new(),
            start_ms: start_ms(),
            call_ms: call_ms(),
            hard_call_ms: hard_call_ms(),
            stop_ms: stop_ms(),
            result_bytes: result_bytes(),
            concurrency: concurrency(),
            pin: PinPolicy::default(),
            elicitation: Elicitation::default(),
            tools: Vec::new(),
        }
    }

    /// What is wrong with it, in words; empty where it is good.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let is_named = (1..=32).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_named {
            wrong.push("`name` must be 1 to 32 of a-z, 0-9 and -".to_owned());
        }
        match (self.command.first(), &self.url) {
            (Some(program), None) if !program.is_empty() => self.check_command(&mut wrong),
            (None, Some(url)) => self.check_url(url, &mut wrong),
            _ => wrong.push("give exactly one of `command` and `url`".to_owned()),
        }
        for (key, value) in [
            ("start_ms", self.start_ms),
            ("call_ms", self.call_ms),
            ("stop_ms", self.stop_ms),
        ] {
            if !(1..=86_400_000).contains(&value) {
                wrong.push(format!("`{key}` must be between 1 and 86400000"));
            }
        }
        if self.hard_call_ms < self.call_ms || self.hard_call_ms > 86_400_000 {
            wrong.push("`hard_call_ms` must be between `call_ms` and 86400000".to_owned());
        }
        if !(1..=16 << 20).contains(&self.result_bytes) {
            wrong.push("`result_bytes` must be between 1 and 16777216".to_owned());
        }
        if !(1..=256).contains(&self.concurrency) {
            wrong.push("`concurrency` must be between 1 and 256".to_owned());
        }
        for manifest in &self.tools {
            check_manifest(manifest, &mut wrong);
        }
        wrong
            .into_iter()
            .map(|problem| format!("mcp server `{}`: {problem}", self.name))
            .collect()
    }

    fn check_command(&self, wrong: &mut Vec<String>) {
        if !self.headers.is_empty() {
            wrong.push("`headers` are for servers with a `url`".to_owned());
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            wrong.push("`command` has a zero byte".to_owned());
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.expose().contains('\0') {
                wrong.push(format!(
                    "`env` has a name or value that can not be: `{name}`"
                ));
            }
        }
    }

    fn check_url(&self, url: &str, wrong: &mut Vec<String>) {
        if !self.env.is_empty() || self.cwd.is_some() {
            wrong.push("`env` and `cwd` are for servers with a `command`".to_owned());
        }
        match url.parse::<Uri>() {
            Ok(uri) => {
                if let Err(error) = outbound::check(&uri) {
                    wrong.push(format!("`url`: {error}"));
                }
            }
            Err(error) => wrong.push(format!("`url` is no address: {error}")),
        }
        for (name, value) in &self.headers {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                wrong.push(format!("`{name}` is no name of a header"));
            } else if HeaderValue::from_str(value.expose()).is_err() {
                wrong.push(format!(
                    "header `{name}` has characters that no header can carry"
                ));
            } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                wrong.push(format!("header `{name}` is set by the protocol"));
            }
        }
    }

    /// The headers for `url`, marked as secret.
    pub(super) fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value.expose())) {
                value.set_sensitive(true);
                map.insert(name, value);
            }
        }
        map
    }

    /// A text without the values of `env` and `headers`. Very short ones are no secrets, and would
    /// blot out every other word.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for secret in self.env.values().chain(self.headers.values()) {
            let value = secret.expose();
            // A scheme before the credential does not belong to it.
            let bare = value.rsplit(' ').next().unwrap_or(value);
            for word in [value, bare] {
                if word.len() >= 6 {
                    masked = masked.replace(word, "***");
                }
            }
        }
        masked
    }

    pub(super) fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub(super) fn stop(&self) -> Duration {
        Duration::from_millis(self.stop_ms)
    }

    /// The manifest of one of its tools.
    pub(super) fn manifest(&self, tool: &str) -> Manifest {
        let fits = self
            .tools
            .iter()
            .find(|manifest| fits(&manifest.name, tool));
        fits.cloned().unwrap_or_else(Manifest::unknown)
    }
}

/// What is wrong with a list of servers, in words.
pub fn problems(servers: &[ServerConfig]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for server in servers {
        wrong.extend(server.validate());
        if !seen.insert(server.name.as_str()) {
            wrong.push(format!("mcp server `{}` is there twice", server.name));
        }
    }
    wrong
}

fn check_manifest(manifest: &Manifest, wrong: &mut Vec<String>) {
    let name = &manifest.name;
    if name.is_empty() {
        wrong.push("a `tool` needs a `name`, which may contain *".to_owned());
    }
    if manifest.class == Class::Probeable && manifest.probe.is_none() {
        wrong.push(format!("tool `{name}` is probeable and says no `probe`"));
    }
    if manifest
        .probe
        .as_ref()
        .is_some_and(|probe| !probe.arguments.is_object())
    {
        wrong.push(format!("tool `{name}`: the probe's arguments are no table"));
    }
    let is_amount = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits(whole) && digits(part)
    };
    if manifest
        .cost_usd
        .as_deref()
        .is_some_and(|text| !is_amount(text))
    {
        wrong.push(format!(
            "tool `{name}`: `cost_usd` is no amount such as \"0.01\""
        ));
    }
}

/// Whether a name is of a pattern in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some((_, behind)) = rest.split_once(piece) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdio() -> ServerConfig {
        ServerConfig {
            command: vec!["server".to_owned()],
            ..ServerConfig::named("files")
        }
    }

    fn http(url: &str) -> ServerConfig {
        ServerConfig {
            url: Some(url.to_owned()),
            ..ServerConfig::named("web")
        }
    }

    #[test]
    fn patterns_stand_for_whole_names() {
        for (pattern, name, expected) in [
            ("send", "send", true),
            ("send", "send_mail", false),
            ("*", "anything", true),
            ("send_*", "send_mail", true),
            ("send_*", "resend_mail", false),
            ("*_mail", "send_mail", true),
            ("*_mail", "send_mails", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_manifest_that_fits_counts() {
        let mut config = stdio();
        for (name, class) in [("read_*", Class::Read), ("*", Class::Keyed)] {
            config.tools.push(Manifest {
                name: name.to_owned(),
                class,
                ..Manifest::unknown()
            });
        }
        assert_eq!(config.manifest("read_file").class, Class::Read);
        assert_eq!(config.manifest("send").class, Class::Keyed);
        config.tools.clear();
        assert_eq!(config.manifest("read_file"), Manifest::unknown());
    }

    #[test]
    fn good_servers_have_no_problems() {
        assert_eq!(
            problems(&[stdio(), http("https://example.com/mcp")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_mistake_is_told() {
        let with = |change: fn(&mut ServerConfig)| {
            let mut config = stdio();
            change(&mut config);
            config
        };
        let secret = || Secret::new("x");
        let mut header = http("https://example.com/");
        header.headers.insert("Host".to_owned(), secret());
        let mut odd_header = http("https://example.com/");
        odd_header.headers.insert("a b".to_owned(), secret());
        for (config, part) in [
            (with(|it| it.name = "a__b".to_owned()), "`name`"),
            (with(|it| it.name = String::new()), "`name`"),
            (with(|it| it.command.clear()), "exactly one"),
            (
                with(|it| it.url = Some("https://example.com".to_owned())),
                "exactly one",
            ),
            (http("http://example.com/mcp"), "plain http"),
            (http("example.com"), "`url`"),
            (header, "set by the protocol"),
            (odd_header, "no name of a header"),
            (with(|it| it.start_ms = 0), "`start_ms`"),
            (with(|it| it.hard_call_ms = 1), "`hard_call_ms`"),
            (with(|it| it.result_bytes = 0), "`result_bytes`"),
            (with(|it| it.concurrency = 0), "`concurrency`"),
            (
                with(|it| {
                    it.env.insert("A=B".to_owned(), Secret::new("x"));
                }),
                "`env`",
            ),
            (
                with(|it| {
                    it.tools.push(Manifest {
                        class: Class::Probeable,
                        ..Manifest::unknown()
                    });
                }),
                "`probe`",
            ),
            (
                with(|it| {
                    it.tools.push(Manifest {
                        cost_usd: Some("1e3".to_owned()),
                        ..Manifest::unknown()
                    });
                }),
                "`cost_usd`",
            ),
        ] {
            let wrong = config.validate();
            assert!(
                wrong.len() == 1 && wrong[0].contains(part),
                "{part}: {wrong:?}"
            );
        }
        let twice = problems(&[stdio(), stdio()]);
        assert!(twice.len() == 1 && twice[0].contains("twice"), "{twice:?}");
    }

    #[test]
    fn secrets_are_neither_printed_nor_told() {
        let mut config = http("https://example.com/");
        config
            .headers
            .insert("authorization".to_owned(), Secret::new("Bearer topsecret"));
        assert!(!format!("{config:?} {:?}", config.header_map()).contains("topsecret"));
        let told = config.mask("refused: topsecret, Bearer topsecret");
        assert_eq!(told, "refused: ***, ***");
    }
}
