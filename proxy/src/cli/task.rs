//! `pareto task`: tasks are begun, followed, steered and answered from a terminal.

mod acts;
mod asked;
mod costs;
mod follow;
mod local;
mod outcome;
mod picture;
mod run;
mod screen;
mod scripted;
mod stop;
mod teller;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::boot;
use crate::config::Log;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Task {
    #[command(subcommand)]
    act: Act,
}

const EXAMPLES: &str = "Examples:
  pareto task run config/examples/supplier-review.json
  pareto task run brief.json --address 127.0.0.1:8080 --key sk-par-...
  pareto task list
  pareto task approve 0193....r1
  pareto task steer task_0193... \"leave out the annex\"";

#[derive(Debug, Subcommand)]
enum Act {
    /// Carry out a brief, and follow it to its end. The same brief is the same task: who comes back goes on.
    Run(Box<run::Run>),
    /// List tasks, the newest first.
    List(acts::List),
    /// Show how a task stands: plan, money, what it waits for.
    Show(acts::Show),
    /// Follow a task that is under way, and answer what it asks.
    Watch(acts::Watch),
    /// Show the plan of a task.
    Plan(acts::One),
    /// Show every call of a tool, and what came of it.
    Effects(acts::One),
    /// Tell why each call went where it went, and why each act was done or not.
    Explain(acts::One),
    /// Print the events of a task.
    Events(acts::Events),
    /// Show what waits for a person, and decide over it.
    Approve(acts::Approve),
    /// Answer a question of a task.
    Answer(acts::Answer),
    /// Begin nothing more until the task is resumed.
    Pause(acts::Say),
    /// Go on with a task that was paused.
    Resume(acts::One),
    /// End a task: no act of it begins any more.
    Cancel(acts::Say),
    /// Tell a task something; it hears it at its next turn.
    Steer(acts::Steer),
    /// Give a task more money, in USD.
    Raise(acts::Raise),
    /// List what a task has made, or copy it.
    Artifacts(acts::Artifacts),
}

impl Task {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        // Warnings would tear the picture in a terminal.
        let level = if screen::is_terminal() {
            "error"
        } else {
            "warn"
        };
        boot::start_log(&Log {
            level: level.to_owned(),
            ..Log::default()
        });
        boot::runtime()?.block_on(self.act.run())
    }
}

impl Act {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => return run.run().await,
            Self::Watch(watch) => return watch.run().await,
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Plan(one) => one.plan().await,
            Self::Effects(one) => one.effects().await,
            Self::Explain(one) => one.explain().await,
            Self::Events(events) => events.run().await,
            Self::Approve(approve) => approve.run().await,
            Self::Answer(answer) => answer.run().await,
            Self::Pause(say) => say.tell("pause").await,
            Self::Resume(one) => one.tell("resume").await,
            Self::Cancel(say) => say.tell("cancel").await,
            Self::Steer(steer) => steer.run().await,
            Self::Raise(raise) => raise.run().await,
            Self::Artifacts(artifacts) => artifacts.run().await,
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
