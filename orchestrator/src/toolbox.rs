//! All tools of a task in one: those of servers, and what the program brings itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::check::Files;
use crate::digest::Digest;
use crate::id::TaskId;
use crate::log::TaskLogError;
use crate::next::Skill;
use crate::tool::host::{AcceptError, Known};
use crate::tool::{Host, Offer, Outcome, ToolCall, Tools};

/// The tools.
#[derive(Debug)]
pub struct Toolbox {
    host: Arc<Host>,
}

impl Toolbox {
    /// The tools of a host's servers.
    pub fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// What is known of all tools of servers, without starting any.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn known(&self) -> Result<Vec<Known>, TaskLogError> {
        self.host.known().await
    }

    /// Accepts the definition of a tool as it is now.
    ///
    /// # Errors
    /// Where it is another than `pin`, or its server can not be asked.
    pub async fn accept(&self, tool: &str, pin: Digest, by: &str) -> Result<(), AcceptError> {
        self.host.accept(tool, pin, by).await
    }

    /// The skills that a tenant's briefs may name, as objects with `name`, `description` and `digest`.
    pub fn skill_list(&self, _tenant: &str) -> Vec<Value> {
        Vec::new()
    }

    /// Stops the servers.
    pub fn stop(&self) {
        self.host.stop();
    }
}

impl Tools for Toolbox {
    fn offer(&self, tenant: &str) -> BoxFuture<'_, Offer> {
        self.host.offer(tenant)
    }

    fn call(&self, call: ToolCall) -> BoxFuture<'_, Outcome> {
        self.host.call(call)
    }

    fn files(&self, tenant: &str, task: TaskId) -> BoxFuture<'_, Files> {
        self.host.files(tenant, task)
    }

    fn skill(&self, tenant: &str, name: &str, file: Option<&str>) -> Option<String> {
        self.host.skill(tenant, name, file)
    }

    fn skills(&self, tenant: &str, named: &[String]) -> Vec<(Skill, Digest)> {
        self.host.skills(tenant, named)
    }
}
