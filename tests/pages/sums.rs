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
        let ask = move |sql: &str| file.query_row(sql, [], |row| row.get(0)).unwrap();
        Self {
            ask: Box::new(ask),
            known: HashMap::new(),
        }
    }

    pub fn server(url: &str) -> Self {
        let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
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
        let conditions = conditions(over);
        let mut ask = |what: &str, from: &str| {
            let sql = format!("SELECT CAST(COALESCE({what}, 0) AS BIGINT) FROM {from}");
            (self.ask)(&sql)
        };
        let entries = format!("usage_event WHERE {}", conditions.join(" AND "));
        let tasks = tasks(&conditions);
        let sum = match measure {
            "per1k" => {
                let cost = ask("SUM(cost_nano)", &entries);
                half_even(i128::from(cost) * 1_000, ask("COUNT(*)", &entries))
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
            _ => ask(&column(measure), &entries),
        };
        self.known.insert(name.to_owned(), sum);
        sum
    }
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
        "calls" => "COUNT(*)".to_owned(),
        "failed" => when("outcome = 'failed'", "1"),
        "counted" | "estimated" => when(&format!("source = '{measure}'"), "1"),
        "estimated_cost" => when("source = 'estimated'", "cost_nano"),
        "unpriced" => when("price = '' AND outcome <> 'failed'", "1"),
        "retries" => when("attempt > 0", "1"),
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
        "SELECT COUNT(*) AS calls, SUM(cost_nano) AS cost FROM usage_event WHERE task <> ''{rest} GROUP BY tenant, task HAVING {}",
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
        WHEN task LIKE '%7' THEN 'failure' WHEN task LIKE '%3' THEN 'open' ELSE 'success' END";
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
