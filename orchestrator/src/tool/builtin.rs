//! Tools that need no server: files of the task's own workspace, documents and tables in it, and reading
//! pages. What they make, they make again to the same when a call is repeated under its key.

mod docx;
mod fetch;
mod files;
mod markup;
mod offer;
mod place;
mod read;
mod sheet;
mod workspace;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::{LATE, Offered, Outcome, ToolCall, ToolResult};
use crate::check::{File, Files, MOST_READ};
use crate::digest::Digest;
use crate::event::cut_at;
use crate::id::TaskId;
use crate::outbound::Outbound;
use files::{arguments, written};

pub use fetch::FetchConfig;
pub use place::{Place, PlaceError};
pub use workspace::{Artifact, Entry, Limits, Workspace, WorkspaceError};

/// Calls on different tasks' files go on beside each other up to this many.
const LANES: usize = 16;

/// The built-in tools, and where their workspaces are. Cheap to clone.
#[derive(Clone)]
pub struct Builtins(Arc<Inner>);

struct Inner {
    root: PathBuf,
    limits: Limits,
    fetch: FetchConfig,
    outbound: Outbound,
    offered: Vec<Offered>,
    /// One call at a time on a workspace, so that two together do not pass its limits.
    lanes: [Mutex<()>; LANES],
}

impl fmt::Debug for Builtins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builtins")
            .field("root", &self.0.root)
            .field("limits", &self.0.limits)
            .field("fetch", &self.0.fetch)
            .finish_non_exhaustive()
    }
}

impl Builtins {
    /// Tools whose workspaces lie below the folder `root`, which is made with the first of them.
    pub fn new(root: PathBuf, limits: Limits, fetch: FetchConfig, outbound: Outbound) -> Self {
        let offered = offer::all(!fetch.hosts.is_empty());
        Self(Arc::new(Inner {
            root,
            limits,
            fetch,
            outbound,
            offered,
            lanes: Default::default(),
        }))
    }

    /// What is offered, in the order of names.
    pub fn definitions(&self) -> Vec<Offered> {
        self.0.offered.clone()
    }

    /// Whether a tool of this name is one of these.
    pub fn has(&self, tool: &str) -> bool {
        self.0.offered.iter().any(|it| it.definition.name == tool)
    }

    /// The workspace of a task; made if it is not there. Blocks.
    ///
    /// # Errors
    /// When its folder can not be made or opened.
    pub fn workspace(&self, tenant: &str, task: TaskId) -> Result<Workspace, WorkspaceError> {
        let limits = self.0.limits.clone();
        Ok(Workspace::open(&self.0.root, tenant, task, limits)?)
    }

    /// Removes a task's workspace, if it has one here. Blocks.
    ///
    /// # Errors
    /// When its folder can not be removed.
    pub fn remove(&self, tenant: &str, task: TaskId) -> Result<(), WorkspaceError> {
        Ok(Workspace::remove(&self.0.root, tenant, task)?)
    }

    /// All files of a task's workspace, as checks read them. Blocks.
    ///
    /// # Errors
    /// When its folder can not be read.
    pub fn files(&self, tenant: &str, task: TaskId) -> Result<Files, WorkspaceError> {
        let at = self.workspace(tenant, task)?;
        let mut files = Files::new();
        for entry in at.list(&Place::root())? {
            if entry.is_folder {
                continue;
            }
            let bytes = at.read_file(&entry.place)?;
            let sha256 = Digest::of(&bytes);
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let text = read::text_of(&entry.place, bytes).ok();
            let text = text.map(|text| cut_at(&text, MOST_READ).to_owned());
            let file = File {
                sha256,
                bytes: size,
                text,
            };
            files.insert(entry.place.as_str().to_owned(), file);
        }
        Ok(files)
    }

    /// A file of a task's workspace. Blocks.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn file(&self, tenant: &str, task: TaskId, name: &str) -> Result<Vec<u8>, WorkspaceError> {
        let at = self.workspace(tenant, task)?;
        at.read_file(&at.place(name)?)
    }

    /// Makes a call, in no longer than it may take. A call on files that takes longer is lost, and may be
    /// made again.
    pub fn call(&self, call: &ToolCall) -> BoxFuture<'static, Outcome> {
        let (this, call) = (self.clone(), call.clone());
        async move {
            let found = this
                .0
                .offered
                .iter()
                .find(|it| it.definition.name == call.tool);
            let Some(offered) = found else {
                return Outcome::NotSent(format!("there is no built-in tool `{}`", call.tool));
            };
            if offered.pin != call.pin {
                return Outcome::Drifted(format!("`{}` is defined otherwise by now", call.tool));
            }
            if call.until.is_over() {
                return Outcome::NotSent(LATE.to_owned());
            }
            if call.tool == offer::FETCH {
                let outbound = this.0.outbound.clone();
                return fetch::fetch(&this.0.fetch, outbound, &call.arguments, call.within).await;
            }
            let (within, name) = (call.within, call.tool.clone());
            let work = tokio::task::spawn_blocking(move || this.on_files(&call));
            match tokio::time::timeout(within, work).await {
                Ok(Ok(result)) => Outcome::Done(result),
                Ok(Err(_)) => Outcome::Lost(format!("`{name}` broke off")),
                Err(_) => Outcome::Lost(format!("`{name}` took longer than it may")),
            }
        }
        .boxed()
    }

    fn on_files(&self, call: &ToolCall) -> ToolResult {
        let last = call.task.bytes().last().copied().unwrap_or(0);
        let lane = self.0.lanes.get(usize::from(last) % LANES);
        let _turn = lane.map(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self
            .workspace(&call.tenant, call.task)
            .and_then(|at| act(&at, call));
        done.unwrap_or_else(|error| ToolResult::error(error.to_string()))
    }
}

fn act(at: &Workspace, call: &ToolCall) -> Result<ToolResult, WorkspaceError> {
    let (key, given) = (call.key.as_str(), &call.arguments);
    match call.tool.as_str() {
        "fs_list" => files::list(at, given),
        "fs_read" => files::read(at, given),
        "fs_search" => files::search(at, given),
        "fs_write" => files::write(at, given),
        "fs_patch" => files::patch(at, key, given),
        "fs_move" => files::rename(at, key, given),
        "fs_trash" => files::trash(at, key, given),
        "document_read" => read::document(at, given),
        "document_write" => document(at, given),
        "spreadsheet_write" => spreadsheet(at, given),
        other => Err(WorkspaceError::Refused(format!(
            "there is no tool `{other}`"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    path: String,
    markdown: String,
    #[serde(default)]
    title: String,
}

fn document(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: Document = arguments(given)?;
    let place = at.place(&given.path)?;
    let bytes = match place.suffix().as_str() {
        "docx" => docx::docx(&given.markdown, &given.title)?,
        "md" if given.title.trim().is_empty() => given.markdown.into_bytes(),
        "md" => format!("# {}\n\n{}", given.title.trim(), given.markdown).into_bytes(),
        _ => return Err(other_suffix(&place, ".docx or .md")),
    };
    at.write_file(&place, &bytes)?;
    Ok(written(&place, &bytes))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spreadsheet {
    path: String,
    sheets: Vec<sheet::Sheet>,
}

fn spreadsheet(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: Spreadsheet = arguments(given)?;
    let place = at.place(&given.path)?;
    let bytes = match place.suffix().as_str() {
        "xlsx" => sheet::xlsx(&given.sheets)?,
        "csv" => sheet::csv(&given.sheets)?,
        _ => return Err(other_suffix(&place, ".xlsx or .csv")),
    };
    at.write_file(&place, &bytes)?;
    Ok(written(&place, &bytes))
}

fn other_suffix(place: &Place, wanted: &str) -> WorkspaceError {
    WorkspaceError::Refused(format!("`{}` must end in {wanted}", place.as_str()))
}

#[cfg(test)]
mod tests;
