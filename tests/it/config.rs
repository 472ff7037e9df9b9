//! Proves that a configuration that is not good is told with file, line, column and what to write,
//! and that a bad reload keeps the last good one and says so.

use std::path::PathBuf;

use proxy::Config;
use tests::weather::Chance;
use tests::world::{World, chat};

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
