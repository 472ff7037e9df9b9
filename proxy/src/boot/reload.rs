//! Reading the configuration again while the gateway runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::run::set_log;
use crate::admin;
use crate::assemble::Parts;
use crate::clock::now_ms;
use crate::config::{Config, Server};
use crate::serve::{self, Settings};
use crate::{request_log, telemetry};

/// What a reload changes of the two listeners.
#[derive(Debug, Clone)]
pub(super) struct Both {
    pub(super) callers: Arc<Settings>,
    pub(super) operators: Arc<Settings>,
}

impl Both {
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let settings = |tls, limits| {
            Arc::new(Settings {
                tls: ArcSwapOption::new(tls),
                limits: ArcSwap::from_pointee(limits),
            })
        };
        Ok(Self {
            callers: settings(tls(config)?, config.limits.clone()),
            operators: settings(None, admin::limits(&config.limits)),
        })
    }

    fn take(&self, config: &Config, tls: Option<Arc<rustls::ServerConfig>>) {
        self.callers.tls.store(tls);
        self.callers.limits.store(Arc::new(config.limits.clone()));
        let limits = admin::limits(&config.limits);
        self.operators.limits.store(Arc::new(limits));
    }
}

/// The configuration's file and how its last reload went.
#[derive(Debug)]
pub(crate) struct Reloads {
    path: Option<PathBuf>,
    parts: Arc<Parts>,
    settings: Both,
    /// What this process was started with, which some keys stay.
    started: Config,
    server: ArcSwap<Server>,
    /// Why the last one was refused. Locked for as long as one is under way.
    last: Mutex<Option<String>>,
}

impl Reloads {
    pub(super) fn new(
        path: Option<PathBuf>,
        parts: &Arc<Parts>,
        settings: &Both,
        started: Config,
    ) -> Self {
        telemetry::took_configuration();
        Self {
            path,
            parts: Arc::clone(parts),
            settings: settings.clone(),
            server: ArcSwap::from_pointee(started.server.clone()),
            started,
            last: Mutex::new(None),
        }
    }

    /// Reads the file again. What is wrong with it is kept, logged and returned, and the
    /// configuration in force stays. Returns the keys that have changed, and that only a restart takes.
    pub(crate) fn reload(&self) -> Result<Vec<&'static str>, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.take();
        telemetry::reloaded(outcome.is_ok());
        match &outcome {
            Ok(left) if left.is_empty() => tracing::info!("took the new configuration"),
            Ok(left) => {
                let left = left.join(", ");
                tracing::warn!(
                    left,
                    "took the new configuration, but for keys that need a restart"
                );
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "refused the new configuration; the last good one stays"
                );
            }
        }
        *last = outcome.as_ref().err().cloned();
        outcome
    }

    fn take(&self) -> Result<Vec<&'static str>, String> {
        let path = self
            .path
            .as_ref()
            .ok_or("this gateway was started without a file")?;
        let config = Config::load(path).map_err(|invalid| invalid.to_string())?;
        // All that can fail comes first, so that what is refused changes nothing.
        let tls = tls(&config)?;
        let log = request_log::open(&config.request_log);
        let log = log.map_err(|error| format!("request_log: {error}"))?;
        let otlp = &self.parts.shared.otlp;
        let collector = otlp
            .open(&config)
            .map_err(|error| format!("otlp: {error}"))?;
        let taken = self.parts.reload(&config);
        taken.map_err(|error| format!("{error:#}"))?;
        log.put();
        otlp.put(collector);
        self.settings.take(&config, tls);
        self.server.store(Arc::new(config.server.clone()));
        set_log(&config.log);
        Ok(left(&self.started, &config))
    }

    /// `[server]` as it is in force.
    pub(super) fn server(&self) -> Arc<Server> {
        self.server.load_full()
    }

    /// Why the last reload was refused; `None` while the file is in force.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What callers' connections are encrypted with, if they are.
fn tls(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>, String> {
    let (Some(certificate), Some(key)) = (&config.server.tls_cert, &config.server.tls_key) else {
        return Ok(None);
    };
    let made = serve::tls(certificate, key).map_err(|error| format!("TLS: {error}"))?;
    if let Some(what) = serve::ending(certificate, now_ms()) {
        tracing::warn!(what, "put a new certificate in its place and reload");
    }
    Ok(Some(made))
}

/// The keys in which `config` differs from what the process was started with, and that it keeps.
fn left(started: &Config, config: &Config) -> Vec<&'static str> {
    let pepper = |it: &Config| it.keys.pepper.as_ref().map(|it| it.expose().to_owned());
    let tasks = |it: &Config| {
        let own = &it.orchestrator;
        (own.enabled, own.workers, own.lease_s, own.tool_call_s)
    };
    let acts = |it: &Config| {
        let own = it.orchestrator.clone();
        (own.secret, own.workspace, own.skills, own.fetch)
    };
    let tools = |it: &Config| it.mcps.clone();
    let memory = |it: &Config| (it.overload.memory_mb, it.overload.bodies_mb);
    let crowd = |it: &Config| (it.limits.connections, it.limits.connections_per_ip);
    let differ = [
        (
            "server.listen",
            started.server.listen != config.server.listen,
        ),
        (
            "server.workers",
            started.server.workers != config.server.workers,
        ),
        ("admin.listen", started.admin.listen != config.admin.listen),
        ("keys.pepper", pepper(started) != pepper(config)),
        (
            "limits.connections, limits.connections_per_ip",
            crowd(started) != crowd(config),
        ),
        ("store", started.store != config.store),
        (
            "orchestrator.enabled, workers, lease_s, tool_call_s",
            tasks(started) != tasks(config),
        ),
        (
            "orchestrator.secret, workspace, skills, fetch",
            acts(started) != acts(config),
        ),
        ("mcp", tools(started) != tools(config)),
        (
            "overload.memory_mb, overload.bodies_mb",
            memory(started) != memory(config),
        ),
    ];
    let differ = differ.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(key, _)| key).collect()
}
