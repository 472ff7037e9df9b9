//! The port of the finance pages over either engine. Every number comes from a rollup.

mod books;
mod choices;
mod routes;
mod sums;
mod tasks;

use meter::books::{Books, Capture};
use meter::finance::{
    Bin, Changed, Choices, Decided, Filter, Finance, Grain, Line, Open, Priced, Reconciled, Routed,
    Statement, Step, Tasks,
};
use meter::ledger::Dimension;
use meter::{Entry, Ledger, LedgerError, Override};

use crate::SqlLedger;
use crate::sql::{SqlError, Value};

/// The conditions of a statement and the values in their places, put together one by one.
#[derive(Debug, Default)]
struct Where {
    text: String,
    values: Vec<Value>,
}

impl Where {
    /// Adds `condition`, for instance `tenant = `, with `value` behind it.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.text.push_str(if self.text.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
        self.text.push_str(condition);
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
    }

    /// The time of `filter` on the column `at`, and those of its names that are among `named`.
    fn of(filter: &Filter, at: &str, named: &[Dimension]) -> Self {
        let mut all = Self::default();
        all.and(&format!("{at} >= "), filter.from_ms);
        all.and(&format!("{at} < "), filter.until_ms);
        for dimension in named {
            if let Some(name) = filter.named(*dimension) {
                all.and(&format!("{} = ", sums::column(*dimension)), name);
            }
        }
        all
    }
}

impl Finance for SqlLedger {
    fn sums(
        &self,
        filter: &Filter,
        by: &[Dimension],
        grain: Grain,
    ) -> Result<Vec<Line>, LedgerError> {
        self.ask("sum the use", |sql| {
            sums::lines(sql, filter, (by, grain), sums::SUMS)
        })
    }

    fn amounts(
        &self,
        filter: &Filter,
        by: &[Dimension],
        grain: Grain,
    ) -> Result<Vec<Line>, LedgerError> {
        self.ask("sum amounts", |sql| {
            sums::lines(sql, filter, (by, grain), &sums::AMOUNTS)
        })
    }

    fn steps(&self, filter: &Filter, by: Option<Dimension>) -> Result<Vec<Step>, LedgerError> {
        self.ask("read calls by cost", |sql| sums::steps(sql, filter, by))
    }

    fn tasks(&self, filter: &Filter) -> Result<Vec<Tasks>, LedgerError> {
        self.ask("read tasks", |sql| tasks::by_outcome(sql, filter))
    }

    fn bins(&self, filter: &Filter) -> Result<Vec<Bin>, LedgerError> {
        self.ask("read tasks by cost", |sql| tasks::by_cost(sql, filter))
    }

    fn decisions(
        &self,
        filter: &Filter,
        budget: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Decided>, LedgerError> {
        self.ask("read budgets' decisions", |sql| {
            let mut all = Where::of(filter, "start_ms", &[Dimension::Tenant]);
            if let Some(budget) = budget {
                all.and("budget = ", budget);
            }
            let rows = sql.query(
                &format!(
                    "SELECT start_ms, tenant, budget, decision, calls FROM rollup_decision {}
                     ORDER BY start_ms DESC, tenant, budget, decision LIMIT {limit}",
                    all.text
                ),
                &all.values,
            )?;
            Ok(rows
                .iter()
                .map(|row| Decided {
                    at_ms: row.int(0),
                    tenant: row.text(1).to_owned(),
                    budget: row.text(2).to_owned(),
                    decision: row.text(3).to_owned(),
                    calls: row.int(4),
                })
                .collect())
        })
    }

    fn priced(&self, filter: &Filter) -> Result<Vec<Priced>, LedgerError> {
        self.ask("sum by price", |sql| sums::priced(sql, filter))
    }

    fn history(&self, budget: &str, limit: u32) -> Result<Vec<(i64, i64)>, LedgerError> {
        self.ask("read a budget's windows", |sql| {
            let rows = sql.query(
                &format!(
                    "SELECT start_ms, CAST(SUM(settled_nano) AS BIGINT) FROM budget_window
                     WHERE budget = $1 GROUP BY start_ms ORDER BY start_ms DESC LIMIT {limit}"
                ),
                &[budget.into()],
            )?;
            Ok(rows.iter().map(|row| (row.int(0), row.int(1))).collect())
        })
    }

    fn open(&self) -> Result<Open, LedgerError> {
        let holds = self.ask("count open holds", |sql| {
            let rows = sql.query("SELECT COUNT(*) FROM hold", &[])?;
            Ok::<_, SqlError>(rows.first().map_or(0, |row| row.int(0)))
        })?;
        let latest_ms = self.latest_ms()?;
        Ok(Open { holds, latest_ms })
    }

    fn recent(&self, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        self.latest(limit)
    }

    fn choices(&self, from_ms: i64) -> Result<Choices, LedgerError> {
        self.ask("read what there is to filter by", |sql| {
            choices::since(sql, from_ms)
        })
    }

    fn statements(&self, filter: &Filter) -> Result<Vec<Statement>, LedgerError> {
        self.ask("read statements", |sql| books::statements(sql, filter))
    }

    fn reconciled(&self, filter: &Filter) -> Result<Vec<Reconciled>, LedgerError> {
        self.ask("read bills", |sql| books::reconciled(sql, filter))
    }

    fn captured(&self) -> Result<Vec<Capture>, LedgerError> {
        self.captures()
    }

    fn changed(&self, filter: &Filter) -> Result<Vec<Changed>, LedgerError> {
        self.ask("read corrections", |sql| books::changed(sql, filter))
    }

    fn routes(&self, filter: &Filter) -> Result<Vec<Routed>, LedgerError> {
        self.ask("sum decisions", |sql| routes::sums(sql, filter))
    }

    fn drawn(&self, filter: &Filter, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        self.ask("read the control group", |sql| {
            routes::drawn(sql, filter, limit)
        })
    }

    fn changes(&self, budget: &str) -> Result<Vec<Override>, LedgerError> {
        let mut found = self.overrides()?;
        found.retain(|one| one.budget == budget);
        found.reverse();
        Ok(found)
    }
}
