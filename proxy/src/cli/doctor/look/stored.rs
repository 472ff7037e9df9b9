//! The store: its folder, the room and the time that its disk has, the ledger, the journal, and the clock that they
//! have seen. What is not made yet is made by a start, and not here.

use std::fs::{Metadata, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::assemble;
use crate::cli::doctor::Finding;
use crate::clock::now_ms;
use crate::config::Config;

/// A journal takes some hundred bytes for each call, the ledger more: a day of work at least.
const LITTLE: u64 = 1_000_000_000;
/// Files of the journal that a start needs room for: the one that is written to, the one behind it, and as much again
/// for the ledger.
const SEGMENTS: u64 = 3;
/// Holds wait for the disk, up to the endpoint's first token: above this, callers notice.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// Syncs that are timed.
const SYNCS: u32 = 5;

const FOLDER: &str = "store.dir";
const ROOM: &str = "room on the disk";
const LATER: &str = "not made yet; made at the first start";
const MAKE_ROOM: &str = "make room on the disk, or give another store.dir";

/// The store's folder: rights, room, and how long the disk takes.
pub(super) fn folder(config: &Config) -> Vec<Finding> {
    let dir = &*config.store.dir;
    let mut found = Vec::new();
    let place = match std::fs::metadata(dir) {
        Ok(about) if about.is_dir() => {
            found.extend(open_to_all(dir, &about));
            dir.to_owned()
        }
        Ok(_) => {
            let what = format!("{} is no folder", dir.display());
            let remedy = "move it away, or give another store.dir";
            return vec![Finding::fail(FOLDER, what, remedy)];
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = format!("{}: {LATER}", dir.display());
            found.push(Finding::ok(FOLDER, what));
            above(dir)
        }
        Err(error) => return vec![failed(FOLDER, dir, &error)],
    };
    found.push(match synced(&place) {
        Err(error) => failed(FOLDER, &place, &error),
        Ok(took) if took <= SLOW_SYNC => {
            Finding::ok("disk sync", format!("{} us", took.as_micros()))
        }
        Ok(took) => Finding::warn(
            "disk sync",
            format!("{} ms", took.as_millis()),
            "a faster disk, or store.journal_sync = \"interval\"",
        ),
    });
    found.push(match free(&place) {
        Ok(free) => room(free, needed(config)),
        Err(error) => failed(ROOM, &place, &error),
    });
    found
}

/// What is wrong with the rights of a folder that is there.
fn open_to_all(dir: &Path, about: &Metadata) -> Option<Finding> {
    let mode = about.permissions().mode() & 0o777;
    let what = format!("{} has mode {mode:o}", dir.display());
    let remedy = "chmod 700: what is kept of conversations lies there";
    (mode & 0o007 != 0).then(|| Finding::warn(FOLDER, what, remedy))
}

/// The folder that is there, and in which a start would make `dir`.
fn above(dir: &Path) -> PathBuf {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let mut above = whole.ancestors().skip(1);
    let there = above.find(|it| it.exists());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// The slowest of some writes to the disk, in a file without a name.
fn synced(dir: &Path) -> std::io::Result<Duration> {
    use std::io::Write;
    let mut file = tempfile::tempfile_in(dir)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..SYNCS {
        file.write_all(&[0; 4_096])?;
        let began = Instant::now();
        file.sync_data()?;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

/// Bytes that are free where `dir` lies.
fn free(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes without which a start may fail.
fn needed(config: &Config) -> u64 {
    config.store.journal_segment_bytes.saturating_mul(SEGMENTS)
}

fn room(free: u64, needed: u64) -> Finding {
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    let shown = format!("{} MB free", free.div_euclid(1_000_000));
    if free < needed {
        let found = format!("{shown}, and the journal's files want {} MB", mb(needed));
        Finding::fail(ROOM, found, MAKE_ROOM)
    } else if free < LITTLE {
        let remedy = "make room: calls are refused when the journal can not grow";
        Finding::warn(ROOM, shown, remedy)
    } else {
        Finding::ok(ROOM, shown)
    }
}

fn failed(check: &str, path: &Path, error: &Error) -> Finding {
    let what = format!("{}: {error}", path.display());
    Finding::fail(check, what, remedy(error.kind()))
}

/// What to do about a file or a folder that can not be used.
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            "let the user who serves read and write it, or run the doctor as that user"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => MAKE_ROOM,
        ErrorKind::ReadOnlyFilesystem => {
            "mount the disk so that it can be written, or give another store.dir"
        }
        ErrorKind::NotADirectory => {
            "a part of this path is a file: move it away, or give another store.dir"
        }
        _ => "look at the disk, and at what the system's log says of it",
    }
}

/// The ledger and the journal, and the clock they have seen.
pub(super) fn books(config: &Config, is_running: bool) -> Vec<Finding> {
    let file = assemble::ledger_file(config);
    let what = match file {
        Some(_) => "ledger (SQLite)",
        None => "ledger (PostgreSQL)",
    };
    let began = Instant::now();
    let ms = |began: Instant| began.elapsed().as_millis();
    match assemble::is_made(config) {
        Err(error) => return vec![failed(what, &config.store.dir, &error)],
        Ok(true) => {}
        Ok(false) => {
            return vec![match (assemble::reach_ledger(config), file) {
                (Ok(()), Some(_)) => Finding::ok(what, LATER),
                (Ok(()), None) => Finding::ok(what, format!("answers in {} ms", ms(began))),
                (Err(error), _) => Finding::fail(what, format!("{error:#}"), SERVER),
            }];
        }
    }
    let asked = assemble::ledger(config).and_then(|ledger| Ok(ledger.latest_ms()?));
    let latest_ms = match asked {
        Ok(latest_ms) => latest_ms,
        Err(error) => {
            let remedy = file.map_or(SERVER, |file| unopened(config, &file));
            return vec![Finding::fail(what, format!("{error:#}"), remedy)];
        }
    };
    let mut found = vec![Finding::ok(what, format!("answers in {} ms", ms(began)))];
    let ahead_ms = latest_ms.saturating_sub(now_ms());
    found.push(if ahead_ms > 5_000 {
        Finding::fail(
            "clock",
            format!("{ahead_ms} ms behind the last call in the ledger"),
            "set the clock: hard budgets are closed until it is right",
        )
    } else {
        Finding::ok("clock", "not behind the ledger")
    });
    found.push(journal(config, is_running));
    found
}

const SERVER: &str = "start the database, or correct store.postgres";

/// What to do about a ledger's file that can not be used: SQLite says little of why.
fn unopened(config: &Config, file: &Path) -> &'static str {
    match OpenOptions::new().read(true).write(true).open(file) {
        Err(error) => remedy(error.kind()),
        Ok(_) if free(&config.store.dir).is_ok_and(|free| free < needed(config)) => MAKE_ROOM,
        Ok(_) => "end whoever keeps it locked; where it is damaged, restore it from a backup",
    }
}

fn journal(config: &Config, is_running: bool) -> Finding {
    let check = "journal";
    match assemble::inspect(config) {
        Err(error) => Finding::fail(check, format!("{error:#}"), "restore it from a backup"),
        Ok(it) if is_running => Finding::ok(
            check,
            format!("in use; {} bytes are not in the ledger yet", it.lag),
        ),
        Ok(it) if it.torn > 0 => Finding::warn(
            check,
            format!("a torn record of {} bytes at its end", it.torn),
            "none: the next start cuts it",
        ),
        Ok(it) if it.lag > 0 || it.open > 0 => Finding::warn(
            check,
            format!(
                "{} bytes are not in the ledger, {} holds are open",
                it.lag, it.open
            ),
            "none: the next start takes them up",
        ),
        Ok(_) => Finding::ok(check, "all of it is in the ledger"),
    }
}
