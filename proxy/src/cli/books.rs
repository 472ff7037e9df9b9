//! The commands of the books: rerate, correct, reconcile, statements, credits, export.

mod money;
mod reconcile;
mod statements;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use meter::books::Span;
use meter::books::statement::Month;

use super::usage::moment;
use super::{File, NobodyReads, load, quiet, say};
use crate::assemble;
use crate::books::{Desk, export};
use crate::clock::now_ms;

pub(super) use money::{Correct, Rerate};
pub(super) use reconcile::Reconcile;
pub(super) use statements::{Credits, Statements};

/// The desk that a configuration asks for.
fn desk(file: &File) -> anyhow::Result<Desk> {
    quiet();
    assemble::desk(&load(&file.config)?)
}

/// A span of time; from this month's first day to now if nothing is said.
fn span(from: Option<&str>, until: Option<&str>) -> anyhow::Result<Span> {
    let now = now_ms();
    let from_ms = from.map_or_else(|| Ok(Month::of(now).start_ms()), moment)?;
    let until_ms = super::until(until, from_ms, now)?;
    Ok(Span {
        from_ms,
        until_ms,
        ..Span::default()
    })
}

/// Who sits at the terminal, for the record.
fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "operator".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    file: File,
    #[arg(long, value_enum)]
    format: export::Format,
    /// From this day or moment on, UTC; the present month's first day if absent.
    #[arg(long)]
    from: Option<String>,
    /// Up to, not including, this day or moment; now if absent.
    #[arg(long)]
    until: Option<String>,
    /// One tenant only.
    #[arg(long)]
    tenant: Option<String>,
    /// The version of FOCUS.
    #[arg(long, value_enum, default_value = "1.2")]
    focus_version: export::Version,
    /// Where to; standard output if absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let span = Span {
            tenant: self.tenant,
            ..span(self.from.as_deref(), self.until.as_deref())?
        };
        let mut out: Box<dyn Write + Send> = match &self.out {
            None => Box::new(std::io::BufWriter::new(std::io::stdout())),
            Some(path) => Box::new(std::io::BufWriter::new(
                std::fs::File::create(path)
                    .with_context(|| format!("making {}", path.display()))?,
            )),
        };
        let rows = export::write(&desk, self.format, self.focus_version, &span, &mut *out);
        let rows = rows.map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(io) if io.kind() == ErrorKind::BrokenPipe => NobodyReads.into(),
            _ => error,
        })?;
        match self.out {
            Some(path) => say(&format!("{rows} rows in {}", path.display())),
            None => Ok(()),
        }
    }
}
