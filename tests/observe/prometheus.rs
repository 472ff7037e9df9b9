//! A real Prometheus server with our rules, which scrapes a gateway every second.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use tests::Client;
use tokio::process::{Child, Command};

pub struct Prometheus {
    _child: Child,
    _folder: TempDir,
    client: Client,
}

impl Prometheus {
    /// Starts one that scrapes `target`, and waits until it answers.
    pub async fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/prometheus");
        let rules = rules.canonicalize().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n\
             - job_name: pareto\n  authorization: {{ credentials: admin-secret }}\n  \
               static_configs: [{{ targets: [{:?}] }}]\n",
            rules.join("*.yml"),
            target.to_string(),
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            free.local_addr().unwrap().port()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the program `prometheus`; tests/run installs it");
        let server = Self {
            _child: child,
            client: Client::new(address, "nobody"),
            _folder: folder,
        };
        for _ in 0..200 {
            if server.client.get("/-/ready").await.status == 200 {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(server._folder.path().join("log"));
        panic!("prometheus does not start:\n{}", log.unwrap_or_default());
    }

    /// Waits until `expr` has a result.
    pub async fn has(&self, expr: &str) {
        for _ in 0..150 {
            if self.query(expr).await.is_ok_and(|it| !it.is_empty()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("never came: {expr}");
    }

    /// The figures of `expr` now.
    pub async fn query(&self, expr: &str) -> Result<Vec<f64>, String> {
        let path = format!("/api/v1/query?query={}", encoded(expr));
        self.data(&path).await.map(|data| super::figures(&data))
    }

    /// The figures of `expr` over the last ten seconds.
    pub async fn range(&self, expr: &str) -> Result<Vec<f64>, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={now}&step=1",
            encoded(expr),
            now - 10,
        );
        self.data(&path).await.map(|data| super::figures(&data))
    }

    /// Every rule, with what became of its last evaluation.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.data("/api/v1/rules").await.unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        groups
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect()
    }

    /// Every series of the gateway and of the recording rules, as its labels.
    pub async fn series(&self) -> Vec<Value> {
        let matcher = encoded("{__name__=~\".*pareto_.*\"}");
        let data = self
            .data(&format!("/api/v1/series?match[]={matcher}"))
            .await;
        data.unwrap().as_array().unwrap().clone()
    }

    async fn data(&self, path: &str) -> Result<Value, String> {
        let reply = self.client.get(path).await;
        let mut answer = reply.json();
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(format!("{} {}", reply.status, reply.text()))
        }
    }
}

fn encoded(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}
