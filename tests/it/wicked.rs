//! Proves, row by row, what becomes of a call whose endpoint misbehaves: the caller hears an error of its
//! dialect, or a stream that visibly breaks; the ledger has every attempt with what was or may have been used;
//! the connection is not used again; nothing stays held; and the next call to the same endpoint works.

mod answers;
mod early;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use meter::{Entry, NanoUsd, Outcome};
use tests::talk::Tongue;
use tests::wicked::{self, Act, SAID, Wicked, Wrong, events};
use tests::world::World;
use tests::{Client, Reply};
use wire::UsageSource;

/// What the gateway is known by at these endpoints, and callers are never to see.
const KEY: &str = "sk-canary-0123456789";

/// A gateway that waits so long for anything.
fn head(patience: Duration) -> String {
    let wait = patience.as_millis();
    format!(
        "server.workers = 1\nupstream.connect_timeout_ms = 10000\nupstream.first_byte_timeout_ms = {wait}\n\
         upstream.reply_timeout_ms = {wait}\nupstream.idle_timeout_ms = {wait}\nupstream.reply_bytes = 2000000"
    )
}

/// For endpoints that say nothing more: every row of them costs it.
const SHORT: Duration = Duration::from_millis(1500);

/// For endpoints that say all they have to say, on a machine that may have other things to do.
const LONG: Duration = Duration::from_secs(20);

/// What the caller hears.
#[derive(Debug, Clone, Copy)]
enum Hears {
    /// An error in its dialect, of one of these statuses.
    Error(&'static [u16]),
    /// A stream that breaks off behind an error event.
    Break,
    /// A whole answer.
    Answer,
}
use Hears::{Answer, Break, Error};

/// What the ledger says of each attempt.
#[derive(Debug, Clone, Copy)]
enum Books {
    /// The endpoint bills nothing.
    Void,
    /// It was counted what came.
    Counted,
    /// The bound is charged, as an estimate.
    Bound,
    /// What the endpoint said.
    Told,
    /// Whole, but what the endpoint said can not be: it was counted.
    Recounted,
}
use Books::{Bound, Counted, Recounted, Told, Void};

struct Row {
    name: String,
    tongue: Tongue,
    stream: bool,
    wrong: Wrong,
    hears: Hears,
    books: Books,
    /// The connection may be used again.
    stays: bool,
}

fn row(
    tongue: Tongue,
    stream: bool,
    name: &str,
    acts: Vec<Act>,
    hears: Hears,
    books: Books,
) -> Row {
    let manner = if stream { "stream" } else { "whole" };
    Row {
        name: format!("{tongue:?} {manner}: {name}"),
        tongue,
        stream,
        wrong: Wrong { early: false, acts },
        hears,
        books,
        stays: false,
    }
}

fn body(tongue: Tongue, model: &str, stream: bool) -> String {
    let rest = match tongue {
        Tongue::Chat => {
            "\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"max_completion_tokens\":50"
        }
        Tongue::Responses => "\"input\":\"Hello there\",\"max_output_tokens\":50",
        Tongue::Messages => {
            "\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"max_tokens\":50"
        }
    };
    format!("{{\"model\":\"{model}\",\"stream\":{stream},{rest}}}")
}

fn ends_cleanly(stream: &str) -> bool {
    [
        "data: [DONE]",
        "event: response.completed",
        "event: message_stop",
    ]
    .iter()
    .any(|end| stream.contains(end))
}

/// What is wrong with what the caller heard.
fn misheard(row: &Row, reply: &Reply) -> Option<String> {
    let text = reply.text();
    let is_right = match row.hears {
        Error(statuses) => {
            let is_told = reply.json()["error"].is_object();
            statuses.contains(&reply.status) && !reply.broken && is_told && !text.contains("data: ")
        }
        Break => {
            reply.status == 200
                && reply.broken
                && text.contains("upstream_interrupted")
                && !ends_cleanly(&text)
        }
        Answer if row.stream => {
            reply.status == 200
                && !reply.broken
                && ends_cleanly(&text)
                && !text.contains("upstream_interrupted")
        }
        Answer => reply.status == 200 && !reply.broken && text.contains("yes"),
    };
    let start: String = text.chars().take(300).collect();
    let is_safe = !text.contains(KEY) && !format!("{:?}", reply.headers).contains(KEY);
    (!is_right || !is_safe).then(|| {
        format!(
            "{}: wanted {:?}, got {} broken {}: {start}",
            row.name, row.hears, reply.status, reply.broken
        )
    })
}

/// What is wrong with an attempt's entry.
fn misbooked(row: &Row, entry: &Entry) -> Option<String> {
    let (outcome, source) = (entry.outcome, entry.source);
    let is_charged = entry.cost > NanoUsd::ZERO && entry.cost <= entry.held.bound;
    let is_right = match row.books {
        Void => outcome == Outcome::Failed && entry.cost == NanoUsd::ZERO,
        Counted => outcome == Outcome::Interrupted && source == UsageSource::Counted && is_charged,
        Bound => outcome == Outcome::Interrupted && source == UsageSource::Estimated && is_charged,
        Told => outcome == Outcome::Completed && source == UsageSource::Provider && is_charged,
        Recounted => outcome == Outcome::Completed && is_charged,
    };
    (!is_right).then(|| {
        format!(
            "{}: wanted {:?}, the ledger says {outcome:?} {source:?} {:?} of {:?}, {:?}",
            row.name, row.books, entry.cost, entry.held.bound, entry.usage
        )
    })
}

async fn played(client: Client, name: String, row: Arc<Row>, endpoint: Arc<Wicked>) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = row.tongue.path();
    let reply = client.post(path, body(row.tongue, &name, row.stream)).await;
    wrong.extend(misheard(&row, &reply));
    let before = endpoint.endpoint.connections();
    endpoint.repent();
    // The endpoint may be just about to close a connection that looks good: a call on it would be tried twice.
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Who asked to be left alone is left alone; the next call may have to wait for that.
    for stream in [row.stream, !row.stream] {
        let next = client.post(path, body(row.tongue, &name, stream)).await;
        if next.status != 200
            || next.broken
            || !(next.text().contains("yes") || next.text().contains("four "))
        {
            wrong.push(format!(
                "{}: the next call: {} {}",
                row.name,
                next.status,
                next.text()
            ));
        }
    }
    if !row.stays && endpoint.endpoint.connections() != before + 1 {
        wrong.push(format!(
            "{}: {} connections, then {}",
            row.name,
            before,
            endpoint.endpoint.connections()
        ));
    }
    wrong
}

/// Whether the end of a call that goes so is that a wait ends.
fn is_waited_for(row: &Row) -> bool {
    let slow = Duration::from_millis(1);
    let waits =
        |act: &Act| matches!(act, Act::Hang) || matches!(act, Act::Drip(_, gap) if *gap > slow);
    row.wrong.acts.iter().any(waits)
}

async fn check(rows: Vec<Row>) {
    let count = rows.len();
    let (silent, telling): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_waited_for);
    let mut wrong = Vec::new();
    for (rows, patience) in [(silent, SHORT), (telling, LONG)] {
        let rows: Vec<Arc<Row>> = rows.into_iter().map(Arc::new).collect();
        if !rows.is_empty() {
            wrong.extend(faults(&rows, patience).await);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong of {count} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{count} rows");
}

/// What is wrong with how these go.
async fn faults(rows: &[Arc<Row>], patience: Duration) -> Vec<String> {
    let mut tables = String::new();
    let mut endpoints = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let endpoint = Wicked::start(row.tongue, row.wrong.clone()).await;
        let name = format!("raw-{at}");
        let url = wicked::url(endpoint.endpoint.address);
        let table = wicked::tables(&name, row.tongue, &url);
        tables.push_str(&table.replace(&format!("up-{name}"), KEY));
        endpoints.push(Arc::new(endpoint));
    }
    let world = World::start(&head(patience), &tables).await;
    let mut wrong = Vec::new();
    let all: Vec<_> = rows.iter().zip(&endpoints).enumerate().collect();
    for some in all.chunks(32) {
        let playing = some.iter().map(|(at, (row, endpoint))| {
            let client = world.caller(&world.client.key);
            played(
                client,
                format!("raw-{at}"),
                Arc::clone(row),
                Arc::clone(endpoint),
            )
        });
        wrong.extend(join_all(playing).await.into_iter().flatten());
    }
    let entries = world.entries().await;
    for (at, row) in rows.iter().enumerate() {
        let name = format!("raw-{at}");
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| *entry.held.model == *name)
            .collect();
        let (bad, good) = own.split_at(own.len().saturating_sub(2));
        if bad.is_empty() || good.iter().any(|entry| entry.outcome != Outcome::Completed) {
            wrong.push(format!("{}: {} entries", row.name, own.len()));
        }
        wrong.extend(bad.iter().filter_map(|entry| misbooked(row, entry)));
    }
    world.quiet().await;
    wrong
}

fn each(rows: impl Fn(Tongue) -> Vec<Row>) -> Vec<Row> {
    Tongue::ALL.into_iter().flat_map(rows).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_fail_before_they_answer() {
    check(each(early::before)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_answer_with_errors() {
    check(each(early::statuses)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_whose_whole_answers_are_none() {
    check(each(answers::wholes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_whose_streams_break() {
    check(each(streams::streams)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_lie_about_usage() {
    check(each(answers::usage)).await;
}

/// Hears what follows when the text is said in full.
#[test]
fn the_pieces_are_the_text() {
    for tongue in Tongue::ALL {
        assert!(
            events(tongue)
                .concat()
                .contains(SAID.split(' ').next().unwrap())
        );
    }
}
