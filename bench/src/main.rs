//! The servers that benchmarks need, as a program of its own: scripted and fixed model endpoints, and
//! the floor of proxies. The load itself is `pareto bench`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bench::fixed::{Endpoint, Fixed};
use bench::upstream::{Script, Upstream};

const HELP: &str = "\
Servers for benchmarks on loopback; each runs until it is stopped.

  bench upstream [--port 0] [--script '{\"output_tokens\":50,\"token_gap_us\":2000}'] [--play FILE]

The scripted model endpoint. A play (a file, or a folder of *.play.json) has scenes that answer the calls
they fit: see bench/src/upstream/play.rs. The fields of a script, and how a call overrides them, are in
bench/src/upstream/script.rs.

  bench fixed [--port 0] [--threads 1] [--answer-bytes 1200] [--chunks 100] [--chunk-bytes 277] [--gap-us 0] [--first-us 0]

The same answer to every call, more than 100,000 times a second. A call overrides figures in its text:
<<fixed chunks=100 gap_us=10000 first_us=0 bytes=277>>.

  bench floor --upstream HOST:PORT [--listen 127.0.0.1:0] [--threads 1] [--protocol http1|http2]

A reverse proxy that does nothing else. With http2 callers speak that to it, from the first byte.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wants_help = |arg: &String| matches!(&**arg, "help" | "-h" | "--help");
    if args.iter().any(wants_help) {
        // Whoever closed our output does not read it.
        let _told = writeln!(std::io::stdout(), "{HELP}");
        return ExitCode::SUCCESS;
    }
    let Err(error) = run(args.into_iter()) else {
        return ExitCode::SUCCESS;
    };
    let _told = writeln!(std::io::stderr(), "bench: {error:#}");
    ExitCode::FAILURE
}

fn run(mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let command = args.next().unwrap_or_default();
    let options = Options::read(args)?;
    match command.as_str() {
        "upstream" => upstream(options),
        "fixed" => fixed(&options),
        "floor" => floor(options),
        "" => bail!("name a server\n\n{HELP}"),
        _ => bail!("no such server: {command}\n\n{HELP}"),
    }
}

/// Options of all commands.
#[derive(Default)]
struct Options {
    port: u16,
    threads: Option<usize>,
    script: Script,
    play: Option<PathBuf>,
    fixed: Fixed,
    listen: Option<SocketAddr>,
    upstream: Option<SocketAddr>,
    is_http2: bool,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let value = args
                .next()
                .with_context(|| format!("{arg} needs a value"))?;
            let number = || {
                let parsed = value.parse::<u64>();
                parsed.with_context(|| format!("{arg} is a number"))
            };
            let small = || u32::try_from(number()?).with_context(|| format!("{arg} is too large"));
            let address = || {
                let parsed = value.parse();
                parsed.with_context(|| format!("{arg} is HOST:PORT"))
            };
            match arg.as_str() {
                "--port" => options.port = value.parse().context("--port is a number")?,
                "--threads" => options.threads = Some(usize::try_from(number()?)?),
                "--script" => {
                    options.script = serde_json::from_str(&value).context("--script is JSON")?;
                }
                "--play" => options.play = Some(PathBuf::from(value)),
                "--answer-bytes" => options.fixed.answer_bytes = small()?,
                "--chunk-bytes" => options.fixed.chunk_bytes = small()?,
                "--chunks" => options.fixed.chunks = small()?,
                "--gap-us" => options.fixed.gap_us = number()?,
                "--first-us" => options.fixed.first_us = number()?,
                "--listen" => options.listen = Some(address()?),
                "--protocol" => {
                    options.is_http2 = match value.as_str() {
                        "http1" => false,
                        "http2" => true,
                        _ => bail!("--protocol is http1 or http2"),
                    };
                }
                "--upstream" => options.upstream = Some(address()?),
                _ => bail!("unknown argument {arg}\n\n{HELP}"),
            }
        }
        Ok(options)
    }

    fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        let mut builder = match self.threads {
            Some(1) => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if let Some(threads) = self.threads.filter(|threads| *threads > 1) {
            builder.worker_threads(threads);
        }
        builder.enable_all().build()
    }
}

fn tell(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output")
}

fn upstream(options: Options) -> anyhow::Result<()> {
    let runtime = options.runtime()?;
    let mut script = options.script;
    script.play = options.play.or(script.play);
    runtime.block_on(async move {
        let upstream = Upstream::start_at(([127, 0, 0, 1], options.port).into(), script).await?;
        tell(&upstream.url())?;
        std::future::pending::<anyhow::Result<()>>().await
    })
}

fn fixed(options: &Options) -> anyhow::Result<()> {
    bench::load::window::raise_open_files();
    let address = ([127, 0, 0, 1], options.port).into();
    let endpoint = Endpoint::start(address, options.fixed, options.threads.unwrap_or(1))?;
    tell(&endpoint.url())?;
    loop {
        std::thread::park();
    }
}

fn floor(mut options: Options) -> anyhow::Result<()> {
    bench::load::window::raise_open_files();
    options.threads = Some(options.threads.unwrap_or(1));
    let upstream = options.upstream.context("--upstream is missing")?;
    let listen = options
        .listen
        .unwrap_or(([127, 0, 0, 1], options.port).into());
    options.runtime()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("at {listen}"))?;
        match bench::floor::serve(listener, upstream, options.is_http2).await {}
    })
}
