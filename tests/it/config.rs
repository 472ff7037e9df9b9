//! Proves that a configuration that is not good is told with file, line, column and what to write, that a bad
//! reload keeps the last good one and says so, and that no secret is lost, swapped or shared unseen.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proxy::{Config, boot};
use tests::Client;
use tests::weather::Chance;
use tests::world::{World, chat};

/// Where a row of the table below puts its lines.
enum At {
    Head,
    Endpoint,
    Model,
    End,
}

/// A good configuration with `lines` in one place, and which lines of it they are.
fn with(at: &At, lines: &str) -> (String, std::ops::RangeInclusive<usize>) {
    let own = |it: &At| std::mem::discriminant(it) == std::mem::discriminant(at);
    let mut text = String::new();
    let mut place = 0..=0;
    for (it, part) in [
        (At::Head, ""),
        (
            At::Endpoint,
            "[[endpoint]]\nname = \"e\"\ndialect = \"openai_chat\"\n",
        ),
        (
            At::Model,
            "[[model]]\nname = \"small\"\ntier = \"fast\"\nendpoint = \"e\"\n",
        ),
        (At::End, ""),
    ] {
        text.push_str(part);
        let first = text.lines().count() + 1;
        if own(&it) {
            text.push_str(lines);
            text.push('\n');
            place = first..=text.lines().count();
        }
        if matches!(it, At::Endpoint) && !lines.starts_with("url") {
            text.push_str("url = \"http://127.0.0.1:1/v1\"\n");
        }
    }
    (text, place)
}

const BUDGET: &str = "[[budget]]\nlimit_usd = \"0\"\nwindow = \"month\"\n";
const RATE: &str = "[[rate_limit]]\nrequests_per_minute = 0\n";
const SELL: &str = "[[sell]]\nplan = \"p\"\nrule = \"markup\"\npct = \"1\"\n";
const RULE: &str = "[[policy.rule]]\nname = \"r\"\n";

/// Settings that would hold for nothing, or of which a start would die, with what is said of them.
#[test]
fn what_would_hold_for_nothing_or_stop_a_start_is_told_at_its_line() {
    let budget = |line: &str| (At::End, format!("{BUDGET}{line}"));
    let rate = |line: &str| (At::End, format!("{RATE}{line}"));
    let acme = |line: &str| (At::End, format!("{BUDGET}tenant = \"acme\"\n{line}"));
    let rule = |line: &str| (At::End, format!("{RULE}{line}"));
    let sell = |line: &str| (At::End, format!("{SELL}{line}"));
    let hook = |lines: &str| {
        (
            At::End,
            format!("[[webhook]]\nurl = \"http://a/\"\n{lines}"),
        )
    };
    let head = |line: &str| (At::Head, line.to_owned());
    let endpoint = |line: &str| (At::Endpoint, line.to_owned());
    let model = |line: &str| (At::Model, line.to_owned());
    let end = |line: &str| (At::End, line.to_owned());
    let rows = [
        // Limits that cover no call.
        (
            budget("tenant = \"ac*\""),
            "`ac*` is no pattern; name one, or write \"*\" for each one",
        ),
        (
            budget("tenant = \"\""),
            "is empty; name one, or write \"*\" for each one",
        ),
        (acme("team = \"\""), "is empty; name one"),
        (acme("user = \"u-*\""), "`u-*` is no pattern"),
        (
            acme("models = [\"smal\"]"),
            "no model `smal`; write one of small",
        ),
        (
            acme("models = [\"small\", \"*\"]"),
            "leave `models` out for all of them",
        ),
        (
            acme("models = [\"auto\"]"),
            "`auto` is what callers write; name models",
        ),
        (acme("thresholds = [0]"), "from 1 to 200"),
        (acme("thresholds = [255]"), "from 1 to 200"),
        (
            acme("degrade = { fast = 101 }"),
            "a hard budget ends at 100 per cent",
        ),
        (rate("tenant = \"ac*\""), "`ac*` is no pattern"),
        (
            rate("tenant = \"acme\"\nmodels = [\"smal\"]"),
            "no model `smal`",
        ),
        // Secrets that keep nobody out.
        (head("admin.token = \"\""), "is empty; give it a value"),
        (
            head("admin.finance_token = \" \""),
            "is empty; give it a value",
        ),
        (head("keys.pepper = \"\""), "is empty; give it a value"),
        (
            head("orchestrator.secret = \"\""),
            "is empty; give it a value",
        ),
        (
            head("admin.token = \"a\"\nadmin.finance_token = \"a\""),
            "is the operators' token too",
        ),
        (
            hook("secret = \"\""),
            "is empty: anybody could sign with it",
        ),
        (
            endpoint("key = \"a\\nb\""),
            "characters that no header can carry",
        ),
        (
            endpoint("tls_ca = \"/dev/null\""),
            "only an https address has a certificate",
        ),
        // Settings of which a start, or the first call, would die.
        (
            head("limits.in_flight = 9223372036854775807"),
            "is out of bounds; write 1 to 1000000",
        ),
        (
            head("overload.memory_mb = 9223372036854775807"),
            "is out of bounds",
        ),
        (
            head("server.workers = 5000"),
            "5000 is out of bounds; write 0 to 1024",
        ),
        (head("limits.connections_per_ip = 0"), "must be above 0"),
        (head("limits.head_timeout_ms = 0"), "must be above 0"),
        (
            head("store.journal_segment_bytes = 0"),
            "0 is out of bounds; write 16384 to",
        ),
        (head("request_log.keep = 4294967295"), "is out of bounds"),
        (
            head("store.dir = \"\""),
            "is empty; write the path of a folder",
        ),
        (head("store.postgres = \"\""), "is empty; write postgres://"),
        (
            head("server.listen = \"0.0.0.0:7\"\nadmin.listen = \"127.0.0.1:7\""),
            "give admin another port",
        ),
        (
            head("server.listen = \"127.0.0.1:7\"\nadmin.listen = \"[::]:7\"\nadmin.token = \"a\""),
            "give admin another port",
        ),
        (
            head("server.listen = \"localhost:8080\""),
            "`localhost:8080` is no address with a port; write 127.0.0.1:8080",
        ),
        (
            head("admin.listen = \":9090\""),
            "`:9090` is no address with a port; write 0.0.0.0:9090",
        ),
        (
            head("server.listen = \"here\""),
            "`here` is no address with a port; write 127.0.0.1:8080",
        ),
        (
            endpoint("url = \"https://me:hidden@host/v1\""),
            "`https://***@host/v1` is not an address",
        ),
        (
            end("[[webhook]]\nurl = \"ftp://me:hidden@a/\"\nsecret = \"s\""),
            "`ftp://***@a/` is no http address",
        ),
        (
            head("otlp.url = \"ftp://me:hidden@host\""),
            "`ftp://***@host` ",
        ),
        // Words that are none.
        (
            head("log.level = \"warning\""),
            "`warning` is not a level; write error, warn, info, debug, trace, off, or directives",
        ),
        (head("log.level = \"inof\""), "did you mean info?"),
        (head("log.level = \"5\""), "`5` is not a level"),
        (head("log.level = \"\""), "`` is not a level"),
        (
            head("log.level = \"info,proxy=verbose\""),
            "`proxy=verbose` is not a level",
        ),
        (
            hook("secret = \"s\"\ntopics = [\"usage\", \"nope\"]"),
            "nothing is told of `nope`",
        ),
        (
            rule("headers = { \"a b\" = \"x\" }"),
            "`a b` is no name of a header",
        ),
        (
            rule("refuse = \"\""),
            "is empty; write what the caller is told",
        ),
        (
            head("policy.labels = [\"a\", \"a\"]"),
            "label `a` is empty or stands twice",
        ),
        // Figures that mean nothing.
        (
            end("[[routing.class]]\nname = \"c\"\ndeep_per_thousand = 1001"),
            "is a share of a thousand",
        ),
        (head("routing.terms.price = nan"), "is no weight"),
        (head("routing.switch.hysteresis = -1.0"), "is no weight"),
        (model("context = 0"), "must be 1 to 1000000000 tokens"),
        (
            model("max_output = 9223372036854775807"),
            "must be 1 to 1000000000 tokens",
        ),
        (model("upstream_model = \"\""), "is empty; leave it out"),
        (
            end("[[price]]\nid = \"x/y\"\nfixed_per_hour = \"-1\""),
            "`fixed_per_hour` is negative",
        ),
        (
            sell("prices = { input = \"1\" }"),
            "`prices` go with the rule `fixed` alone",
        ),
        (
            sell("tiers = [{ unit_price = \"1\" }]"),
            "`tiers` go with the rules",
        ),
        // Addresses and fields that no call could be sent with.
        (
            endpoint("url = \"http://127.0.0.1:99999/v1\""),
            "is not an address",
        ),
        (
            endpoint("url = \"http://127.0.0.1:0/v1\""),
            "is not an address",
        ),
        (
            endpoint("url = \"http://127.0.0.1:/v1\""),
            "is not an address",
        ),
        (
            endpoint("url = \"http://127.0.0.1:1/v1#frag\""),
            "is not an address",
        ),
        (endpoint("url = \"http://a..b/v1\""), "is not an address"),
        (
            endpoint("cap_field = \"messages\""),
            "`messages` of a call means something else",
        ),
        (endpoint("cap_field = \"a\\\"b\""), "is no name of a field"),
    ];
    let mut unseen = Vec::new();
    for ((at, lines), told) in rows {
        let (text, place) = with(&at, &lines);
        let problems = Config::parse(&text).err().unwrap_or_default();
        let fits =
            |it: &proxy::config::Problem| it.message.contains(told) && place.contains(&it.line);
        if !problems.iter().any(fits) {
            unseen.push(format!(
                "{lines}\nwanted {told} at {place:?}\ntold   {problems:?}"
            ));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n\n"));
    // The same words where they mean something.
    for (at, lines) in [
        budget("tenant = \"*\"\nteam = \"*\"\nmodels = [\"small\"]"),
        acme("grace_until = 2026-12-01T00:00:00Z"),
        acme("hard = false\ndegrade = { tell = 120 }\nthresholds = [50, 150]"),
        rate("tenant = \"*\"\nkey = \"*\""),
        hook("secret = \"s\"\ntopics = [\"budget.*\", \"usage\", \"*\"]"),
        head("log.level = \"INFO,proxy=debug,pareto::call=off\""),
        head(
            "server.listen = \"127.0.0.1:7\"\nadmin.listen = \"127.0.0.2:7\"\nadmin.token = \"a\"",
        ),
        endpoint("url = \"http://[::1]:8080/v1/\""),
        endpoint("url = \"HTTPS://api.example.com./v1\""),
        endpoint("cap_field = \"max_tokens\""),
    ] {
        let (text, _) = with(&at, &lines);
        Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"));
    }
}

#[test]
fn the_plan_that_is_wrong_is_the_one_that_is_told() {
    let second = "[[sell]]\nplan = \"q\"\ntenants = [\"a\"]\nrule = \"markup\"\npct = \"x\"\n";
    let (text, _) = with(&At::End, &format!("{SELL}{second}"));
    let line = text
        .lines()
        .position(|line| line.contains("plan = \"q\""))
        .unwrap();
    let problems = Config::parse(&text).unwrap_err();
    assert_eq!(
        problems.iter().map(|it| it.line).collect::<Vec<_>>(),
        [line]
    );
}

#[test]
fn every_secret_that_is_not_there_is_told_and_hides_nothing_else() {
    let text = "[admin]\ntoken = \"${PARETO_NO_A}\"\n[[endpoint]]\nname = \"a\"\ndialect = \"openai_chat\"\n\
                url = \"http://127.0.0.1:1/v1\"\nkey = '${PARETO_NO_B}'\n[[model]]\nname = \"m\"\ntier = \"fast\"\n\
                endpoint = \"nowhere\"\n";
    let problems = Config::parse(text).unwrap_err();
    let told: Vec<_> = problems
        .iter()
        .map(|it| (it.line, it.message.as_str()))
        .collect();
    for (line, words) in [(2, "`PARETO_NO_A`"), (7, "`PARETO_NO_B`"), (11, "nowhere")] {
        let found = told.iter().any(|it| it.0 == line && it.1.contains(words));
        assert!(found, "{line}: {words}: {told:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pareto.toml");
    std::fs::write(&path, b"# Fine.\n# Gr\xf6\xdfe\n").unwrap();
    let told = Config::load(&path).unwrap_err().to_string();
    assert!(
        told.contains(":2:5: what stands here is no UTF-8"),
        "{told}"
    );
}

/// A reference that is not closed, or not the whole value, would be sent as a key.
#[test]
fn a_broken_reference_is_no_secret() {
    for value in [
        "${HOME",
        " ${HOME}",
        "Bearer ${HOME}",
        "${HOME}${HOME}",
        "$${HOME}",
        "${file:/etc/hostname",
    ] {
        let (text, place) = with(&At::Endpoint, &format!("key = \"{value}\""));
        let problems = Config::parse(&text).expect_err(value);
        let mut found = problems.iter().filter(|it| place.contains(&it.line));
        let told = found.next().map(|it| it.message.as_str());
        let told = told.unwrap_or_else(|| panic!("{value}: {problems:?}"));
        assert!(told.contains("write ${NAME} or ${file:PATH}"), "{told}");
        // Where a part's configuration knows no environment, too.
        let (text, place) = with(&At::Head, &format!("store.postgres = \"{value}\""));
        let problems = Config::parse(&text).expect_err(value);
        assert!(problems.iter().any(|it| place.contains(&it.line)));
    }
}

/// Each number of the commented file, as large as it can be written: it is refused where it stands, so that none is
/// multiplied or waited for until something breaks.
#[test]
fn no_number_may_be_as_large_as_it_can_be_written() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/pareto.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let text = text
        .replace("\"${OPENAI_API_KEY}\"", "\"x\"")
        .replace("\"${ANTHROPIC_API_KEY}\"", "\"x\"");
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        let digits = value.chars().take_while(char::is_ascii_digit).count();
        let is_number = digits > 0 && !value[digits..].starts_with('.');
        if key.starts_with('#') || !is_number {
            continue;
        }
        let huge = format!("{key} = 9223372036854775807");
        let mut changed = lines.clone();
        changed[index] = &huge;
        let problems = Config::parse(&changed.join("\n")).expect_err(line);
        assert!(
            problems.iter().any(|it| it.line == index + 1),
            "{line}: {problems:?}"
        );
        seen += 1;
    }
    assert!(seen > 60, "{seen} numbers");
}

/// Files that are not there, or not what they should be, are told by `check` and not only by a start.
#[test]
fn files_of_which_a_start_would_die_are_told_at_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pareto.toml");
    let here = folder.path().display().to_string();
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (one, other) = (made("one"), made("other"));
    std::fs::write(folder.path().join("c.pem"), one.cert.pem()).unwrap();
    std::fs::write(folder.path().join("k.pem"), one.signing_key.serialize_pem()).unwrap();
    std::fs::write(
        folder.path().join("other.pem"),
        other.signing_key.serialize_pem(),
    )
    .unwrap();
    std::fs::write(folder.path().join("none.pem"), "nothing\n").unwrap();
    let sealed =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(folder.path().join("sealed.pem"), sealed).unwrap();
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n\
               -----END RSA PRIVATE KEY-----\n";
    std::fs::write(folder.path().join("old.pem"), old).unwrap();
    let tls = |cert: &str, key: &str| {
        (
            At::Head,
            format!("server.tls_cert = \"{here}/{cert}\"\nserver.tls_key = \"{here}/{key}\""),
        )
    };
    let log = |path: &str| (At::Head, format!("request_log.path = \"{path}\""));
    let tokenizer = |path: &str| (At::Model, format!("tokenizer = \"{path}\""));
    for ((at, lines), told) in [
        (tls("no.pem", "k.pem"), "can not be read"),
        (tls("c.pem", "no.pem"), "can not be read"),
        (tls("c.pem", "other.pem"), "is not the key of"),
        (tls("none.pem", "k.pem"), "has no certificate"),
        (log(""), "is empty; write the path of a file"),
        (log(&here), "is a folder"),
        (
            log(&format!("{here}/nowhere/requests.jsonl")),
            "there is no folder",
        ),
        (
            tokenizer("o200k"),
            "write o200k_base, cl100k_base or the path",
        ),
        (tokenizer(&here), "is a folder"),
    ] {
        let (text, place) = with(&at, &lines);
        std::fs::write(&file, &text).unwrap();
        let invalid = Config::load(&file).expect_err(&text);
        let found = invalid.problems.iter();
        let mut found = found.filter(|it| it.message.contains(told) && place.contains(&it.line));
        assert!(
            found.next().is_some(),
            "wanted {told} at {place:?}\ntold   {invalid}"
        );
    }
    // What is wrong with the key stands at the key's line.
    for (key, told) in [
        ("other.pem", "is not the key of"),
        ("sealed.pem", "holds no unencrypted private key"),
        ("old.pem", "holds no unencrypted private key"),
        ("c.pem", "holds no unencrypted private key"),
    ] {
        let (at, lines) = tls("c.pem", key);
        std::fs::write(&file, with(&at, &lines).0).unwrap();
        let invalid = Config::load(&file).expect_err(key);
        let [problem] = &invalid.problems[..] else {
            panic!("{key}: {invalid}")
        };
        assert!(
            problem.line == 2 && problem.message.contains(told),
            "{invalid}"
        );
    }
    for (at, lines) in [
        tls("c.pem", "k.pem"),
        log("-"),
        log(&format!("{here}/requests.jsonl")),
    ] {
        std::fs::write(&file, with(&at, &lines).0).unwrap();
        Config::load(&file).unwrap_or_else(|invalid| panic!("{invalid}"));
    }
}

#[tokio::test]
async fn a_reload_with_another_folder_keeps_the_tokens_of_the_store_in_use() {
    let world = World::start("", "").await;
    let data = world.folder.path().join("data");
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into the store");
    let finance = std::fs::read_to_string(data.join("finance.token")).unwrap();
    let other = world.folder.path().join("other");
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&other).unwrap();
        }
        let text = std::fs::read_to_string(&world.file).unwrap();
        let moved = format!("store.dir = {other:?}");
        let text = text.replace(&format!("store.dir = {data:?}"), &moved);
        assert!(text.contains(&moved));
        std::fs::write(&world.file, text).unwrap();
        let told = world.admin().post("/api/reload", "").await;
        assert_eq!(told.status, 200, "{}", told.text());
        assert_eq!(told.json()["needs_restart"], serde_json::json!(["store"]));
        let made = std::fs::read_dir(&other).map_or(0, Iterator::count);
        assert_eq!((other.exists(), made), (is_there, 0));
        let reader = Client::new(world.running.admin_address, &finance);
        assert_eq!(reader.get("/api/budgets").await.status, 200);
    }
}

#[tokio::test]
async fn a_reload_that_is_refused_late_changes_nothing() {
    let world = World::start("", "").await;
    let data = world.folder.path().join("data");
    // What is wrong is found behind all that is read and opened.
    std::fs::write(data.join("finance.token"), "").unwrap();
    let log = world.folder.path().join("requests.jsonl");
    let text = std::fs::read_to_string(&world.file).unwrap();
    let changed = text.replace("name = \"fast-chat\"\ntier", "name = \"quick-chat\"\ntier");
    std::fs::write(
        &world.file,
        format!("request_log.path = {log:?}\n{changed}"),
    )
    .unwrap();
    let told = world.admin().post("/api/reload", "").await;
    assert_eq!(told.status, 422, "{}", told.text());
    assert!(
        told.text().contains("finance.token is empty: put back"),
        "{}",
        told.text()
    );
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-model").as_str()),
        (200, "fast-chat")
    );
    world.entries().await;
    let written = std::fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(written, "", "no line in a log that is not in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pepper_that_is_gone_is_asked_for_and_not_made_anew() {
    let world = World::start("", "").await;
    let (file, folder) = (world.file, world.folder);
    world.running.shut_down(std::future::pending()).await;
    let pepper = folder.path().join("data/keys.pepper");
    let kept = std::fs::read(&pepper).unwrap();
    for (held, told) in [
        (None, "keys.pepper is missing"),
        (Some(""), "keys.pepper is empty"),
    ] {
        std::fs::remove_file(&pepper).unwrap();
        if let Some(held) = held {
            std::fs::write(&pepper, held).unwrap();
        }
        let config = Config::load(&file).unwrap();
        let error = boot::start(config, None).await.expect_err("no start");
        assert!(format!("{error:#}").contains(told), "{error:#}");
        assert_eq!(pepper.exists(), held.is_some());
        std::fs::write(&pepper, &kept).unwrap();
    }
    let running = boot::start(Config::load(&file).unwrap(), None)
        .await
        .unwrap();
    let caller = Client::new(running.address, &world.client.key);
    let reply = caller
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Each file of `broken/` ends with comment lines that hold what `check` must print.
#[test]
fn every_broken_example_is_told_with_line_and_column_and_a_remedy() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("broken");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let wanted: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#! "))
            .collect();
        assert!(
            !wanted.is_empty(),
            "{} says what it must give",
            path.display()
        );
        let told = Config::load(&path).expect_err("broken").to_string();
        for problem in wanted {
            let problem = format!("{}:{problem}", path.display());
            assert!(
                told.lines().any(|line| line == problem),
                "wanted {problem}\ntold   {told}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 8);
}

/// Damages of the commented file and of the examples: a program that reads them neither stops nor is at a loss where.
/// `PARETO_SEEDS` is how many.
#[test]
fn text_that_was_damaged_is_a_configuration_or_an_error_at_one_of_its_places() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![
        here.join("../config/pareto.toml"),
        here.join("../bench/peers/pareto.toml"),
    ];
    for folder in ["broken", "../config/examples"] {
        let entries = std::fs::read_dir(here.join(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    paths.sort();
    let texts: Vec<String> = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let count = std::env::var("PARETO_SEEDS").map_or(600, |text| text.parse().unwrap());
    for seed in 0..count {
        let mut chance = Chance::new(seed << 1, 7);
        let mut below = |bound: usize| usize::try_from(chance.below(bound as u64)).unwrap();
        let mut text: Vec<char> = texts[below(texts.len())].chars().collect();
        for _ in 0..1 + below(4) {
            let (at, other) = (below(text.len()), below(text.len()));
            let until = (at + 1 + below(40)).min(text.len());
            match below(4) {
                0 => drop(text.splice(at..until, [])),
                1 => text[at] = ['"', '[', ']', '=', '\n', '{', '-', '9', '\u{0}', 'é'][below(10)],
                2 => {
                    let more: Vec<char> = text[at..until].to_vec();
                    drop(text.splice(other..other, more));
                }
                _ => text.insert(at, ['9', '"', '\\', '.', '$', '\t', '\u{feff}'][below(7)]),
            }
        }
        let text: String = text.into_iter().collect();
        for problem in Config::parse(&text).err().unwrap_or_default() {
            let lines = text.lines().count() + 1;
            assert!(
                problem.line <= lines && !problem.message.is_empty(),
                "seed {seed}: {problem:?} in\n{text}"
            );
        }
    }
}

#[test]
fn the_commented_configuration_is_good_and_shows_every_default() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/pareto.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let text = text
        .replace("\"${OPENAI_API_KEY}\"", "\"x\"")
        .replace("\"${ANTHROPIC_API_KEY}\"", "\"x\"");
    let shown = Config::parse(&text).expect("good");
    let default = Config::parse(
        "[[endpoint]]\nname='e'\ndialect='openai_chat'\nurl='http://a/v1'\n[[model]]\nname='m'\ntier='fast'\nendpoint='e'",
    )
    .expect("good");
    assert_eq!(shown.server, default.server);
    assert_eq!(
        (shown.limits, shown.upstream, shown.log),
        (default.limits, default.upstream, default.log)
    );
    assert_eq!(
        (shown.routing, shown.meter, shown.store),
        (default.routing, default.meter, default.store)
    );
}

#[tokio::test]
async fn a_bad_reload_keeps_the_last_good_configuration_and_says_so() {
    let world = World::start("", "").await;
    let good = std::fs::read_to_string(&world.file).unwrap();
    for bad in [
        good.replace("[[model]]", "[[modle]]"),
        good.replace("tier = \"fast\"", "tier = \"quick\""),
    ] {
        std::fs::write(&world.file, bad).unwrap();
        let told = world.admin().post("/api/reload", "").await;
        assert_eq!(told.status, 422, "{}", told.text());
        let detail = told.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("pareto.toml:"), "{detail}");
        let kept = world.admin().get("/api/config").await.json();
        assert_eq!(kept["last_reload_error"], detail.as_str());
        assert_eq!(
            world
                .client
                .post("/v1/chat/completions", chat("fast", "Hi", ""))
                .await
                .status,
            200
        );
    }
    std::fs::write(
        &world.file,
        good.replace("name = \"fast-chat\"\ntier", "name = \"quick-chat\"\ntier"),
    )
    .unwrap();
    assert_eq!(world.admin().post("/api/reload", "").await.status, 204);
    assert_eq!(
        world.admin().get("/api/config").await.json()["last_reload_error"],
        serde_json::Value::Null
    );
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(reply.header("x-pareto-model"), "quick-chat");
}
