//! The scripted model endpoint as a program of its own.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bench::upstream::{Script, Upstream};

const HELP: &str = "\
Runs the scripted model endpoint on loopback until it is stopped.

  bench upstream [--port 0] [--script '{\"output_tokens\":50,\"token_gap_us\":2000}'] [--play FILE]

A play (a file, or a folder of *.play.json) has scenes that answer the calls they fit: see
bench/src/upstream/play.rs. The fields of a script, and how a call overrides them, are in bench/src/upstream/script.rs.";

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("upstream") {
        bail!("{HELP}");
    }
    let (mut port, mut script, mut play) = (0_u16, Script::default(), None);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--port" => port = value.parse().context("--port is a number")?,
            "--script" => script = serde_json::from_str(&value).context("--script is JSON")?,
            "--play" => play = Some(PathBuf::from(value)),
            _ => bail!("unknown argument {arg}\n\n{HELP}"),
        }
    }
    script.play = play.or(script.play);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let upstream = Upstream::start_at(([127, 0, 0, 1], port).into(), script).await?;
        writeln!(std::io::stdout(), "{}", upstream.url())?;
        std::future::pending::<anyhow::Result<()>>().await
    })
}
