//! `pareto demo`: the whole gateway on real prompts, arrivals and sizes against scripted endpoints,
//! for three tenants, one of which runs out of budget.

mod result;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bench::conversation::{self, Prompt};
use bench::replay::{Planned, Sample, replay};
use bench::trace;
use bench::upstream::{Script, Upstream};
use bytes::Bytes;
use clap::Args;
use meter::finance::Filter;

use super::load::watch;
use super::stop::Stop;
use super::{quiet, report, say};
use crate::boot::{self, Running};
use crate::config::Config;
use crate::identify::{self, Owner};
use result::Outcome;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// End after the result instead of waiting for Ctrl-C.
    #[arg(long)]
    exit: bool,
    /// How many calls, at most 3,000.
    #[arg(long, default_value_t = 3_000)]
    calls: usize,
    /// How much faster than in the trace calls arrive and endpoints answer.
    #[arg(long, default_value_t = 25)]
    speed: u32,
    /// Keep configuration and ledger in this folder, for `report`, `replay`, `explain` and the rest.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Tenants with their share of the calls in tenths.
pub(super) const TENANTS: [(&str, usize); 3] = [("acme", 5), ("globex", 3), ("initech", 2)];

/// A scripted endpoint: model, tier, dialect, price, first token and gap in microseconds, and its
/// own prices in pico-USD a token.
struct Place {
    model: &'static str,
    tier: &'static str,
    dialect: &'static str,
    price: &'static str,
    first_us: u32,
    gap_us: u32,
    pico: (u64, u64),
}

/// Pace as such models have it, prices as the price book has them in November 2026.
const PLACES: [Place; 4] = [
    Place {
        model: "gpt-5-mini",
        tier: "fast",
        dialect: "openai_chat",
        price: "openai/gpt-5-mini",
        first_us: 400_000,
        gap_us: 8_000,
        pico: (250_000, 2_000_000),
    },
    Place {
        model: "gpt-5.4",
        tier: "deep",
        dialect: "openai_chat",
        price: "openai/gpt-5.4",
        first_us: 900_000,
        gap_us: 16_000,
        pico: (2_500_000, 15_000_000),
    },
    Place {
        model: "claude-haiku-4-5",
        tier: "fast",
        dialect: "anthropic_messages",
        price: "anthropic/claude-haiku-4-5",
        first_us: 500_000,
        gap_us: 9_000,
        pico: (1_000_000, 5_000_000),
    },
    Place {
        model: "claude-opus-4-5",
        tier: "deep",
        dialect: "anthropic_messages",
        price: "anthropic/claude-opus-4-5",
        first_us: 1_100_000,
        gap_us: 18_000,
        pico: (5_000_000, 25_000_000),
    },
];

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        quiet();
        boot::runtime()?.block_on(async {
            let mut stop = Stop::new().context("listening for signals")?;
            // It goes with this, however this ends.
            let passing = tempfile::tempdir().context("making a temporary folder")?;
            let played = tokio::select! {
                played = self.play(passing.path(), started) => played?,
                () = stop.asked() => bail!("stopped before its end"),
            };
            if let Some((running, _upstreams)) = played {
                stop.asked().await;
                running.shut_down(std::future::pending()).await;
            }
            Ok(())
        })
    }

    /// Plays it all. What is left running is given back, where it is to stay until somebody ends it.
    async fn play(
        self,
        passing: &Path,
        started: Instant,
    ) -> anyhow::Result<Option<(Running, Vec<Upstream>)>> {
        let folder = self.folder(passing)?;
        let mut upstreams = Vec::new();
        for place in &PLACES {
            upstreams.push(Upstream::start(script(place, self.speed)).await?);
        }
        let text = config(&folder, &upstreams);
        let config = Config::parse(&text).map_err(|problems| {
            anyhow::anyhow!("the demo's configuration: {problems:?}\n{text}")
        })?;
        std::fs::write(folder.join("pareto.toml"), &text).context("writing pareto.toml")?;
        let routing = config.routing.clone();
        let running = boot::start(config, None).await?;
        let keys = keys(&running)?;
        let prompts = Arc::new(conversation::prompts());
        first_call(&running, &keys, started).await?;
        let plan = plan(&prompts, &keys, self.calls, self.speed);
        let samples = watch(running.address, plan, progress).await;
        let verdicts = verdicts(&samples, &prompts, &keys);
        replay(running.address, verdicts, |_| ()).await;
        let patience = Duration::from_secs(30);
        let store = Arc::clone(&running.parts.store);
        tokio::task::spawn_blocking(move || store.flush(patience)).await?;
        let outcome = Outcome::read(&running, &upstreams, &prompts, samples)?;
        say(&outcome.to_string())?;
        let parts = Arc::clone(&running.parts);
        let week = Filter {
            until_ms: i64::MAX,
            ..Filter::default()
        };
        let worth = tokio::task::spawn_blocking(move || {
            parts.study()?;
            anyhow::Ok(parts.appraiser().worth(&week)?)
        });
        let worth = worth.await??;
        say(&report::text(&worth, &routing))?;
        if self.dir.is_some() {
            let config = folder.join("pareto.toml");
            say(&format!(
                "\nKept: pareto report routing --config {}",
                config.display()
            ))?;
        }
        if self.exit {
            running.shut_down(std::future::pending()).await;
            return outcome.verdict().map(|()| None);
        }
        let (address, token) = (running.admin_address, running.parts.admin_token.load());
        let token = token.expose();
        say(&format!(
            "\nPages:    http://pareto:{token}@{address}/\nMetrics:  http://pareto:{token}@{address}/metrics\n\
             Gateway:  http://{}/v1 with key {}\nCtrl-C ends it.",
            running.address,
            keys.first().map_or("", |key| &**key)
        ))?;
        Ok(Some((running, upstreams)))
    }

    /// Where configuration and ledger are written.
    fn folder(&self, passing: &Path) -> anyhow::Result<PathBuf> {
        let Some(dir) = &self.dir else {
            return Ok(passing.to_owned());
        };
        anyhow::ensure!(
            !dir.join("data").exists(),
            "{} has a ledger already; give another folder",
            dir.display()
        );
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        std::path::absolute(dir).context("the folder's path")
    }
}

/// What judges say of the answers: the known outcome of the prompt at the tier that answered.
fn verdicts(samples: &[Sample], prompts: &[Prompt], keys: &[Arc<str>]) -> Vec<Planned> {
    let verdict = |sample: &Sample| {
        let prompt = prompts.get(sample.tag.checked_rem(prompts.len())?)?;
        let request = sample.headers.get("x-request-id")?;
        let score = match result::tier(sample) {
            "deep" => prompt.strong,
            _ => prompt.weak,
        };
        let body = serde_json::json!({ "request_id": request, "score": score });
        Some(Planned {
            at: Duration::ZERO,
            path: "/v1/feedback",
            key: keys.get(tenant_of(sample.tag)).cloned()?,
            body: Bytes::from(body.to_string()),
            tag: sample.tag,
        })
    };
    let served = samples.iter().filter(|it| it.status == 200 && !it.broken);
    served.filter_map(verdict).collect()
}

fn progress(samples: &[Sample]) -> String {
    let served = samples.iter().filter(|sample| sample.status == 200).count();
    let deep = samples
        .iter()
        .filter(|sample| result::tier(sample) == "deep")
        .count();
    let denied = samples.iter().filter(|sample| sample.status == 429).count();
    let per_mille = deep * 1_000 / served.max(1);
    format!(
        "deep {}.{} %  denied {denied}",
        per_mille / 10,
        per_mille % 10
    )
}

fn script(place: &Place, speed: u32) -> Script {
    Script {
        first_token_ms: u64::from(place.first_us / speed.max(1) / 1_000),
        token_gap_us: u64::from(place.gap_us / speed.max(1)),
        tokens_per_event: 8,
        // Each call's own cap, taken from the trace, sets the length.
        output_tokens: 100_000,
        input_pico: place.pico.0,
        output_pico: place.pico.1,
        ..Script::default()
    }
}

fn config(folder: &Path, upstreams: &[Upstream]) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nstore.dir = \"{}\"\n",
        folder.join("data").display()
    );
    // Callers and endpoints are in this process too, and make its threads late.
    text.push_str("overload.lag_ms = 60000\n");
    // Five calls in a hundred, not one: estimates from three thousand calls need some luck.
    text.push_str("routing.control_per_thousand = 50\n");
    text.push_str("[[budget]]\ntenant = \"initech\"\nlimit_usd = \"0.50\"\nwindow = \"total\"\ndegrade = { fast = 0, free = 0 }\n");
    text.push_str("[[budget]]\ntenant = \"acme\"\nlimit_usd = \"500\"\nwindow = \"month\"\n");
    for (place, upstream) in PLACES.iter().zip(upstreams) {
        let Place {
            model,
            tier,
            dialect,
            price,
            ..
        } = place;
        // Writing to a String can not fail.
        let _written = write!(
            text,
            "[[endpoint]]\nname = \"{model}\"\ndialect = \"{dialect}\"\nurl = \"{}\"\n\
             [[model]]\nname = \"{model}\"\ntier = \"{tier}\"\nendpoint = \"{model}\"\nprice = \"{price}\"\n",
            upstream.url()
        );
    }
    text
}

/// A key for each tenant.
fn keys(running: &Running) -> anyhow::Result<Vec<Arc<str>>> {
    let shared = &running.parts.shared;
    let mut keys = Vec::new();
    for (tenant, _) in TENANTS {
        let owner = Owner {
            tenant: tenant.to_owned(),
            label: "demo".to_owned(),
            ..Owner::default()
        };
        let created = identify::create(owner, shared.keys.pepper())?;
        shared.ledger.add_key(&created.row)?;
        keys.push(Arc::from(created.key.expose()));
    }
    shared.keys.load(shared.ledger.keys()?);
    Ok(keys)
}

/// One call ahead of the load, pinned to the fast tier so that it counts in no split.
async fn first_call(running: &Running, keys: &[Arc<str>], started: Instant) -> anyhow::Result<()> {
    let body = "{\"model\":\"fast\",\"max_completion_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    let call = Planned {
        at: Duration::ZERO,
        path: "/v1/chat/completions",
        key: keys.first().cloned().unwrap_or_else(|| Arc::from("")),
        body: Bytes::from_static(body.as_bytes()),
        tag: usize::MAX,
    };
    let (told, mut first) = tokio::sync::mpsc::unbounded_channel();
    // The receiver lives until the call is over.
    replay(running.address, vec![call], move |sample| {
        drop(told.send(sample));
    })
    .await;
    let status = first.recv().await.map_or(0, |sample| sample.status);
    anyhow::ensure!(
        status == 200,
        "the first call was answered with status {status}"
    );
    say(&format!(
        "first call served {} ms after the start",
        started.elapsed().as_millis()
    ))
}

/// Real arrivals and sizes, real prompts; seven calls in ten as chat, three as messages.
fn plan(prompts: &[Prompt], keys: &[Arc<str>], calls: usize, speed: u32) -> Vec<Planned> {
    let arrivals = trace::conversations();
    let plan = arrivals
        .iter()
        .take(calls)
        .enumerate()
        .map(|(number, arrival)| {
            let (path, dialect) = if number * 7 % 10 < 7 {
                ("/v1/chat/completions", "openai_chat")
            } else {
                ("/v1/messages", "anthropic_messages")
            };
            let cap = arrival.generated_tokens.max(1);
            let body = conversation::call(prompts, number, arrival.context_tokens, dialect, cap);
            Planned {
                at: arrival.at / speed.max(1),
                path,
                key: keys
                    .get(tenant_of(number))
                    .cloned()
                    .unwrap_or_else(|| Arc::from("")),
                body: Bytes::from(body.to_string()),
                tag: number,
            }
        });
    plan.collect()
}

/// Which tenant makes call `number`.
pub(super) fn tenant_of(number: usize) -> usize {
    let mut place = number * 13 / 10 % 10;
    TENANTS
        .iter()
        .position(|(_, share)| {
            let found = place < *share;
            place = place.saturating_sub(*share);
            found
        })
        .unwrap_or(0)
}
