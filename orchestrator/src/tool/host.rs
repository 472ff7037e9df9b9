//! The host of tool servers: offers what they have and what was accepted of it, and makes calls of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::config::ServerConfig;
use super::mcp::{Server, World};
use super::pins::{Pins, Standing, changes, standing};
use super::{
    Class, Definition, LATE, Manifest, Offer, Offered, Outcome, ToolCall, Tools, Verb, Withheld,
};
use crate::digest::Digest;
use crate::log::{TaskLog, TaskLogError};
use crate::outbound::Outbound;

/// How old a list of tools may be at the edge of a turn.
const FRESH: Duration = Duration::from_secs(30);

/// What a host needs of the world.
#[derive(Debug)]
pub struct Parts {
    /// Where pins are kept.
    pub log: Arc<dyn TaskLog>,
    /// The way to servers on streamable HTTP.
    pub outbound: Outbound,
    /// Whatever runs is in here, until its last process has ended.
    pub tracker: TaskTracker,
    /// A program that knows `guard` (see [`super::guard`]), through which commands are started so that
    /// nothing of them outlives Pareto. Without it they only get a group of their own.
    pub guard: Option<PathBuf>,
}

/// All servers of tools.
#[derive(Debug)]
pub struct Host {
    servers: BTreeMap<String, Arc<Server>>,
    pins: Pins,
    stop: CancellationToken,
    /// A host that is dropped stops its servers, too.
    _dropped: DropGuard,
}

/// A tool as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    pub tool: String,
    pub server: String,
    /// Of the definition that the server has now; of the accepted one where it has not been asked yet.
    pub pin: Digest,
    pub state: State,
    pub verb: Verb,
    pub class: Class,
    /// What was accepted, where something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Digest>,
    /// What differs from that, in words.
    pub changed: Vec<String>,
    pub definition: Definition,
}

/// Whether a tool may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Accepted,
    /// It is another than the accepted one.
    Withheld,
    /// Nobody has accepted it yet.
    New,
}

/// A tool was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("no server has a tool `{0}`")]
    Unknown(String),
    #[error("the tool has changed since it was looked at: its pin is {0} now; look at it again")]
    Changed(Digest),
    #[error("{0}")]
    Down(String),
    #[error(transparent)]
    Log(#[from] TaskLogError),
}

impl Host {
    /// A host of servers that start when they are first needed. Their configurations have been checked
    /// ([`super::config::problems`]); of two with the same name the first counts.
    pub fn new(servers: Vec<ServerConfig>, parts: Parts) -> Self {
        let stop = CancellationToken::new();
        let world = World {
            outbound: parts.outbound,
            tracker: parts.tracker.clone(),
            guard: parts.guard,
        };
        let mut named = BTreeMap::new();
        for config in servers {
            named
                .entry(config.name.clone())
                .or_insert_with(|| Server::new(config, world.clone(), stop.child_token()));
        }
        Self {
            servers: named,
            pins: Pins::new(parts.log, parts.tracker),
            _dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Stops all servers. Their ends are awaited by the tracker that was handed in, once it is closed.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The names of its servers.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.keys().map(String::as_str)
    }

    /// What is known of all tools, without starting anything: as servers told them last, or else as
    /// they were accepted.
    pub async fn known(&self) -> Result<Vec<Known>, TaskLogError> {
        let pins = self.pins.all(Duration::ZERO).await?;
        let mut known = BTreeMap::new();
        for (name, pin) in &pins {
            if let Some(server) = self.servers.get(&pin.definition.server) {
                let is_unasked = server.last().is_none();
                if is_unasked {
                    let tool = describe(server, pin.definition.clone(), Standing::Accepted);
                    known.insert(name.clone(), tool);
                }
            }
        }
        for server in self.servers.values() {
            for definition in server.last().iter().flat_map(|tools| tools.iter()) {
                let found = standing(pins.get(&definition.name), definition);
                let tool = describe(server, definition.clone(), found);
                known.insert(definition.name.clone(), tool);
            }
        }
        Ok(known.into_values().collect())
    }

    /// Accepts a tool's definition as it is now, which must be the one with this pin. `by` is who says
    /// so.
    pub async fn accept(&self, tool: &str, pin: Digest, by: &str) -> Result<(), AcceptError> {
        let unknown = || AcceptError::Unknown(tool.to_owned());
        let (server, _) = self.find(tool).ok_or_else(unknown)?;
        let deadline = server.start_deadline();
        let tools = server.tools(Duration::MAX, deadline).await;
        let tools = tools.map_err(AcceptError::Down)?;
        let definition = tools.iter().find(|it| it.name == tool);
        let definition = definition.ok_or_else(unknown)?;
        let now = definition.pin();
        if now != pin {
            return Err(AcceptError::Changed(now));
        }
        Ok(self.pins.accept(definition, by).await?)
    }

    /// The server of a tool, and the tool's name there.
    fn find<'a>(&self, tool: &'a str) -> Option<(&Arc<Server>, &'a str)> {
        // No server's name has an underscore.
        let (server, name) = tool.split_once("__")?;
        Some((self.servers.get(server)?, name))
    }

    /// What one server has to offer.
    async fn offer_of(&self, server: &Arc<Server>) -> Offer {
        let mut offer = Offer::default();
        let name = || server.config.name.clone();
        let tools = match server.tools(FRESH, server.start_deadline()).await {
            Ok(tools) => tools,
            Err(why) => {
                offer.down.push((name(), why));
                return offer;
            }
        };
        let standings = match self.pins.judge(&tools, server.config.pin).await {
            Ok(standings) => standings,
            Err(error) => {
                // What can not be shown to be accepted is not offered.
                offer.down.push((name(), error.to_string()));
                return offer;
            }
        };
        for (definition, found) in tools.iter().zip(standings) {
            let pin = definition.pin();
            let withheld = |accepted, changed| Withheld {
                tool: definition.name.clone(),
                accepted,
                now: pin,
                changed,
            };
            match found {
                Standing::Accepted => offer.tools.push(Offered {
                    manifest: manifest(server, definition),
                    definition: definition.clone(),
                    pin,
                }),
                Standing::New => offer
                    .withheld
                    .push(withheld(Digest::default(), vec!["new".to_owned()])),
                Standing::Changed(accepted) => offer.withheld.push(withheld(
                    accepted.pin,
                    changes(&accepted.definition, definition),
                )),
            }
        }
        offer
    }

    async fn call_now(&self, call: ToolCall) -> Outcome {
        let Some(deadline) = Instant::now().checked_add(call.within) else {
            return Outcome::NotSent("the call's deadline can not be said".to_owned());
        };
        let Some((server, name)) = self.find(&call.tool) else {
            return Outcome::NotSent(format!("no server has a tool `{}`", call.tool));
        };
        let ready = match timeout_at(deadline, server.place(deadline)).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(why)) => return Outcome::NotSent(why),
            Err(_) => return Outcome::NotSent("no time was left to send it".to_owned()),
        };
        let checked = timeout_at(deadline, self.check(server, ready.tools(), &call)).await;
        let manifest = match checked {
            Ok(Ok(manifest)) => manifest,
            Ok(Err(outcome)) => return outcome,
            Err(_) => return Outcome::NotSent("no time was left to send it".to_owned()),
        };
        // It may have waited long for its place, or been frozen.
        if call.until.is_over() {
            return Outcome::NotSent(LATE.to_owned());
        }
        server.call(&ready, name, &manifest, &call, deadline).await
    }

    /// Whether a call may be made with these tools: its definition must be the one it was decided by,
    /// and accepted.
    async fn check(
        &self,
        server: &Server,
        tools: &[Definition],
        call: &ToolCall,
    ) -> Result<Manifest, Outcome> {
        let tool = &call.tool;
        let definition = tools.iter().find(|it| it.name == *tool);
        let definition = definition
            .ok_or_else(|| Outcome::Drifted(format!("its server has no tool `{tool}` any more")))?;
        if definition.pin() != call.pin {
            return Err(Outcome::Drifted(format!(
                "`{tool}` is another than the one that was decided on"
            )));
        }
        match self.pins.judge_now(definition, server.config.pin).await {
            Ok(Standing::Accepted) => Ok(manifest(server, definition)),
            Ok(Standing::New) => Err(Outcome::Drifted(format!(
                "nobody has accepted `{tool}` yet"
            ))),
            Ok(Standing::Changed(accepted)) => {
                let what = changes(&accepted.definition, definition).join(", ");
                Err(Outcome::Drifted(format!(
                    "`{tool}` is another than the one that was accepted: {what}"
                )))
            }
            Err(error) => Err(Outcome::NotSent(error.to_string())),
        }
    }
}

impl Tools for Host {
    fn offer(&self, _tenant: &str) -> BoxFuture<'_, Offer> {
        async move {
            let mut whole = Offer::default();
            let all = self.servers.values().map(|server| self.offer_of(server));
            for offer in join_all(all).await {
                whole.tools.extend(offer.tools);
                whole.withheld.extend(offer.withheld);
                whole.down.extend(offer.down);
            }
            whole
                .tools
                .sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
            whole
        }
        .boxed()
    }

    fn call(&self, call: ToolCall) -> BoxFuture<'_, Outcome> {
        self.call_now(call).boxed()
    }
}

/// A tool as an operator sees it, from how it stands to what was accepted.
fn describe(server: &Server, definition: Definition, found: Standing) -> Known {
    let manifest = manifest(server, &definition);
    let pin = definition.pin();
    let (state, accepted, changed) = match found {
        Standing::Accepted => (State::Accepted, Some(pin), Vec::new()),
        Standing::New => (State::New, None, Vec::new()),
        Standing::Changed(accepted) => (
            State::Withheld,
            Some(accepted.pin),
            changes(&accepted.definition, &definition),
        ),
    };
    Known {
        tool: definition.name.clone(),
        server: definition.server.clone(),
        pin,
        state,
        verb: manifest.verb,
        class: manifest.class,
        accepted,
        changed,
        definition,
    }
}

/// What the operator says of a tool. The server's own word can only make it stricter.
fn manifest(server: &Server, definition: &Definition) -> Manifest {
    let name = definition.name.split_once("__");
    let name = name.map_or(definition.name.as_str(), |(_, name)| name);
    let mut manifest = server.config.manifest(name);
    let hints = definition.annotations.as_ref();
    let is_destructive = hints.and_then(|hints| hints.get("destructiveHint")?.as_bool());
    manifest.always_ask |= is_destructive == Some(true);
    manifest
}
