//! Tasks by how they ended and by what they cost.

use std::fmt::Write;

use meter::NanoUsd;
use meter::finance::{BINS, Bin, Filter, Tasks};
use meter::ledger::Dimension;

use super::Where;
use crate::sql::{Sql, SqlError};

/// What a task knows of who it belongs to.
const NAMED: [Dimension; 4] = [
    Dimension::Tenant,
    Dimension::Team,
    Dimension::Project,
    Dimension::Workflow,
];

pub(super) fn by_outcome(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Tasks>, SqlError> {
    let all = Where::of(filter, "first_ms", &NAMED);
    let rows = sql.query(
        &format!(
            "SELECT workflow, outcome, CAST(COUNT(*) AS BIGINT), CAST(SUM(calls) AS BIGINT),
                    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(sell_nano) AS BIGINT),
                    CAST(SUM(baseline_nano) AS BIGINT), CAST(SUM(fast_calls) AS BIGINT),
                    CAST(SUM(fast_nano) AS BIGINT), CAST(SUM(deep_calls) AS BIGINT),
                    CAST(SUM(deep_nano) AS BIGINT)
             FROM task {} GROUP BY 1, 2 ORDER BY 1, 2",
            all.text
        ),
        &all.values,
    )?;
    Ok(rows
        .iter()
        .map(|row| Tasks {
            workflow: row.text(0).to_owned(),
            outcome: row.text(1).to_owned(),
            tasks: row.int(2),
            calls: row.int(3),
            cost: NanoUsd(row.int(4)),
            sell: NanoUsd(row.int(5)),
            baseline: NanoUsd(row.int(6)),
            fast_calls: row.int(7),
            fast_cost: NanoUsd(row.int(8)),
            deep_calls: row.int(9),
            deep_cost: NanoUsd(row.int(10)),
        })
        .collect())
}

pub(super) fn by_cost(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Bin>, SqlError> {
    let all = Where::of(filter, "first_ms", &NAMED);
    let mut bin = String::from("CASE");
    for (place, bound) in BINS.iter().enumerate() {
        // Writing to a String can not fail.
        let _written = write!(bin, " WHEN cost_nano <= {bound} THEN {place}");
    }
    let rows = sql.query(
        &format!(
            "SELECT workflow, CAST({bin} ELSE {} END AS BIGINT), CAST(COUNT(*) AS BIGINT),
                    MAX(cost_nano)
             FROM task {} GROUP BY 1, 2 ORDER BY 1, 2",
            BINS.len(),
            all.text
        ),
        &all.values,
    )?;
    Ok(rows
        .iter()
        .map(|row| Bin {
            workflow: row.text(0).to_owned(),
            bin: usize::try_from(row.int(1)).unwrap_or(0),
            tasks: row.int(2),
            most: NanoUsd(row.int(3)),
        })
        .collect())
}
