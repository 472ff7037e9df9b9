//! All tools of a task in one: those of servers, those that the program brings itself, and skills.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::check::Files;
use crate::digest::Digest;
use crate::id::TaskId;
use crate::log::TaskLogError;
use crate::next::Skill;
use crate::skill::{Library, Listed};
use crate::tool::builtin::Builtins;
use crate::tool::host::{AcceptError, Known};
use crate::tool::{Host, Offer, Outcome, ToolCall, Tools};

/// The tools.
#[derive(Debug)]
pub struct Toolbox {
    host: Arc<Host>,
    builtins: Builtins,
    skills: Library,
}

impl Toolbox {
    /// The tools of a host's servers, those of the program, and skills as they were read.
    pub fn new(host: Arc<Host>, builtins: Builtins, skills: Library) -> Self {
        Self {
            host,
            builtins,
            skills,
        }
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

    /// The tools that the program brings itself.
    pub fn builtins(&self) -> &Builtins {
        &self.builtins
    }

    /// The skills that a tenant's briefs may name.
    pub fn skill_list(&self, tenant: &str) -> Vec<Listed> {
        self.skills.list(tenant)
    }

    /// Stops the servers.
    pub fn stop(&self) {
        self.host.stop();
    }
}

impl Tools for Toolbox {
    fn offer(&self, tenant: &str) -> BoxFuture<'_, Offer> {
        let tenant = tenant.to_owned();
        async move {
            let mut offer = self.host.offer(&tenant).await;
            offer.tools.extend(self.builtins.definitions());
            offer
                .tools
                .sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
            offer
        }
        .boxed()
    }

    fn call(&self, call: ToolCall) -> BoxFuture<'_, Outcome> {
        if self.builtins.has(&call.tool) {
            return self.builtins.call(&call);
        }
        self.host.call(call)
    }

    fn files(&self, tenant: &str, task: TaskId) -> BoxFuture<'_, Files> {
        let (builtins, tenant) = (self.builtins.clone(), tenant.to_owned());
        async move {
            let read = tokio::task::spawn_blocking(move || builtins.files(&tenant, task)).await;
            match read {
                Ok(Ok(files)) => files,
                Ok(Err(error)) => {
                    tracing::warn!(%task, %error, "a workspace can not be read");
                    Files::new()
                }
                Err(_) => Files::new(),
            }
        }
        .boxed()
    }

    fn artifact(&self, tenant: &str, task: TaskId, name: &str) -> BoxFuture<'_, Option<Vec<u8>>> {
        let (builtins, tenant, name) = (self.builtins.clone(), tenant.to_owned(), name.to_owned());
        async move {
            let read = move || builtins.file(&tenant, task, &name).ok();
            tokio::task::spawn_blocking(read).await.ok().flatten()
        }
        .boxed()
    }

    fn skill(&self, tenant: &str, name: &str, file: Option<&str>) -> Option<String> {
        match file {
            None => self.skills.load(tenant, name).map(str::to_owned),
            Some(file) => {
                let bytes = self.skills.read(tenant, name, file)?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        }
    }

    fn skills(&self, tenant: &str, named: &[String]) -> Vec<(Skill, Digest)> {
        let known = named.iter().filter_map(|name| {
            let skill = self.skills.skill(tenant, name)?;
            let seen = Skill {
                name: name.clone(),
                description: skill.front.description.clone(),
                trusted: skill.trusted,
            };
            Some((seen, skill.pin()))
        });
        known.collect()
    }
}
