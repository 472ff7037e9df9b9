//! Budgets' windows as the ledger knows them, and what is to be told of them.

use meter::ledger::{Known, Tell};

use crate::sql::{Sql, SqlError};

/// Every window that begins at `from_ms` or later, and those of budgets that never begin anew.
pub(super) fn known(sql: &mut dyn Sql, from_ms: i64) -> Result<Vec<Known>, SqlError> {
    let rows = sql.query(
        "SELECT budget, start_ms, node, tenant, granted_nano, settled_nano FROM budget_window
         WHERE start_ms >= $1 OR start_ms = 0 ORDER BY budget, start_ms, node",
        &[from_ms.into()],
    )?;
    Ok(rows
        .iter()
        .map(|row| Known {
            budget: row.text(0).into(),
            start_ms: row.int(1),
            node: row.text(2).into(),
            tenant: row.text(3).into(),
            granted: row.int(4),
            settled: row.int(5),
        })
        .collect())
}

/// Writes windows that were not there.
pub(super) fn begin(sql: &mut dyn Sql, begun: &[Known]) -> Result<(), SqlError> {
    for window in begun {
        sql.execute(
            "INSERT INTO budget_window (budget, start_ms, node, tenant, granted_nano, settled_nano)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            &[
                (&*window.budget).into(),
                window.start_ms.into(),
                (&*window.node).into(),
                (&*window.tenant).into(),
                window.granted.into(),
                window.settled.into(),
            ],
        )?;
    }
    Ok(())
}

/// Writes events that were not there; returns how many are new.
pub(super) fn tell(sql: &mut dyn Sql, events: &[Tell]) -> Result<usize, SqlError> {
    let mut new = 0;
    for event in events {
        let written = sql.execute(
            "INSERT INTO outbox (id, topic, payload, created_at_ms, next_at_ms, attempts, error)
             VALUES ($1, $2, $3, $4, $4, 0, '') ON CONFLICT DO NOTHING",
            &[
                event.id.as_str().into(),
                event.topic.as_str().into(),
                event.payload.as_str().into(),
                event.at_ms.into(),
            ],
        )?;
        new += usize::from(written > 0);
    }
    Ok(new)
}
