//! The gateway as a program of its own, which can be killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a program may take to say the next thing before it listens.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `pareto serve`.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    /// What it has logged since it listens; what processes that it started have logged stands there as well.
    said: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Process {
    /// Starts `program` on `config`, whose log must be JSON at level info, and waits until it listens.
    pub async fn start(program: &str, config: &Path) -> Self {
        Self::start_with(program, config, &[]).await
    }

    /// The same with more in its environment.
    pub async fn start_with(program: &str, config: &Path, with: &[(&str, &str)]) -> Self {
        let started = Self::begin(program, config, with).await;
        started.unwrap_or_else(|seen| panic!("it ended:\n{seen}"))
    }

    /// The same for one that may end before it listens.
    pub async fn try_start(program: &str, config: &Path, with: &[(&str, &str)]) -> Option<Self> {
        Self::begin(program, config, with).await.ok()
    }

    /// Starts, or says what was said until the end.
    async fn begin(program: &str, config: &Path, with: &[(&str, &str)]) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(config)
            .envs(with.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let (address, admin_address) = loop {
            let Ok(line) = timeout(PATIENCE, lines.next_line()).await else {
                panic!("it neither listens nor ends:\n{seen}");
            };
            let Some(line) = line.unwrap() else {
                return Err(seen);
            };
            let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if json["message"] == "listening" {
                let read = |name: &str| json[name].as_str().unwrap().parse().unwrap();
                break (read("address"), read("admin"));
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        // Whoever stops reading would stop the program at its next full pipe.
        tokio::task::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(json) = serde_json::from_str(&line) {
                    saying.lock().unwrap().push(json);
                }
            }
        });
        Ok(Self {
            child,
            address,
            admin_address,
            said,
        })
    }

    /// Waits until it has logged `message` more than `times`, and returns the line, at most 20 s.
    pub async fn said(&self, message: &str, times: usize) -> serde_json::Value {
        for _ in 0..2_000 {
            let found = {
                let said = self.said.lock().unwrap();
                let mut alike = said.iter().filter(|it| it["message"] == message);
                alike.nth(times).cloned()
            };
            if let Some(line) = found {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never said: {message}; {:?}", self.said.lock().unwrap())
    }

    /// All that it has logged since it listens.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.said.lock().unwrap().clone()
    }

    /// Kills it, as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id().unwrap(), name);
    }
}

/// Sends a signal by name to any process.
pub fn signal(id: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}
