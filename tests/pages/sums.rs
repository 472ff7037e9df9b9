//! What figures must be: sums over the entries themselves, by SQL that shares nothing with the store's.

use std::collections::HashMap;
use std::path::Path;

/// The entries of a ledger, and the sums that were asked for.
pub struct Book {
    ask: Box<dyn FnMut(&str) -> i64>,
    known: HashMap<String, i64>,
}

impl Book {
    pub fn file(path: &Path) -> Self {
        let file = rusqlite::Connection::open(path).unwrap();
        file.execute_batch(ROWS).unwrap();
        let ask = move |sql: &str| file.query_row(sql, [], |row| row.get(0)).unwrap();
        Self {
            ask: Box::new(ask),
            known: HashMap::new(),
        }
    }

    pub fn server(url: &str) -> Self {
        let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
        client.batch_execute(ROWS).unwrap();
        let ask = move |sql: &str| client.query_one(sql, &[]).unwrap().get(0);
        Self {
            ask: Box::new(ask),
            known: HashMap::new(),
        }
    }

    /// The sum of this name, for instance `cost?from=0&until=9&tenant=acme`.
    pub fn sum(&mut self, name: &str) -> i64 {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let (measure, over) = name.split_once('?').unwrap();
        if let Some(sql) = elsewhere(measure, over) {
            let sum = (self.ask)(&sql);
            self.known.insert(name.to_owned(), sum);
            return sum;
        }
        let conditions = conditions(over);
        let mut ask = |what: &str, from: &str| {
            let sql = format!("SELECT CAST(COALESCE({what}, 0) AS BIGINT) FROM {from}");
            (self.ask)(&sql)
        };
        let entries = format!("row WHERE {}", conditions.join(" AND "));
        let tasks = tasks(&conditions);
        let sum = match measure {
            "per1k" => {
                let cost = ask("SUM(cost_nano)", &entries);
                half_even(i128::from(cost) * 1_000, ask("SUM(begins)", &entries))
            }
            "tasks" => ask("COUNT(*)", &format!("({tasks}) AS t")),
            "task_calls" => ask("SUM(calls)", &format!("({tasks}) AS t")),
            "task_cost" => ask("SUM(cost)", &format!("({tasks}) AS t")),
            "task_each" => {
                let cost = ask("SUM(cost)", &format!("({tasks}) AS t"));
                half_even(
                    i128::from(cost),
                    ask("COUNT(*)", &format!("({tasks}) AS t")),
                )
            }
            "task_fast_calls" | "task_deep_calls" | "task_fast_cost" | "task_deep_cost" => {
                let (tier, what) = measure["task_".len()..].split_once('_').unwrap();
                ask(&format!("SUM({tier}_{what})"), &format!("({tasks}) AS t"))
            }
            "ended_tasks" | "ended_cost" | "ended_each" | "unended_tasks" | "unended_cost" => {
                let not = if measure.starts_with("un") { "NOT" } else { "" };
                let ended = format!(
                    "({tasks}) AS t WHERE {not} EXISTS (SELECT 1 FROM task k WHERE k.tenant = t.tenant
                     AND k.task = t.task AND k.outcome IN ('completed', 'success', 'succeeded', 'ok'))"
                );
                match measure.rsplit_once('_').unwrap().1 {
                    "tasks" => ask("COUNT(*)", &ended),
                    "each" => half_even(
                        i128::from(ask("SUM(cost)", &ended)),
                        ask("COUNT(*)", &ended),
                    ),
                    _ => ask("SUM(cost)", &ended),
                }
            }
            "p50" | "p95" | "p99" => {
                let answered = format!("{entries} AND kind = 'settle' AND outcome <> 'failed'");
                let many = ask("COUNT(*)", &answered);
                let place = (many * measure[1..].parse::<i64>().unwrap() + 99) / 100 - 1;
                let from = format!(
                    "(SELECT cost_nano FROM {answered} ORDER BY 1 LIMIT 1 OFFSET {place}) AS t"
                );
                eighth(ask("MAX(cost_nano)", &from))
            }
            _ => ask(&column(measure), &entries),
        };
        self.known.insert(name.to_owned(), sum);
        sum
    }
}

/// Entries and corrections, with what the corrections of an attempt make of it: whether the row begins
/// one, where its usage is from now, what all of it cost, and what of it waits for a bill.
const ROWS: &str = "CREATE TEMP TABLE row AS SELECT
    e.request_id, e.attempt, e.kind, e.rev, e.tenant, e.team, e.project, e.key, e.task, e.workflow,
    e.model, e.endpoint, e.tier, e.lane, e.price, e.context_tier, e.held_at_ms, e.outcome, e.input,
    e.cache_read, e.cache_write_5m, e.cache_write_1h, e.output, e.reasoning, e.audio_input,
    e.audio_output, e.cost_nano, e.list_nano, e.sell_nano, e.baseline_nano, e.cache_saved_nano,
    CASE WHEN e.kind = 'settle' OR (e.kind = 'late' AND e.rev = 1 AND NOT EXISTS (
        SELECT 1 FROM usage_event s WHERE s.request_id = e.request_id AND s.attempt = e.attempt
        AND s.kind = 'settle')) THEN 1 ELSE 0 END AS begins,
    COALESCE((SELECT c.source FROM usage_event c WHERE c.request_id = e.request_id
        AND c.attempt = e.attempt AND c.kind <> 'settle' ORDER BY c.seq DESC LIMIT 1), e.source) AS now,
    (SELECT SUM(c.cost_nano) FROM usage_event c WHERE c.request_id = e.request_id
        AND c.attempt = e.attempt) AS whole,
    CASE WHEN EXISTS (SELECT 1 FROM usage_event c WHERE c.request_id = e.request_id
        AND c.attempt = e.attempt AND c.kind = 'reconcile') THEN 0 ELSE e.suspense_nano END AS waits
    FROM usage_event e;
    CREATE INDEX row_by_time ON row (held_at_ms)";

/// The statement of a figure that is in another table than the entries.
fn elsewhere(measure: &str, over: &str) -> Option<String> {
    let parts: HashMap<&str, String> = over
        .split('&')
        .map(|part| part.split_once('=').unwrap())
        .map(|(name, value)| (name, decoded(value).replace('\'', "''")))
        .collect();
    let of = |name: &str| parts[name].as_str();
    let (what, from) = match measure {
        "window" => (
            "settled_nano",
            format!(
                "budget_window WHERE budget = '{}' AND start_ms = {}",
                of("budget"),
                of("start")
            ),
        ),
        "billed" => (
            "cost_nano",
            format!(
                "provider_bill_day WHERE day_ms = {} AND endpoint = '{}' AND model = '{}'",
                of("from"),
                of("provider"),
                of("model")
            ),
        ),
        "entry" => {
            let id = of("request").trim_start_matches("req_");
            let row = format!("request_id = X'{id}' AND kind = 'settle'");
            let attempt = of("attempt");
            (
                "cost_nano",
                format!("row WHERE {row} AND attempt = {attempt}"),
            )
        }
        "statement_credits" => (
            "amount_nano",
            format!(
                "credit_use WHERE tenant = '{}' AND month = '{}'",
                of("tenant"),
                of("month")
            ),
        ),
        _ => (
            match measure {
                "statement_number" => "number",
                "statement_sell" => "sell_nano",
                "statement_due" => "due_nano",
                _ => return None,
            },
            format!(
                "statement WHERE tenant = '{}' AND month = '{}'",
                of("tenant"),
                of("month")
            ),
        ),
    };
    Some(format!(
        "SELECT CAST(COALESCE(SUM({what}), 0) AS BIGINT) FROM {from}"
    ))
}

/// The end of the eighth of a power of two that a cost lies in.
fn eighth(cost: i64) -> i64 {
    let mut width = 1;
    while cost >= width * 16 {
        width *= 2;
    }
    (cost / width + 1) * width - 1
}

fn column(measure: &str) -> String {
    let when = |condition: &str, amount: &str| {
        format!("SUM(CASE WHEN {condition} THEN {amount} ELSE 0 END)")
    };
    match measure {
        "cost" | "sell" | "list" | "baseline" | "cache_saved" => format!("SUM({measure}_nano)"),
        "margin" => "SUM(sell_nano - cost_nano)".to_owned(),
        "saved" => "SUM(baseline_nano - cost_nano)".to_owned(),
        "minus_saved" => "SUM(cost_nano - baseline_nano)".to_owned(),
        "minus_cache_saved" => "SUM(0 - cache_saved_nano)".to_owned(),
        "undiscounted" => "SUM(baseline_nano + cache_saved_nano)".to_owned(),
        "calls" => "SUM(begins)".to_owned(),
        "rows" => "COUNT(*)".to_owned(),
        "answered" => when("kind = 'settle' AND outcome <> 'failed'", "1"),
        "failed" => when("outcome = 'failed'", "begins"),
        "counted" | "estimated" => when(&format!("now = '{measure}'"), "begins"),
        "estimated_cost" => when("now = 'estimated' AND begins = 1", "whole"),
        "unpriced" => when("price = '' AND outcome <> 'failed'", "begins"),
        "retries" => when("attempt > 0", "begins"),
        "corrected" => when("kind <> 'settle'", "cost_nano"),
        "suspense" => "SUM(waits)".to_owned(),
        "retry" => when("attempt > 0", "cost_nano"),
        "wasted" => when("outcome <> 'completed'", "cost_nano"),
        "prompt" => "SUM(input + cache_read + cache_write_5m + cache_write_1h + audio_input)".to_owned(),
        "answer" => "SUM(output + reasoning + audio_output)".to_owned(),
        "tokens" => "SUM(input + cache_read + cache_write_5m + cache_write_1h + audio_input + output + reasoning + audio_output)".to_owned(),
        "cache_write" => "SUM(cache_write_5m + cache_write_1h)".to_owned(),
        "input" | "cache_read" | "output" | "reasoning" => format!("SUM({measure})"),
        other => panic!("no such sum: {other}"),
    }
}

fn conditions(over: &str) -> Vec<String> {
    let mut all = Vec::new();
    for part in over.split('&') {
        let (name, value) = part.split_once('=').unwrap();
        let value = decoded(value).replace('\'', "''");
        all.push(match name {
            "from" => format!("held_at_ms >= {value}"),
            "until" => format!("held_at_ms < {value}"),
            "kind" if value == "orphaned" => "kind = 'settle' AND outcome = 'orphaned'".to_owned(),
            "kind" => format!("kind = '{value}'"),
            "context" => format!("context_tier = {value}"),
            "provider" => format!("endpoint = '{value}'"),
            "tenant" | "team" | "project" | "key" | "workflow" | "model" | "tier" | "lane"
            | "price" => format!("{name} = '{value}'"),
            other => panic!("no such condition: {other}"),
        });
    }
    all
}

/// Tasks whose first call lies in the time; the other conditions are on all of their calls alike.
fn tasks(conditions: &[String]) -> String {
    let (time, rest): (Vec<&String>, Vec<&String>) = conditions
        .iter()
        .partition(|one| one.starts_with("held_at_ms"));
    let time: Vec<String> = time
        .iter()
        .map(|one| one.replace("held_at_ms", "MIN(held_at_ms)"))
        .collect();
    let rest: String = rest.iter().map(|one| format!(" AND {one}")).collect();
    format!(
        "SELECT tenant, task, SUM(begins) AS calls, SUM(cost_nano) AS cost,
            SUM(CASE WHEN tier = 'fast' THEN begins ELSE 0 END) AS fast_calls,
            SUM(CASE WHEN tier = 'deep' THEN begins ELSE 0 END) AS deep_calls,
            SUM(CASE WHEN tier = 'fast' THEN cost_nano ELSE 0 END) AS fast_cost,
            SUM(CASE WHEN tier = 'deep' THEN cost_nano ELSE 0 END) AS deep_cost
         FROM row WHERE task <> ''{rest} GROUP BY tenant, task HAVING {}",
        time.join(" AND ")
    )
}

fn half_even(value: i128, by: i64) -> i64 {
    let by = i128::from(by);
    let (whole, rest) = (value.div_euclid(by), value.rem_euclid(by));
    let up = rest * 2 > by || (rest * 2 == by && whole % 2 != 0);
    i64::try_from(whole + i128::from(up)).unwrap()
}

fn decoded(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

/// Tells of most tasks how they ended, as callers do.
pub fn end_tasks(path: &Path, url: Option<&str>) {
    let sql = "UPDATE task SET outcome = CASE
        WHEN task LIKE '%7' THEN 'failure' WHEN task LIKE '%3' THEN 'open'
        WHEN task LIKE '%5' THEN 'completed' WHEN task LIKE '%1' THEN 'incomplete'
        ELSE 'success' END";
    match url {
        Some(url) => {
            let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
            client.batch_execute(sql).unwrap();
        }
        None => rusqlite::Connection::open(path)
            .unwrap()
            .execute_batch(sql)
            .unwrap(),
    }
}
