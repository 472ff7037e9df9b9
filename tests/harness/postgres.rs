//! A real PostgreSQL server in a temporary folder, which can be stopped, killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A server of one's own, on a loopback port; stopped when dropped.
pub struct Postgres {
    folder: TempDir,
    port: u16,
}

/// The address of a new, empty database: on the server that `PARETO_TEST_POSTGRES` names, or else on
/// one that is started for it and lives as long as the second value.
pub fn database() -> (String, Option<Postgres>) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let (server, own) = match std::env::var("PARETO_TEST_POSTGRES") {
        Ok(server) => (server, None),
        Err(_) => {
            let own = Postgres::start();
            (own.url("postgres"), Some(own))
        }
    };
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("test_{}_{n}", std::process::id());
    let (base, _) = server.rsplit_once('/').unwrap();
    let url = format!("{base}/{name}");
    let made = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&server, postgres::NoTls).unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
    });
    made.join().unwrap();
    (url, own)
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            free.local_addr().unwrap().port()
        };
        let server = Self { folder, port };
        if is_root() {
            let chown = Command::new("chown")
                .arg("postgres")
                .arg(server.folder.path())
                .status();
            assert!(chown.unwrap().success());
        }
        let data = server.data();
        let made = server.run(
            "initdb",
            &["--no-sync", "-A", "trust", "-U", "pareto", "-D"],
            &data,
        );
        assert!(made, "initdb failed");
        server.up();
        server
    }

    /// The address of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://pareto@127.0.0.1:{}/{database}", self.port)
    }

    /// Starts the server and waits until it answers.
    pub fn up(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200",
            self.port
        );
        let log = self.folder.path().join("log");
        let log = log.to_str().unwrap();
        let started = self.run(
            "pg_ctl",
            &["start", "-w", "-t", "60", "-l", log, "-o", &options, "-D"],
            &self.data(),
        );
        let told = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(started, "the server did not start:\n{}", told());
    }

    /// Stops the server: every connection breaks, as in an outage.
    pub fn down(&self) {
        let stopped = self.run("pg_ctl", &["stop", "-m", "immediate", "-D"], &self.data());
        assert!(stopped, "the server did not stop");
    }

    /// The id of its first process, the parent of the others.
    pub fn process(&self) -> u32 {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs one of the server's programs, not as root, which they refuse.
    fn run(&self, program: &str, args: &[&str], data: &Path) -> bool {
        let program = bin().join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let status = command
            .args(args)
            .arg(data)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-D"], &self.data());
        // What the server's user made, its own folder may not be removed by ours; root may.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0")
}

/// Where the newest server's programs are: Debian keeps them out of the path.
fn bin() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_default()
}
