//! Which budgets get series of their own. A tenant may have thousands of them, one for each user: those
//! are summed up, and so are the least used beyond the first [`MOST`].

use std::collections::BTreeMap;

use meter::{Standing, Unit};

/// Series of each metric of budgets at most; Prometheus keeps every one that was ever seen.
pub(crate) const MOST: usize = 200;

/// Whose figures a series shows. Names of users, tasks and keys never stand in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) tenant: String,
    pub(crate) level: &'static str,
    /// The budget's id; `each WINDOW` for those of keys, users and tasks; `other` for all the rest.
    pub(crate) budget: String,
}

impl Name {
    pub(crate) fn of(budget: &Standing) -> Self {
        let is_personal = matches!(budget.level, "key" | "user" | "task");
        Self {
            tenant: budget.tenant.clone(),
            level: budget.level,
            budget: if is_personal {
                format!("each {}", budget.window)
            } else {
                budget.id.clone()
            },
        }
    }

    /// All that have no series of their own.
    pub(crate) fn other() -> Self {
        Self {
            tenant: "other".to_owned(),
            level: "other",
            budget: "other".to_owned(),
        }
    }
}

/// What one series of each metric shows, in nano-USD; of several budgets the sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: Name,
    pub(crate) hard: bool,
    pub(crate) limit: i64,
    pub(crate) settled: i64,
    pub(crate) held: i64,
    pub(crate) left: i64,
    pub(crate) window_ms: Option<i64>,
    pub(crate) resets_at_ms: Option<i64>,
}

impl Row {
    fn of(budget: &Standing) -> Self {
        Self {
            name: Name::of(budget),
            hard: budget.hard,
            limit: budget.limit.saturating_add(budget.extra),
            settled: budget.settled,
            held: budget.held,
            left: budget.left(),
            window_ms: budget.window_ms,
            resets_at_ms: budget.resets_at_ms,
        }
    }

    fn add(&mut self, other: &Self) {
        self.hard |= other.hard;
        for (sum, more) in [
            (&mut self.limit, other.limit),
            (&mut self.settled, other.settled),
            (&mut self.held, other.held),
            (&mut self.left, other.left),
        ] {
            *sum = sum.saturating_add(more);
        }
        // What differs can not be shown.
        self.window_ms = self.window_ms.filter(|it| other.window_ms == Some(*it));
        self.resets_at_ms = self
            .resets_at_ms
            .filter(|it| other.resets_at_ms == Some(*it));
    }

    /// How much of it is used, in thousandths.
    fn used(&self) -> i128 {
        let used = i128::from(self.settled).saturating_add(i128::from(self.held));
        let limit = i128::from(self.limit.max(1));
        used.saturating_mul(1_000).checked_div(limit).unwrap_or(0)
    }
}

/// The series of the money budgets among `budgets`: the most used [`MOST`], and one for all the rest.
pub(crate) fn rows(budgets: &[Standing]) -> Vec<Row> {
    let mut sums: BTreeMap<Name, Row> = BTreeMap::new();
    for budget in budgets.iter().filter(|it| it.unit == Unit::Usd) {
        let row = Row::of(budget);
        match sums.get_mut(&row.name) {
            Some(sum) => sum.add(&row),
            None => {
                sums.insert(row.name.clone(), row);
            }
        }
    }
    let mut rows: Vec<Row> = sums.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.used(), row.limit)));
    let rest = rows.split_off(rows.len().min(MOST));
    let other = rest.into_iter().reduce(|mut sum, row| {
        sum.add(&row);
        sum
    });
    rows.extend(other.map(|sum| Row {
        name: Name::other(),
        ..sum
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(id: &str, level: &'static str, settled: i64) -> Standing {
        Standing {
            covers: Vec::new(),
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            level,
            name: id.to_owned(),
            parent: None,
            unit: Unit::Usd,
            window: "month".to_owned(),
            hard: true,
            limit: 1_000,
            extra: 0,
            settled,
            held: 0,
            leased: 0,
            start_ms: 0,
            window_ms: Some(60_000),
            resets_at_ms: Some(60_000),
            thresholds: Vec::new(),
            state: "allow",
            paced: false,
        }
    }

    #[test]
    fn users_are_summed_up_and_never_named() {
        let budgets: Vec<_> = (0..1_000)
            .map(|n| standing(&format!("acme/user-{n}"), "user", 1))
            .collect();
        let rows = rows(&budgets);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(
            (&*row.name.budget, row.settled, row.limit, row.window_ms),
            ("each month", 1_000, 1_000_000, Some(60_000))
        );
    }

    #[test]
    fn the_least_used_beyond_the_most_are_one_series_and_no_money_is_missing() {
        let budgets: Vec<_> = (0..300)
            .map(|n| standing(&format!("acme/team-{n}"), "team", n))
            .collect();
        let rows = rows(&budgets);
        assert_eq!(rows.len(), MOST + 1);
        assert_eq!(rows[0].name.budget, "acme/team-299");
        assert_eq!(rows[MOST].name, Name::other());
        assert_eq!(rows[MOST].settled, (0..100).sum::<i64>());
        let all: i64 = rows.iter().map(|row| row.settled).sum();
        assert_eq!(all, (0..300).sum::<i64>());
    }

    #[test]
    fn limits_on_rates_are_no_money() {
        let mut calls = standing("acme/requests", "tenant", 1);
        calls.unit = Unit::Requests;
        assert_eq!(rows(&[calls]), Vec::new());
    }
}
