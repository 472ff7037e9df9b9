//! The examples for service managers and containers: their commands exist, their configuration reads well, and
//! sockets that a service manager has made are served.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::upstream::Upstream;
use tests::world::{DEEP, FAST, chat, script};
use tokio::net::TcpStream;

use crate::upgrade::{Started, call};
use crate::{PROGRAM, config, key};

fn example(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Every flag of a command line is one of the command's.
fn is_known(command: &[&str]) {
    let help = Command::new(PROGRAM)
        .args([command[0], "--help"])
        .output()
        .unwrap();
    assert!(help.status.success(), "{command:?}");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for flag in command.iter().filter(|it| it.starts_with("--")) {
        assert!(help.contains(flag), "{command:?}: {flag}");
    }
}

#[test]
fn the_unit_and_its_socket_are_what_systemd_takes() {
    let unit = example("pareto.service");
    let line = |key: &str| {
        let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        lines.next().unwrap().to_owned()
    };
    let start = line("ExecStart=/usr/local/bin/pareto ");
    is_known(&start.split_whitespace().collect::<Vec<_>>());
    // The manager waits longer than the drain takes, and the program may open what its limits allow.
    let defaults = proxy::config::Server::default();
    assert!(line("TimeoutStopSec=").parse::<u64>().unwrap() > defaults.drain_s + 5);
    let connections = proxy::config::Limits::default().connections;
    assert!(line("LimitNOFILE=").parse::<usize>().unwrap() >= 2 * connections + 512);
    let folder = tempfile::tempdir().unwrap();
    let files = ["pareto.service", "pareto.socket"].map(|name| {
        let text = example(name).replace("/usr/local/bin/pareto", PROGRAM);
        let path = folder.path().join(name);
        std::fs::write(&path, text.replace("User=pareto", "User=root")).unwrap();
        path
    });
    let Ok(verified) = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&files)
        .output()
    else {
        return;
    };
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours = told.lines().filter(|line| line.contains("pareto."));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(verified.status.success(), "{told}");
}

#[test]
fn the_containers_commands_and_configuration_are_the_programs() {
    for (name, key) in [("Containerfile", "CMD "), ("kubernetes.yaml", "args: ")] {
        let text = example(name);
        let list = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .unwrap();
        let words: Vec<String> = serde_json::from_str(list).unwrap();
        is_known(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let manifest = example("kubernetes.yaml");
    let begins = manifest.find("  pareto.toml: |\n").unwrap();
    let lines = manifest[begins..].lines().skip(1);
    let lines = lines.take_while(|line| line.starts_with("    ") || line.is_empty());
    let text: Vec<&str> = lines.map(|line| line.get(4..).unwrap_or("")).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pareto.toml");
    std::fs::write(&path, text.join("\n")).unwrap();
    let checked = Command::new(PROGRAM)
        .args(["check", "--config"])
        .arg(&path)
        .envs(["PARETO_ADMIN_TOKEN", "PARETO_PEPPER", "OPENAI_API_KEY"].map(|name| (name, "x")))
        .env("PARETO_POSTGRES", "postgres://pareto@db/pareto")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{told}");
    for path in ["/readyz", "/livez"] {
        assert!(manifest.contains(&format!("path: {path}, port: operators")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_a_service_manager_has_made_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let free = || {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let (callers, operators) = (free(), free());
    let made = Command::new("systemd-socket-activate")
        .args(["-l", &callers, "-l", &operators, PROGRAM])
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut made) = made else { return };
    let started = Started(vec![made.id()]);
    // The first connection starts the program, and is served by it.
    let mut stream = loop {
        match TcpStream::connect(&callers).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let body = chat("fast", "Hi", "");
    assert_eq!(call(&mut stream, &key, &body).await, Ok(false));
    tests::process::signal(made.id(), "TERM");
    assert!(made.wait().unwrap().success());
    drop(started);
}
