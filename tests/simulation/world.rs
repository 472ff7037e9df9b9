//! The world of a simulated task: a log that dies, tools that act once or twice, models that say anything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use orchestrator::actor::{Ports, Settled, Threads};
use orchestrator::check::{File, Files};
use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::*;
use orchestrator::model::{Body, Models};
use orchestrator::next::{Limits, Policy};
use orchestrator::tool::*;
use serde_json::{Value, json};
use tests::MemoryLog;
use tokio::sync::Notify;

/// A xorshift, so that a seed tells all.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// When the program dies: at the so-manieth operation, and what of that operation still happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Before,
    After,
    /// Not dead but frozen: whoever thaws goes on where it stood.
    Freeze,
}

/// A made-up world.
#[derive(Debug)]
pub struct World {
    pub log: MemoryLog,
    pub random: Mutex<Random>,
    pub now_ms: AtomicI64,
    /// Operations until the next death.
    pub fuse: AtomicI64,
    pub death: Mutex<Death>,
    pub dead: AtomicBool,
    pub died: Notify,
    pub thawed: Notify,
    /// What tools have done, in order: idempotency key, tool, whether the remote took it as new.
    pub done: Mutex<Vec<Deed>>,
    /// What models have charged, by the call's id in the ledger, in nano-USD.
    pub bill: Mutex<BTreeMap<String, i64>>,
    pub limit: Option<i64>,
    pub violations: Mutex<Vec<String>>,
}

#[derive(Debug, Clone)]
pub struct Deed {
    pub key: String,
    pub tool: String,
    pub new: bool,
}

pub fn tool(name: &str, verb: Verb, class: Class) -> Offered {
    let definition = Definition {
        name: format!("w__{name}"),
        server: "w".into(),
        title: None,
        description: name.into(),
        input_schema: json!({"type": "object"}),
        output_schema: None,
        annotations: None,
    };
    let probe = (class == Class::Probeable).then(|| Probe {
        tool: "find".into(),
        arguments: json!({"marker": "{key}"}),
        found: "{key}".into(),
        settle_ms: 1_000,
    });
    Offered {
        pin: definition.pin(),
        manifest: Manifest {
            verb,
            class,
            probe,
            destinations: if verb == Verb::Execute {
                vec!["to".into()]
            } else {
                Vec::new()
            },
            cost_usd: (verb == Verb::Execute).then(|| "0.0001".to_owned()),
            trusted: name != "look",
            ..Manifest::unknown()
        },
        definition,
    }
}

pub fn tools() -> Vec<Offered> {
    vec![
        tool("book", Verb::Execute, Class::Keyed),
        tool("draft", Verb::Draft, Class::Probeable),
        tool("find", Verb::Retrieve, Class::Read),
        tool("look", Verb::Retrieve, Class::Read),
        tool("note", Verb::Draft, Class::Workspace),
        tool("post", Verb::Execute, Class::Probeable),
        tool("send", Verb::Execute, Class::Unkeyed),
    ]
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut random = Random::new(seed);
        let limit = (!random.one_in(3))
            .then(|| 2_000_000 + i64::try_from(random.below(40_000_000)).unwrap());
        Arc::new(Self {
            log: MemoryLog::new(1_800_000_000_000),
            random: Mutex::new(random),
            now_ms: AtomicI64::new(1_800_000_000_000),
            fuse: AtomicI64::new(i64::MAX),
            death: Mutex::new(Death::Before),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            thawed: Notify::new(),
            done: Mutex::default(),
            bill: Mutex::default(),
            limit,
            violations: Mutex::default(),
        })
    }

    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap())
    }

    pub fn wrong(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub fn advance(&self, by_ms: i64) {
        let now = self.now_ms.fetch_add(by_ms, Ordering::SeqCst) + by_ms;
        self.log.set_ms(now);
    }

    /// Whether the program dies at this operation, and how.
    fn strikes(&self) -> Option<Death> {
        if self.dead.load(Ordering::SeqCst) {
            return Some(Death::Before);
        }
        (self.fuse.fetch_sub(1, Ordering::SeqCst) == 1).then(|| {
            let death = *self.death.lock().unwrap();
            if death != Death::Freeze {
                self.dead.store(true, Ordering::SeqCst);
            }
            self.died.notify_one();
            death
        })
    }

    pub fn ports(self: &Arc<Self>) -> Arc<Ports> {
        let (clock, random) = (Arc::clone(self), Arc::clone(self));
        Arc::new(Ports {
            log: Arc::new(DyingLog(Arc::clone(self))),
            tools: Arc::new(WorldTools(Arc::clone(self))),
            models: models(Arc::clone(self)),
            settled: settled(Arc::clone(self)),
            clock: Arc::new(move || clock.now_ms.load(Ordering::SeqCst)),
            random: Arc::new(move || {
                let mut bytes = [0; 10];
                let drawn = random.draw(|it| (it.next(), it.next()));
                bytes[..8].copy_from_slice(&drawn.0.to_be_bytes());
                bytes[8..].copy_from_slice(&drawn.1.to_be_bytes()[..2]);
                bytes
            }),
            policy: Arc::new(|| Policy {
                limits: Limits {
                    turns: 6,
                    stalled_calls: 10,
                    ..Limits::default()
                },
                ..Policy::default()
            }),
            secret: b"simulated".to_vec(),
            threads: Threads::Here,
            call_within: std::time::Duration::from_secs(30),
        })
    }
}

/// What the ledger has of a call. Whoever was only frozen may still have it under way.
fn settled(world: Arc<World>) -> Settled {
    Arc::new(move |request| {
        let frozen = *world.death.lock().unwrap() == Death::Freeze;
        let bill = world.bill.lock().unwrap();
        let cost = bill.get(&request).copied().unwrap_or(0);
        Box::pin(std::future::ready(
            (!frozen).then_some(orchestrator::Usd(cost)),
        ))
    })
}

/// The log of a program that may die at each append: before it, behind it, or frozen behind it.
#[derive(Debug)]
struct DyingLog(Arc<World>);

fn dead() -> TaskLogError {
    TaskLogError {
        what: "reach the log",
        cause: "the program is dead".into(),
    }
}

impl TaskLog for DyingLog {
    fn now_ms(&self) -> Result<i64, TaskLogError> {
        self.0.log.now_ms()
    }
    fn create(&self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError> {
        self.0.log.create(new, changes)
    }
    fn append(&self, append: &Append<'_>) -> Result<(), AppendError> {
        match self.0.strikes() {
            Some(Death::Before) => Err(AppendError::Failed(dead())),
            Some(Death::After | Death::Freeze) => {
                let appended = self.0.log.append(append);
                if *self.0.death.lock().unwrap() == Death::Freeze {
                    return appended;
                }
                Err(AppendError::Failed(dead()))
            }
            None => self.0.log.append(append),
        }
    }
    fn events(&self, task: TaskId, after: u64, limit: u32) -> Result<Vec<Recorded>, TaskLogError> {
        if self.0.dead.load(Ordering::SeqCst) {
            return Err(dead());
        }
        self.0.log.events(task, after, limit)
    }
    fn task(&self, task: TaskId) -> Result<Option<TaskRow>, TaskLogError> {
        self.0.log.task(task)
    }
    fn list(&self, filter: &Filter) -> Result<Vec<TaskRow>, TaskLogError> {
        self.0.log.list(filter)
    }
    fn counts(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, TaskLogError> {
        self.0.log.counts(tenant)
    }
    fn claim(&self, node: &str, lease_ms: i64, limit: u32) -> Result<Vec<Claim>, TaskLogError> {
        self.0.log.claim(node, lease_ms, limit)
    }
    fn renew(
        &self,
        node: &str,
        held: &[(TaskId, u64)],
        lease_ms: i64,
    ) -> Result<Vec<Renewed>, TaskLogError> {
        self.0.log.renew(node, held, lease_ms)
    }
    fn release(&self, task: TaskId, epoch: u64) -> Result<(), TaskLogError> {
        self.0.log.release(task, epoch)
    }
    fn erase(&self, task: TaskId) -> Result<bool, TaskLogError> {
        self.0.log.erase(task)
    }
    fn put_blob(&self, task: TaskId, bytes: &[u8]) -> Result<Digest, TaskLogError> {
        self.0.log.put_blob(task, bytes)
    }
    fn blob(&self, task: TaskId, digest: Digest) -> Result<Option<Vec<u8>>, TaskLogError> {
        self.0.log.blob(task, digest)
    }
    fn record(&self, kind: Kind, tenant: &str, id: &str) -> Result<Option<Record>, TaskLogError> {
        self.0.log.record(kind, tenant, id)
    }
    fn records(
        &self,
        kind: Kind,
        tenant: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Record>, TaskLogError> {
        self.0.log.records(kind, tenant, after, limit)
    }
    fn due(&self, kind: Kind, now_ms: i64, limit: u32) -> Result<Vec<Record>, TaskLogError> {
        self.0.log.due(kind, now_ms, limit)
    }
    fn note(&self, note: &Note, changes: &[Change]) -> Result<(), AppendError> {
        self.0.log.note(note, changes)
    }

    fn change(&self, changes: &[Change]) -> Result<(), AppendError> {
        self.0.log.change(changes)
    }
    fn links(&self, tenant: &str, after: u64, limit: u32) -> Result<Vec<Link>, TaskLogError> {
        self.0.log.links(tenant, after, limit)
    }
    fn tenants(&self) -> Result<Vec<String>, TaskLogError> {
        self.0.log.tenants()
    }
}

#[derive(Debug)]
struct WorldTools(Arc<World>);

impl Tools for WorldTools {
    fn offer(&self, _: &str) -> BoxFuture<'_, Offer> {
        Box::pin(async {
            Offer {
                tools: tools(),
                ..Offer::default()
            }
        })
    }

    fn call(&self, call: ToolCall) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let world = &self.0;
            match world.strikes() {
                Some(Death::Before) => std::future::pending().await,
                Some(Death::Freeze) => world.thawed.notified().await,
                Some(Death::After) | None => {}
            }
            let outcome = world.perform(&call);
            if world.dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            match world.draw(|it| it.below(40)) {
                0 => Outcome::Lost("the connection broke".into()),
                1 => {
                    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
                    outcome
                }
                _ => outcome,
            }
        })
    }

    fn files(&self, _: &str, _: TaskId) -> BoxFuture<'_, Files> {
        Box::pin(async {
            let noted = self
                .0
                .done
                .lock()
                .unwrap()
                .iter()
                .any(|deed| deed.tool == "w__note");
            let file = File {
                sha256: Digest::of(b"note"),
                bytes: 4,
                text: Some("note".into()),
            };
            noted
                .then(|| ("note.md".to_owned(), file))
                .into_iter()
                .collect()
        })
    }
}

impl World {
    /// What a tool does when a call reaches it.
    fn perform(&self, call: &ToolCall) -> Outcome {
        let mut done = self.done.lock().unwrap();
        let text = |key: &str| call.arguments[key].as_str().unwrap_or_default().to_owned();
        if call.tool == "w__find" {
            let marker = text("marker");
            let found = done.iter().any(|deed| deed.new && deed.key == marker);
            return Outcome::Done(ToolResult::text(if found {
                marker
            } else {
                "nothing".into()
            }));
        }
        if call.tool == "w__look" {
            drop(done);
            let n = self.draw(|it| it.below(1_000));
            return Outcome::Done(ToolResult::text(format!("seen {n}")));
        }
        let new = !(call.tool == "w__book" && done.iter().any(|deed| deed.key == call.key));
        done.push(Deed {
            key: call.key.clone(),
            tool: call.tool.clone(),
            new,
        });
        drop(done);
        if self.draw(|it| it.one_in(25)) {
            return Outcome::Done(ToolResult::error("done, and grumbling"));
        }
        Outcome::Done(ToolResult::text("done"))
    }
}

fn models(world: Arc<World>) -> Models {
    Models::new(tower::service_fn(move |request: Request<Body>| {
        let world = Arc::clone(&world);
        async move { Ok::<_, Infallible>(answer(world, request).await) }
    }))
}

async fn answer(world: Arc<World>, request: Request<Body>) -> Response<Body> {
    let most = request
        .headers()
        .get("x-pareto-max-cost")
        .map(|it| it.to_str().unwrap().to_owned());
    let most = most.map(|text| orchestrator::Usd::parse(&text).unwrap().0);
    let id = request
        .extensions()
        .get::<wire::RequestId>()
        .unwrap()
        .to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let call: Value = serde_json::from_slice(&body).unwrap();
    paired(&world, &call);
    let strike = world.strikes();
    match strike {
        Some(Death::Before) => std::future::pending().await,
        Some(Death::Freeze) => world.thawed.notified().await,
        Some(Death::After) | None => {}
    }
    match world.draw(|it| it.below(60)) {
        0 => {
            return reply(
                500,
                &json!({"error": {"code": "upstream", "message": "broken"}}),
                0,
            );
        }
        1 => {
            return reply(
                429,
                &json!({"error": {"code": "rate_limit", "message": "slow"}}),
                0,
            );
        }
        2 => {
            return reply(
                429,
                &json!({"error": {"code": "budget_exceeded", "message": "no money"}}),
                0,
            );
        }
        _ => {}
    }
    let cost = 10_000 + i64::try_from(world.draw(|it| it.below(900_000))).unwrap();
    if most.is_some_and(|most| cost > most) {
        return reply(
            402,
            &json!({"error": {"code": "max_cost_exceeded", "message": "too dear"}}),
            0,
        );
    }
    world.bill.lock().unwrap().insert(id, cost);
    if strike == Some(Death::After) {
        return std::future::pending().await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(
        world.draw(|it| it.below(50)),
    ))
    .await;
    reply(200, &said(&world, &call), cost)
}

/// Every call of a tool has exactly one result, right behind it.
fn paired(world: &World, call: &Value) {
    let mut open: Vec<String> = Vec::new();
    for message in call["messages"].as_array().unwrap() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap().to_owned();
            match open.iter().position(|it| *it == id) {
                Some(at) => drop(open.remove(at)),
                None => world.wrong(format!("a result without a call: {id}")),
            }
            continue;
        }
        if !open.is_empty() {
            world.wrong(format!("calls without results: {open:?}"));
            open.clear();
        }
        let uses = message["tool_calls"].as_array().into_iter().flatten();
        open.extend(uses.map(|it| it["id"].as_str().unwrap().to_owned()));
    }
    if !open.is_empty() {
        world.wrong(format!("calls without results at the end: {open:?}"));
    }
}

fn reply(status: u16, body: &Value, cost: i64) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
    Response::builder()
        .status(status)
        .header("x-pareto-cost-usd", orchestrator::Usd(cost).to_string())
        .header("x-pareto-tier", "fast")
        .header("x-pareto-model", "simulated")
        .body(body.boxed_unsync())
        .unwrap()
}

/// What the model says: a plan, a verdict, calls of tools, or a last word.
fn said(world: &World, call: &Value) -> Value {
    let system = call["messages"][0]["content"].to_string();
    let mut message = json!({"role": "assistant", "content": "All is done."});
    if system.contains("You plan a task.") {
        message["content"] = plan(world, call).into();
    } else if system.contains("You judge") {
        let pass = !world.draw(|it| it.one_in(6));
        message["content"] =
            json!({"verdict": if pass { "pass" } else { "fail" }, "evidence": "seen"})
                .to_string()
                .into();
    } else if let Some(tools) = call["tools"].as_array()
        && world.draw(|it| !it.one_in(3))
    {
        message["content"] = Value::Null;
        message["tool_calls"] = (0..=world.draw(|it| it.below(3)))
            .map(|n| uses(world, tools, n))
            .collect();
    }
    json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "simulated",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

fn uses(world: &World, tools: &[Value], n: u64) -> Value {
    let mut names: Vec<String> = tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.retain(|name| name.starts_with("w__") || name == "ask_user");
    names.push("w__missing".into());
    let name = &names[usize::try_from(world.draw(|it| it.below(names.len() as u64))).unwrap()];
    let (to, number) = world.draw(|it| (it.below(3), it.below(1_000)));
    let arguments = match name.as_str() {
        "ask_user" => json!({"question": "Which one?", "default": "the first"}),
        _ if world.draw(|it| it.one_in(30)) => return broken(name, n),
        _ => json!({"to": format!("to-{to}"), "text": number, "marker": "none"}),
    };
    json!({"id": format!("call_{n}"), "type": "function",
        "function": {"name": name, "arguments": arguments.to_string()}})
}

fn broken(name: &str, n: u64) -> Value {
    json!({"id": format!("call_{n}"), "type": "function", "function": {"name": name, "arguments": "{\"to\": "}})
}

fn plan(world: &World, call: &Value) -> String {
    let good = call["messages"][0]["content"]
        .to_string()
        .contains("- good:");
    let asked = call["messages"][1]["content"].as_str().unwrap();
    let kept = asked
        .split("exactly as they are:\n")
        .nth(1)
        .map(|rest| rest.lines().next().unwrap());
    let kept: Vec<Value> = kept
        .map(|kept| serde_json::from_str(kept).unwrap())
        .unwrap_or_default();
    if world.draw(|it| it.one_in(12)) {
        return "I would rather not.".into();
    }
    let count = 1 + world.draw(|it| it.below(4));
    let first = 10 * kept.len() as u64;
    let new = (0..count).map(|n| {
        let before: Vec<String> = (0..n).filter(|_| world.draw(|it| it.one_in(2))).map(|it| format!("n{}", first + it)).collect();
        let acts = if world.draw(|it| it.one_in(4)) {
            json!([{"tool": "w__send", "arguments": {"to": "to-1", "text": 7, "marker": "none"}}])
        } else {
            json!([])
        };
        let on_fail = ["replan", "skip", "stop"][usize::try_from(world.draw(|it| it.below(3))).unwrap()];
        json!({"id": format!("n{}", first + n), "kind": "act", "title": "work", "depends_on": before,
            "tools": ["w__*"], "accept": if good { json!(["done", "good"]) } else { json!(["done"]) }, "on_fail": on_fail, "acts": acts,
            "writes": if n % 2 == 0 { json!(["file:note.md"]) } else { json!([]) }})
    });
    let new: Vec<Value> = new.collect();
    let nodes: Vec<Value> = kept.into_iter().chain(new).collect();
    json!({"nodes": nodes, "max_parallel": 3}).to_string()
}
