//! The commands, as a person runs them: check, keys, usage, explain, demo.

use bench::upstream::{Script, Upstream};
use meter::NanoUsd;
use tests::Process;
use tests::world::{DEEP, FAST, chat, script};

use crate::{PROGRAM, caller, command, config, key};

/// The sum of the `cost_usd` column, in nano-USD.
pub(crate) fn cost_of(csv: &str) -> i64 {
    let mut lines = csv.lines();
    let column = lines
        .next()
        .unwrap()
        .split(',')
        .position(|name| name == "cost_usd")
        .unwrap();
    lines
        .map(|line| {
            NanoUsd::from_usd(line.split(',').nth(column).unwrap())
                .unwrap()
                .0
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_and_explain_tell_what_the_ledger_holds_to_the_nano_dollar() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let keys = [key(&path, "acme"), key(&path, "=globex, \"inc\"")];
    let process = Process::start(PROGRAM, &path).await;
    let mut last = String::new();
    for n in 0..60 {
        let client = caller(&process, &keys[n % 2]);
        let path = ["/v1/chat/completions", "/v1/messages"][n / 2 % 2];
        let rest = format!(",\"max_tokens\":{}", 10 + n);
        let reply = client
            .post(path, chat("auto", &format!("Question {n}: why?"), &rest))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        last = reply.header("x-request-id");
    }
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    let raw: i64 = ledger
        .query_row("SELECT SUM(cost_nano) FROM usage_event", [], |row| {
            row.get(0)
        })
        .unwrap();
    let billed: u64 = fast
        .bill()
        .iter()
        .chain(&deep.bill())
        .map(|b| b.cost_pico / 1_000)
        .sum();
    assert_eq!(
        raw,
        i64::try_from(billed).unwrap(),
        "and the endpoints agree"
    );
    for by in [
        "tenant",
        "model",
        "tier,day",
        "tenant,model,tier,day",
        "hour",
        "key,tier",
    ] {
        let (ok, csv, error) = command(&["usage", "--by", by, "--csv"], &path);
        assert!(ok, "{error}");
        assert_eq!(
            cost_of(&csv.replace("\"'=globex, \"\"inc\"\"\"", "globex")),
            raw,
            "by {by}\n{csv}"
        );
    }
    let (_, csv, _) = command(&["usage", "--by", "tenant", "--csv"], &path);
    assert!(
        csv.contains("\"'=globex, \"\"inc\"\"\""),
        "no formula for a spreadsheet\n{csv}"
    );
    let (ok, table, _) = command(&["usage"], &path);
    assert!(
        ok && table.contains("total") && table.contains(&NanoUsd(raw).to_usd()),
        "{table}"
    );
    let (ok, told, error) = command(&["explain", &last], &path);
    assert!(ok, "{error}");
    for word in [
        last.as_str(),
        "score",
        "completed",
        "from provider",
        "test/",
        "total:",
    ] {
        assert!(told.contains(word), "{word} is missing\n{told}");
    }
    let (ok, _, error) = command(&["explain", "req_00000000000000000000000000000000"], &path);
    assert!(!ok && error.contains("no call"), "{error}");
    let (ok, listed, _) = command(&["keys", "list"], &path);
    assert!(
        ok && listed.contains("acme") && listed.contains("in force") && !listed.contains("sk-par"),
        "{listed}"
    );
}

#[test]
fn check_prints_file_line_and_column_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[server]\nlisen = \"x\"\n").unwrap();
    let (ok, _, error) = command(&["check"], &path);
    assert!(!ok);
    assert_eq!(
        error.trim(),
        format!(
            "{}:2:1: unknown key `lisen`; did you mean `listen`?",
            path.display()
        )
    );
    let good =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/local.toml");
    let (ok, told, error) = command(&["check"], &good);
    assert!(
        ok && told.contains("good (endpoints: 1, models: 2"),
        "{told}{error}"
    );
}

/// What only a start would find in a file is found before it.
#[test]
fn check_reads_the_tokenizers_of_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let tokenizer = folder.path().join("tokenizer.json");
    std::fs::write(&tokenizer, "{\"model\": 1}").unwrap();
    let example = include_str!("../../config/examples/local.toml");
    let model = format!("[[model]]\ntokenizer = {tokenizer:?}\n");
    std::fs::write(&path, example.replacen("[[model]]\n", &model, 1)).unwrap();
    let (ok, told, error) = command(&["check"], &path);
    assert!(!ok && error.contains("tokenizer.json"), "{told}{error}");
}

#[test]
fn who_asks_a_store_that_is_not_there_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let store = folder.path().join("store");
    let example = include_str!("../../config/examples/local.toml");
    let text = format!("store.dir = {store:?}\n{example}");
    std::fs::write(&path, text).unwrap();
    for asked in [
        &["usage"][..],
        &["keys", "list"],
        &["budgets", "list"],
        &["export", "--format", "csv"],
        &["audit", "verify"],
        &["statements", "list"],
        &["report", "routing"],
    ] {
        let (ok, told, error) = command(asked, &path);
        assert!(
            !ok && error.contains("there is no store in"),
            "{asked:?}: {told}{error}"
        );
        assert!(!store.exists(), "{asked:?} made one");
    }
}

#[test]
fn the_demo_holds_its_split_and_its_ledger_equals_the_endpoints_bills() {
    let output = std::process::Command::new(PROGRAM)
        .args(["demo", "--exit", "--calls", "1600", "--speed", "12"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "its own verdict");
    assert!(told.contains("first call served") && told.contains("initech"));
    assert!(!told.contains("started late"), "the load was open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_are_checked_compared_replayed_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let tail = "[[model]]\nname = \"mini\"\ntier = \"fast\"\nendpoint = \"fast-chat\"\nprice = \"openai/gpt-5-mini\"\n\
        [[price]]\nid = \"openai/gpt-5-mini\"\nfrom = 2026-12-01T00:00:00Z\ndiscount = \"0.12\"\nwhy = \"agreement\"\n\
        [[sell]]\nplan = \"team\"\nrule = \"markup\"\npct = \"20\"\n";
    let path = config(folder.path(), &fast, &deep, tail);
    let (good, told, wrong) = command(&["prices", "check", "--json"], &path);
    assert!(good, "{told}{wrong}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["version"].as_str().unwrap().len(), 64);
    assert!(told.contains("\"kind\": \"conflict\""), "{told}");
    // A list whose figures differ becomes a new period, and nothing else changes.
    let (list, out) = (
        folder.path().join("list.json"),
        folder.path().join("new.json"),
    );
    let litellm = r#"{"gpt-5-mini":{"litellm_provider":"openai","mode":"chat",
        "input_cost_per_token":5e-07,"output_cost_per_token":2e-06}}"#;
    std::fs::write(&list, litellm).unwrap();
    let (list, out) = (list.to_str().unwrap(), out.to_str().unwrap());
    let import = [
        "prices",
        "import",
        "litellm",
        list,
        "--from",
        "2027-01-01",
        "--out",
        out,
        "--csv",
    ];
    let (good, told, wrong) = command(&import, &path);
    assert!(good, "{wrong}");
    let change = "openai/gpt-5-mini,\"standard, from 2027-01-01T00:00:00Z\",input,0.25,0.5";
    assert!(told.contains(change), "{told}");
    let own = format!("{}/../config/prices.json", env!("CARGO_MANIFEST_DIR"));
    let diff = ["prices", "diff", &own, out, "--replay", "30d", "--csv"];
    let (good, told, wrong) = command(&diff, &path);
    assert!(good, "{wrong}");
    assert!(
        told.contains(change) && told.contains("total,0.000000000"),
        "{told}"
    );
    // Taking it in again before that moment would change facts.
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.insert_str(0, &format!("meter.price_book = {out:?}\n"));
    std::fs::write(&path, text).unwrap();
    std::fs::write(list, litellm.replace("5e-07", "6e-07")).unwrap();
    let (good, _, wrong) = command(&import[..6], &path);
    assert!(!good && wrong.contains("later --from"), "{wrong}");
    // A model without a sure price fails the check.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace(
            "price = \"openai/gpt-5-mini\"",
            "price = \"perplexity/sonar\"",
        ),
    )
    .unwrap();
    let (good, told, _) = command(&["prices", "check"], &path);
    assert!(!good && told.contains("unpriced"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_both_attempts_of_an_escalation_and_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let declines = Script {
        say: Some("I'm sorry, but I can't help with that.".to_owned()),
        ..script(FAST)
    };
    let fast = Upstream::start(declines).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let near =
        "[routing]\ncontrol_per_thousand = 0\n[routing.cascade]\nmargin_per_thousand = 1000\n";
    let path = config(folder.path(), &fast, &deep, near);
    let key = key(&path, "acme");
    let process = Process::start(PROGRAM, &path).await;
    let client = caller(&process, &key);
    let call = chat("auto", "Why?", "");
    let reply = client.post("/v1/chat/completions", call).await;
    assert_eq!(reply.header("x-pareto-route"), "escalated");
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let request = reply.header("x-request-id");
    let (ok, told, error) = command(&["explain", &request], &path);
    assert!(ok, "{error}");
    for words in [
        "cascade: the score is near the threshold",
        "attempt 0",
        "this answer failed the check `refusal`",
        "attempt 1",
        "the fast answer before it failed the check `refusal`",
        &format!(
            "total: {} USD over 2 attempts",
            reply.header("x-pareto-cost-usd")
        ),
    ] {
        assert!(told.contains(words), "{words} is missing\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slips_of_the_hand_are_refused_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let budget = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"1\"\nwindow = \"month\"\n";
    let path = config(folder.path(), &fast, &deep, budget);
    key(&path, "acme");
    let bill = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let good = bill(
        "good.csv",
        "\u{feff}day,model,cost_usd\r\n2026-11-22,fast-chat,4\r\n",
    );
    let short = bill("short.csv", "day,model,cost_usd\n2026-11-22,fast-chat\n");
    let import = "reconcile import --format csv --endpoint";
    let change = "budgets override --until 2099-01-01 --budget";
    let grant = "credits grant --usd 1 --from 2026-01-01 --until 2099-01-01";
    let reversed = "--from 2026-11-22 --until 2026-11-01";
    for (line, words) in [
        (format!("usage {reversed}"), "--until is before --from"),
        (
            format!("export --format csv {reversed}"),
            "--until is before --from",
        ),
        (
            format!("report routing {reversed}"),
            "--until is before --from",
        ),
        (
            format!("{import} fast-chat {reversed} {good}"),
            "--until is before --from",
        ),
        (
            "report routing --from 2099-01-01".to_owned(),
            "--from lies in the future",
        ),
        (
            "export --format csv --from 2099-01-01".to_owned(),
            "--from lies in the future",
        ),
        (
            format!("{import} nope {good}"),
            "no endpoint `nope` in the configuration; --endpoint takes ",
        ),
        (
            format!("{import} fast-chat {short}"),
            "line 2 has 2 cells, and the header has 3",
        ),
        (
            format!("{change} acme/month --usd 1 --author= --reason r"),
            "the author and the reason",
        ),
        (
            format!("{change} acme/month --usd 1 --author a --reason="),
            "the author and the reason",
        ),
        (format!("{grant} --tenant= --reason r"), "--tenant is empty"),
        (
            format!("{grant} --tenant acme --reason="),
            "--reason is empty",
        ),
        (
            "statements close --tenant nosuch --month 2026-10".to_owned(),
            "tenant `nosuch` has no entry",
        ),
        (
            "keys create --tenant a\u{1b}b".to_owned(),
            "can not be seen",
        ),
    ] {
        let (ok, told, error) = command(&line.split(' ').collect::<Vec<_>>(), &path);
        assert!(!ok && error.contains(words), "{line}: {told}{error}");
    }
    for line in [
        "budgets overrides",
        "credits list",
        "statements list",
        "reconcile report",
    ] {
        let (ok, told, error) = command(&line.split(' ').collect::<Vec<_>>(), &path);
        assert!(
            ok && !told.contains("acme") && !told.contains("fast-chat"),
            "{line}: {told}{error}"
        );
    }
    let line = format!("{import} fast-chat {good}");
    let (ok, told, error) = command(&line.split(' ').collect::<Vec<_>>(), &path);
    assert!(ok && told.contains("1 days and models"), "{told}{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_left_is_no_failure_and_a_key_that_nobody_saw_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    key(&path, "acme");
    let run = |args: &str, out: std::process::Stdio| {
        let output = std::process::Command::new(PROGRAM)
            .args(args.split(' '))
            .arg("--config")
            .arg(&path)
            .stdout(out)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let left = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    };
    for args in ["usage", "keys list", "budgets list", "export --format csv"] {
        assert_eq!(run(args, left()), (true, String::new()), "{args}");
    }
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    for out in [left(), full.into()] {
        let (ok, error) = run("keys create --tenant unseen", out);
        assert!(!ok && error.contains("keys revoke "), "{error}");
        let id = error
            .split("keys revoke ")
            .nth(1)
            .unwrap()
            .split('`')
            .next()
            .unwrap();
        let (ok, _, error) = command(&["keys", "revoke", id], &path);
        assert!(ok, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_that_can_not_be_read_are_called_by_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    key(&path, "acme");
    let file = folder.path().join("data/context.sqlite3");
    std::fs::write(&file, [7; 4096]).unwrap();
    let (ok, _, error) = command(&["serve"], &path);
    let says = format!("conversations kept in {}", file.display());
    assert!(
        !ok && error.contains(&says) && error.contains("move it away"),
        "{error}"
    );
}
