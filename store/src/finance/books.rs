//! What the books tell the pages: closed statements, bills beside the ledger, rows that need explaining.

use meter::NanoUsd;
use meter::books::statement::LineKind;
use meter::finance::{Changed, FILTERED, Filter, Reconciled, Statement};
use meter::ledger::Dimension;

use super::Where;
use crate::sql::{Sql, SqlError};

/// Closed statements of months that begin in the filter's time.
pub(super) fn statements(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Statement>, SqlError> {
    let all = Where::of(filter, "start_ms", &[Dimension::Tenant]);
    let rows = sql.query(
        &format!(
            "SELECT document, hash, closed_at_ms FROM statement {} ORDER BY tenant, number",
            all.text
        ),
        &all.values,
    )?;
    let read = |row: &crate::sql::Row| {
        let kept: meter::books::statement::Statement = row.json(0)?;
        let rounding = kept
            .lines
            .iter()
            .filter(|line| line.kind == LineKind::Rounding);
        Ok(Statement {
            rounding: rounding.map(|line| line.sell).sum(),
            tenant: kept.tenant,
            month: kept.month.to_string(),
            number: kept.number,
            closed_at_ms: row.int(2),
            sell: kept.totals.sell,
            suspense: kept.totals.suspense,
            notes: kept.totals.notes + kept.totals.plan,
            credits: kept.totals.credits,
            due: kept.totals.due,
            hash: row.text(1).to_owned(),
        })
    };
    rows.iter().map(read).collect()
}

/// Each day of a bill with what the ledger has of it.
pub(super) fn reconciled(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Reconciled>, SqlError> {
    let all = Where::of(filter, "b.day_ms", &[]);
    let mut text = all.text.clone();
    let mut values = all.values;
    for (column, dimension) in [
        ("endpoint", Dimension::Endpoint),
        ("model", Dimension::Model),
    ] {
        if let Some(name) = filter.named(dimension) {
            values.push(name.into());
            for part in [" AND b.", column, " = $", &values.len().to_string()] {
                text.push_str(part);
            }
        }
    }
    let rows = sql.query(
        &format!(
            "SELECT b.day_ms, b.endpoint, b.model, b.cost_nano,
                    (SELECT CAST(SUM(l.cost_nano) AS BIGINT) FROM brief_day l
                     WHERE l.start_ms = b.day_ms AND l.endpoint = b.endpoint AND l.model = b.model),
                    r.cause
             FROM provider_bill_day b LEFT JOIN reconcile_day r
             ON r.day_ms = b.day_ms AND r.endpoint = b.endpoint AND r.model = b.model
             {text} AND b.cost_nano IS NOT NULL ORDER BY b.day_ms DESC, b.endpoint, b.model"
        ),
        &values,
    )?;
    Ok(rows
        .iter()
        .map(|row| Reconciled {
            day_ms: row.int(0),
            provider: row.text(1).to_owned(),
            model: row.text(2).to_owned(),
            billed: NanoUsd(row.int(3)),
            booked: NanoUsd(row.int(4)),
            cause: row.text(5).to_owned(),
        })
        .collect())
}

/// Corrections by kind, then holds that nobody settled.
pub(super) fn changed(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Changed>, SqlError> {
    let all = Where::of(filter, "held_at_ms", &FILTERED);
    let mut found = Vec::new();
    // Each condition is that of a partial index: these rows are few.
    for (kind, condition) in [
        ("kind", "kind <> 'settle'"),
        ("outcome", "outcome = 'orphaned' AND kind = 'settle'"),
    ] {
        let rows = sql.query(
            &format!(
                "SELECT {kind}, CAST(COUNT(*) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT),
                        CAST(SUM(sell_nano) AS BIGINT)
                 FROM usage_event {} AND {condition} GROUP BY 1 ORDER BY 1",
                all.text
            ),
            &all.values,
        )?;
        found.extend(rows.iter().map(|row| Changed {
            kind: row.text(0).to_owned(),
            rows: row.int(1),
            cost: NanoUsd(row.int(2)),
            sell: NanoUsd(row.int(3)),
        }));
    }
    Ok(found)
}
