//! A gateway over a shared ledger with tenants of every kind, and traffic that causes everything there is a
//! panel for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::prometheus::Prometheus;
use bench::upstream::{Fault, Script, Upstream};
use http::Method;
use proxy::boot;
use proxy::config::Config;
use proxy::telemetry::Reconciled;
use tests::collector::Collector;
use tests::world::{DEEP, FAST, World, chat, config, script};
use tests::{Client, Postgres, Process};
use tokio::task::JoinHandle;

const LIMITS: &str = r#"
[[model]]
name = "mystery"
tier = "fast"
endpoint = "fast-chat"
upstream_model = "scripted-fast"
hedge = true

[[endpoint]]
name = "idle"
dialect = "openai_embeddings"
url = "http://127.0.0.1:9/v1"
concurrency = 4

[[model]]
name = "idle"
tier = "fast"
endpoint = "idle"

[[sell]]
plan = "all"
rule = "markup"
pct = "20"

[[budget]]
tenant = "acme"
limit_usd = "100"
window = "month"

[[budget]]
tenant = "acme"
team = "search"
limit_usd = "50"
window = "day"
hard = false

[[budget]]
tenant = "acme"
user = "*"
limit_usd = "5"
window = "rolling 24h"

[[budget]]
tenant = "tiny"
limit_usd = "0.00001"
window = "total"

[[budget]]
tenant = "narrow"
limit_usd = "0.002"
window = "hour"

[[budget]]
tenant = "thrifty"
limit_usd = "10"
window = "month"
degrade = { tell = 0, fast = 1, free = 0 }

[[budget]]
tenant = "thrifty"
team = "search"
limit_usd = "0.00001"
window = "day"
hard = false
degrade = { tell = 0, fast = 1, free = 0 }

[[rate_limit]]
tenant = "limited"
requests_per_minute = 2
"#;

/// The gateway, its callers and its ledger's server.
pub struct Scene {
    pub world: World,
    callers: Callers,
    server: Postgres,
}

struct Callers {
    acme: Client,
    tiny: Client,
    narrow: Client,
    thrifty: Client,
    limited: Client,
    open: Client,
}

/// Traffic that goes on until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Traffic {
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

impl Scene {
    /// Starts it where a process before it was killed with a call under way.
    pub async fn start() -> Self {
        let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
        let url = server.url("postgres");
        let fast = Upstream::start(scripted()).await.unwrap();
        let deep = Upstream::start(script(DEEP)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pareto.toml");
        // Every third post is more than it takes.
        let collector = Collector::answering(|_, number| {
            Some(if number % 3 == 2 {
                (400, "")
            } else {
                (200, "")
            })
        });
        let head = format!(
            "otlp.url = \"{}\"\notlp.interval_ms = 1000\nlog.level = \"info\"\nlog.format = \"json\"\nstore.postgres = \"{url}\"\n\
             upstream.first_byte_timeout_ms = 1000\nrouting.cascade.margin_per_thousand = 1000\n",
            collector.url()
        );
        let text = config(folder.path(), &head, &fast, &deep, LIMITS);
        std::fs::write(&file, &text).unwrap();
        let key = killed_while_answering(&file, &fast).await;
        let config = Config::load(&file).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
        let running = boot::start(config, Some(file.clone())).await.unwrap();
        let world = World {
            client: Client::new(running.address, &key),
            running,
            fast,
            deep,
            file,
            folder,
        };
        // Whoever reconciles tells it like this.
        let at_s = jiff::Timestamp::now().as_second();
        let capture_ratio = 0.9997;
        let endpoint = "fast-chat".to_owned();
        let told = Reconciled {
            endpoint,
            capture_ratio,
            at_s,
        };
        world.running.parts.reconciled.store(Arc::new(vec![told]));
        let caller = async |tenant: &str| world.caller(&world.key(tenant).await);
        let callers = Callers {
            acme: caller("acme").await,
            tiny: caller("tiny").await,
            narrow: caller("narrow").await,
            thrifty: caller("thrifty").await,
            limited: caller("limited").await,
            open: caller("open").await,
        };
        Self {
            world,
            callers,
            server,
        }
    }

    /// Calls of every kind, round after round.
    pub fn traffic(self: &Arc<Self>) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, scene) = (Arc::clone(&stop), Arc::clone(self));
        let task = tokio::task::spawn(async move {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                scene.round(number).await;
                number += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Traffic { stop, task }
    }

    /// Stops the shared ledger's server until a hard budget could not be asked for, and lets everything
    /// recover.
    pub async fn outage(self: &Arc<Self>, prometheus: &Prometheus) {
        let server = |act: fn(&Postgres)| {
            let scene = Arc::clone(self);
            tokio::task::spawn_blocking(move || act(&scene.server))
        };
        server(Postgres::down).await.unwrap();
        for lost in [
            "sum(pareto_budget_decisions_total{decision=\"unavailable\"}) > 0",
            "sum(pareto_lease_rounds_total{result=\"failed\"}) > 0",
        ] {
            prometheus.has(lost).await;
        }
        server(Postgres::up).await.unwrap();
        // Long enough for rates over ten seconds to know only what came after.
        tokio::time::sleep(Duration::from_secs(12)).await;
    }

    pub async fn end(self: Arc<Self>) {
        let scene = Arc::into_inner(self).unwrap();
        scene.world.running.shut_down(std::future::ready(())).await;
    }
}

fn scripted() -> Script {
    Script {
        cached_tokens: 4,
        reasoning_tokens: 2,
        ..script(FAST)
    }
}

/// Runs a gateway until a call is under way, and kills it. Returns a key that it made.
async fn killed_while_answering(file: &std::path::Path, fast: &Upstream) -> String {
    let process = Process::start(env!("CARGO_BIN_EXE_gateway-under-test"), file).await;
    let admin = Client::new(process.admin_address, "admin-secret");
    let owner = serde_json::json!({ "tenant": "acme", "team": "search" });
    let made = admin.post("/api/keys", owner.to_string()).await;
    let key = made.json()["key"].as_str().unwrap().to_owned();
    fast.set_script(Script {
        output_tokens: 10_000,
        token_gap_us: 2_000,
        ..script(FAST)
    });
    let client = Client::new(process.address, &key);
    let body = chat("fast", "Hello", ",\"stream\":true,\"max_tokens\":20000");
    // What an endpoint has seen is in the journal.
    let call =
        tokio::task::spawn(async move { client.post("/v1/chat/completions", body).await.broken });
    let mut known = 0;
    while known == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        known = fast.calls();
    }
    process.kill().await;
    assert!(call.await.unwrap(), "the answer breaks off");
    fast.set_script(scripted());
    key
}

impl Scene {
    /// One round. Answers are not looked at: other tests do.
    async fn round(&self, number: usize) {
        let (callers, fast, deep) = (&self.callers, &self.world.fast, &self.world.deep);
        const CHAT: &str = "/v1/chat/completions";
        let capped = ",\"max_completion_tokens\":200";
        let streamed = ",\"stream\":true,\"max_tokens\":300";
        let text = format!("Question {number}: what is {number} plus {number}?");
        for user in ["ann", "bob"] {
            let headers = [("x-pareto-user", user), ("x-pareto-task", "t1")];
            for rest in [capped, streamed] {
                let body = chat("auto", &text, rest);
                callers.acme.send(Method::POST, CHAT, &headers, body).await;
            }
        }
        callers.acme.post(CHAT, chat("deep", &text, capped)).await;
        callers
            .acme
            .post("/v1/messages", chat("fast", &text, streamed))
            .await;
        // Into another dialect, with something that it has no place for.
        let foreign = chat("fast-messages", &text, ",\"max_tokens\":50,\"seed\":7");
        callers.acme.post(CHAT, foreign).await;
        // Refused: no money, too many, no key; and a model without a price.
        callers.tiny.post(CHAT, chat("fast", &text, capped)).await;
        callers
            .limited
            .post(CHAT, chat("fast", &text, capped))
            .await;
        Client::new(callers.open.address, "nobody")
            .post(CHAT, chat("fast", &text, ""))
            .await;
        callers
            .open
            .post(CHAT, chat("mystery", &text, capped))
            .await;
        // Near the threshold, with an answer that fails a check.
        fast.set_script(Script {
            say: Some("I'm not sure about that.".to_owned()),
            ..scripted()
        });
        callers.open.post(CHAT, chat("auto", &text, capped)).await;
        fast.set_script(scripted());
        // Sent to the fast tier for a budget's sake.
        callers
            .thrifty
            .post(CHAT, chat("auto", &text, capped))
            .await;
        callers
            .thrifty
            .post(CHAT, chat("deep", &text, capped))
            .await;
        if number == 0 {
            at_once(callers, fast, &text).await;
        }
        match number % 4 {
            0 => {
                deep.set_script(Script {
                    fault: Some(Fault::Status(500, None)),
                    ..script(DEEP)
                });
                callers.open.post(CHAT, chat("deep", &text, capped)).await;
                deep.set_script(script(DEEP));
            }
            1 => {
                fast.set_script(Script {
                    fault: Some(Fault::CutAfter(3)),
                    ..scripted()
                });
                callers.open.post(CHAT, chat("fast", &text, streamed)).await;
            }
            2 => {
                fast.set_script(Script {
                    fault: Some(Fault::NoUsage),
                    ..scripted()
                });
                callers.open.post(CHAT, chat("fast", &text, capped)).await;
            }
            _ => {
                fast.set_script(Script {
                    output_tokens: 200,
                    token_gap_us: 2_000,
                    ..scripted()
                });
                callers
                    .open
                    .leave_after(CHAT, chat("fast", &text, streamed), 4)
                    .await;
            }
        }
        fast.set_script(scripted());
    }
}

/// Two calls where money is held for one: the second waits for the first.
async fn at_once(callers: &Callers, fast: &Upstream, text: &str) {
    fast.set_script(Script {
        first_token_ms: 500,
        ..scripted()
    });
    let call = || {
        let body = chat("fast", text, ",\"max_completion_tokens\":300");
        callers.narrow.post("/v1/chat/completions", body)
    };
    tokio::join!(call(), call());
}
