//! A stage for rehearsals: a brief is carried out step by step as its play has it, with real servers, a
//! real endpoint, a workspace in memory, and everything approved. It knows nothing of how tasks are run
//! in the product, so that a play that does not fit its servers is found here.

use std::collections::{BTreeMap, BTreeSet};

use bench::upstream::{Play, Script, Upstream};
use serde_json::{Value, json};
use tests::Client;

use super::stdio::Server;

pub struct Stage {
    pub brief: Value,
    pub servers: BTreeMap<String, Server>,
    pub files: BTreeMap<String, String>,
    /// Names of the tools that were called with success.
    pub done: Vec<String>,
    upstream: Upstream,
    client: Client,
}

/// Built-ins that every step may call.
const BUILT_IN: [&str; 6] = [
    "fs_list",
    "fs_read",
    "fs_write",
    "document_write",
    "spreadsheet_write",
    "artifact_read",
];

/// More turns than any step of these plays has.
const MOST_TURNS: usize = 10;

impl Stage {
    pub async fn set(brief: &str, play: &str, servers: BTreeMap<String, Server>) -> Self {
        let upstream = Upstream::start(Script::default()).await.unwrap();
        upstream.perform(Play::parse(play).unwrap());
        Self {
            brief: serde_json::from_str(brief).unwrap(),
            client: Client::new(upstream.address, "none"),
            upstream,
            servers,
            files: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn objective(&self) -> &str {
        self.brief["objective"].as_str().unwrap()
    }

    /// What the model answers to a conversation.
    async fn ask(&self, messages: &[Value], tools: &[Value]) -> Value {
        let mut body = json!({ "model": "m", "messages": messages });
        if !tools.is_empty() {
            body["tools"] = Value::from(tools);
        }
        let reply = self
            .client
            .post("/v1/chat/completions", body.to_string())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["choices"][0]["message"].clone()
    }

    /// What is said to one system text.
    async fn said(&self, words: &str) -> Value {
        let system = format!("{words}\n\nThe objective:\n{}\n", self.objective());
        let messages = [
            json!({ "role": "system", "content": system }),
            json!({ "role": "user", "content": "Begin." }),
        ];
        let answer = self.ask(&messages, &[]).await;
        let text = answer["content"].as_str().unwrap();
        serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
    }

    /// Carries out the whole brief and looks whether it is done.
    pub async fn perform(&mut self) {
        let plan = self
            .said("You plan a task. Answer with one JSON object.")
            .await;
        self.judge_plan(&plan);
        let mut outputs: BTreeMap<String, String> = BTreeMap::new();
        for node in plan["nodes"].as_array().unwrap() {
            let output = self.step(node, &outputs).await;
            if node["output_schema"].is_object() {
                let value: Value = serde_json::from_str(&output).unwrap();
                fits(&node["output_schema"], &value, &output);
            }
            outputs.insert(node["id"].as_str().unwrap().to_owned(), output);
        }
        for check in self.brief["definition_of_done"].as_array().unwrap() {
            self.check(check).await;
        }
        let closing = self.said("You close a task. It ran out of money.").await;
        assert!(closing.as_str().unwrap().len() > 20, "{closing}");
        let title = plan["nodes"][0]["title"].as_str().unwrap();
        let notes = format!("You shorten notes. Write what was found.\n\nStep n1: {title}");
        assert!(self.said(&notes).await.as_str().unwrap().contains("Found"));
        assert!(self.upstream.bill().iter().all(|call| call.status == 200));
    }

    /// A plan that code would take: known steps before those that need them, every check covered, no
    /// tool that the brief does not allow, and a tenth of the budget left.
    fn judge_plan(&self, plan: &Value) {
        let (mut before, mut covered, mut shares) = (BTreeSet::new(), BTreeSet::new(), 0.0);
        for node in plan["nodes"].as_array().unwrap() {
            let list = |name: &str| node[name].as_array().unwrap().clone();
            assert!(
                list("depends_on")
                    .iter()
                    .all(|it| before.contains(it.as_str().unwrap()))
            );
            before.insert(node["id"].as_str().unwrap());
            covered.extend(
                list("accept")
                    .iter()
                    .map(|it| it.as_str().unwrap().to_owned()),
            );
            for tool in list("tools") {
                let tool = tool.as_str().unwrap();
                let allowed = self.brief["allowed_tools"].as_array().unwrap();
                let mut allowed = allowed.iter().map(|it| it.as_str().unwrap());
                assert!(allowed.any(|it| admits(it, tool)), "{tool} is not allowed");
            }
            shares += node["budget_share"].as_f64().unwrap();
        }
        let wanted: BTreeSet<String> = self.brief["definition_of_done"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(covered, wanted);
        assert!(shares <= 0.9 + 1e-9, "{shares}");
    }

    /// One step, to its output.
    async fn step(&mut self, node: &Value, outputs: &BTreeMap<String, String>) -> String {
        let (id, title) = (
            node["id"].as_str().unwrap(),
            node["title"].as_str().unwrap(),
        );
        let system = format!(
            "You carry out one step of a task.\n\nThe objective:\n{}\nStep {id}: {title}\n",
            self.objective()
        );
        let mut inputs = String::from("The plan, revision 1:\n");
        for before in node["depends_on"].as_array().unwrap() {
            let before = before.as_str().unwrap();
            inputs.push_str(&format!(
                "\nOutput of step {before}:\n{}\n",
                outputs[before]
            ));
        }
        let mut messages = vec![
            json!({ "role": "system", "content": system }),
            json!({ "role": "user", "content": format!("{inputs}\nBegin the step.") }),
        ];
        let named = node["tools"].as_array().unwrap().iter();
        let named = named.map(|tool| tool.as_str().unwrap());
        let offer = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": { "type": "object" } } });
        let tools: Vec<Value> = BUILT_IN.into_iter().chain(named).map(offer).collect();
        for _ in 0..MOST_TURNS {
            let answer = self.ask(&messages, &tools).await;
            let calls = answer["tool_calls"].as_array().cloned().unwrap_or_default();
            if calls.is_empty() {
                let text = answer["content"].as_str().unwrap().to_owned();
                let astray = ["is not offered", "the play finds no result"];
                assert!(
                    !astray.iter().any(|it| text.contains(it)),
                    "step {id}: {text}"
                );
                // Made-up words end with a space, and no play's text does.
                assert!(!text.ends_with(' '), "step {id} is not in the play: {text}");
                return text;
            }
            messages.push(answer);
            for call in calls {
                let result = self.act(&call["function"]).await;
                messages
                    .push(json!({ "role": "tool", "tool_call_id": call["id"], "content": result }));
            }
        }
        panic!("step {id} does not end");
    }

    /// Does what a model calls for.
    async fn act(&mut self, function: &Value) -> String {
        let name = function["name"].as_str().unwrap();
        let arguments = function["arguments"].as_str().unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let path = arguments["path"].as_str().unwrap_or_default().to_owned();
        let result = match (name, name.split_once("__")) {
            (_, Some((server, tool))) => {
                let server = self.servers.get_mut(server).unwrap();
                let answer = server.call(tool, &arguments).await;
                assert!(!answer.is_error, "{name} {arguments}: {}", answer.text);
                answer.text
            }
            ("fs_read", _) => self.files[&path].clone(),
            ("fs_write", _) => {
                let text = arguments["content"].as_str().unwrap();
                self.files.insert(path, text.to_owned());
                "written".to_owned()
            }
            ("document_write", _) => {
                let markdown = arguments["markdown"].as_str().unwrap();
                assert!(arguments["title"].is_string());
                self.files.insert(path, markdown.to_owned());
                "written".to_owned()
            }
            ("spreadsheet_write", _) => {
                for sheet in arguments["sheets"].as_array().unwrap() {
                    let columns = sheet["columns"].as_array().unwrap().len();
                    let mut rows = sheet["rows"].as_array().unwrap().iter();
                    assert!(sheet["name"].is_string());
                    assert!(rows.all(|row| row.as_array().unwrap().len() == columns));
                }
                self.files.insert(path, arguments["sheets"].to_string());
                "written".to_owned()
            }
            _ => panic!("nobody plays {name}"),
        };
        self.done.push(name.to_owned());
        result
    }

    /// Holds that a check of the brief is met.
    async fn check(&self, check: &Value) {
        let text = |name: &str| check[name].as_str().unwrap_or_default();
        let file = |name: &str| self.files.get(name).unwrap_or_else(|| panic!("no {name}"));
        match text("check") {
            "artifact_exists" => assert!(!file(text("name")).is_empty()),
            "regex" => {
                let pattern = regex::Regex::new(text("pattern")).unwrap();
                assert!(pattern.is_match(file(text("artifact"))), "{check}");
            }
            "json_schema" => {
                let written = file(text("artifact"));
                let value = serde_json::from_str(written).unwrap();
                fits(&check["schema"], &value, written);
            }
            "effect_done" => assert!(self.done.iter().any(|it| it == text("tool")), "{check}"),
            "judge" => {
                let words = format!("You judge a finished piece of work. {}", text("criterion"));
                let verdict = self.said(&words).await;
                assert_eq!(verdict["verdict"], "pass");
                assert!(verdict["evidence"].as_str().unwrap().len() > 20);
            }
            other => panic!("no such check: {other}"),
        }
    }
}

/// Whether a pattern with stars admits a name.
pub fn admits(pattern: &str, name: &str) -> bool {
    let pattern = regex::escape(pattern).replace(r"\*", ".*");
    regex::Regex::new(&format!("^{pattern}$"))
        .unwrap()
        .is_match(name)
}

/// Holds that a value is as a schema says, as far as these schemas go.
fn fits(schema: &Value, value: &Value, whole: &str) {
    let is = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        _ => true,
    };
    assert!(is, "{value} is not {schema} in {whole}");
    if let Some(choices) = schema["enum"].as_array() {
        assert!(choices.contains(value), "{value} is not {schema}");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            !value[name.as_str().unwrap()].is_null(),
            "{name} is missing in {whole}"
        );
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if !value[name].is_null() {
            fits(schema, &value[name], whole);
        }
    }
    if schema["items"].is_object() {
        let items = value.as_array().unwrap();
        assert!(items.len() >= usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).unwrap());
        items
            .iter()
            .for_each(|item| fits(&schema["items"], item, whole));
    }
}
