//! Bodies of calls, as raw text: `golden/<dialect>/<case>/request.json`.

use std::path::PathBuf;

/// A body of a call.
pub struct Case {
    pub name: String,
    pub path: &'static str,
    /// The bytes of the body, formatting included.
    pub body: String,
}

/// All cases that have a call, by dialect.
pub fn cases() -> Vec<Case> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut cases = Vec::new();
    for (dialect, path) in [
        ("openai_chat", "/v1/chat/completions"),
        ("openai_responses", "/v1/responses"),
        ("anthropic_messages", "/v1/messages"),
    ] {
        let mut folders: Vec<_> = std::fs::read_dir(root.join(dialect))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        for folder in folders {
            let Ok(body) = std::fs::read_to_string(folder.join("request.json")) else {
                continue;
            };
            let case = folder.file_name().unwrap().to_str().unwrap();
            let name = format!("{dialect}/{case}");
            cases.push(Case { name, path, body });
        }
    }
    cases
}
