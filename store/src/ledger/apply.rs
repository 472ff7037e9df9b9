//! Applying records of the journal: any number of times, in any order, by any node, the same result.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::sums::Sums;
use crate::record::{self, EntryView, Head};
use crate::sql::{Field, Insert, Kind, Sql, SqlError, Value, signed};

use Kind::{Blob, Int, Text};

/// Columns of an entry, in the order of [`event`].
pub(crate) const EVENT: &[(&str, Kind)] = &[
    ("request_id", Blob),
    ("attempt", Int),
    ("kind", Text),
    ("rev", Int),
    ("at_ms", Int),
    ("node", Text),
    ("tenant", Text),
    ("team", Text),
    ("project", Text),
    ("key", Text),
    ("user_id", Text),
    ("task", Text),
    ("workflow", Text),
    ("dialect", Text),
    ("requested", Text),
    ("model", Text),
    ("endpoint", Text),
    ("tier", Text),
    ("lane", Text),
    ("reason", Text),
    ("score_milli", Int),
    ("stream", Int),
    ("held_at_ms", Int),
    ("settled_at_ms", Int),
    ("first_byte_ms", Int),
    ("outcome", Text),
    ("status", Int),
    ("source", Text),
    ("input", Int),
    ("cache_read", Int),
    ("cache_write_5m", Int),
    ("cache_write_1h", Int),
    ("output", Int),
    ("reasoning", Int),
    ("audio_input", Int),
    ("audio_output", Int),
    ("web_searches", Int),
    ("price", Text),
    ("book", Text),
    ("context_tier", Int),
    ("bound_nano", Int),
    ("cost_nano", Int),
    ("list_nano", Int),
    ("sell_nano", Int),
    ("baseline_nano", Int),
    ("cache_saved_nano", Int),
    ("suspense_nano", Int),
    ("class", Text),
    ("step", Text),
    ("session", Int),
    // A correction's JSON, or that of an entry from before there were bytes.
    ("entry", Text),
    ("packed", Blob),
];
/// Rows in one statement, where the engine takes many.
const AT_ONCE: usize = 512;

/// What a group of the journal's records comes to, whatever their order.
pub(crate) struct Group<'a> {
    /// Entries by request and attempt, each once.
    entries: Vec<EntryView<'a>>,
    /// Which of them have their hold here as well.
    is_paired: Vec<bool>,
    /// Holds that nothing here settles, with their records.
    open: Vec<(Head, &'a [u8])>,
}

impl<'a> Group<'a> {
    pub(crate) fn of(
        payloads: &mut dyn Iterator<Item = &'a [u8]>,
    ) -> Result<Self, crate::record::DecodeError> {
        let mut entries = Vec::new();
        let mut held: HashMap<_, (Head, &'a [u8]), RandomState> = HashMap::default();
        for payload in payloads {
            let head = Head::of(payload)?;
            match head.kind {
                record::Kind::Settle => entries.push(EntryView::of(payload)?),
                record::Kind::Hold => {
                    held.insert((head.request, head.attempt), (head, payload));
                }
            }
        }
        let key = |entry: &EntryView<'_>| (entry.held.request, entry.held.attempt);
        // Of several for one attempt the first counts: the order of equals is kept.
        entries.sort_by_key(key);
        entries.dedup_by_key(|entry| key(entry));
        let is_paired = entries
            .iter()
            .map(|entry| held.remove(&key(entry)).is_some())
            .collect();
        let mut open: Vec<_> = held.into_values().collect();
        open.sort_by_key(|(head, _)| (head.request, head.attempt));
        Ok(Self {
            entries,
            is_paired,
            open,
        })
    }
}

/// Applies a group as `node`.
pub(super) fn group(sql: &mut dyn Sql, group: &Group<'_>, node: &str) -> Result<(), SqlError> {
    // One writer at a time: sequence numbers are committed in order, and no two writers meet in the
    // rollups' rows in different orders.
    sql.lock("ledger")?;
    for open in group.open.chunks(AT_ONCE) {
        holds(sql, open, node)?;
    }
    settle(sql, &group.entries, node)?;
    close(sql, group)
}

const HOLD_KEY: [(&str, Kind); 2] = [("request_id", Blob), ("attempt", Int)];

fn holds(sql: &mut dyn Sql, open: &[(Head, &[u8])], node: &str) -> Result<(), SqlError> {
    let done = settled_before(sql, open)?;
    let mut rows = Vec::with_capacity(4 * open.len());
    for (head, payload) in open {
        let id = record::id(payload);
        let attempt = i64::from(head.attempt);
        if !done.contains(&(id.to_vec(), attempt)) {
            rows.extend([
                Field::Blob(id),
                Field::Int(attempt),
                Field::Blob(payload),
                Field::Text(node),
            ]);
        }
    }
    let [request, attempt] = HOLD_KEY;
    let insert = Insert {
        table: "hold",
        columns: &[request, attempt, ("held", Blob), ("node", Text)],
        rest: "ON CONFLICT DO NOTHING",
    };
    sql.insert(&insert, &rows)
}

/// Which of these are settled already: a settlement may come before its hold.
fn settled_before(
    sql: &mut dyn Sql,
    open: &[(Head, &[u8])],
) -> Result<HashSet<(Vec<u8>, i64)>, SqlError> {
    let at = || open.iter().map(|(head, _)| head.request.unix_ms());
    let mut values: Vec<Value> = vec![
        at().min().unwrap_or(0).into(),
        at().max().unwrap_or(0).into(),
    ];
    values.extend(open.iter().map(|(_, payload)| record::id(payload).into()));
    // A few lengths only, so that statements stay prepared.
    let last = values.last().cloned().unwrap_or(Value::Null);
    values.resize(2 + open.len().next_power_of_two(), last);
    let places: Vec<String> = (3..=values.len()).map(|n| format!("${n}")).collect();
    let asked = format!(
        "SELECT request_id, attempt FROM usage_event
         WHERE kind = 'settle' AND rev = 0 AND at_ms BETWEEN $1 AND $2 AND request_id IN ({})",
        places.join(", ")
    );
    let rows = sql.query(&asked, &values)?;
    Ok(rows
        .iter()
        .map(|row| (row.bytes(0).to_vec(), row.int(1)))
        .collect())
}

/// Writes entries; those that were there before change nothing.
fn settle(sql: &mut dyn Sql, entries: &[EntryView<'_>], node: &str) -> Result<(), SqlError> {
    sql.partitions(&mut entries.iter().map(|entry| entry.held.request.unix_ms()))?;
    let insert = Insert {
        table: "usage_event",
        columns: EVENT,
        rest: "",
    };
    let mut sums = Sums::of(node);
    let mut rows = Vec::with_capacity(EVENT.len() * AT_ONCE.min(entries.len()));
    for some in entries.chunks(AT_ONCE) {
        rows.clear();
        for entry in some {
            event(entry, node, &mut rows);
        }
        let new = sql.insert_new(&insert, &rows)?;
        for (entry, _) in some.iter().zip(new).filter(|(_, is_new)| *is_new) {
            sums.add(entry);
        }
    }
    sums.write(sql)
}

/// Removes the open holds of entries. That of an entry whose hold is in the same group is in the table only
/// if the group was applied before, so these are looked for in one go; they lie side by side there.
fn close(sql: &mut dyn Sql, group: &Group<'_>) -> Result<(), SqlError> {
    let mut paired: HashSet<_, RandomState> = HashSet::default();
    let mut alone = Vec::new();
    for (entry, is_paired) in group.entries.iter().zip(&group.is_paired) {
        let (id, attempt) = (entry.held.id, i64::from(entry.held.attempt));
        if *is_paired {
            paired.insert((id, attempt));
        } else {
            alone.extend([Field::Blob(id), Field::Int(attempt)]);
        }
    }
    let ids = || paired.iter().map(|(id, _)| *id);
    let found = match (ids().min(), ids().max()) {
        (Some(first), Some(last)) => sql.query(
            "SELECT request_id, attempt FROM hold WHERE request_id BETWEEN $1 AND $2",
            &[first.into(), last.into()],
        )?,
        _ => Vec::new(),
    };
    for row in &found {
        let (id, attempt) = (row.bytes(0), row.int(1));
        if paired.contains(&(id, attempt)) {
            alone.extend([Field::Blob(id), Field::Int(attempt)]);
        }
    }
    sql.delete("hold", &HOLD_KEY, &alone)
}

/// Appends the row of an entry.
pub(crate) fn event<'a>(entry: &EntryView<'a>, node: &'a str, row: &mut Vec<Field<'a>>) {
    let EntryView { held, usage, .. } = entry;
    let (class, step) = held.class_and_step();
    let text = Field::Text;
    let count = |count: u64| Field::Int(signed(count));
    row.extend([
        Field::Blob(held.id),
        i64::from(held.attempt).into(),
        text("settle"),
        Field::Int(0),
        held.request.unix_ms().into(),
        text(node),
        text(held.tenant),
        text(held.team),
        text(held.project),
        text(held.key),
        text(held.user),
        text(held.task),
        text(held.workflow),
        text(held.dialect),
        text(held.requested),
        text(held.model),
        text(held.endpoint),
        text(held.tier.as_str()),
        text(held.summed_lane()),
        text(held.reason),
        held.score_milli.map(i64::from).into(),
        i64::from(held.stream).into(),
        held.held_at_ms.into(),
        entry.settled_at_ms.into(),
        entry.first_byte_ms.map(i64::from).into(),
        text(entry.outcome.as_str()),
        i64::from(entry.status).into(),
        text(entry.source.as_str()),
        count(usage.input),
        count(usage.cache_read),
        count(usage.cache_write_5m),
        count(usage.cache_write_1h),
        count(usage.output),
        count(usage.reasoning),
        count(usage.audio_input),
        count(usage.audio_output),
        count(usage.web_searches),
        text(held.price),
        text(held.book),
        count(entry.context_tier),
        held.bound.0.into(),
        entry.cost.0.into(),
        entry.list.0.into(),
        entry.sell.0.into(),
        entry.baseline.0.into(),
        entry.cache_saved.0.into(),
        entry.suspense.0.into(),
        text(class),
        text(step),
        held.session.cast_signed().into(),
        text(""),
        Field::Blob(entry.payload),
    ]);
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, SqlError> {
    serde_json::to_string(value).map_err(|error| SqlError(error.to_string()))
}
