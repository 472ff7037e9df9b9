//! The command line.

mod audit;
mod books;
mod budgets;
mod client;
mod demo;
mod doctor;
mod explain;
mod keys;
mod load;
mod nodes;
mod offers;
mod plain;
mod prices;
mod replay;
mod report;
mod route;
mod schedules;
mod stop;
mod task;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::assemble;
use crate::boot;
use crate::config::{Config, Log};
use crate::runtime::Runtime;

/// A gateway in front of fast and deep models.
#[derive(Debug, Parser)]
#[command(name = "pareto", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  pareto demo --exit
  pareto check --config config/pareto.toml
  pareto keys create --tenant acme --team search --label laptop
  pareto serve --config config/pareto.toml
  pareto usage --by tenant,tier,day
  pareto prices check
  pareto prices diff config/prices.json new.json --replay 30d
  pareto prices import litellm model_prices.json --from 2026-12-01 --out new.json
  pareto route prompts.jsonl --out routed.jsonl
  pareto explain req_0193...
  pareto report routing
  pareto task run config/examples/supplier-review.json
  pareto replay --deep-per-thousand 300
  pareto bench --url http://127.0.0.1:8080/v1 --rate 200";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway. SIGHUP reloads the file, SIGTERM drains, SIGUSR1 opens the request log anew, SIGUSR2 starts a new
    /// process that takes over.
    Serve(Serve),
    /// Show it all: real prompts, scripted endpoints, three tenants, one short of money.
    Demo(demo::Demo),
    /// Put load on any address that speaks a dialect, or compare several.
    Bench(Box<load::Load>),
    /// Check a configuration: prints problems with file, line and column. One of writing (TOML, a name or kind of a
    /// value) is told alone, since what comes behind it is not read; all others together.
    Check(File),
    /// Look at this machine: whether it is fit to run a configuration, and what to do where it is not.
    Doctor(doctor::Doctor),
    /// Make, list and revoke callers' keys.
    Keys(keys::Keys),
    /// Print the ledger's sums as a table or as CSV.
    Usage(usage::Usage),
    /// Check the price book, compare two of them, and take in other lists.
    Prices(prices::Prices),
    /// Show budgets, and change their limits for some time.
    Budgets(budgets::Budgets),
    /// Show the nodes that share a ledger, and take out one that will not come back.
    Nodes(nodes::Nodes),
    /// Tell where prompts or whole calls from a file would go, with score, tier and reason.
    Route(route::Route),
    /// Tell why a call went where it went, and what it cost.
    Explain(explain::Explain),
    /// Tell what routing was worth, and what conversations lost or saved by changing their model.
    Report(report::Report),
    /// Make past decisions again under another policy, price book or split.
    Replay(replay::Replay),
    /// Price past calls anew, where the price book has changed or had no price.
    Rerate(books::Rerate),
    /// Write down usage that became known late.
    Correct(books::Correct),
    /// Hold providers' bills against the ledger.
    Reconcile(books::Reconcile),
    /// Draft, close, show and verify tenants' monthly statements.
    Statements(books::Statements),
    /// Give tenants credits.
    Credits(books::Credits),
    /// Write entries as CSV, JSON lines, Parquet or FOCUS.
    Export(books::Export),
    /// Carry out briefs: begin tasks, follow, steer and answer them.
    Task(task::Task),
    /// Check that the log of tasks is what was written.
    Audit(audit::Audit),
    /// List what tools tasks have, and accept those that have changed.
    Tools(offers::Tools),
    /// List the skills that briefs may name, and check new ones.
    Skills(offers::Skills),
    /// Add, list, run and stop schedules of tasks.
    Schedules(schedules::Schedules),
    /// Run a server of tools so that nothing of it is left behind.
    #[command(hide = true)]
    Guard(Guard),
}

#[derive(Debug, Args)]
struct Guard {
    /// The process with which everything ends; whoever started this one, where it is not said.
    #[arg(long)]
    parent: Option<u32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct File {
    /// The configuration file.
    #[arg(short, long, default_value = "config/pareto.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: File,
    /// Take over from the process that runs on the same store, without a call being lost.
    #[arg(long)]
    take_over: bool,
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
        // Sockets that a service manager has made, in the order of its unit: callers', operators'.
        let mut given = listenfd::ListenFd::from_env();
        let mut socket = |index| {
            given
                .take_tcp_listener(index)
                .context("a socket in LISTEN_FDS")
        };
        let sockets = [socket(0)?, socket(1)?];
        let path = self.file.config;
        let config = load(&path)?;
        boot::start_log(&config.log);
        let origin = boot::Origin {
            path: Some(path),
            // This program is its own guard of what it starts.
            guard: std::env::current_exe().ok(),
            sockets,
            take_over: self.take_over,
        };
        boot::runtime()?.block_on(boot::run(config, origin))
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        // As `head` does it: whoever reads has seen enough.
        Err(error) if error.is::<NobodyReads>() => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when even standard error is gone.
            let _written = writeln!(std::io::stderr(), "pareto: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(serve) => serve.run()?,
        Command::Demo(demo) => demo.run()?,
        Command::Bench(load) => load.run()?,
        Command::Check(file) => return check(&file.config),
        Command::Doctor(doctor) => return doctor.run(),
        Command::Keys(keys) => keys.run()?,
        Command::Usage(usage) => usage.run()?,
        Command::Prices(prices) => return prices.run(),
        Command::Budgets(budgets) => budgets.run()?,
        Command::Nodes(nodes) => nodes.run()?,
        Command::Route(route) => route.run()?,
        Command::Explain(explain) => explain.run()?,
        Command::Report(report) => report.run()?,
        Command::Replay(replay) => replay.run()?,
        Command::Rerate(rerate) => rerate.run()?,
        Command::Correct(correct) => correct.run()?,
        Command::Reconcile(reconcile) => reconcile.run()?,
        Command::Statements(statements) => statements.run()?,
        Command::Credits(credits) => credits.run()?,
        Command::Export(export) => export.run()?,
        Command::Task(task) => return task.run(),
        Command::Audit(audit) => return audit.run(),
        Command::Tools(tools) => tools.run()?,
        Command::Skills(skills) => return skills.run(),
        Command::Schedules(schedules) => schedules.run()?,
        Command::Guard(guard) => return Ok(assemble::guard(guard.parent, guard.command)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks a file; the error lists every problem.
fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path)
        .map_err(|invalid| anyhow::anyhow!("the configuration is not good:\n{invalid}"))
}

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    match Config::load(path) {
        Ok(config) => {
            // As a start makes it: with rates, rules and tokenizers.
            let built = Runtime::build(&config, None)?;
            say(&format!(
                "{}: good (endpoints: {}, models: {}, budgets: {}, prices: {})",
                path.display(),
                config.endpoints.len(),
                config.models.len(),
                config.budgets.len(),
                built.book.len()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(invalid) => {
            writeln!(std::io::stderr(), "{invalid}").context("standard error")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Refuses a stretch of time that ends before it begins.
fn in_order(from_ms: i64, until_ms: i64) -> anyhow::Result<()> {
    anyhow::ensure!(
        from_ms <= until_ms,
        "--until is before --from; give a later --until, or an earlier --from"
    );
    Ok(())
}

/// The end of a stretch of time that begins at `from_ms`: what is said, or now.
fn until(said: Option<&str>, from_ms: i64, now_ms: i64) -> anyhow::Result<i64> {
    let Some(said) = said else {
        anyhow::ensure!(
            from_ms <= now_ms,
            "--from lies in the future; give an earlier one"
        );
        return Ok(now_ms.saturating_add(1));
    };
    let until_ms = usage::moment(said)?;
    in_order(from_ms, until_ms)?;
    Ok(until_ms)
}

/// Nobody reads what is printed any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct NobodyReads;

/// Prints a line for the person at the terminal.
fn say(line: &str) -> anyhow::Result<()> {
    printed(writeln!(std::io::stdout(), "{line}"))
}

/// What writing to standard output came to.
fn printed<T>(written: std::io::Result<T>) -> anyhow::Result<T> {
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => NobodyReads.into(),
        _ => anyhow::Error::new(error).context("standard output"),
    })
}

/// Commands that only look are quiet about everything but failures.
fn quiet() {
    boot::start_log(&Log {
        level: "warn".to_owned(),
        ..Log::default()
    });
}
