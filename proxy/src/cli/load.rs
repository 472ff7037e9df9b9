//! `pareto bench`: real prompts at a fixed rate, open loop, against any address that speaks a dialect.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bench::conversation;
use bench::replay::{Planned, Sample, replay};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::{quiet, say};
use crate::boot;

#[derive(Debug, Args)]
pub(super) struct Load {
    /// Where to send calls.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// The key to send.
    #[arg(long, default_value = "")]
    key: String,
    /// Calls a second; each starts at its time, whatever the earlier ones do.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Answer tokens asked for.
    #[arg(long, default_value_t = 64)]
    tokens: u64,
    /// Prompt tokens, about: earlier turns fill the conversation up.
    #[arg(long, default_value_t = 250)]
    context: u64,
    /// How calls are written.
    #[arg(long, value_enum, default_value_t = Dialect::Chat)]
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dialect {
    /// OpenAI Chat Completions.
    Chat,
    /// Anthropic Messages.
    Messages,
}

impl Load {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        boot::runtime()?.block_on(self.load())
    }

    async fn load(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rate > 0 && self.seconds > 0,
            "--rate and --seconds must be above 0"
        );
        let plan = self.plan();
        let samples = watch(self.address, plan, |_| String::new()).await;
        say(&report(&samples))
    }

    fn plan(&self) -> Vec<Planned> {
        let prompts = conversation::prompts();
        let (path, dialect) = match self.dialect {
            Dialect::Chat => ("/v1/chat/completions", "openai_chat"),
            Dialect::Messages => ("/v1/messages", "anthropic_messages"),
        };
        let key: Arc<str> = Arc::from(self.key.as_str());
        let calls = usize::try_from(self.rate.saturating_mul(self.seconds)).unwrap_or(0);
        (0..calls)
            .map(|number| {
                let body = conversation::call(&prompts, number, self.context, dialect, self.tokens);
                let place = u32::try_from(number).unwrap_or(u32::MAX);
                Planned {
                    at: Duration::from_secs(1) * place / self.rate,
                    path,
                    key: Arc::clone(&key),
                    body: Bytes::from(body.to_string()),
                    tag: number,
                }
            })
            .collect()
    }
}

/// Sends `plan` under a progress bar to `address` and returns how each call went; `state` says in a few words how it
/// stands.
pub(super) async fn watch(
    address: SocketAddr,
    plan: Vec<Planned>,
    state: fn(&[Sample]) -> String,
) -> Vec<Sample> {
    let bar = ProgressBar::new(u64::try_from(plan.len()).unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} calls  {msg}  {elapsed}")
    {
        bar.set_style(style);
    }
    let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
    let (kept, shown) = (Arc::clone(&samples), bar.clone());
    let terminal = std::io::stderr().is_terminal();
    replay(address, plan, move |sample| {
        let mut samples = kept.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push(sample);
        shown.inc(1);
        if samples.len() % 50 == 0 {
            let state = state(&samples);
            shown.set_message(state.clone());
            // Without a terminal the bar is invisible; a line now and then is not.
            if !terminal && samples.len() % 500 == 0 {
                let line = format!("{} calls  {state}", samples.len());
                writeln!(std::io::stderr(), "{line}").ok();
            }
        }
    })
    .await;
    bar.finish();
    std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner))
}

fn report(samples: &[Sample]) -> String {
    let good: Vec<&Sample> = samples
        .iter()
        .filter(|s| s.status == 200 && !s.broken)
        .collect();
    let late = samples.iter().filter(|sample| sample.held_back).count();
    let mut table = Table::new();
    table.set_header(["calls", "good", "refused", "broken", "started late"]);
    let refused = samples.iter().filter(|sample| sample.status >= 400).count();
    let broken = samples.len() - good.len() - refused;
    table.add_row([samples.len(), good.len(), refused, broken, late]);
    let mut times = Table::new();
    times.set_header([
        "from the planned start",
        "p50, ms",
        "p90, ms",
        "p99, ms",
        "longest, ms",
    ]);
    for (name, of) in [
        (
            "first byte",
            (|sample: &Sample| sample.first_byte) as fn(&Sample) -> Duration,
        ),
        ("whole answer", |sample| sample.total),
    ] {
        let mut sorted: Vec<Duration> = good.iter().map(|sample| of(sample)).collect();
        sorted.sort_unstable();
        let at = |per_cent: usize| {
            let place = sorted.len().saturating_sub(1) * per_cent / 100;
            let time = sorted.get(place).copied().unwrap_or_default();
            format!("{:.2}", time.as_secs_f64() * 1_000.0)
        };
        times.add_row([name.to_owned(), at(50), at(90), at(99), at(100)]);
    }
    format!("{table}\n{times}")
}
