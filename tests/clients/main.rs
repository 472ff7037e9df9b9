//! The official SDKs of OpenAI and Anthropic, for Python and Node, unmodified but for base URL and
//! key, through `pareto serve`: a plain call, a streamed call and a tool call each.
//!
//! `tests/run` installs them and sets `PARETO_SDKS` to the folder that holds `py` and `node`.
//! Without them these tests fail, unless `PARETO_SKIP` names `sdks`.

use std::path::PathBuf;
use std::process::Stdio;

use bench::upstream::{Script, Upstream};
use tests::Process;
use tests::world::{DEEP, FAST, script};

/// Runs `file` of this folder with the interpreter `program` and looks at what it prints.
async fn run(program: &str, file: &str) {
    let skipped = std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("sdks"));
    if skipped {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let sdks = std::env::var("PARETO_SDKS").expect("PARETO_SDKS is not set; run tests/run");
    let folder = tempfile::tempdir().unwrap();
    let words = |tier| Script {
        cached_tokens: 2,
        ..script(tier)
    };
    let fast = Upstream::start(words(FAST)).await.unwrap();
    let deep = Upstream::start(words(DEEP)).await.unwrap();
    let config = folder.path().join("pareto.toml");
    let head = "log.format = \"json\"";
    let text = tests::world::config(folder.path(), head, &fast, &deep, "");
    std::fs::write(&config, text).unwrap();
    let gateway = env!("CARGO_BIN_EXE_gateway-under-test");
    let made = std::process::Command::new(gateway)
        .args(["keys", "create", "--tenant", "sdk", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    let process = Process::start(gateway, &config).await;
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(file);
    let output = tokio::process::Command::new(program.replace("$SDKS", &sdks))
        .arg(file)
        .env("GATEWAY", format!("http://{}", process.address))
        .env("KEY", key.trim())
        .env("NODE_PATH", format!("{sdks}/node/node_modules"))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert_eq!(
        told.matches("ok: ").count(),
        6,
        "plain, streamed and tool call; wrong key, unknown model, listing"
    );
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_python_completes_its_calls() {
    run("$SDKS/py/bin/python", "openai_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_python_completes_its_calls() {
    run("$SDKS/py/bin/python", "anthropic_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_node_completes_its_calls() {
    run("node", "openai_sdk.cjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_node_completes_its_calls() {
    run("node", "anthropic_sdk.cjs").await;
}
