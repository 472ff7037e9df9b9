//! Sends every file of JSONTestSuite as a body, and as a value inside a call: no crash, no 5xx, and
//! nothing that must be refused reaches an upstream.

use std::path::PathBuf;

use tests::world::World;

/// The suite, copied as it is; `SOURCE` and `LICENSE` stand beside it.
fn files() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/json");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn nothing_in_the_json_test_suite_crashes_the_gateway_or_slips_through() {
    let world = World::start("", "").await;
    let files = files();
    assert_eq!(files.len(), 318, "the whole suite");
    for (name, bytes) in files {
        let whole = world
            .client
            .post("/v1/chat/completions", bytes.clone())
            .await;
        assert!(
            (400..500).contains(&whole.status),
            "{name}: {}",
            whole.status
        );
        let mut inside = b"{\"model\":\"fast\",\"messages\":[{}],\"x\":".to_vec();
        inside.extend_from_slice(&bytes);
        inside.push(b'}');
        let before = world.fast.calls();
        let status = world
            .client
            .post("/v1/chat/completions", inside)
            .await
            .status;
        let reached = world.fast.calls() > before;
        assert!(status < 500 && status > 0, "{name}: {status}");
        match name.as_bytes()[0] {
            b'y' => assert_eq!((status, reached), (200, true), "{name} is valid"),
            b'n' => assert!(!reached && status == 400, "{name} is not valid: {status}"),
            _ => {}
        }
    }
    assert_eq!(world.client.get("/").await.status, 200, "still at home");
}
