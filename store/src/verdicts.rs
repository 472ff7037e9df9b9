//! What people and judges say of answers: rows that are added and never changed.

use meter::{Feedback, LedgerError, Verdicts};

use crate::ledger::SqlLedger;
use crate::sql::{Row, Sql, SqlError};

/// Verdicts of one kind that are kept of one call: whoever says so may think again, and not for ever.
const MOST_OF_A_KIND: usize = 16;

impl Verdicts for SqlLedger {
    fn add(&self, feedback: &Feedback) -> Result<bool, LedgerError> {
        self.write("add a verdict", |sql| add(sql, feedback))
    }

    fn after(&self, after: i64, limit: u32) -> Result<Vec<(i64, Option<Feedback>)>, LedgerError> {
        self.read("read verdicts", |sql| {
            let rows = sql.query(
                "SELECT seq, feedback, CASE WHEN EXISTS (
                     SELECT 1 FROM feedback first WHERE first.request_id = one.request_id
                         AND first.kind = one.kind AND first.seq < one.seq
                 ) THEN 1 ELSE 0 END
                 FROM feedback one WHERE seq > $1 ORDER BY seq LIMIT $2",
                &[after.into(), i64::from(limit).into()],
            )?;
            let numbered = |row: &Row| {
                let is_first = row.int(2) == 0;
                let feedback = is_first.then(|| row.json(1)).transpose()?;
                Ok((row.int(0), feedback))
            };
            rows.iter().map(numbered).collect()
        })
    }

    fn between(
        &self,
        from_ms: i64,
        until_ms: i64,
        tenant: Option<&str>,
    ) -> Result<Vec<Feedback>, LedgerError> {
        self.read("read verdicts", |sql| {
            // Of several of one kind on one call the last counts: whoever says so may think again.
            let rows = sql.query(
                "SELECT feedback FROM feedback WHERE seq IN (
                     SELECT MAX(seq) FROM feedback
                     WHERE held_at_ms >= $1 AND held_at_ms < $2 AND ($3 = '' OR tenant = $3)
                     GROUP BY request_id, kind
                 ) ORDER BY seq",
                &[
                    from_ms.into(),
                    until_ms.into(),
                    tenant.unwrap_or_default().into(),
                ],
            )?;
            rows.iter().map(|row| row.json(0)).collect()
        })
    }
}

fn add(sql: &mut dyn Sql, feedback: &Feedback) -> Result<bool, SqlError> {
    // One writer at a time, so that sequence numbers are committed in order and no reader misses one.
    sql.lock("feedback")?;
    let request = feedback.request.bytes();
    let told = sql.query(
        "SELECT good_ppm FROM feedback WHERE request_id = $1 AND kind = $2 ORDER BY seq DESC",
        &[request.as_slice().into(), feedback.kind.as_str().into()],
    )?;
    let last = told.first().map(|row| row.int(0));
    if last == Some(i64::from(feedback.good_ppm)) || told.len() >= MOST_OF_A_KIND {
        return Ok(false);
    }
    let text = serde_json::to_string(feedback).map_err(|error| SqlError(error.to_string()))?;
    let added = sql.execute(
        "INSERT INTO feedback (request_id, kind, good_ppm, tenant, held_at_ms, at_ms, feedback)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &[
            request.as_slice().into(),
            feedback.kind.as_str().into(),
            i64::from(feedback.good_ppm).into(),
            (&*feedback.tenant).into(),
            feedback.held_at_ms.into(),
            feedback.at_ms.into(),
            text.into(),
        ],
    )?;
    Ok(added > 0)
}
