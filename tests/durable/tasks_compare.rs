//! Three ledgers held against each other: what the recorder did, what the logs of tasks say, and what the
//! ledger of money and the endpoints' own bill say of calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bench::upstream::Billed;
use orchestrator::Usd;
use serde_json::Value;
use tests::Client;

use crate::tasks_person::Person;
use crate::tasks_stage::task;

/// A task as its log tells it.
pub(crate) struct Account {
    pub(crate) task: Value,
    effects: Vec<Value>,
    calls: Vec<Value>,
    pub(crate) events: Vec<Value>,
}

/// An entry of the ledger of money.
#[derive(Debug)]
pub(crate) struct Entry {
    request: String,
    attempt: i64,
    task: String,
    cost_nano: i64,
}

/// All that is compared.
pub(crate) struct Books<'a> {
    pub(crate) accounts: &'a [Account],
    pub(crate) recorded: &'a [Value],
    pub(crate) entries: &'a [Entry],
    pub(crate) bill: &'a [Billed],
    /// Only one node made the calls, so that tasks know of lost ones what the ledger knows.
    pub(crate) one_node: bool,
}

/// What came of it, for whoever reads the test's output.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tasks: usize,
    pub(crate) completed: usize,
    /// Acts and looks that were done.
    pub(crate) acts: usize,
    /// Acts and looks that were under way when a lease was lost.
    pub(crate) in_doubt: usize,
    /// Of them, those that were looked for, and those that only a person could settle.
    pub(crate) probed: usize,
    pub(crate) unknown: usize,
    /// Requests that the person refused, and those for more money.
    pub(crate) denied: usize,
    pub(crate) raised: usize,
    pub(crate) calls: usize,
    pub(crate) lost_calls: usize,
    pub(crate) leases: usize,
}

impl Account {
    /// Its acts and looks, by id and idempotency key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.effects
            .iter()
            .map(|it| (text(it, "id"), text(it, "idempotency_key")))
    }
}

/// Reads what the gateway tells of a task.
pub(crate) async fn account(client: &Client, id: &str) -> Account {
    let part = async |part: &str| {
        let reply = client.get(&format!("/v1/tasks/{id}/{part}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let page = part(&format!("events?limit=200&after={after}")).await;
        events.extend(list(&page["data"]));
        match page["next"].as_str() {
            Some(next) => after = next.parse().unwrap(),
            None => break,
        }
    }
    Account {
        task: task(client, id).await,
        effects: list(&part("effects").await["data"]),
        calls: list(&part("explain").await["calls"]),
        events,
    }
}

/// Holds that nobody has changed a log, and that every task's events are chained.
pub(crate) async fn verify(client: &Client) {
    let report = client.get("/v1/audit/verify").await;
    assert_eq!(report.status, 200, "{}", report.text());
    assert_eq!(report.json()["ok"], true, "{}", report.text());
}

const SQL: &str = "SELECT request_id, attempt, task, cost_nano FROM usage_event";

fn entry(request: [u8; 16], attempt: i64, task: String, cost_nano: i64) -> Entry {
    let request = wire::RequestId::from_bytes(request).to_string();
    Entry {
        request,
        attempt,
        task,
        cost_nano,
    }
}

/// The entries of a ledger in a file.
pub(crate) fn entries_of_file(path: &Path) -> Vec<Entry> {
    let ledger = rusqlite::Connection::open(path).unwrap();
    let open: i64 = ledger
        .query_row("SELECT COUNT(*) FROM hold", [], |row| row.get(0))
        .unwrap();
    assert_eq!(open, 0, "no hold is left");
    let mut asked = ledger.prepare(SQL).unwrap();
    let rows = asked.query_map([], |row| {
        Ok(entry(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The entries of a ledger that nodes share.
pub(crate) fn entries_of_server(url: &str) -> Vec<Entry> {
    let mut ledger = postgres::Client::connect(url, postgres::NoTls).unwrap();
    let open: i64 = ledger
        .query_one("SELECT COUNT(*) FROM hold", &[])
        .unwrap()
        .get(0);
    assert_eq!(open, 0, "no hold is left");
    let rows = ledger.query(SQL, &[]).unwrap();
    let read = |row: &postgres::Row| {
        let id: Vec<u8> = row.get(0);
        entry(id.try_into().unwrap(), row.get(1), row.get(2), row.get(3))
    };
    rows.iter().map(read).collect()
}

/// Holds everything against everything.
pub(crate) fn compare(books: &Books<'_>, person: &Person) -> Counts {
    let mut counts = Counts::default();
    let mut lines: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for line in books.recorded {
        let key = line["key"]
            .as_str()
            .unwrap_or_else(|| panic!("without a key: {line}"));
        lines.entry(key).or_default().push(line);
    }
    let mut known = BTreeSet::new();
    for account in books.accounts {
        count(account, &mut counts);
        decisions(account, person);
        for effect in &account.effects {
            let key = effect["idempotency_key"].as_str().unwrap();
            let done = lines.get(key).map_or(&[][..], Vec::as_slice);
            deeds(account, effect, done, person);
            counts.acts += usize::from(!done.is_empty());
            known.insert(key.to_owned());
        }
    }
    for (key, done) in &lines {
        let of = key.strip_suffix("-probe").unwrap_or(key);
        assert!(
            known.contains(of),
            "it was done, and no log knows of it: {done:?}"
        );
    }
    money(books, &mut counts);
    counts
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn count(account: &Account, counts: &mut Counts) {
    let task = &account.task;
    assert_eq!(task["phase"], "ended", "it is stuck: {task:#}");
    let status = text(task, "status");
    assert!(
        matches!(status, "completed" | "incomplete"),
        "{:#}",
        task["error"]
    );
    counts.tasks += 1;
    counts.completed += usize::from(status == "completed");
    let mut acting = BTreeSet::new();
    for event in &account.events {
        let effect = event["data"]["effect"].as_str().unwrap_or_default();
        match text(event, "type") {
            "task.taken" => {
                counts.leases += 1;
                counts.in_doubt += acting.len();
                acting.clear();
            }
            "effect.committed" => {
                acting.insert(effect);
            }
            "approval.decided" if event["data"]["more"].is_string() => counts.raised += 1,
            "effect.reconciled" => counts.probed += 1,
            "effect.unknown" => counts.unknown += 1,
            "approval.decided" if event["data"]["approve"] == false => counts.denied += 1,
            "model.requested" => counts.calls += 1,
            "model.lost" => counts.lost_calls += 1,
            _ => {}
        }
        if matches!(
            text(event, "type"),
            "effect.succeeded" | "effect.failed" | "effect.not_sent" | "effect.lost"
        ) {
            acting.remove(effect);
        }
    }
}

/// A request as the inbox calls it.
fn inbox_name(account: &Account, request: &str) -> String {
    let id = text(&account.task, "id");
    format!("{}.{request}", id.trim_start_matches("task_"))
}

/// Every decision in the log is one that the person made.
fn decisions(account: &Account, person: &Person) {
    let notes = person.notes();
    let decided = account
        .events
        .iter()
        .filter(|it| it["type"] == "approval.decided");
    for event in decided {
        let said = &event["data"];
        let id = inbox_name(account, text(said, "request"));
        let word = match (said["settle"].as_str(), said["approve"].as_bool()) {
            (Some(settle), _) => settle,
            (None, Some(true)) => "yes",
            (None, _) => "no",
        };
        let own = notes.said.get(&id);
        assert!(
            own.is_some_and(|own| own.contains(word)),
            "nobody said so: {event} {own:?}"
        );
    }
}

/// What was done of one effect, against what its log says.
fn deeds(account: &Account, effect: &Value, done: &[&Value], person: &Person) {
    let told = || {
        format!(
            "{effect:#}\nrecorded: {done:#?}\n{}",
            story(account, text(effect, "id"))
        )
    };
    let tool = text(effect, "tool").trim_start_matches("rec__");
    let (status, class) = (text(effect, "status"), text(effect, "class"));
    let mut asked = effect["arguments"].clone();
    for line in done {
        let mut arguments = line["arguments"].clone();
        for it in [&mut arguments, &mut asked] {
            it.as_object_mut().unwrap().remove("marker");
        }
        assert!(
            line["tool"] == tool && arguments == asked,
            "another act was done: {}",
            told()
        );
    }
    let new = done.iter().filter(|line| line["duplicate"] != true).count();
    // The person says "again" only of what the recorder has not seen, so that nothing is ever done twice.
    assert!(
        class == "read" || new <= 1,
        "it was done {new} times: {}",
        told()
    );
    if effect["attempts"] == 0 || status == "denied" {
        assert!(
            done.is_empty(),
            "it was done without having been begun: {}",
            told()
        );
    }
    if status == "succeeded" {
        assert!(new > 0, "it was not done: {}", told());
    }
    // A look is given up when its end was not seen three times.
    let given_up = class == "read" && status == "failed" && effect["attempts"] == 3;
    assert!(
        given_up || matches!(status, "succeeded" | "denied"),
        "it has no end: {}",
        told()
    );
    if effect["verb"] == "execute" && !done.is_empty() {
        assert!(
            had_leave(account, effect, person),
            "nobody allowed it: {}",
            told()
        );
    }
}

/// Whether a rule or the person allowed an act.
fn had_leave(account: &Account, effect: &Value, person: &Person) -> bool {
    let approved = |request: &str| {
        let mut events = account.events.iter();
        let said_yes = events.any(|it| {
            it["type"] == "approval.decided"
                && it["data"]["request"] == request
                && it["data"]["approve"] == true
        });
        said_yes && person.agrees(&inbox_name(account, request))
    };
    let decision = &effect["decision"];
    match text(decision, "gate") {
        "allowed" => match text(decision, "by").split_once(':') {
            Some(("approval", request)) => approved(request),
            Some(_) => false,
            None => account.task["brief"]["autonomy"] == 3,
        },
        "ask" => {
            let about = |it: &&Value| {
                let items = it["data"]["items"].as_array();
                it["data"]["asking"] == "acts"
                    && items.is_some_and(|items| {
                        items.iter().any(|item| item["effect"] == effect["id"])
                    })
            };
            let asked = account
                .events
                .iter()
                .filter(|it| it["type"] == "approval.requested")
                .find(about);
            asked.is_some_and(|asked| approved(text(&asked["data"], "request")))
        }
        _ => false,
    }
}

/// The events of a task that speak of one effect, and those of its leases.
fn story(account: &Account, effect: &str) -> String {
    let events = account.events.iter().filter(|it| {
        matches!(text(it, "type"), "task.taken" | "approval.decided")
            || it["data"].to_string().contains(effect)
    });
    events.map(|it| format!("{it}\n")).collect()
}

fn nano(value: &Value) -> i64 {
    value.as_str().map_or(0, |text| Usd::parse(text).unwrap().0)
}

/// Calls and what they cost: by the endpoints' bill, by the ledger, and by the logs of tasks.
fn money(books: &Books<'_>, counts: &mut Counts) {
    let mut ledger: BTreeMap<&str, i64> = BTreeMap::new();
    let mut attempts: BTreeSet<(&str, i64)> = BTreeSet::new();
    for entry in books.entries {
        *ledger.entry(&entry.request).or_default() += entry.cost_nano;
        assert!(
            attempts.insert((&entry.request, entry.attempt)),
            "it is charged twice: {entry:?}"
        );
    }
    let mut billed: BTreeMap<&str, i64> = BTreeMap::new();
    for it in books.bill {
        let attempt = it.attempt.parse().unwrap();
        assert!(
            attempts.contains(&(it.request.as_str(), attempt)),
            "billed and not in the ledger: {it:?}"
        );
        *billed.entry(&it.request).or_default() += i64::try_from(it.cost_pico / 1_000).unwrap();
    }
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for account in books.accounts {
        let id = text(&account.task, "id");
        for call in &account.calls {
            owners.insert(text(call, "request"), id);
            let request = text(call, "request");
            let cost = ledger.get(request).copied().unwrap_or(0);
            let bill = billed.get(request).copied().unwrap_or(0);
            charged(account, call, cost, bill);
            if books.one_node && call["lost"] == true {
                let own = nano(&call["cost_usd"]);
                assert_eq!(own, cost, "the ledger has another cost: {call:#}");
            }
        }
        let usage = &account.task["usage"];
        if usage["budget_usd"].is_string() {
            let mine = books.entries.iter().filter(|it| it.task == id);
            let charged: i64 = mine.map(|it| it.cost_nano).sum();
            let (spent, limit) = (nano(&usage["cost_usd"]), nano(&usage["budget_usd"]));
            assert!(
                charged <= spent && spent <= limit,
                "{charged}, {spent} of {limit}: {:#}",
                account.task
            );
        }
    }
    for entry in books.entries {
        let owner = owners.get(entry.request.as_str());
        assert_eq!(
            owner,
            Some(&entry.task.as_str()),
            "no task's log has {entry:?}"
        );
    }
    assert!(counts.calls > 0, "no model was called");
}

/// One call by its task's log, against the `cost` in the ledger and the endpoint's `bill`, in nano-USD.
fn charged(account: &Account, call: &Value, cost: i64, bill: i64) {
    let (own, reserved) = (nano(&call["cost_usd"]), nano(&call["reserved_usd"]));
    let told = || format!("ledger {cost}, bill {bill}: {call:#}");
    assert!(
        cost >= bill,
        "the ledger has less than the bill: {}",
        told()
    );
    if call["lost"] == false && call["problem"].is_null() {
        assert!(
            own == cost && cost == bill,
            "it came to its end: {}",
            told()
        );
    } else if account.task["usage"]["budget_usd"].is_string() {
        let held = if call["lost"] == true {
            own
        } else {
            own.max(reserved)
        };
        assert!(
            held >= cost,
            "the task has set aside too little: {}",
            told()
        );
    }
}
