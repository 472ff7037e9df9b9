//! Takes a request for a page to the module that answers it, as HTML or as CSV.

use std::sync::{Mutex, PoisonError};

use meter::LedgerError;
use meter::finance::{Allowance, Choices, Finance};
use meter::price::Listing;
use meter::routing::Appraiser;

use crate::ask::{self, Ask};
use crate::frame::{self, Page};
use crate::{
    Asked, budget, budgets, chargeback, explore, live, overview, prices, quality, routing, savings,
    units,
};

/// Where pages get their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    pub finance: &'a dyn Finance,
    pub budgets: &'a [Allowance],
    /// Of the price book; needed by the page of prices alone.
    pub prices: &'a Listing,
    /// Who tells what routing is worth.
    pub worth: &'a dyn Appraiser,
    /// Calls that this process is answering.
    pub in_flight: usize,
}

/// A rendered page or table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub kind: &'static str,
    pub body: String,
    /// What the browser should call it, where it is to be saved.
    pub file: Option<String>,
}

/// The pages, with what they remember between requests.
#[derive(Debug, Default)]
pub struct Desk {
    /// What there is to filter by, and when it was read.
    choices: Mutex<Option<(i64, Choices)>>,
}

/// How long the names to filter by are kept, and how far back they are looked for.
const CHOICES_MS: i64 = 60_000;
const CHOICES_BACK_MS: i64 = 35 * 86_400_000;

impl Desk {
    /// What stands at `asked`; `None` where there is no such page.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub fn answer(
        &self,
        asked: Asked<'_>,
        sources: Sources<'_>,
    ) -> Result<Option<Answer>, LedgerError> {
        let ask = Ask::read(asked);
        let Some(page) = page(&ask, sources)? else {
            return Ok(None);
        };
        if ask.param("format") == Some("csv") {
            return Ok(csv(&ask, &page));
        }
        let choices = self.choices(ask.now_ms, sources.finance)?;
        Ok(Some(Answer {
            kind: "text/html; charset=utf-8",
            body: frame::document(&ask, &page, &choices),
            file: None,
        }))
    }

    fn choices(&self, now_ms: i64, finance: &dyn Finance) -> Result<Choices, LedgerError> {
        let kept = || self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at_ms, choices)) = &*kept()
            && (*at_ms..at_ms.saturating_add(CHOICES_MS)).contains(&now_ms)
        {
            return Ok(choices.clone());
        }
        let found = finance.choices(now_ms - CHOICES_BACK_MS)?;
        *kept() = Some((now_ms, found.clone()));
        Ok(found)
    }
}

fn page(ask: &Ask, sources: Sources<'_>) -> Result<Option<Page>, LedgerError> {
    let page = match ask.path.as_str() {
        "/" => overview::page(ask, sources)?,
        "/explore" => explore::page(ask, sources)?,
        "/budgets" => budgets::page(ask, sources),
        "/units" => units::page(ask, sources)?,
        "/savings" => savings::page(ask, sources)?,
        "/routing" => routing::page(ask, sources)?,
        "/chargeback" => chargeback::page(ask, sources)?,
        "/quality" => quality::page(ask, sources)?,
        "/prices" => prices::page(ask, sources)?,
        "/live" => live::page(ask, sources)?,
        other => match other.strip_prefix("/budgets/") {
            Some(id) => return budget::page(ask, sources, &ask::decoded_path(id)),
            None => return Ok(None),
        },
    };
    Ok(Some(page))
}

/// The table that is asked for, or the page's first.
pub(crate) fn csv(ask: &Ask, page: &Page) -> Option<Answer> {
    let table = match ask.param("table") {
        Some(id) => page.tables.iter().find(|table| table.id == id)?,
        None => page.tables.first()?,
    };
    let period = &ask.period;
    Some(Answer {
        kind: "text/csv; charset=utf-8",
        body: table.csv(),
        file: Some(format!(
            "pareto-{}-{}-{}.csv",
            table.id, period.first, period.end
        )),
    })
}
