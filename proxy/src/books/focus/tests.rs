//! The sums of a group's rows are the group's; columns are those of each version.

use meter::books::change::Change;

use super::*;

fn group(kind: &str) -> Group {
    Group {
        start_ms: 1_795_000_000_000 / HOUR_MS * HOUR_MS,
        tenant: "acme".into(),
        team: "search".into(),
        project: String::new(),
        key: "k".into(),
        model: "m".into(),
        endpoint: "e".into(),
        lane: "standard".into(),
        price: "openai/m@always".into(),
        context_tier: 0,
        kind: kind.into(),
        source: "provider".into(),
        rows: 3,
        change: Change {
            counts: [1_001, 7, 0, 0, 55, 0, 0, 0, 0],
            cost: NanoUsd(1_222),
            list: NanoUsd(1_357),
            sell: NanoUsd(1_466),
            baseline: NanoUsd(9_000),
            ..Change::default()
        },
    }
}

#[test]
fn rows_of_a_group_are_its_sums_and_price_times_quantity_is_cost() {
    for (units, count) in [(Some([1_000, 100, 0, 0, 4_000, 0, 0, 0, 0]), 4), (None, 4)] {
        let group = group("settle");
        let rows = rows(&group, units, &Invoices(HashMap::new()));
        let sum = |pick: fn(&Row<'_>) -> i128| rows.iter().map(pick).sum::<i128>();
        assert_eq!(rows.len(), count);
        assert_eq!(sum(|row| row.cost), 1_222_000);
        assert_eq!(sum(|row| row.list), 1_357_000);
        assert_eq!(sum(|row| row.billed), 1_466_000);
        assert_eq!(sum(|row| row.baseline), 9_000_000);
        for row in &rows {
            let quantity = i128::from(row.quantity.unwrap_or(0));
            assert!(row.quantity.is_none() || row.cost == quantity * i128::from(row.unit));
            assert!(row.quantity.is_none() || row.list == quantity * i128::from(row.list_unit));
        }
    }
    let group = group("rerate");
    let rows = rows(&group, None, &Invoices(HashMap::new()));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].cell("ChargeClass").as_deref(), Some("Correction"));
    assert_eq!(rows[0].cell("BilledCost").as_deref(), Some("0.000001466"));
}

#[test]
fn each_version_has_its_columns() {
    for (version, count) in [(Version::V12, 57), (Version::V13, 65), (Version::V14, 65)] {
        let columns = columns(version);
        let theirs = columns
            .iter()
            .filter(|name| !name.starts_with("x_"))
            .count();
        assert_eq!(theirs, count, "{version:?}");
        let mut once = columns.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), columns.len());
        assert_eq!(columns.contains(&"ProviderName"), version != Version::V14);
        assert_eq!(
            columns.contains(&"ServiceProviderName"),
            version != Version::V12
        );
    }
}
