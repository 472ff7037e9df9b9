//! Writing corrections: rows beside the entry, and the same differences in every projection of it.

use std::collections::HashMap;

use meter::books::change::Change;
use meter::books::{Balance, Correction, Kind, Plan};
use meter::{Entry, Held, NanoUsd, Outcome};
use wire::{RequestId, UsageSource};

use super::ask;
use crate::ledger::apply::{self, EVENT, json};
use crate::ledger::sums::{Amounts, SUMS, Sums};
use crate::record::{self, EntryView};
use crate::sql::{Field, Insert, Sql, SqlError, Value, count};

/// Reads, asks the plan, writes. The lock keeps anybody from changing a balance in between.
pub(super) fn adjust(
    sql: &mut dyn Sql,
    wanted: &[(RequestId, u16)],
    plan: Plan<'_>,
    node: &str,
) -> Result<usize, SqlError> {
    sql.lock("ledger")?;
    let requests: Vec<RequestId> = wanted.iter().map(|(request, _)| *request).collect();
    let found = ask::of_requests(sql, &requests)?;
    let open = open(sql, &requests)?;
    let corrections = plan(&found, &open);
    let mut balances: HashMap<(RequestId, u16), Balance> = found
        .into_iter()
        .map(|it| ((it.entry.held.request, it.entry.held.attempt), it))
        .collect();
    let entries = corrections.iter().map(|it| bytes(it, &balances));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let mut sums = Sums::of(node);
    let mut written = 0;
    for (correction, entry) in corrections.iter().zip(&entries) {
        let key = (correction.request, correction.attempt);
        if let Some(rev) = number(sql, correction)? {
            let before = balances.remove(&key);
            let entry = EntryView::of(entry)?;
            write(sql, &mut sums, (correction, rev), &entry, before.as_ref())?;
            written += 1;
            if let Some(mut now) = before {
                now.now = now.now.plus(&correction.change);
                now.source = correction.source.unwrap_or(now.source);
                if !correction.price.is_empty() {
                    now.price.clone_from(&correction.price);
                }
                balances.insert(key, now);
            }
        }
    }
    if written > 0 {
        sums.write(sql)?;
    }
    Ok(written)
}

/// The entry that is corrected, as a record.
fn bytes(
    correction: &Correction,
    balances: &HashMap<(RequestId, u16), Balance>,
) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::new();
    let key = (correction.request, correction.attempt);
    match (balances.get(&key), &correction.held) {
        (Some(balance), _) => record::encode_entry(&balance.entry, &mut bytes),
        (None, Some(held)) => record::encode_entry(&stranger(held, correction), &mut bytes),
        (None, None) => {
            return Err(SqlError(format!(
                "there is no attempt {} of call {} to correct",
                correction.attempt, correction.request
            )));
        }
    }
    Ok(bytes)
}

fn open(sql: &mut dyn Sql, requests: &[RequestId]) -> Result<Vec<Held>, SqlError> {
    let mut open = Vec::new();
    for row in sql.query("SELECT request_id, held FROM hold", &[])? {
        if requests.iter().any(|it| it.bytes() == row.bytes(0)) {
            open.push(record::held(row.bytes(1))?);
        }
    }
    Ok(open)
}

/// The revision of a correction that is not written yet.
fn number(sql: &mut dyn Sql, correction: &Correction) -> Result<Option<i64>, SqlError> {
    let id = Value::from(correction.id.as_str());
    if !sql
        .query(
            "SELECT 1 FROM correction WHERE id = $1",
            std::slice::from_ref(&id),
        )?
        .is_empty()
    {
        return Ok(None);
    }
    let key = [
        Value::from(correction.request.bytes().as_slice()),
        i64::from(correction.attempt).into(),
        correction.kind.as_str().into(),
    ];
    let rows = sql.query(
        "SELECT MAX(rev) FROM correction WHERE request_id = $1 AND attempt = $2 AND kind = $3",
        &key,
    )?;
    let rev = rows.first().map_or(0, |row| row.int(0)) + 1;
    let [request, attempt, kind] = key;
    sql.execute(
        "INSERT INTO correction (id, request_id, attempt, kind, rev, at_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            id,
            request,
            attempt,
            kind,
            rev.into(),
            correction.at_ms.into(),
        ],
    )?;
    Ok(Some(rev))
}

fn write<'a>(
    sql: &mut dyn Sql,
    sums: &mut Sums<'a>,
    (correction, rev): (&Correction, i64),
    entry: &EntryView<'a>,
    before: Option<&Balance>,
) -> Result<(), SqlError> {
    sql.partitions(&mut std::iter::once(correction.request.unix_ms()))?;
    let mut kept = correction.clone();
    kept.rev = u32::try_from(rev).unwrap_or(u32::MAX);
    let kept = json(&kept)?;
    let row = row(entry, (correction, rev), &kept, sums.node());
    let insert = Insert {
        table: "usage_event",
        columns: EVENT,
        rest: "",
    };
    sql.insert(&insert, &row)?;
    // A bill ends what was only counted: nothing is in suspense any more.
    let is_first = before.is_some_and(|it| !it.kinds.contains(&Kind::Reconcile));
    let released = if is_first && correction.kind == Kind::Reconcile {
        entry.suspense
    } else {
        NanoUsd::ZERO
    };
    let change = change(entry, correction, before, released);
    let money = (correction.change.cost, correction.change.sell);
    sums.correct(entry, &change, money, released);
    Ok(())
}

/// An entry for a call that has none: it is the correction's own.
pub(super) fn stranger(held: &Held, correction: &Correction) -> Entry {
    Entry {
        held: held.clone(),
        outcome: Outcome::Completed,
        status: 0,
        settled_at_ms: correction.at_ms,
        usage: correction.change.usage(),
        source: correction.source.unwrap_or(UsageSource::Provider),
        cost: correction.change.cost,
        baseline: correction.change.baseline,
        list: correction.change.list,
        sell: correction.change.sell,
        cache_saved: correction.change.cache_saved,
        suspense: NanoUsd::ZERO,
        context_tier: 0,
        first_byte_ms: None,
    }
}

/// The entry's row with differences in place of amounts, and the correction in place of the entry.
fn row<'a>(
    entry: &EntryView<'a>,
    (correction, rev): (&'a Correction, i64),
    kept: &'a str,
    node: &'a str,
) -> Vec<Field<'a>> {
    let mut row = Vec::with_capacity(EVENT.len());
    apply::event(entry, node, &mut row);
    let Change {
        counts,
        cost,
        list,
        sell,
        baseline,
        cache_saved,
    } = correction.change;
    let mut set = |name: &str, value: Field<'a>| {
        let place = EVENT.iter().position(|(column, _)| *column == name);
        if let Some(cell) = place.and_then(|place| row.get_mut(place)) {
            *cell = value;
        }
    };
    for (class, amount) in meter::books::change::CLASSES.iter().zip(counts) {
        set(class, amount.into());
    }
    for (name, amount) in [
        ("rev", rev),
        ("settled_at_ms", correction.at_ms),
        ("bound_nano", 0),
        ("cost_nano", cost.0),
        ("list_nano", list.0),
        ("sell_nano", sell.0),
        ("baseline_nano", baseline.0),
        ("cache_saved_nano", cache_saved.0),
        ("suspense_nano", 0),
    ] {
        set(name, amount.into());
    }
    set("first_byte_ms", Field::Null);
    set("packed", Field::Null);
    set("kind", correction.kind.as_str().into());
    set("entry", kept.into());
    if !correction.price.is_empty() {
        set("price", correction.price.as_str().into());
        set("book", correction.book.as_str().into());
    }
    if let Some(source) = correction.source {
        set("source", source.as_str().into());
    }
    row
}

/// What it changes in the rollups, in the order of [`SUMS`].
fn change(
    entry: &EntryView<'_>,
    correction: &Correction,
    before: Option<&Balance>,
    released: NanoUsd,
) -> Amounts {
    let Change { counts, cost, .. } = correction.change;
    let was = before.map(|it| it.source);
    let will = correction.source.or(was);
    let moves =
        |source: UsageSource| i64::from(will == Some(source)) - i64::from(was == Some(source));
    let had = before.map_or(NanoUsd::ZERO, |it| it.now.cost);
    let estimated = |source: Option<UsageSource>, cost: NanoUsd| match source {
        Some(UsageSource::Estimated) => cost.0,
        _ => 0,
    };
    let priced = before.is_some_and(|it| it.price.is_empty()) && !correction.price.is_empty();
    let when = |is: bool| if is { cost.0 } else { 0 };
    let begun = [
        i64::from(before.is_none()),
        0,
        moves(UsageSource::Counted),
        moves(UsageSource::Estimated),
        -i64::from(priced),
        0,
    ];
    let money = [
        cost.0,
        correction.change.list.0,
        correction.change.sell.0,
        correction.change.baseline.0,
        correction.change.cache_saved.0,
        estimated(will, had + cost) - estimated(was, had),
        when(entry.held.attempt > 0),
        when(entry.outcome != Outcome::Completed),
        cost.0,
        (-released).0,
    ];
    let mut sums = [0; SUMS.len()];
    let all = begun.into_iter().chain(counts).chain(money);
    for (sum, change) in sums.iter_mut().zip(all) {
        *sum = change;
    }
    sums
}

/// Corrections of one call, oldest first.
pub(super) fn of_call(sql: &mut dyn Sql, request: RequestId) -> Result<Vec<Correction>, SqlError> {
    let rows = sql.query(
        "SELECT entry FROM usage_event
         WHERE request_id = $1 AND at_ms IN ($2, 0) AND kind <> 'settle' ORDER BY seq",
        &[request.bytes().as_slice().into(), request.unix_ms().into()],
    )?;
    rows.iter().map(|row| row.json(0)).collect()
}

/// Adds a correction to a balance.
pub(super) fn add(balance: &mut Balance, correction: &Correction) {
    // The first correction of a call that has no entry is what the balance was made of.
    balance.kinds.push(correction.kind);
    let is_its_own = !balance.settled && correction.kind == Kind::Late && correction.rev == 1;
    if !is_its_own {
        balance.now = balance.now.plus(&correction.change);
    }
    balance.source = correction.source.unwrap_or(balance.source);
    if !correction.price.is_empty() {
        balance.price.clone_from(&correction.price);
    }
}

/// The number of a row's class columns, from `first` on, as counts.
pub(super) fn read_change(row: &crate::sql::Row, first: usize) -> Change {
    let mut counts = [0; 9];
    for (place, class) in counts.iter_mut().enumerate() {
        *class = row.int(first + place);
    }
    let money = |place: usize| NanoUsd(row.int(first + 9 + place));
    Change {
        counts,
        cost: money(0),
        list: money(1),
        sell: money(2),
        baseline: money(3),
        cache_saved: money(4),
    }
}

/// The sums that [`read_change`] reads.
pub(super) fn sum_columns() -> String {
    let columns = meter::books::change::CLASSES.iter().copied().chain([
        "cost_nano",
        "list_nano",
        "sell_nano",
        "baseline_nano",
        "cache_saved_nano",
    ]);
    let sums: Vec<String> = columns
        .map(|name| format!("CAST(SUM({name}) AS BIGINT)"))
        .collect();
    sums.join(", ")
}

/// A number of rows as a value.
pub(super) fn limit(rows: u32) -> Value {
    count(u64::from(rows))
}
