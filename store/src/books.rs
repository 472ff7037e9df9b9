//! The books over either engine: corrections, bills, statements and what is told of them.

mod ask;
mod bill;
mod correct;
mod outbox;
mod statement;

use meter::LedgerError;
use meter::books::bill::{BillDay, BillRow, Drift, Imported, Verdict};
use meter::books::statement::{Grant, Month, Posting, Statement};
use meter::books::{Balance, Books, Capture, Cell, Correction, Due, Group, Plan, Span, Units};
use wire::RequestId;

use crate::ledger::SqlLedger;

impl Books for SqlLedger {
    fn adjust(&self, wanted: &[(RequestId, u16)], plan: Plan<'_>) -> Result<usize, LedgerError> {
        self.catch_up();
        self.write("correct entries", |sql| {
            let made = correct::adjust(sql, wanted, plan, &self.node)?;
            crate::ledger::bump(sql, "keys")?;
            Ok(made)
        })
    }

    fn corrections(&self, request: RequestId) -> Result<Vec<Correction>, LedgerError> {
        self.ask("read corrections", |sql| correct::of_call(sql, request))
    }

    fn balances(&self, span: &Span, after: i64, limit: u32) -> Result<Vec<Balance>, LedgerError> {
        self.ask("read balances", |sql| {
            ask::balances(sql, span, after, limit)
        })
    }

    fn events(&self, span: &Span, after: i64, limit: u32) -> Result<Vec<Vec<Cell>>, LedgerError> {
        self.ask("read entries", |sql| ask::events(sql, span, after, limit))
    }

    fn groups(&self, span: &Span) -> Result<Vec<Group>, LedgerError> {
        self.ask("sum entries", |sql| ask::groups(sql, span))
    }

    fn import(&self, bill: &Imported) -> Result<(), LedgerError> {
        self.write("keep a bill", |sql| bill::import(sql, bill))
    }

    fn bills(&self) -> Result<Vec<Imported>, LedgerError> {
        self.read("read bills", bill::all)
    }

    fn bill_rows(
        &self,
        bill: &str,
        after: Option<(RequestId, u16)>,
        limit: u32,
    ) -> Result<Vec<BillRow>, LedgerError> {
        self.read("read a bill", |sql| bill::rows(sql, bill, after, limit))
    }

    fn bill_days(&self, from_ms: i64, until_ms: i64) -> Result<Vec<BillDay>, LedgerError> {
        self.read("read bills", |sql| bill::days(sql, from_ms, until_ms))
    }

    fn own_days(&self, from_ms: i64, until_ms: i64) -> Result<Vec<BillDay>, LedgerError> {
        self.ask("sum days", |sql| bill::own(sql, from_ms, until_ms))
    }

    fn keep_verdict(&self, verdict: &Verdict) -> Result<(), LedgerError> {
        self.write("keep a reconciliation", |sql| bill::keep(sql, verdict))
    }

    fn drifts(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Drift>, LedgerError> {
        self.read("read drifts", |sql| bill::drifts(sql, from_ms, until_ms))
    }

    fn captures(&self) -> Result<Vec<Capture>, LedgerError> {
        self.read("read captures", bill::captures)
    }

    fn grant(&self, grant: &Grant) -> Result<bool, LedgerError> {
        self.write("grant a credit", |sql| statement::grant(sql, grant))
    }

    fn grants(&self, tenant: Option<&str>) -> Result<Vec<Grant>, LedgerError> {
        self.read("read credits", |sql| statement::grants(sql, tenant))
    }

    fn draft(
        &self,
        tenant: &str,
        month: Month,
        units: Units<'_>,
    ) -> Result<Statement, LedgerError> {
        self.ask("draft a statement", |sql| {
            statement::facts(sql, tenant, month)
                .map(|facts| meter::books::statement::draft(tenant, month, &facts, units))
        })
    }

    fn close(
        &self,
        tenant: &str,
        month: Month,
        at_ms: i64,
        units: Units<'_>,
    ) -> Result<Statement, LedgerError> {
        self.catch_up();
        self.write("close a statement", |sql| {
            statement::close(sql, tenant, month, at_ms, units)
        })
    }

    fn statement(&self, tenant: &str, month: Month) -> Result<Option<Statement>, LedgerError> {
        self.read("read a statement", |sql| {
            let all = statement::closed(sql, Some(tenant))?;
            Ok(all
                .into_iter()
                .map(|kept| kept.statement)
                .find(|it| it.month == month))
        })
    }

    fn statements(&self, tenant: Option<&str>) -> Result<Vec<Statement>, LedgerError> {
        self.read("read statements", |sql| {
            let all = statement::closed(sql, tenant)?;
            Ok(all.into_iter().map(|kept| kept.statement).collect())
        })
    }

    fn tenants(&self, month: Month) -> Result<Vec<String>, LedgerError> {
        self.ask("read tenants", |sql| statement::tenants(sql, month))
    }

    fn verify(&self, tenant: Option<&str>) -> Result<Vec<String>, LedgerError> {
        self.read("verify statements", |sql| statement::verify(sql, tenant))
    }

    fn postings(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Posting>, LedgerError> {
        self.ask("read postings", |sql| {
            statement::postings(sql, from_ms, until_ms)
        })
    }

    fn claim(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, LedgerError> {
        self.write("claim events", |sql| {
            outbox::claim(sql, now_ms, lease_ms, limit)
        })
    }

    fn delivered(&self, id: &str, at_ms: i64) -> Result<(), LedgerError> {
        self.write("note a delivery", |sql| outbox::delivered(sql, id, at_ms))
    }

    fn failed(&self, id: &str, next_at_ms: i64, error: &str) -> Result<(), LedgerError> {
        self.write("note a failure", |sql| {
            outbox::failed(sql, id, next_at_ms, error)
        })
    }

    fn told(&self, listener: &str) -> Result<i64, LedgerError> {
        self.read("read a listener", |sql| outbox::told(sql, listener))
    }

    fn tell_up_to(&self, listener: &str, seq: i64) -> Result<(), LedgerError> {
        self.write("move a listener", |sql| {
            outbox::tell_up_to(sql, listener, seq)
        })
    }
}
