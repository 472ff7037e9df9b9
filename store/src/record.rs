//! Records as bytes: what the journal writes, what it hands to the batcher, and what the ledger keeps of
//! an entry beside its columns.
//!
//! A byte of format and one of kind, the request's 16 bytes, then the fields in their order: numbers in
//! sevens of bits, lowest first, signed ones folded to the unsigned; texts and lists behind their length.
//! A later format gets a number of its own, and this one stays readable. Records from before there was
//! a format are JSON, which begins with a brace.

mod fields;
mod read;

use meter::{Entry, Held, Outcome, Record, Routing};
use wire::{RequestId, Tier, Usage, UsageSource};

use fields::{number, opt, signed, text, texts};
pub(crate) use read::{EntryView, HeldView, id};

/// What the first byte of a record says.
const FORMAT: u8 = 1;
const BRACE: u8 = b'{';
/// What the second byte says.
const HOLD: u8 = 0;
const SETTLE: u8 = 1;

/// A record can not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is damaged, or was written by a newer program")]
pub struct DecodeError;

/// Appends `record` to `to`.
pub(crate) fn encode(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Hold(held) => encode_held(held, to),
        Record::Settle(entry) => encode_entry(entry, to),
    }
}

/// Appends a hold.
pub(crate) fn encode_held(held: &Held, to: &mut Vec<u8>) {
    to.extend_from_slice(&[FORMAT, HOLD]);
    put_held(held, to);
}

/// Appends an entry.
pub(crate) fn encode_entry(entry: &Entry, to: &mut Vec<u8>) {
    to.extend_from_slice(&[FORMAT, SETTLE]);
    put_held(&entry.held, to);
    to.extend_from_slice(&[outcome(entry.outcome), source(entry.source)]);
    number(entry.status.into(), to);
    signed(entry.settled_at_ms, to);
    usage(&entry.usage, to);
    for amount in [
        entry.cost,
        entry.baseline,
        entry.list,
        entry.sell,
        entry.cache_saved,
        entry.suspense,
    ] {
        signed(amount.0, to);
    }
    number(entry.context_tier, to);
    opt(entry.first_byte_ms.map(u64::from), to);
}

/// Appends a record that is JSON in this format; any other as it is.
pub(crate) fn renew(payload: &[u8], to: &mut Vec<u8>) -> Result<(), DecodeError> {
    if payload.first() == Some(&BRACE) {
        encode(&decode(payload)?, to);
    } else {
        to.extend_from_slice(payload);
    }
    Ok(())
}

/// The whole record.
pub(crate) fn decode(payload: &[u8]) -> Result<Record, DecodeError> {
    if payload.first() == Some(&BRACE) {
        return serde_json::from_slice(payload).map_err(|_| DecodeError);
    }
    Ok(match Head::of(payload)?.kind {
        Kind::Hold => Record::Hold(Box::new(HeldView::of(payload)?.to_held()?)),
        Kind::Settle => Record::Settle(Box::new(EntryView::of(payload)?.to_entry()?)),
    })
}

/// The hold of a row; rows from before records had bytes of their own have its JSON.
pub(crate) fn held(kept: &[u8]) -> Result<Held, DecodeError> {
    if kept.first() == Some(&BRACE) {
        return serde_json::from_slice(kept).map_err(|_| DecodeError);
    }
    HeldView::of(kept)?.to_held()
}

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hold,
    Settle,
}

/// Whose record it is, which is known without reading the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: Kind,
    pub request: RequestId,
    pub attempt: u16,
}

fn put_held(held: &Held, to: &mut Vec<u8>) {
    to.extend_from_slice(&held.request.bytes());
    number(held.attempt.into(), to);
    to.extend_from_slice(&[tier(held.tier), held.stream.into()]);
    let subject = &held.subject;
    for name in [
        &subject.tenant,
        &subject.team,
        &subject.project,
        &subject.key,
        &subject.user,
        &subject.task,
        &subject.workflow,
        &held.dialect,
        &held.requested,
        &held.model,
        &held.endpoint,
        &held.reason,
        &held.price,
        &held.losses,
        &held.lane,
        &held.book,
        &held.escalated,
    ] {
        text(name, to);
    }
    opt(held.score_milli.map(u64::from), to);
    to.extend_from_slice(&held.session.to_le_bytes());
    signed(held.held_at_ms, to);
    signed(held.bound.0, to);
    usage(&held.bound_usage, to);
    number(length(held.charges.len()), to);
    for charge in &held.charges {
        text(&charge.budget, to);
        signed(charge.start_ms, to);
    }
    match &held.routing {
        None => to.push(0),
        Some(routing) => {
            to.push(1);
            put_routing(routing, to);
        }
    }
}

/// What sums need first, then the rest behind its length, which they pass over.
fn put_routing(routing: &Routing, to: &mut Vec<u8>) {
    text(&routing.class, to);
    text(&routing.step, to);
    signed(routing.lost.0, to);
    let place = to.len();
    to.extend_from_slice(&[0; 4]);
    for ppm in [routing.score_ppm, routing.threshold_ppm] {
        opt(ppm.map(u64::from), to);
    }
    number(routing.propensity_ppm.into(), to);
    number(length(routing.layers.len()), to);
    for layer in &routing.layers {
        signed((*layer).into(), to);
    }
    number(routing.head.into(), to);
    text(&routing.weights, to);
    texts(routing.rules.iter(), to);
    texts(routing.would.iter(), to);
    texts(routing.barred.iter().flat_map(|(a, b)| [a, b]), to);
    text(&routing.label, to);
    texts(routing.headers.iter().flat_map(|(a, b)| [a, b]), to);
    number(routing.needs.into(), to);
    number(routing.prompt_tokens, to);
    text(&routing.seat, to);
    let rest = u32::try_from(to.len() - place - 4).unwrap_or(u32::MAX);
    if let Some(room) = to.get_mut(place..place + 4) {
        room.copy_from_slice(&rest.to_le_bytes());
    }
}

fn usage(usage: &Usage, to: &mut Vec<u8>) {
    for count in [
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.audio_input,
        usage.audio_output,
        usage.web_searches,
    ] {
        number(count, to);
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn tier(tier: Tier) -> u8 {
    match tier {
        Tier::Fast => 0,
        Tier::Deep => 1,
    }
}

fn outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Completed => 0,
        Outcome::Disconnected => 1,
        Outcome::Interrupted => 2,
        Outcome::Failed => 3,
        Outcome::Orphaned => 4,
    }
}

fn source(source: UsageSource) -> u8 {
    match source {
        UsageSource::Provider => 0,
        UsageSource::Counted => 1,
        UsageSource::Estimated => 2,
    }
}

#[cfg(test)]
mod tests;
