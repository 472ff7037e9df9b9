//! Fuzzing of the API by its schema: schemathesis reads what each listener says of itself and asks everything of
//! it, rightly and wrongly. Nothing may fail, answer what is not told, or answer a stranger.

use std::process::Stdio;

use tests::world::World;

/// Checks that are not held: what is wrong here says the vendor's schema, of which ours is the least, and some of
/// what a schema admits is refused for what stands nowhere in a schema (who asks, what there is).
const LEFT_OUT: &str = "negative_data_rejection,positive_data_acceptance,missing_required_header";

/// How long a listener is asked: the same so many cases of each operation every time, or as many as there is time
/// for in `PARETO_SCHEMA_S` seconds.
fn much() -> [String; 2] {
    match std::env::var("PARETO_SCHEMA_S") {
        Ok(seconds) => ["--max-time".to_owned(), seconds],
        Err(_) => ["--max-examples".to_owned(), "40".to_owned()],
    }
}

async fn fuzz(what: &str, origin: &str, document: &str, key: &str) {
    let sdks = std::env::var("PARETO_SDKS").expect("PARETO_SDKS is not set; run tests/run");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/schemathesis.toml");
    let output = tokio::process::Command::new(format!("{sdks}/py/bin/schemathesis"))
        .args(["--config-file", config])
        .args(["run", &format!("{origin}{document}")])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--checks", "all", "--exclude-checks", LEFT_OUT])
        .args(much())
        .args(["--request-timeout", "20"])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
        .args(["--suppress-health-check", "all", "--seed", "1"])
        .current_dir(std::env::temp_dir())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: see above");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_schema_can_ask_is_answered_as_it_says() {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("sdks")) {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let head = "orchestrator.enabled = true\nlimits.wrong_keys = 1000000";
    let world = World::start(head, "").await;
    let callers = format!("http://{}", world.client.address);
    fuzz("callers", &callers, "/v1/openapi.json", &world.client.key).await;
    let admin = world.admin();
    let operators = format!("http://{}", admin.address);
    fuzz("operators", &operators, "/openapi.json", &admin.key).await;
}
