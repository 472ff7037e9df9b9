//! What the tests share: a world of scripted endpoints and a gateway, in this process or as a
//! program of its own, and clients that speak HTTP and raw bytes.

pub mod bytes;
pub mod client;
pub mod collector;
pub mod errand;
pub mod fill;
pub mod frames;
pub mod golden;
pub mod hook;
pub mod injection;
pub mod memory_log;
pub mod office;
pub mod postgres;
pub mod process;
pub mod talk;
pub mod weather;
pub mod wicked;
pub mod world;

pub use client::{Client, Reply};
pub use errand::Errand;
pub use memory_log::MemoryLog;
pub use postgres::Postgres;
pub use process::Process;
pub use world::World;

/// Notes what a test has measured for a promise; `promises` writes it down.
pub fn figure(promise: &str, text: &str) {
    println!("{promise}: {text}");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/figures");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(promise), text).unwrap();
}

/// Copies a folder with all that is in it to a place where nothing is.
pub fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
