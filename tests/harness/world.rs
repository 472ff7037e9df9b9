//! A gateway in this process, in front of scripted endpoints, with its store in a temporary folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bench::upstream::{Billed, Script, Upstream};
use meter::{Entry, Ledger};
use proxy::boot::{self, Running};
use proxy::config::Config;
use tempfile::TempDir;

use crate::Client;

/// Prices of the scripted endpoints, in USD for a million tokens and in pico-USD a token.
pub const FAST: (&str, &str, u64, u64) = ("1", "4", 1_000_000, 4_000_000);
pub const DEEP: (&str, &str, u64, u64) = ("5", "20", 5_000_000, 20_000_000);

/// The dialects of the scripted endpoints, and what their models are called by.
pub const DIALECTS: [(&str, &str); 3] = [
    ("openai_chat", "chat"),
    ("openai_responses", "responses"),
    ("anthropic_messages", "messages"),
];

/// Everything one test needs.
pub struct World {
    pub running: Running,
    pub fast: Upstream,
    pub deep: Upstream,
    pub client: Client,
    pub file: PathBuf,
    pub folder: TempDir,
}

/// Endpoints `fast` and `deep` in all dialects, with their models and prices.
pub fn endpoints(fast: &Upstream, deep: &Upstream) -> String {
    let mut text = String::new();
    for (tier, upstream, price) in [("fast", fast, FAST), ("deep", deep, DEEP)] {
        write!(
            text,
            "[[price]]\nid = \"test/{tier}\"\ninput = \"{}\"\noutput = \"{}\"\ncache_read = \"0.1\"\n",
            price.0, price.1
        )
        .unwrap();
        for (dialect, short) in DIALECTS {
            write!(
                text,
                "[[endpoint]]\nname = \"{tier}-{short}\"\ndialect = \"{dialect}\"\nurl = \"{}\"\nkey = \"up-{tier}\"\n\
                 [[model]]\nname = \"{tier}-{short}\"\ntier = \"{tier}\"\nendpoint = \"{tier}-{short}\"\n\
                 upstream_model = \"scripted-{tier}\"\nprice = \"test/{tier}\"\n",
                upstream.url()
            )
            .unwrap();
        }
    }
    write!(
        text,
        "[[endpoint]]\nname = \"vectors\"\ndialect = \"openai_embeddings\"\nurl = \"{}\"\nkey = \"up-fast\"\n\
         [[model]]\nname = \"vectors\"\ntier = \"fast\"\nendpoint = \"vectors\"\nprice = \"test/fast\"\n",
        fast.url()
    )
    .unwrap();
    text
}

/// The text of a configuration: `head` (top-level keys in dotted form), what every test needs, and
/// `tail` (tables such as `[[budget]]`).
pub fn config(folder: &Path, head: &str, fast: &Upstream, deep: &Upstream, tail: &str) -> String {
    format!(
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nadmin.token = \"admin-secret\"\n\
         overload.lag_ms = 60000\nstore.dir = {:?}\n{head}\n{}\n{tail}\n",
        folder.join("data"),
        endpoints(fast, deep)
    )
}

/// A script that bills at the prices of `endpoints`.
pub fn script(tier: (&str, &str, u64, u64)) -> Script {
    Script {
        keep: true,
        input_pico: tier.2,
        cached_pico: 100_000,
        output_pico: tier.3,
        ..Script::default()
    }
}

impl World {
    /// A world whose configuration begins with `head` (top-level keys in dotted form) and ends with
    /// `tail` (tables such as `[[budget]]`).
    pub async fn start(head: &str, tail: &str) -> Self {
        let fast = Upstream::start(Script {
            key: Some("up-fast".into()),
            ..script(FAST)
        })
        .await
        .unwrap();
        let deep = Upstream::start(Script {
            key: Some("up-deep".into()),
            ..script(DEEP)
        })
        .await
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pareto.toml");
        // A lot would make one test in some dozens come out otherwise; those about it say so themselves.
        let lot = if head.contains("control_per_thousand") {
            ""
        } else {
            "routing.control_per_thousand = 0\n"
        };
        let head = format!("log.level = \"warn\"\n{lot}{head}");
        let text = config(folder.path(), &head, &fast, &deep, tail);
        std::fs::write(&file, &text).unwrap();
        let config = Config::load(&file).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
        let running = boot::start(config, Some(file.clone())).await.unwrap();
        let mut world = Self {
            client: Client::new(running.address, ""),
            running,
            fast,
            deep,
            file,
            folder,
        };
        world.client.key = world.key("acme").await;
        world
    }

    /// A new key of `tenant`, made through the admin API.
    pub async fn key(&self, tenant: &str) -> String {
        let body = serde_json::json!({ "tenant": tenant, "team": "search", "project": "p1" });
        let reply = self.admin().post("/api/keys", body.to_string()).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["key"].as_str().unwrap().to_owned()
    }

    /// Changes the configuration and puts it in force.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        std::fs::write(&self.file, change(text)).unwrap();
        self.running.reload().unwrap();
    }

    /// A caller with another key.
    pub fn caller(&self, key: &str) -> Client {
        Client::new(self.running.address, key)
    }

    /// The operator.
    pub fn admin(&self) -> Client {
        Client::new(self.running.admin_address, "admin-secret")
    }

    /// All entries of the ledger, oldest first, once everything written is applied.
    pub async fn entries(&self) -> Vec<Entry> {
        let store = Arc::clone(&self.running.parts.store);
        tokio::task::spawn_blocking(move || {
            assert!(store.flush(Duration::from_secs(10)), "the ledger lags");
            let mut entries = store.ledger.latest(100_000).unwrap();
            entries.reverse();
            entries
        })
        .await
        .unwrap()
    }

    /// The split of tenant `acme` as a restart would find it: shuts the gateway down.
    pub async fn saved_split(self) -> serde_json::Value {
        let store = Arc::clone(&self.running.parts.store);
        self.running.shut_down(std::future::pending()).await;
        let state = store.ledger.state().unwrap();
        let split = state.iter().find(|(name, _)| name == "split/acme");
        serde_json::from_str(&split.expect("a split").1).unwrap()
    }

    /// The sum of a metric's series.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin().get("/metrics").await.text();
        let is_of = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        let series = text.lines().filter(is_of);
        let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Waits until nothing is under way or held any more.
    pub async fn quiet(&self) {
        for name in [
            "pareto_in_flight",
            "pareto_holds_inflight",
            "pareto_budget_held_usd",
        ] {
            let mut left = f64::NAN;
            for _ in 0..500 {
                left = self.metric(name).await;
                if left == 0.0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(left == 0.0, "{name} stays at {left}");
        }
    }

    /// The bills of both endpoints.
    pub fn bill(&self) -> Vec<Billed> {
        let mut bill = self.fast.bill();
        bill.extend(self.deep.bill());
        bill
    }

    /// Waits until `done`, at most ten seconds.
    pub async fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..1_000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came: {what}");
    }
}

/// A chat call with one user text.
pub fn chat(model: &str, text: &str, rest: &str) -> String {
    let text = wire::json::quote(text);
    format!(
        "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":{text}}}]{rest}}}"
    )
}
