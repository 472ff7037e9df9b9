//! The desk: folders of JSON files, one lock over all of them, and the log of everything asked.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{calendar, mailbox};

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub tool: String,
    pub arguments: Value,
    /// What came as `_meta`.
    pub meta: Value,
}

impl Call {
    /// A text among its arguments; the error says that it is missing.
    pub(super) fn text(&self, name: &str) -> Result<&str, String> {
        let missing = || format!("{} needs `{name}` as text", self.tool);
        self.given(name).ok_or_else(missing)
    }

    /// A text that may be left out.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.arguments[name].as_str()
    }
}

/// The day as it begins.
const DAY: [(&str, &str); 5] = [
    ("mail", include_str!("../../office/day/mail.json")),
    ("events", include_str!("../../office/day/events.json")),
    ("tasks", include_str!("../../office/day/tasks.json")),
    ("files", include_str!("../../office/day/files.json")),
    ("drafts", "[]\n"),
];

/// The state of the office in a folder. Several programs may share one.
#[derive(Debug)]
pub struct Desk {
    folder: PathBuf,
}

impl Desk {
    /// The office in `folder`, which begins its day where it has not.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let desk = Self {
            folder: folder.to_owned(),
        };
        let _held = desk.lock()?;
        for (name, text) in DAY {
            if !desk.path(name).exists() {
                desk.keep(name, text)?;
            }
        }
        Ok(desk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Held until it is dropped, also against other programs.
    fn lock(&self) -> std::io::Result<File> {
        let file = File::create(self.folder.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The list in one of the files.
    pub fn list(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Writes a list, all or nothing, and returns when it is on the disk.
    pub(super) fn write(&self, name: &str, list: &[Value]) {
        let text = serde_json::to_string_pretty(list).unwrap();
        self.keep(name, &text).unwrap();
    }

    fn keep(&self, name: &str, text: &str) -> std::io::Result<()> {
        let new = self.folder.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, self.path(name))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Drafts that were sent.
    pub fn sent(&self) -> Vec<Value> {
        let mut drafts = self.list("drafts");
        drafts.retain(|draft| draft["sent"] == true);
        drafts
    }

    /// The lines of the log: each call has one when it came and one when it was answered.
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("calls.jsonl")).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The text that stands in for a tool's description.
    pub(super) fn description(&self, tool: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path("descriptions")).ok()?;
        let texts: Value = serde_json::from_str(&text).ok()?;
        Some(texts[tool].as_str()?.to_owned())
    }

    /// Does what is asked. What it changes is on the disk before it returns.
    pub fn call(&self, call: &Call) -> Result<Value, String> {
        let _held = self.lock().map_err(|error| error.to_string())?;
        self.note(&json!({ "asked": call.tool, "arguments": call.arguments, "meta": call.meta }));
        let answer = match call.tool.as_str() {
            "list_mail" => mailbox::list(self, call),
            "get_thread" => mailbox::thread(self, call),
            "search_mail" => mailbox::search(self, call),
            "create_draft" => mailbox::create_draft(self, call),
            "find_draft" => mailbox::find_draft(self, call),
            "send_draft" => mailbox::send_draft(self, call),
            "list_events" => calendar::list(self, call),
            "create_event" => calendar::create(self, call),
            "list_tasks" => Ok(json!({ "tasks": self.list("tasks") })),
            "list_files" => Ok(json!({ "files": self.shelf() })),
            "read_file" => self.read_file(call),
            "write_file" => self.write_file(call),
            other => Err(format!("there is no tool {other}")),
        };
        let end = match &answer {
            Ok(answer) => json!({ "answered": call.tool, "answer": answer }),
            Err(words) => json!({ "refused": call.tool, "why": words }),
        };
        self.note(&end);
        answer
    }

    fn note(&self, line: &Value) {
        let path = self.folder.join("calls.jsonl");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        file.sync_all().unwrap();
    }

    /// The files without what is in them.
    fn shelf(&self) -> Vec<Value> {
        let mut files = self.list("files");
        for file in &mut files {
            file["etag"] = etag(file);
            file["bytes"] = Value::from(file["content"].as_str().unwrap_or_default().len());
            file.as_object_mut().unwrap().remove("content");
            file.as_object_mut().unwrap().remove("key");
        }
        files
    }

    fn read_file(&self, call: &Call) -> Result<Value, String> {
        let path = call.text("path")?;
        let files = self.list("files");
        let mut found = files.into_iter().filter(|file| file["path"] == path);
        let mut file = found.next().ok_or(format!("there is no file {path}"))?;
        file["etag"] = etag(&file);
        Ok(file)
    }

    /// Keyed where a key came: the same key writes nothing again.
    fn write_file(&self, call: &Call) -> Result<Value, String> {
        let (path, content) = (call.text("path")?, call.text("content")?);
        if path.starts_with('/') || path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(format!("{path} is no path in these files"));
        }
        let mut files = self.list("files");
        let place = files.iter().position(|file| file["path"] == path);
        let known = place.map(|place| &files[place]);
        let written = call.given("key");
        if let Some(file) = known
            && written.is_some()
            && file["key"].as_str() == written
        {
            return Ok(json!({ "path": path, "etag": etag(file), "written": false }));
        }
        if known.is_some_and(|file| file["protected"] == true) {
            return Err(format!("{path} is protected; its owner changes it"));
        }
        let file = json!({ "path": path, "owner": "ana@harbour-finch.example", "protected": false,
            "canonical": false, "content": content, "key": written });
        let answer = json!({ "path": path, "etag": etag(&file), "written": true });
        match place {
            Some(place) => files[place] = file,
            None => files.push(file),
        }
        self.write("files", &files);
        Ok(answer)
    }
}

/// Changes with what is in a file.
fn etag(file: &Value) -> Value {
    let text = file["content"].as_str().unwrap_or_default();
    Value::from(digest(&[text])[..16].to_owned())
}

/// SHA-256 of texts, each framed by its length, in hex.
pub(super) fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
