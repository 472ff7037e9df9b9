//! A gateway of one's own for a measurement: every feature on, a store in a temporary folder, a fixed
//! endpoint behind it. No ledger that matters is touched, and no provider.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::aim::Aim;
use super::engine::Target;
use super::engine::process::Server;
use super::{Endpoint, Fixed};
use anyhow::{Context, bail, ensure};

/// How long the gateway may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway as a process of its own, so that what it uses can be told from the load.
pub(super) struct Own {
    gateway: Child,
    address: SocketAddr,
    key: String,
    endpoint: Endpoint,
    _folder: tempfile::TempDir,
}

impl Own {
    /// Starts an endpoint and a gateway before it.
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::start(anywhere, Fixed::default(), 1)?;
        let file = folder.path().join("pareto.toml");
        std::fs::write(&file, config(folder.path(), &endpoint.url()))
            .context("writing pareto.toml")?;
        let program = std::env::current_exe().context("the path of this program")?;
        let key = key(&program, &file)?;
        let log = std::fs::File::create(folder.path().join("log")).context("making a log")?;
        let gateway = Command::new(&program)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the gateway")?;
        let mut own = Self {
            gateway,
            address: anywhere,
            key,
            endpoint,
            _folder: folder,
        };
        own.wait(&file)?;
        Ok(own)
    }

    fn wait(&mut self, file: &Path) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let log = std::fs::read_to_string(file.with_file_name("log")).unwrap_or_default();
            if let Some(address) = log.lines().find_map(listening) {
                self.address = address;
                return Ok(());
            }
            let ended = self.gateway.try_wait().context("looking at the gateway")?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                bail!("the gateway does not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The gateway, and the endpoint behind it.
    pub(super) fn targets(&self, aim: &Aim) -> anyhow::Result<Vec<Target>> {
        let mut gateway = aim.target("pareto", &format!("http://{}/v1", self.address))?;
        gateway.key = Some(self.key.clone());
        gateway.server = Some(Server::Pid(self.gateway.id()));
        Ok(vec![gateway, aim.target("direct", &self.endpoint.url())?])
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Its store goes with its folder, so nothing has to be written down.
        drop(self.gateway.kill());
        drop(self.gateway.wait());
    }
}

/// A key of the tenant whose budget is hard.
fn key(program: &Path, file: &Path) -> anyhow::Result<String> {
    let made = Command::new(program)
        .args([
            "keys", "create", "--tenant", "bench", "--label", "load", "--config",
        ])
        .arg(file)
        .output()
        .context("making a key")?;
    let told = String::from_utf8_lossy(&made.stdout).into_owned();
    let word = told.split_whitespace().find(|it| it.starts_with("sk-par-"));
    ensure!(
        made.status.success(),
        "making a key: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(word.context("no key was made")?.to_owned())
}

/// Where the gateway takes calls, if this line of its log says it.
fn listening(line: &str) -> Option<SocketAddr> {
    let told: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_it = told.get("message")? == "listening";
    let address = told.get("address")?.as_str();
    address.filter(|_| is_it)?.parse().ok()
}

/// Two tiers, own prices, a hard budget that lasts, and the defaults of everything else.
fn config(folder: &Path, url: &str) -> String {
    let data = folder.join("data");
    format!(
        r#"server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
store.dir = "{}"
log.level = "warn,proxy::boot=info"
log.format = "json"
limits.connections = 20000
limits.in_flight = 20000
[[endpoint]]
name = "chat"
dialect = "openai_chat"
url = "{url}"
[[endpoint]]
name = "messages"
dialect = "anthropic_messages"
url = "{url}"
[[model]]
name = "small"
tier = "fast"
endpoint = ["chat", "messages"]
price = "bench/small"
[[model]]
name = "large"
tier = "deep"
endpoint = ["chat", "messages"]
price = "bench/large"
[[price]]
id = "bench/small"
input = "0.10"
output = "0.40"
[[price]]
id = "bench/large"
input = "1.00"
output = "4.00"
[[budget]]
tenant = "bench"
limit_usd = "100000000"
window = "month"
"#,
        data.display()
    )
}
