//! `pareto bench`: load on any address that speaks OpenAI's or Anthropic's dialect, and comparisons.

mod aim;
mod own;
mod show;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bench::conversation;
use bench::fixed::{Endpoint, Fixed};
use bench::load::compare::Comparison;
use bench::load::report::Report;
use bench::load::steps::{self, Ladder, Objective};
use bench::load::window::raise_open_files;
use bench::load::{self as engine, Ask, Plan, Shape, Workload, page};
use bench::replay::{Planned, Sample, replay};
use bench::trace;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::stop::Stop;
use super::{quiet, say};

const EXAMPLES: &str = "Examples:
  pareto bench --self                                           # a gateway of its own before a fixed endpoint
  pareto bench rate --url http://127.0.0.1:8080/v1 --rate 1000 --seconds 30
  pareto bench steps --objective p99=50ms --from 500
  pareto bench streams --streams 2000 --chunks 200 --gap-us 20000
  pareto bench saturation --compare nginx=http://127.0.0.1:8001/v1,pareto=http://127.0.0.1:8080/v1 --rounds 7 --html out.html

The key is taken from the environment (PARETO_KEY, or --key-env NAME). Latency counts from the planned start, so a
server that stands still can not hide it; `saturation` alone is a closed loop, for processor time per call.";

/// Options of `pareto bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Load {
    /// What is sent when.
    #[arg(value_enum, default_value_t = Kind::Rate)]
    workload: Kind,
    #[command(flatten)]
    aim: aim::Aim,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    calls: Calls,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What is sent when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Calls at --rate, each at its time by lot (open loop).
    Rate,
    /// Rising rates until --objective breaks: finds the knee.
    Steps,
    /// --connections, each with its next call at once (closed loop): for processor time per call.
    Saturation,
    /// --streams open at once, begun over --ramp.
    Streams,
    /// Arrivals and sizes of a trace, --speed times as fast.
    Trace,
    /// Conversations of --turns with tool calls, begun at --rate.
    Agent,
}

/// How much and how long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pace")]
struct Pace {
    /// Calls, or conversations, a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Seconds of a window, in each round.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of load before it that do not count.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Windows for each target, in turns with the others'; 1 for one target, 7 for several if absent.
    #[arg(long)]
    rounds: Option<usize>,
    /// Connections of `saturation`.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Streams open at once.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// Seconds over which streams are begun.
    #[arg(long, default_value_t = 2.0)]
    ramp: f64,
    /// First rate of `steps`.
    #[arg(long, default_value_t = 100.0)]
    from: f64,
    /// Highest rate of `steps`.
    #[arg(long, default_value_t = 1_000_000.0)]
    most: f64,
    /// What must hold at a rate: a quantile of latency. Beyond 1 % of failed calls it does not hold either.
    #[arg(long, default_value = "p99=50ms")]
    objective: String,
    /// A trace: CSV with TIMESTAMP,ContextTokens,GeneratedTokens; the built-in one if absent.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How much faster than in the trace.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Turns of a conversation.
    #[arg(long, default_value_t = 6)]
    turns: u32,
    /// Mean pause before a turn, in milliseconds.
    #[arg(long, default_value_t = 0)]
    think_ms: u64,
    /// Seconds after which a call has failed.
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Seconds that calls under way get to end behind a window.
    #[arg(long, default_value_t = 5.0)]
    drain: f64,
    /// Seconds after that before memory is looked at once more.
    #[arg(long, default_value_t = 0.0)]
    settle: f64,
    /// Threads of the load; as many as there are cores if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Connections at most; further calls wait, and their wait counts.
    #[arg(long, default_value_t = 20_000)]
    at_once: usize,
    /// Fixes arrivals, order of rounds and resampling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What calls look like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Calls")]
struct Calls {
    /// Length of a body in bytes.
    #[arg(long, conflicts_with = "prompt_tokens")]
    body_bytes: Option<usize>,
    /// About the same, in tokens.
    #[arg(long, alias = "context")]
    prompt_tokens: Option<usize>,
    /// Write `model` as the last key of the body.
    #[arg(long)]
    model_last: bool,
    /// Most answer tokens.
    #[arg(long, default_value_t = 64)]
    tokens: u64,
    /// Stream the answers; `streams` and `agent` always do.
    #[arg(long)]
    stream: bool,
    /// Of the fixed endpoint: pieces of a stream.
    #[arg(long)]
    chunks: Option<u32>,
    /// Of the fixed endpoint: microseconds between two pieces.
    #[arg(long)]
    gap_us: Option<u64>,
    /// Of the fixed endpoint: microseconds before the answer.
    #[arg(long)]
    first_us: Option<u64>,
    /// Of the fixed endpoint: length of a plain answer, or of each piece.
    #[arg(long)]
    answer_bytes: Option<u32>,
}

/// A report on its way to a file.
struct Written {
    path: PathBuf,
    file: File,
}

impl Written {
    fn begin(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    fn end(mut self, text: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        written.with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Load {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        raise_open_files();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("starting the runtime")?;
        runtime.block_on(self.load())
    }

    async fn load(self) -> anyhow::Result<()> {
        let mut stop = Stop::new().context("listening for signals")?;
        // Held until the end: with it go the gateway and its folder.
        let own = self.aim.own.then(own::Own::start).transpose()?;
        let targets = match &own {
            Some(own) => own.targets(&self.aim)?,
            None => self.aim.targets()?,
        };
        let comparison = Comparison {
            plan: self.plan()?,
            rounds: self
                .pace
                .rounds
                .unwrap_or(if targets.len() > 1 { 7 } else { 1 }),
            reference: self.aim.reference(&targets)?,
            direct: aim::direct(&targets),
            targets,
            pause: Duration::from_millis(100),
            prompts: conversation::prompts().into(),
        };
        // A report that can not be written is told of before the load, which may last for hours.
        let json = self.json.as_deref().map(Written::begin).transpose()?;
        let html = self.html.as_deref().map(Written::begin).transpose()?;
        let (told, measured) = tokio::sync::oneshot::channel();
        let load = std::thread::Builder::new();
        let load = load.spawn(move || {
            // Nobody waits for it any more once the command was stopped.
            drop(told.send(self.measure(&comparison)));
        });
        let _load = load.context("starting the load")?;
        let report = tokio::select! {
            report = measured => report.context("the load has broken down")??,
            () = stop.asked() => bail!("stopped before its end"),
        };
        say(&show::text(&report))?;
        if let Some(json) = json {
            json.end(&serde_json::to_string_pretty(&report)?)?;
        }
        if let Some(html) = html {
            html.end(&page::html(&report))?;
        }
        let silent = report.targets.iter().find(|target| target.good == 0);
        silent.map_or(Ok(()), |silent| {
            bail!("no call to {} was good", silent.name)
        })
    }

    fn measure(&self, comparison: &Comparison) -> anyhow::Result<Report> {
        let mut progress = show::Progress::new();
        let mut watch = |now: &engine::compare::Progress<'_>| progress.tell(now);
        let report = if self.workload == Kind::Steps {
            steps::run(comparison, &self.ladder()?, &mut watch)
        } else {
            comparison.run(&mut watch)
        };
        progress.end();
        report
    }

    fn ladder(&self) -> anyhow::Result<Ladder> {
        let (quantile, limit_ms) = objective(&self.pace.objective)?;
        Ok(Ladder {
            from: self.pace.from,
            factor: 2.0,
            most: self.pace.most,
            halvings: 3,
            objective: Objective {
                quantile,
                limit_ms,
                errors: 0.01,
            },
        })
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let pace = &self.pace;
        let positive = pace.rate > 0.0 && pace.seconds > 0.0 && pace.speed > 0.0;
        anyhow::ensure!(positive, "--rate, --seconds and --speed must be above 0");
        let seconds = |name: &str, value: f64| {
            let span = Duration::try_from_secs_f64(value);
            span.with_context(|| format!("--{name} is no span of time"))
        };
        let mut window = seconds("seconds", pace.seconds)?;
        let workload = match self.workload {
            Kind::Rate | Kind::Steps => Workload::Rate {
                per_second: pace.rate,
            },
            Kind::Saturation => Workload::Saturation {
                connections: pace.connections.max(1),
            },
            Kind::Streams => Workload::Streams {
                open: pace.streams.max(1),
                ramp: seconds("ramp", pace.ramp)?,
            },
            Kind::Trace => {
                let arrivals = self.arrivals()?;
                let last = arrivals.last().map_or(Duration::ZERO, |row| row.at);
                window = window.min(last.div_f64(pace.speed) + Duration::from_millis(1));
                Workload::Trace {
                    arrivals: arrivals.into(),
                    speed: pace.speed,
                }
            }
            Kind::Agent => Workload::Agent {
                per_second: pace.rate,
                turns: pace.turns.max(1),
                think: Duration::from_millis(pace.think_ms),
            },
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let is_trace = self.workload == Kind::Trace;
        Ok(Plan {
            workload,
            shape: self.shape(),
            // A trace is replayed from its first row.
            warmup: if is_trace {
                Duration::ZERO
            } else {
                seconds("warmup", pace.warmup)?
            },
            window,
            timeout: seconds("timeout", pace.timeout)?,
            drain: seconds("drain", pace.drain)?,
            settle: seconds("settle", pace.settle)?,
            threads: pace.threads.unwrap_or(cores),
            at_once: pace.at_once.max(1),
            seed: pace.seed,
        })
    }

    fn shape(&self) -> Shape {
        let calls = &self.calls;
        let by_tokens = calls.prompt_tokens.map(|tokens| tokens.saturating_mul(4));
        let streams = matches!(self.workload, Kind::Streams | Kind::Agent);
        Shape {
            body_bytes: calls.body_bytes.or(by_tokens).unwrap_or(1_024),
            stream: calls.stream || streams,
            // A gateway may cut a stream at the cap: room for every piece that is asked for.
            max_tokens: calls
                .tokens
                .max(calls.chunks.map_or(0, |chunks| u64::from(chunks) * 64)),
            model_last: calls.model_last,
            ask: Ask {
                chunks: calls.chunks,
                gap_us: calls.gap_us,
                first_us: calls.first_us,
                bytes: calls.answer_bytes,
            },
        }
    }

    fn arrivals(&self) -> anyhow::Result<Vec<trace::Arrival>> {
        let Some(path) = &self.pace.trace else {
            return Ok(trace::conversations());
        };
        let text = std::fs::read_to_string(path);
        let rows = trace::read(&text.with_context(|| format!("reading {}", path.display()))?);
        anyhow::ensure!(!rows.is_empty(), "{} has no arrivals", path.display());
        Ok(rows)
    }
}

/// Reads `p99=50ms` as a quantile and milliseconds.
fn objective(text: &str) -> anyhow::Result<(f64, f64)> {
    let read = || {
        let (quantile, limit) = text.strip_prefix('p')?.split_once('=')?;
        let per_cent = quantile.parse::<f64>().ok();
        let per_cent = per_cent.filter(|it| (0.0..=100.0).contains(it))?;
        let limit: f64 = match limit.strip_suffix("us") {
            Some(micros) => micros.parse::<f64>().ok()? / 1_000.0,
            None => limit.strip_suffix("ms")?.parse().ok()?,
        };
        Some((per_cent / 100.0, limit))
    };
    read().with_context(|| format!("`{text}` is no objective; write p99=50ms"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read() {
        let close = |text: &str, quantile: f64, limit: f64| {
            let (q, l) = objective(text).unwrap();
            assert!(
                (q - quantile).abs() < 1e-9 && (l - limit).abs() < 1e-9,
                "{text}"
            );
        };
        close("p99=50ms", 0.99, 50.0);
        close("p99.9=200us", 0.999, 0.2);
        close("p50=1.5ms", 0.5, 1.5);
        for wrong in ["p101=1ms", "99=50ms", "p99", "p99=50", "p99=xms"] {
            assert!(objective(wrong).is_err(), "{wrong}");
        }
    }
}
