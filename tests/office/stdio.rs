//! A client of an MCP server on standard input and output, in plain JSON lines.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub struct Server {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    asked: u64,
}

/// What a tool gave: its text, what is structured of it, and whether it failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub structured: Value,
    pub is_error: bool,
}

impl Server {
    /// Starts a program and shakes hands.
    pub async fn start(command: &[String]) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut server = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            asked: 0,
        };
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "rehearsal", "version": "1" } });
        server.ask("initialize", &hello).await;
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        server.send(&note).await;
        server
    }

    /// The office in `folder`.
    pub async fn office(folder: &std::path::Path) -> Self {
        let program = env!("CARGO_BIN_EXE_office-server").to_owned();
        Self::start(&[program, "--dir".to_owned(), folder.display().to_string()]).await
    }

    async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(&message).await;
        loop {
            let line = self.output.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended at {method}"));
            let answer: Value = serde_json::from_str(&line).unwrap();
            // Servers may note things in between.
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub async fn tools(&mut self) -> Vec<Value> {
        let listed = self.ask("tools/list", &json!({})).await;
        listed["tools"].as_array().unwrap().clone()
    }

    pub async fn call(&mut self, tool: &str, arguments: &Value) -> Answer {
        let params = json!({ "name": tool, "arguments": arguments });
        let result = self.ask("tools/call", &params).await;
        let texts = result["content"].as_array().unwrap().iter();
        let texts: Vec<&str> = texts.filter_map(|part| part["text"].as_str()).collect();
        Answer {
            text: texts.join("\n"),
            structured: result["structuredContent"].clone(),
            is_error: result["isError"] == true,
        }
    }

    /// Kills it, as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Closes its input and waits for its end.
    pub async fn close(mut self) -> bool {
        drop(self.input);
        self.child.wait().await.unwrap().success()
    }
}
