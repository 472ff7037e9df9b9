//! Bodies that real clients sent, as raw text: `golden/<dialect>/<case>.json`.

use std::path::PathBuf;

/// A recorded body.
pub struct Case {
    pub name: String,
    pub path: &'static str,
    /// The bytes of the body, formatting included.
    pub body: String,
}

/// All cases, by dialect.
pub fn cases() -> Vec<Case> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut cases = Vec::new();
    for (dialect, path) in [
        ("openai_chat", "/v1/chat/completions"),
        ("anthropic_messages", "/v1/messages"),
    ] {
        let mut files: Vec<_> = std::fs::read_dir(root.join(dialect))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let body = std::fs::read_to_string(&file).unwrap();
            let name = format!("{dialect}/{}", file.file_name().unwrap().to_str().unwrap());
            cases.push(Case { name, path, body });
        }
    }
    cases
}
