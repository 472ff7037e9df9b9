//! A server as a process: how it is started, what it says on its standard error, and how it and all
//! that it has started come to their end.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::tool::config::ServerConfig;
use crate::tool::guard;

/// What of our own environment a server may see.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];
/// How long a guardian may take to kill what it guards.
const KILLING: Duration = Duration::from_secs(5);
/// Lines of standard error that are remembered, and bytes of each.
const LINES: usize = 8;
const LINE: u64 = 400;

/// A running server. Dropped, it is killed without waiting for it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Its number, which for a server without guardian is that of its group as well.
    id: Option<Pid>,
    is_guarded: bool,
    said: Said,
    has_ended: bool,
}

/// The ends of its pipes.
pub(super) type Pipes = (ChildStdout, ChildStdin);

impl Process {
    /// Starts the command of `config`, through the guardian where there is one.
    pub(super) fn start(
        config: &ServerConfig,
        guard: Option<&Path>,
        tracker: &TaskTracker,
    ) -> std::io::Result<(Self, Pipes)> {
        let mut command = match (guard, config.command.split_first()) {
            (Some(guard), _) => {
                let mut command = Command::new(guard);
                command.args(guard::words(std::process::id(), &config.command));
                command
            }
            (None, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            (None, None) => return Err(std::io::Error::other("no command is given")),
        };
        command.env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &config.env {
            command.env(name, value.expose());
        }
        if let Some(folder) = &config.cwd {
            command.current_dir(folder);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let pipes = (child.stdout.take(), child.stdin.take());
        let stderr = child.stderr.take();
        let process = Self {
            child,
            id: id.and_then(Pid::from_raw),
            is_guarded: guard.is_some(),
            said: Said::default(),
            has_ended: false,
        };
        if let Some(stderr) = stderr {
            tracker.spawn(process.said.clone().listen(config.name.clone(), stderr));
        }
        match pipes {
            (Some(stdout), Some(stdin)) => Ok((process, (stdout, stdin))),
            _ => Err(std::io::Error::other("it has no pipes")),
        }
    }

    /// What it said last on its standard error.
    pub(super) fn said(&self) -> Said {
        self.said.clone()
    }

    /// Waits for its end, which the closing of its input asks for; kills it and all it has started
    /// after `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        if timeout(patience, self.child.wait()).await.is_err() {
            self.kill();
            if timeout(KILLING, self.child.wait()).await.is_err() {
                tracing::warn!(id = ?self.id, "a tool server's guardian does not end and is killed");
                if let Err(error) = self.child.kill().await {
                    tracing::warn!(%error, "a tool server could not be killed");
                }
            }
        }
        if !self.is_guarded {
            // It has ended; the group has what it left behind.
            self.kill();
        }
        self.has_ended = true;
    }

    /// Has everything killed: by the guardian, or the whole group.
    fn kill(&self) {
        let Some(id) = self.id else { return };
        // What is gone already needs no signal.
        let _sent = if self.is_guarded {
            kill_process(id, Signal::TERM)
        } else {
            kill_process_group(id, Signal::KILL)
        };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill();
        }
    }
}

/// The last lines of a standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    /// The last line that says something.
    pub(super) fn last(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.back().cloned()
    }

    async fn listen(self, server: String, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            // A line without end comes in pieces; nothing grows.
            let read = (&mut reader).take(LINE).read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if text.is_empty() {
                continue;
            }
            tracing::debug!(server, "a tool server wrote to its standard error");
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    }
}
