//! Real clients, unmodified but for base URL and key, through `pareto serve`: the SDKs of OpenAI and
//! Anthropic for Python and Node, LangChain, Vercel's AI SDK, OpenAI's Agents SDK, pydantic-ai, LiteLLM
//! as a client, and the command lines Claude Code and Codex. And what reads office files, for those that
//! tasks make (`office.rs`). Each client speaks its own dialect while an upstream of each dialect answers,
//! under validators as strict as the vendors'.
//!
//! A script prints a line for each scenario; `tests/run` turns them into one table. It also installs
//! the clients and sets `PARETO_SDKS` to the folder that holds `py` and `node`. Without them these tests
//! fail, unless `PARETO_SKIP` names `sdks`.

mod office;
mod schema;

use std::path::PathBuf;
use std::process::Stdio;

use bench::upstream::{Script, Upstream};
use tests::Process;
use tests::world::{DEEP, FAST, script};

/// Scenarios that a client can not be asked for, with the reason.
const SKIPPED: &[(&str, &str)] = &[
    (
        "litellm_sdk.py chat/chat/tool",
        "it sends `provider_specific_fields`, which the vendor refuses as well",
    ),
    ("litellm_sdk.py chat/chat/parallel", "the same"),
    ("litellm_sdk.py chat/chat/thinking", "the same"),
];

/// Runs `file` of this folder with the interpreter `program` and looks at what it prints.
async fn run(program: &str, file: &str) {
    let skipped = std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("sdks"));
    if skipped {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let sdks = std::env::var("PARETO_SDKS").expect("PARETO_SDKS is not set; run tests/run");
    let folder = tempfile::tempdir().unwrap();
    let strict = |tier, origin: &str| Script {
        cached_tokens: 2,
        strict: true,
        takes_reasoning: true,
        origin: origin.to_owned(),
        ..script(tier)
    };
    let fast = Upstream::start(strict(FAST, "fast")).await.unwrap();
    let deep = Upstream::start(strict(DEEP, "deep")).await.unwrap();
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
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients");
    let skip = SKIPPED.iter().filter(|(at, _)| at.starts_with(file));
    let skip: Vec<&str> = skip
        .filter_map(|(at, _)| at.split_once(' ').map(|it| it.1))
        .collect();
    let output = tokio::process::Command::new(program.replace("$SDKS", &sdks))
        .arg(scripts.join(file))
        .env("GATEWAY", format!("http://{}", process.address))
        .env("KEY", key.trim())
        .env(
            "MODELS",
            r#"{"chat":"fast-chat","responses":"fast-responses","messages":"fast-messages"}"#,
        )
        .env("EMBEDDINGS", "vectors")
        .env("SKIP", skip.join(","))
        .env("NODE_PATH", format!("{sdks}/node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{told}{}", String::from_utf8_lossy(&output.stderr));
    if let Ok(results) = std::env::var("PARETO_CLIENT_RESULTS") {
        std::fs::write(PathBuf::from(results).join(format!("{file}.tsv")), &told).unwrap();
    }
    let failed: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    assert!(
        output.status.success() && failed.is_empty(),
        "{}",
        failed.join("\n")
    );
    for upstream in ["chat", "responses", "messages"] {
        let passed = told
            .lines()
            .filter(|line| line.starts_with("ok\t") && line.split('\t').nth(3) == Some(upstream));
        assert!(
            passed.count() >= 3,
            "{file}: hardly anything ran against {upstream}"
        );
    }
    process.kill().await;
}

macro_rules! clients {
    ($($name:ident: $program:literal $file:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            run($program, $file).await;
        }
    )*};
}

clients! {
    openai_python_speaks_with_every_upstream: "$SDKS/py/bin/python" "openai_sdk.py",
    openai_node_speaks_with_every_upstream: "node" "openai_sdk.mjs",
    anthropic_python_speaks_with_every_upstream: "$SDKS/py/bin/python" "anthropic_sdk.py",
    anthropic_node_speaks_with_every_upstream: "node" "anthropic_sdk.mjs",
    langchain_speaks_with_every_upstream: "$SDKS/py/bin/python" "langchain_sdk.py",
    the_ai_sdk_speaks_with_every_upstream: "node" "ai_sdk.mjs",
    the_agents_sdk_speaks_with_every_upstream: "$SDKS/py/bin/python" "agents_sdk.py",
    pydantic_ai_speaks_with_every_upstream: "$SDKS/py/bin/python" "pydantic_ai_sdk.py",
    litellm_speaks_with_every_upstream: "$SDKS/py/bin/python" "litellm_sdk.py",
    claude_code_works_on_every_upstream: "$SDKS/py/bin/python" "claude_code.py",
    codex_works_on_every_upstream: "$SDKS/py/bin/python" "codex.py",
}
