//! Models that play a part: two scripted endpoints, a fast and a deep one, with made-up prices, and a
//! configuration in front of them with the tools that stand beside the brief.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bench::upstream::{Play, Script, Upstream};
use toml::{Table, Value};

/// Microseconds between two tokens at a pace of a millisecond to the first.
const GAP_US: u64 = 10;

/// A scripted model with its prices, in USD for a million tokens and in pico-USD for one.
struct Model {
    name: &'static str,
    tier: &'static str,
    input: (&'static str, u64),
    output: (&'static str, u64),
}

const MODELS: [Model; 2] = [
    Model {
        name: "small",
        tier: "fast",
        input: ("0.25", 250_000),
        output: ("2.00", 2_000_000),
    },
    Model {
        name: "large",
        tier: "deep",
        input: ("2.50", 2_500_000),
        output: ("15.00", 15_000_000),
    },
];

/// The parts of a configuration that say what tasks may do; models and listeners are the stage's own.
const TAKEN: [&str; 2] = ["mcp", "orchestrator"];

/// A stage: endpoints that run while it stands, and the configuration in front of them.
pub(super) struct Stage {
    /// They end when they are dropped.
    pub(super) upstreams: Vec<Upstream>,
    pub(super) config: String,
}

/// The play that belongs to a brief: `name.play.json` beside `name.json`.
pub(super) fn play_of(brief: &Path) -> Option<PathBuf> {
    let play = brief.with_extension("play.json");
    play.is_file().then_some(play)
}

/// The tools that belong to a brief: `tasks.toml` beside it.
pub(super) fn tools_of(brief: &Path) -> Option<PathBuf> {
    let tools = brief.with_file_name("tasks.toml");
    tools.is_file().then_some(tools)
}

impl Stage {
    /// Sets the stage for `play` over the store in `data`. `tools` is a configuration whose tools and rules
    /// of tasks are taken; `pace_ms` is how long models think before they speak.
    pub(super) async fn set(
        play: &Path,
        tools: Option<&Path>,
        data: &Path,
        pace_ms: u64,
    ) -> anyhow::Result<Self> {
        let mut table = tools.map(taken).transpose()?.unwrap_or_default();
        let play = Play::read(play)?;
        let mut upstreams = Vec::new();
        let mut lists: [Vec<Value>; 3] = Default::default();
        for model in MODELS {
            let upstream = model.start(play.clone(), pace_ms).await?;
            for (list, row) in lists.iter_mut().zip(model.rows(&upstream.url())) {
                list.push(row);
            }
            upstreams.push(upstream);
        }
        for (name, list) in ["endpoint", "model", "price"].into_iter().zip(lists) {
            table.insert(name.to_owned(), Value::Array(list));
        }
        table.insert(
            "store".to_owned(),
            row(&[("dir", &data.display().to_string())]),
        );
        for listener in ["server", "admin"] {
            table.insert(listener.to_owned(), row(&[("listen", "127.0.0.1:0")]));
        }
        // Whoever comes back after a crash waits no longer than this for what it left.
        let own = table
            .entry("orchestrator")
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(own) = own {
            own.entry("lease_s").or_insert(Value::Integer(3));
        }
        let config = toml::to_string(&table).context("writing the stage's configuration")?;
        Ok(Self { upstreams, config })
    }
}

impl Model {
    /// Its endpoint, which plays `play`.
    async fn start(&self, play: Play, pace_ms: u64) -> anyhow::Result<Upstream> {
        let upstream = Upstream::start(Script {
            first_token_ms: pace_ms,
            token_gap_us: pace_ms * GAP_US,
            input_pico: self.input.1,
            output_pico: self.output.1,
            ..Script::default()
        })
        .await?;
        upstream.perform(play);
        Ok(upstream)
    }

    /// What a configuration says of its endpoint, of itself and of its price.
    fn rows(&self, url: &str) -> [Value; 3] {
        let (endpoint, price) = (
            format!("scripted-{}", self.tier),
            format!("scripted/{}", self.name),
        );
        [
            row(&[
                ("name", &endpoint),
                ("dialect", "openai_chat"),
                ("url", url),
            ]),
            row(&[
                ("name", self.name),
                ("tier", self.tier),
                ("endpoint", &endpoint),
                ("price", &price),
            ]),
            row(&[
                ("id", &price),
                ("input", self.input.0),
                ("output", self.output.0),
            ]),
        ]
    }
}

fn row(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter();
    let fields = pairs.map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    Value::Table(fields.collect())
}

/// What is taken of a configuration. Folders of servers count from where it stands.
fn taken(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading {}", path.display()))?;
    let mut table: Table = text.parse().with_context(|| path.display().to_string())?;
    table.retain(|name, _| TAKEN.contains(&name));
    let home = std::path::absolute(path).context("the configuration's path")?;
    let home = home.parent().unwrap_or(Path::new("/"));
    let servers = table.get_mut("mcp").and_then(Value::as_array_mut);
    for server in servers.into_iter().flatten() {
        let Some(cwd) = server.get_mut("cwd") else {
            continue;
        };
        let folder = home.join(cwd.as_str().unwrap_or_default());
        *cwd = Value::from(folder.display().to_string());
    }
    Ok(table)
}
