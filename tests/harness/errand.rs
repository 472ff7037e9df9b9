//! Whole tasks through a gateway in this process: an office behind MCP, a play for the models, and a person
//! who decides over HTTP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::upstream::play::Play;
use http::Method;
use serde_json::{Value, json};

use crate::World;

/// The manifests of the office's tools.
const OFFICE: &str = include_str!("../office/office.toml");

/// A gateway with an office, and a play.
pub struct Errand {
    pub world: World,
    /// The office's folder.
    pub office: PathBuf,
}

/// What an office-server in `dir` is configured by.
pub fn office(program: &str, dir: &Path) -> String {
    OFFICE
        .replace("{command}", program)
        .replace("{dir}", dir.to_str().unwrap())
}

impl Errand {
    /// A gateway whose tasks find the office of `program` (the path of `office-server`) in `dir`.
    pub async fn start(program: &str, head: &str, tail: &str) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        Self::start_in(
            folder,
            head,
            &format!("{}\n{tail}", office(program, Path::new("{office}"))),
        )
        .await
    }

    /// The same with an office folder that is there already; `{office}` in `tail` is that folder.
    pub async fn start_in(office: PathBuf, head: &str, tail: &str) -> Self {
        let tail = tail.replace("{office}", office.to_str().unwrap());
        let world = World::start(head, &tail).await;
        Self { world, office }
    }

    /// Gives both endpoints a play.
    pub fn perform(&self, play: &Value) {
        let text = play.to_string();
        self.world.fast.perform(Play::parse(&text).unwrap());
        self.world.deep.perform(Play::parse(&text).unwrap());
    }

    /// Begins a task and returns its id.
    pub async fn begin(&self, brief: &Value) -> String {
        let reply = self.world.client.post("/v1/tasks", brief.to_string()).await;
        assert!(
            matches!(reply.status, 200..=202),
            "{} {}",
            reply.status,
            reply.text()
        );
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// The task now.
    pub async fn task(&self, id: &str) -> Value {
        let reply = self.world.client.get(&format!("/v1/tasks/{id}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The task once it has ended or waits for a person.
    pub async fn settled(&self, id: &str) -> Value {
        for _ in 0..3_000 {
            let task = self.task(id).await;
            if task["phase"] == "ended" || task["status"] == "requires_action" {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it neither ends nor asks: {:#}", self.task(id).await);
    }

    /// Carries a task to its end: each request is answered by what `decide` says of it.
    pub async fn until_end(&self, id: &str, mut decide: impl FnMut(&Value) -> Value) -> Value {
        for _ in 0..200 {
            let task = self.settled(id).await;
            if task["phase"] == "ended" {
                return task;
            }
            for request in task["required_actions"].as_array().unwrap() {
                let answer = decide(request);
                self.decide(request, &answer).await;
            }
        }
        panic!("it asks for ever: {:#}", self.task(id).await);
    }

    /// Answers one request; what has been closed meanwhile is left alone.
    pub async fn decide(&self, request: &Value, answer: &Value) {
        let key = request["id"].as_str().unwrap();
        let (path, mut body) = if request["asking"] == "input" {
            (format!("/v1/inputs/{key}"), json!({}))
        } else {
            (
                format!("/v1/approvals/{key}/decision"),
                json!({ "digest": request["digest"] }),
            )
        };
        body.as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        let reply = self
            .world
            .client
            .send(Method::POST, &path, &[], body.to_string())
            .await;
        assert!(
            matches!(reply.status, 200..=204 | 409),
            "{} {}",
            reply.status,
            reply.text()
        );
    }

    /// The acts and looks of a task.
    pub async fn effects(&self, id: &str) -> Vec<Value> {
        let path = format!("/v1/tasks/{id}/effects");
        let told = self.world.client.get(&path).await.json();
        told["data"].as_array().unwrap().clone()
    }

    /// The events of a task: word and payload.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let after = events
                .last()
                .map_or(0, |event| event["seq"].as_u64().unwrap());
            let path = format!("/v1/tasks/{id}/events?after={after}&limit=200");
            let reply = self.world.client.get(&path).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let page = reply.json()["data"].as_array().unwrap().clone();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    /// Every call that the office or the recorder in its folder has seen; `tool` is its name.
    pub fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.office.join("calls.jsonl")).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let named = lines.filter_map(|mut line| {
            let name = [line["tool"].take(), line["asked"].take()];
            let name = name.into_iter().find(Value::is_string)?;
            line["tool"] = name;
            Some(line)
        });
        named.collect()
    }
}
