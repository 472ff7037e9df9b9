//! What the router decided: sums by day, and the calls that were drawn by lot.

use meter::Entry;
use meter::NanoUsd;
use meter::finance::{Filter, Routed};
use meter::ledger::Dimension;

use super::Where;
use crate::ledger::DAY_MS;
use crate::ledger::ask::entry;
use crate::sql::{Row, Sql, SqlError};

pub(super) fn sums(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Routed>, SqlError> {
    let days = Filter {
        from_ms: filter.from_ms.div_euclid(DAY_MS) * DAY_MS,
        ..filter.clone()
    };
    let all = Where::of(&days, "start_ms", &[Dimension::Tenant]);
    let rows = sql.query(
        &format!(
            "SELECT tenant, class, step, tier, reason, CAST(SUM(calls) AS BIGINT),
                 CAST(SUM(attempts) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT),
                 CAST(SUM(baseline_nano) AS BIGINT), CAST(SUM(lost_nano) AS BIGINT)
             FROM rollup_route {} GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
            all.text
        ),
        &all.values,
    )?;
    let routed = |row: &Row| Routed {
        tenant: row.text(0).to_owned(),
        class: row.text(1).to_owned(),
        step: row.text(2).to_owned(),
        tier: row.text(3).to_owned(),
        reason: row.text(4).to_owned(),
        calls: row.int(5),
        attempts: row.int(6),
        cost: NanoUsd(row.int(7)),
        baseline: NanoUsd(row.int(8)),
        lost: NanoUsd(row.int(9)),
    };
    Ok(rows.iter().map(routed).collect())
}

pub(super) fn drawn(
    sql: &mut dyn Sql,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Entry>, SqlError> {
    let all = Where::of(filter, "held_at_ms", &[Dimension::Tenant]);
    let rows = sql.query(
        &format!(
            "SELECT entry, packed FROM usage_event {} AND reason = 'control' AND kind = 'settle'
             ORDER BY held_at_ms DESC, request_id LIMIT {limit}",
            all.text
        ),
        &all.values,
    )?;
    rows.iter().map(|row| entry(row, 0)).collect()
}
