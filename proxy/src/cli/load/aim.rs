//! Where load goes: addresses, keys, names; and that it goes nowhere by mistake.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use super::engine::process::Server;
use super::engine::window::Tls;
use super::engine::{self, Target};

/// The name of a target that is the endpoint itself.
const DIRECT: &str = "direct";

/// Where load goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Targets")]
pub(super) struct Aim {
    /// The base address of a target, as clients have it.
    #[arg(
        long,
        default_value = "http://127.0.0.1:8080/v1",
        conflicts_with = "address"
    )]
    url: String,
    /// The same as HOST:PORT.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// Several targets in one run, in turns: NAME=URL,NAME=URL.
    #[arg(long, value_name = "NAME=URL", value_delimiter = ',', conflicts_with_all = ["url", "address"])]
    compare: Vec<String>,
    /// The endpoint behind the targets: what they add is told against it. A target named `direct` is one too.
    #[arg(long, value_name = "URL")]
    direct: Option<String>,
    /// The target over which ratios are taken; the first of --compare, or a single target's endpoint, if absent.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Start a gateway with every feature on and a fixed endpoint, in a temporary folder with a store of its own.
    #[arg(long = "self", conflicts_with_all = ["url", "address", "compare", "direct"])]
    pub(super) own: bool,
    /// The model to ask for.
    #[arg(long, default_value = "auto")]
    model: String,
    /// How calls are written.
    #[arg(long, value_enum, default_value_t = Dialect::Chat)]
    dialect: Dialect,
    /// The environment variable that holds the key.
    #[arg(long, value_name = "VARIABLE", default_value = "PARETO_KEY")]
    key_env: String,
    /// The key itself: everybody on this machine sees it in the list of processes.
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// A header for all targets: `Name: value`.
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// A model for one target.
    #[arg(long, value_name = "NAME=MODEL")]
    target_model: Vec<String>,
    /// The environment variable that holds the key for one target.
    #[arg(long, value_name = "NAME=VARIABLE")]
    target_key: Vec<String>,
    /// A header for one target: `NAME=Name: value`.
    #[arg(long, value_name = "NAME=HEADER")]
    target_header: Vec<String>,
    /// The first process of a target; who listens on its port if absent.
    #[arg(long, value_name = "NAME=PID")]
    pid: Vec<String>,
    /// Aim at another machine. Calls cost money there, and load may be unwelcome.
    #[arg(long)]
    yes_remote: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dialect {
    /// OpenAI Chat Completions.
    Chat,
    /// Anthropic Messages.
    Messages,
}

impl Aim {
    /// The targets that are named.
    pub(super) fn targets(&self) -> anyhow::Result<Vec<Target>> {
        let mut named = Vec::new();
        for pair in &self.compare {
            named.push(split(pair, "--compare")?);
        }
        if named.is_empty() {
            let url = match self.address {
                Some(address) => format!("http://{address}/v1"),
                None => self.url.clone(),
            };
            named.push(("target".to_owned(), url));
        }
        if let Some(url) = &self.direct {
            named.push((DIRECT.to_owned(), url.clone()));
        }
        let targets = named.iter().map(|(name, url)| self.target(name, url));
        let targets = targets.collect::<anyhow::Result<Vec<_>>>()?;
        for (place, target) in targets.iter().enumerate() {
            let twice = targets.iter().skip(place + 1);
            let twice = twice.filter(|other| other.name == target.name).count();
            ensure!(twice == 0, "two targets are named {}", target.name);
        }
        Ok(targets)
    }

    /// A target by name and base address.
    pub(super) fn target(&self, name: &str, url: &str) -> anyhow::Result<Target> {
        let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let host = uri.host().with_context(|| format!("`{url}` has no host"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => bail!("`{url}` begins with neither http:// nor https://"),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_matches(['[', ']']);
        let mut found = (bare, port).to_socket_addrs();
        let found = found.as_mut().map(Iterator::next);
        let address = found.map_err(|error| anyhow::anyhow!("looking up {host}: {error}"))?;
        let address = address.with_context(|| format!("{host} has no address"))?;
        let local = address.ip().is_loopback();
        ensure!(
            local || self.yes_remote,
            "{host} is not this machine: load there costs money for every call and may be unwelcome. Say --yes-remote \
             if that is what you want"
        );
        let mut headers = Vec::new();
        let of_target = pairs(&self.target_header, "--target-header")?;
        let own = of_target.iter().filter(|(of, _)| of == name);
        for header in self.header.iter().chain(own.map(|(_, header)| header)) {
            headers.push(read_header(header)?);
        }
        let model = pairs(&self.target_model, "--target-model")?;
        let model = model.into_iter().find(|(of, _)| of == name);
        let server = match pairs(&self.pid, "--pid")?
            .into_iter()
            .find(|it| it.0 == name)
        {
            Some((_, pid)) => Some(Server::Pid(pid.parse().context("--pid is NAME=PID")?)),
            None => local.then_some(Server::Port(port)),
        };
        Ok(Target {
            name: name.to_owned(),
            address,
            host: uri.authority().map_or(host, |it| it.as_str()).to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
            tls: secure.then(|| Tls::new(bare)).transpose()?,
            dialect: match self.dialect {
                Dialect::Chat => engine::Dialect::Chat,
                Dialect::Messages => engine::Dialect::Messages,
            },
            model: model.map_or_else(|| self.model.clone(), |(_, model)| model),
            key: self.key(name)?,
            headers,
            server,
        })
    }

    /// The key for a target.
    fn key(&self, name: &str) -> anyhow::Result<Option<String>> {
        let own = pairs(&self.target_key, "--target-key")?;
        let own = own.into_iter().find(|(of, _)| of == name);
        let key = match own {
            Some((_, variable)) => std::env::var(&variable)
                .with_context(|| format!("the environment variable {variable}"))?,
            None if !self.key.is_empty() => self.key.clone(),
            None => std::env::var(&self.key_env).unwrap_or_default(),
        };
        let clean = key.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            clean,
            "the key for {name} has characters that no header takes"
        );
        Ok(Some(key).filter(|key| !key.is_empty()))
    }

    /// The target over which ratios are taken.
    pub(super) fn reference(&self, targets: &[Target]) -> anyhow::Result<Option<String>> {
        let Some(name) = &self.reference else {
            // One target and the endpoint behind it: the endpoint is what it is held against.
            let mut others = targets.iter().filter(|target| target.name != DIRECT);
            let several = others.clone().count() > 1;
            let found = if several {
                others.next()
            } else {
                targets.iter().find(|target| target.name == DIRECT)
            };
            return Ok(found.map(|target| target.name.clone()));
        };
        let known = targets.iter().any(|target| target.name == *name);
        ensure!(known, "--reference {name} is none of the targets");
        Ok(Some(name.clone()))
    }
}

/// The target that is the endpoint itself.
pub(super) fn direct(targets: &[Target]) -> Option<String> {
    let found = targets.iter().find(|target| target.name == DIRECT);
    found.map(|target| target.name.clone())
}

fn split(pair: &str, option: &str) -> anyhow::Result<(String, String)> {
    let parts = pair.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.with_context(|| format!("{option} {pair}: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn pairs(all: &[String], option: &str) -> anyhow::Result<Vec<(String, String)>> {
    all.iter().map(|pair| split(pair, option)).collect()
}

fn read_header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text
        .split_once(':')
        .with_context(|| format!("`{text}` is no header; write `Name: value`"))?;
    let name: http::HeaderName = name.trim().parse().context("a header's name")?;
    let value: http::HeaderValue = value.trim().parse().context("a header's value")?;
    let value = value.to_str().context("a header's value")?;
    Ok((name.to_string(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        aim: Aim,
    }

    fn read(words: &[&str]) -> anyhow::Result<Vec<Target>> {
        let line = Line::try_parse_from([&["bench"], words].concat())?;
        line.aim.targets()
    }

    #[test]
    fn another_machine_is_not_aimed_at_without_a_word() {
        let refused = read(&["--url", "http://192.0.2.1/v1"]).unwrap_err();
        assert!(refused.to_string().contains("costs money"), "{refused}");
        let compared = read(&[
            "--compare",
            "a=http://127.0.0.1:1/v1,b=https://192.0.2.1/v1",
        ]);
        assert!(compared.unwrap_err().to_string().contains("--yes-remote"));
        let taken = read(&["--url", "https://192.0.2.1/v1", "--yes-remote"]).unwrap();
        assert_eq!(taken[0].address.to_string(), "192.0.2.1:443");
        assert!(taken[0].tls.is_some() && taken[0].server.is_none());
    }

    #[test]
    fn targets_have_models_and_headers_of_their_own() {
        let targets = read(&[
            "--compare",
            "a=http://127.0.0.1:81/x/,b=http://localhost:82/v1",
            "--direct",
            "http://127.0.0.1:83/v1",
            "--target-model",
            "b=fast",
            "--header",
            "X-All: 1",
            "--target-header",
            "b=X-One: 2",
            "--pid",
            "a=7",
        ]);
        let targets = targets.unwrap();
        let shown = |at: usize| {
            let it = &targets[at];
            let headers: Vec<_> = it.headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
            (
                it.name.clone(),
                it.base.clone(),
                it.model.clone(),
                headers.join(","),
                it.server,
            )
        };
        let text = str::to_owned;
        let (all, port) = (text("x-all=1"), |port| Some(Server::Port(port)));
        assert_eq!(
            shown(0),
            (
                text("a"),
                text("/x"),
                text("auto"),
                all.clone(),
                Some(Server::Pid(7))
            )
        );
        let both = text("x-all=1,x-one=2");
        assert_eq!(
            shown(1),
            (text("b"), text("/v1"), text("fast"), both, port(82))
        );
        assert_eq!(
            shown(2),
            (text("direct"), text("/v1"), text("auto"), all, port(83))
        );
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for words in [
            &["--url", "127.0.0.1:80/v1"][..],
            &["--compare", "http://127.0.0.1:1/v1"],
            &[
                "--compare",
                "a=http://127.0.0.1:1/v1,a=http://127.0.0.1:2/v1",
            ],
            &["--header", "nothing"],
            &["--header", "X: a\r\nY: b"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
