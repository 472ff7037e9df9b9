//! The gateway as a program of its own, which can be killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running `pareto serve`.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
}

impl Process {
    /// Starts `program` on `config`, whose log must be JSON at level info, and waits until it listens.
    pub async fn start(program: &str, config: &Path) -> Self {
        Self::start_with(program, config, &[]).await
    }

    /// The same with more in its environment.
    pub async fn start_with(program: &str, config: &Path, with: &[(&str, &str)]) -> Self {
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
            let Some(line) = lines.next_line().await.unwrap() else {
                panic!("it ended:\n{seen}")
            };
            let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if json["message"] == "listening" {
                let read = |name: &str| json[name].as_str().unwrap().parse().unwrap();
                break (read("address"), read("admin"));
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // Whoever stops reading would stop the program at its next full pipe.
        tokio::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            address,
            admin_address,
        }
    }

    /// Kills it, as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}
