//! `pareto route`: prompts or whole calls from a file, and where each would go. Nothing is sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use comfy_table::Table;
use http::HeaderMap;
use indicatif::{ProgressBar, ProgressStyle};
use router::config::DEFAULT_CLASS;
use router::features::MOST_BYTES;
use router::learn::Head;
use router::switch::Stakes;
use router::{
    Asked, Caller, Features, Model, Outlook, Policy, Quote, Rules, Ruling, Split, Step, Wanted,
};
use wire::dialect::{self, line};
use wire::{Dialect, Shape, Tier, json};

use super::load;
use crate::hints;
use crate::runtime::Runtime;

/// Lines that are scanned together, on all cores; then they are decided in order, on one.
const BATCH: usize = 4_096;

#[derive(Debug, Args)]
pub(super) struct Route {
    /// Lines of JSON: {"id", "prompt", "tools"?}, whole bodies in any dialect, or lines of a batch;
    /// standard input if absent. Whatever model a body names, it is routed as `auto`.
    input: Option<PathBuf>,
    /// Where to write; standard output if absent.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take models, share and priors from this configuration; one fast and one deep model if absent.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// The share of calls that goes to the deep tier, in thousandths.
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    deep_per_thousand: Option<u16>,
    /// The dialect of whole bodies, where it is not to be recognised.
    #[arg(long, value_parser = dialect_named)]
    dialect: Option<&'static dyn Dialect>,
    /// Try the configuration's rules as for a call of this tenant,
    #[arg(long, default_value = "", requires = "config")]
    tenant: String,
    /// of this workflow,
    #[arg(long, default_value = "", requires = "config")]
    workflow: String,
    /// with this sensitivity label,
    #[arg(long, default_value = "", requires = "config")]
    label: String,
    /// and with this header; may be given again.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header, requires = "config")]
    headers: Vec<(String, String)>,
    /// Add the structure that was seen to each line.
    #[arg(long)]
    explain: bool,
    /// Write a bad line's error in its place, instead of ending there.
    #[arg(long)]
    keep_going: bool,
}

fn dialect_named(name: &str) -> Result<&'static dyn Dialect, String> {
    dialect::named(name)
        .filter(|dialect| dialect.converses())
        .ok_or_else(|| "write openai_chat, openai_responses or anthropic_messages".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((pair.0.trim().to_ascii_lowercase(), pair.1.trim().to_owned()))
}

/// What decides: models, rules, shares, and the splits so far, by class.
struct Desk {
    policy: Policy,
    config: router::Config,
    splits: BTreeMap<String, Split>,
    /// The models and rules are an operator's own, and worth showing.
    is_own: bool,
}

/// A line after its scan.
struct Scanned {
    /// As JSON.
    id: String,
    text: String,
    system: String,
    shape: Shape,
    step: Option<Step>,
    dialect: &'static dyn Dialect,
}

/// A line that can not be routed.
struct Bad {
    id: Option<String>,
    why: String,
}

/// What the table at the end says.
#[derive(Default)]
struct Tally {
    calls: u64,
    deep: u64,
    bad: u64,
    refused: u64,
    steps: [u64; Step::ALL.len()],
}

impl Route {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut desk = self.desk()?;
        let (input, size): (Box<dyn Read>, Option<u64>) = match &self.input {
            Some(path) => {
                let file = File::open(path);
                let file = file.with_context(|| format!("opening {}", path.display()))?;
                let size = file.metadata().ok().map(|data| data.len());
                (Box::new(file), size)
            }
            None => (Box::new(std::io::stdin().lock()), None),
        };
        let mut output: Box<dyn Write> = match &self.out {
            Some(path) => Box::new(File::create(path).with_context(|| shown(path))?),
            None => Box::new(std::io::stdout().lock()),
        };
        let mut output = BufWriter::with_capacity(1 << 18, &mut output);
        let mut input = BufReader::with_capacity(1 << 18, input);
        let (bar, began) = (progress(size), Instant::now());
        let (mut tally, mut number) = (Tally::default(), 0);
        loop {
            let lines = batch(&mut input)?;
            if lines.is_empty() {
                break;
            }
            let bytes: usize = lines.iter().map(Vec::len).sum();
            for scanned in self.scan(&lines, number) {
                number += 1;
                let Some(scanned) = scanned else { continue };
                let decided = match scanned {
                    Ok(scanned) => self.decide(&scanned, &mut desk, &mut tally),
                    Err(bad) => self.bad(number, &bad, &mut tally),
                };
                let flushed = decided.is_err().then(|| output.flush());
                flushed.transpose()?;
                writeln!(output, "{}", decided?).context("writing")?;
            }
            bar.inc(u64::try_from(bytes).unwrap_or(0));
        }
        output.flush().context("writing")?;
        bar.finish_and_clear();
        let table = tally.table(began.elapsed().as_secs_f64());
        writeln!(std::io::stderr(), "{table}").context("standard error")
    }

    fn desk(&self) -> anyhow::Result<Desk> {
        let config = self.config.as_deref().map(load).transpose()?;
        let (policy, mut routing) = match &config {
            Some(config) => (Runtime::build(config, None)?.policy, config.routing.clone()),
            None => (built_in()?, router::Config::default()),
        };
        // Each line shall say where the score leads: nothing is drawn by lot here.
        routing.control_per_thousand = 0;
        if let Some(share) = self.deep_per_thousand {
            routing.deep_per_thousand = share;
            routing
                .classes
                .iter_mut()
                .for_each(|it| it.deep_per_thousand = share);
        }
        Ok(Desk {
            policy,
            config: routing,
            splits: BTreeMap::new(),
            is_own: config.is_some(),
        })
    }

    /// Scans lines on all cores, in order; `None` for an empty one.
    fn scan(&self, lines: &[Vec<u8>], before: u64) -> Vec<Option<Result<Scanned, Bad>>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let size = lines.len().div_ceil(cores).max(1);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (before + 1..)
                .step_by(size)
                .zip(lines.chunks(size))
                .map(|(first, lines)| {
                    scope.spawn(move || {
                        let numbered = (first..).zip(lines);
                        let scan = |(number, line): (u64, &Vec<u8>)| {
                            let line = line.trim_ascii();
                            (!line.is_empty()).then(|| self.scan_one(line, number))
                        };
                        numbered.map(scan).collect::<Vec<_>>()
                    })
                })
                .collect();
            let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
            let of = |lines: std::thread::Result<_>| -> Vec<_> {
                lines.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            joined.flat_map(of).collect()
        })
    }

    /// Scans a line as the gateway scans a call.
    fn scan_one(&self, line: &[u8], number: u64) -> Result<Scanned, Bad> {
        let bad = |id: Option<&str>, why: String| Bad {
            id: id.map(str::to_owned),
            why,
        };
        let read = line::read(line, self.dialect).map_err(|error| bad(None, error.to_string()))?;
        let (id, dialect) = (read.id, read.dialect);
        let scan = dialect.scan(&read.body);
        let scan = scan.map_err(|error| bad(id, error.to_string()))?;
        let hint = hints::read(&HeaderMap::new(), &scan);
        let hint = hint.map_err(|error| bad(id, error.to_string()))?;
        let body = Bytes::from(read.body.into_owned());
        let taken_out = hints::taken_out(body, scan, dialect);
        let (body, scan) = taken_out.map_err(|error| bad(id, error.to_string()))?;
        let mut buffer = [0; MOST_BYTES];
        let system = body.get(scan.system_at.clone()).unwrap_or_default();
        Ok(Scanned {
            id: id.map_or_else(|| number.to_string(), str::to_owned),
            text: scan.prompt(&body, &mut buffer).to_owned(),
            system: String::from_utf8_lossy(system).into_owned(),
            shape: scan.shape,
            step: hint.step,
            dialect,
        })
    }

    /// What the rules say of a call such as was asked for.
    fn judge(&self, policy: &Policy, step: Step) -> anyhow::Result<Ruling> {
        let header = |name: &str| {
            let found = self.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let ruling = policy.rules().judge(&Caller {
            tenant: &self.tenant,
            team: "",
            project: "",
            user: "",
            workflow: &self.workflow,
            label: &self.label,
            regions: &[],
            step,
            asked: "auto",
            header: &header,
        });
        ruling.context("--label")
    }

    fn decide(
        &self,
        scanned: &Scanned,
        desk: &mut Desk,
        tally: &mut Tally,
    ) -> anyhow::Result<String> {
        let features = Features {
            text: &scanned.text,
            shape: &scanned.shape,
        };
        let seen = || Step::of(&features, &scanned.system);
        let step = scanned.step.unwrap_or_else(seen);
        let ruling = self.judge(&desk.policy, step)?;
        let asked = Asked {
            wanted: Wanted::Auto,
            dialect: scanned.dialect.name(),
            converses: scanned.dialect.converses(),
            stay: None,
            seat: None,
            step,
            score: None,
            seen: None,
            head: &Head::default(),
            ruling: &ruling,
            prompt_tokens: u64::from(scanned.shape.text_bytes) / 4,
            luck: 0,
            band: None,
            debt: 0,
        };
        let outlook = Outlook {
            usable: &|_| true,
            quote: &|_| Quote::default(),
            stakes: &|_, _| Stakes::default(),
        };
        let class = ruling.class.as_deref().unwrap_or(DEFAULT_CLASS);
        let target = desk.config.target(class);
        let split = match desk.splits.get_mut(class) {
            Some(split) => split,
            None => desk
                .splits
                .entry(class.to_owned())
                .or_insert_with(|| Split::new(target)),
        };
        let (policy, config) = (&desk.policy, &desk.config);
        let route = match router::decide(&features, &asked, policy, config, &outlook, split) {
            Ok(route) => route,
            Err(error) => {
                tally.refused += 1;
                let (id, error) = (&scanned.id, json::quote(&error.to_string()));
                return Ok(format!("{{\"id\":{id},\"refused\":{error}}}"));
            }
        };
        tally.calls += 1;
        tally.deep += u64::from(route.tier == Tier::Deep);
        for (step, count) in Step::ALL.iter().zip(&mut tally.steps) {
            *count += u64::from(*step == route.step);
        }
        let mut line = written(&scanned.id, &route);
        if desk.is_own {
            line.push_str(&own(&route, class, &ruling, policy)?);
        }
        if self.explain {
            line.push_str(",\"shape\":");
            line.push_str(&serde_json::to_string(&scanned.shape)?);
        }
        line.push('}');
        Ok(line)
    }

    fn bad(&self, number: u64, bad: &Bad, tally: &mut Tally) -> anyhow::Result<String> {
        if !self.keep_going {
            let why = &bad.why;
            bail!(
                "line {number} can not be routed: {why}; mend it, or pass over such lines with --keep-going"
            );
        }
        tally.bad += 1;
        let id = bad.id.as_ref();
        let id = id.map_or_else(String::new, |id| format!("\"id\":{id},"));
        let error = json::quote(&bad.why);
        Ok(format!("{{{id}\"line\":{number},\"error\":{error}}}"))
    }
}

fn shown(path: &Path) -> String {
    format!("writing {}", path.display())
}

/// The next lines; none at the end.
fn batch(input: &mut dyn BufRead) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::with_capacity(BATCH);
    while lines.len() < BATCH {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).context("reading")? == 0 {
            break;
        }
        lines.push(line);
    }
    Ok(lines)
}

/// A bar over the bytes of a file, for a person at a terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let bar = match size {
        _ if !std::io::stderr().is_terminal() => return ProgressBar::hidden(),
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::no_length(),
    };
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// One model in each tier, which any dialect reaches.
fn built_in() -> anyhow::Result<Policy> {
    let model = |tier: Tier| Model::new(tier.as_str(), tier, dialect::OPENAI_CHAT.name());
    let models = vec![model(Tier::Fast), model(Tier::Deep)];
    Ok(Policy::new(models, Rules::default())?)
}

/// A line but for its closing brace. The score is the shortest decimal that reads back as the same
/// number: ties would be lost in rounding.
fn written(id: &str, route: &router::Route) -> String {
    let score = route.score;
    let score = score.map_or_else(|| "null".to_owned(), |score| score.0.to_string());
    format!(
        "{{\"id\":{id},\"score\":{score},\"tier\":\"{}\",\"reason\":\"{}\",\"step\":\"{}\"",
        route.tier.as_str(),
        route.reason,
        route.step.as_str()
    )
}

/// What an operator's own rules and models make of a line, as further fields.
fn own(
    route: &router::Route,
    class: &str,
    ruling: &Ruling,
    policy: &Policy,
) -> anyhow::Result<String> {
    let first = route.order.iter().next();
    let model = first.and_then(|place| policy.models().get(place));
    let rules: Vec<&str> = policy.rules().names(&ruling.applied).collect();
    let would: Vec<&str> = policy.rules().names(&ruling.would).collect();
    Ok(format!(
        ",\"model\":{},\"class\":{},\"rules\":{},\"would\":{}",
        json::quote(model.map_or("", |model| &*model.name)),
        json::quote(class),
        serde_json::to_string(&rules)?,
        serde_json::to_string(&would)?,
    ))
}

impl Tally {
    #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
    fn table(&self, seconds: f64) -> Table {
        let mut table = Table::new();
        let share = 100.0 * self.deep as f64 / self.calls.max(1) as f64;
        table.add_row(["calls".to_owned(), self.calls.to_string()]);
        table.add_row(["deep".to_owned(), format!("{} ({share:.1} %)", self.deep)]);
        for (step, count) in Step::ALL.iter().zip(self.steps) {
            if count > 0 {
                table.add_row([format!("  {}", step.as_str()), count.to_string()]);
            }
        }
        if self.refused > 0 {
            table.add_row(["refused".to_owned(), self.refused.to_string()]);
        }
        if self.bad > 0 {
            table.add_row(["bad lines".to_owned(), self.bad.to_string()]);
        }
        let rate = (self.calls + self.bad) as f64 / seconds.max(1e-9);
        table.add_row(["lines a second".to_owned(), format!("{rate:.0}")]);
        table
    }
}
