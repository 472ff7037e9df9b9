//! `pareto nodes`: who shares the ledger, and taking out a node that will not come back.

use clap::{Args, Subcommand};
use comfy_table::Table;

use super::budgets::shown;
use super::{File, load, plain, quiet, say};
use crate::assemble;
use crate::clock::now_ms;

#[derive(Debug, Args)]
pub(super) struct Nodes {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show every node, when it was last seen and what it holds of budgets.
    List {
        #[command(flatten)]
        file: File,
    },
    /// Take out a node whose disk is lost: its open holds are charged at their bound, and the rest of
    /// its slices is free for others. What only its journal knew is then known from provider bills alone.
    Retire {
        #[command(flatten)]
        file: File,
        /// Its name, from `list`.
        node: String,
    },
}

impl Nodes {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        match self.act {
            Act::List { file } => {
                let ledger = assemble::kept_ledger(&load(&file.config)?)?;
                let mut table = Table::new();
                table.set_header([
                    "node",
                    "state",
                    "last seen",
                    "lease until",
                    "unsettled, USD",
                ]);
                for node in ledger.nodes()? {
                    table.add_row([
                        node.name,
                        node.state,
                        shown(node.seen_at_ms),
                        shown(node.lease_until_ms),
                        node.unsettled.to_usd(),
                    ]);
                }
                say(&plain::table(&mut table))
            }
            Act::Retire { file, node } => {
                let ledger = assemble::kept_ledger(&load(&file.config)?)?;
                let known = ledger.nodes()?;
                anyhow::ensure!(
                    known.iter().any(|it| it.name == node),
                    "no node `{node}`; `pareto nodes list` shows them"
                );
                anyhow::ensure!(
                    ledger.retire(&node, now_ms())?,
                    "node {node} may still spend from its slices; stop it and wait until its lease has \
                     ended, as `pareto nodes list` shows"
                );
                say(&format!("node {node} is retired"))
            }
        }
    }
}
