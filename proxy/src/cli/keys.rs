//! `pareto keys`: works on the ledger's file, beside a running gateway, which sees the change within
//! a quarter of a second.

use std::io::Write;

use anyhow::{anyhow, ensure};
use clap::{Args, Subcommand};
use comfy_table::Table;

use super::{File, load, plain, quiet, say};
use crate::assemble;
use crate::chores::KEYS_EVERY;
use crate::clock::now_ms;
use crate::identify::{self, Owner};

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make a key. It is shown once and never again.
    Create {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        owner: Owner,
    },
    /// List all keys, without their secrets.
    List {
        #[command(flatten)]
        file: File,
    },
    /// Revoke a key by its public id, the middle part of the key.
    Revoke {
        #[command(flatten)]
        file: File,
        /// The public id.
        id: String,
    },
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        match self.act {
            Act::Create { file, owner } => {
                owner.check()?;
                let config = load(&file.config)?;
                let ledger = assemble::ledger(&config)?;
                let created = identify::create(owner, &assemble::pepper(&config)?)?;
                ledger.add_key(&created.row)?;
                let id = &created.row.id;
                say(created.key.expose()).map_err(|error| {
                    anyhow!("{error:#}: nobody has seen key {id}, which is in force; `pareto keys revoke {id}` ends that")
                })?;
                let within = KEYS_EVERY.as_millis();
                let line = format!("a running gateway knows it within {within} ms");
                // The key has been shown, which is what counts.
                let _told = writeln!(std::io::stderr(), "{line}");
                Ok(())
            }
            Act::List { file } => {
                let keys = assemble::kept_ledger(&load(&file.config)?)?.keys()?;
                let mut table = Table::new();
                table.set_header([
                    "id",
                    "tenant",
                    "team",
                    "project",
                    "label",
                    "made (UTC)",
                    "state",
                ]);
                for key in keys {
                    let made = jiff::Timestamp::from_millisecond(key.created_at_ms)?;
                    let state = if key.revoked_at_ms.is_some() {
                        "revoked"
                    } else {
                        "in force"
                    };
                    let made = made.strftime("%Y-%m-%d %H:%M").to_string();
                    table.add_row([
                        &key.id,
                        &key.tenant,
                        &key.team,
                        &key.project,
                        &key.label,
                        &made,
                        state,
                    ]);
                }
                say(&plain::table(&mut table))
            }
            Act::Revoke { file, id } => {
                let revoked =
                    assemble::kept_ledger(&load(&file.config)?)?.revoke_key(&id, now_ms())?;
                ensure!(
                    revoked,
                    "no key `{id}` that is in force; `pareto keys list` shows them"
                );
                say(&format!("key {id} is revoked"))
            }
        }
    }
}
