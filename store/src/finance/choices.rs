//! What there is to filter by.

use std::collections::BTreeSet;

use meter::finance::{Choices, FILTERED};

use super::sums::column;
use crate::sql::{Sql, SqlError};

/// The values of each of [`FILTERED`] since `from_ms`, in order.
pub(super) fn since(sql: &mut dyn Sql, from_ms: i64) -> Result<Choices, SqlError> {
    let columns: Vec<&str> = FILTERED.iter().map(|one| column(*one)).collect();
    // Groups of many columns are found in one pass; there are as many as a day has rows.
    let rows = sql.query(
        &format!(
            "SELECT DISTINCT {} FROM rollup_day WHERE start_ms >= $1",
            columns.join(", ")
        ),
        &[from_ms.into()],
    )?;
    let mut found: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); columns.len()];
    for row in &rows {
        for (place, values) in found.iter_mut().enumerate() {
            values.insert(row.text(place));
        }
    }
    Ok(found
        .into_iter()
        .map(|values| values.into_iter().map(str::to_owned).collect())
        .collect())
}
