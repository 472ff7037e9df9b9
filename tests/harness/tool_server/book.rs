//! The record of calls: one JSON object a line, on the disk before anything else happens.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

/// A file of calls, which may be older than this process.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    file: Mutex<File>,
}

impl Book {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path);
        Self {
            path: path.to_owned(),
            file: Mutex::new(file.unwrap()),
        }
    }

    /// Writes a call down. It is on the disk when this returns.
    pub fn write(&self, tool: &str, arguments: &Value, key: Option<&str>, more: Value) {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let mut line = json!({
            "tool": tool,
            "arguments": arguments,
            "key": key,
            "at_ms": u64::try_from(since.as_millis()).unwrap(),
            "pid": std::process::id(),
        });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        let mut file = self.file.lock().unwrap();
        // One write, so that a crash tears at most the last line.
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        file.sync_all().unwrap();
    }

    /// The calls of a tool so far, by this process and those before it.
    pub fn calls(&self, tool: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["tool"] == tool).collect()
    }
}
