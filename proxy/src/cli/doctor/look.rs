//! What the doctor looks at. Nothing here costs money: no call is made at an endpoint.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Uri;

use super::Finding;
use crate::assemble;
use crate::clock::now_ms;
use crate::config::Config;
use crate::runtime::Runtime;
use crate::upstream;

const GB: u64 = 1_000_000_000;
const DAY_MS: i64 = 86_400_000;
/// A journal takes some hundred bytes for each call, the ledger more: a day of work at least.
const LITTLE: u64 = GB;
/// Holds wait for the disk, up to the endpoint's first token: above this, callers notice.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// Syncs that are timed.
const SYNCS: u32 = 5;
/// Prices change some times a year.
const OLD_PRICES_DAYS: i64 = 60;

/// All checks, in the order in which a person would want to read them.
pub(super) fn all(path: &Path, config: &Config) -> anyhow::Result<Vec<Finding>> {
    let mut found = vec![Finding::ok("configuration", path.display().to_string())];
    match Runtime::build(config, None) {
        Ok(runtime) => found.extend(prices(config, &runtime)),
        Err(error) => found.push(Finding::fail(
            "models and prices",
            error.to_string(),
            "correct the configuration",
        )),
    }
    found.extend(secrets(path, config));
    found.extend(folder(&config.store.dir));
    found.push(descriptors(config));
    let is_running = assemble::is_running(&config.store.dir);
    for (what, address) in [
        ("server.listen", config.server.listen),
        ("admin.listen", config.admin.listen),
    ] {
        found.push(port(what, address, is_running));
    }
    found.extend(books(config, is_running));
    found.extend(endpoints(config)?);
    Ok(found)
}

/// How old prices are, and which models have none.
fn prices(config: &Config, runtime: &Runtime) -> Vec<Finding> {
    let age_ms = runtime
        .book
        .as_of_ms()
        .map(|at| now_ms().saturating_sub(at));
    let days = age_ms.map(|age| age.div_euclid(DAY_MS));
    let mut found = vec![match days {
        Some(days) if days <= OLD_PRICES_DAYS => {
            Finding::ok("price book", format!("{days} days old"))
        }
        Some(days) => Finding::warn(
            "price book",
            format!("{days} days old"),
            "look prices up again; `pareto prices import` takes in lists",
        ),
        None => Finding::warn("price book", "of unknown age", "name its date in `as_of`"),
    }];
    let unpriced: Vec<&str> = config
        .models
        .iter()
        .filter(|model| model.price.is_none())
        .map(|model| &*model.name)
        .collect();
    if !unpriced.is_empty() {
        found.push(Finding::warn(
            "prices of models",
            format!("none for {}", unpriced.join(", ")),
            "give each a price: hard budgets refuse calls without one",
        ));
    }
    found
}

/// Who can read the files that keep secrets.
fn secrets(path: &Path, config: &Config) -> Vec<Finding> {
    let dir = &config.store.dir;
    let kept = [
        "admin.token",
        "finance.token",
        "keys.pepper",
        "tasks.secret",
    ];
    let mut files: Vec<_> = kept.iter().map(|name| dir.join(name)).collect();
    files.extend(config.server.tls_key.clone());
    files.push(path.to_owned());
    let mut found = Vec::new();
    for file in files {
        let Ok(about) = std::fs::metadata(&file) else {
            continue;
        };
        let mode = about.permissions().mode() & 0o777;
        // A configuration that names its secrets elsewhere may be read by anybody.
        let is_secret = file != path || writes_keys(path);
        if is_secret && mode & 0o077 != 0 {
            found.push(Finding::warn(
                "secrets",
                format!("{} has mode {mode:o}", file.display()),
                "chmod 600, or name secrets as ${NAME} or ${file:PATH}",
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok("secrets", "nobody else can read them"));
    }
    found
}

/// Whether keys stand in the configuration itself.
fn writes_keys(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let keys = ["key", "token", "pepper", "secret", "finance_token"];
    text.lines().any(|line| {
        let Some((name, value)) = line.split_once('=') else {
            return false;
        };
        let name = name.trim().rsplit('.').next().unwrap_or_default();
        keys.contains(&name) && !value.contains("${")
    })
}

/// The store's folder: rights, room, and how long the disk takes.
fn folder(dir: &Path) -> Vec<Finding> {
    let check = "store.dir";
    if let Err(error) = std::fs::create_dir_all(dir) {
        let found = format!("{}: {error}", dir.display());
        return vec![Finding::fail(check, found, "make it, for this user")];
    }
    let timed = synced(dir);
    let mut found = vec![match timed {
        Err(error) => Finding::fail(
            check,
            format!("{}: {error}", dir.display()),
            "let this user write to it",
        ),
        Ok(took) if took <= SLOW_SYNC => {
            Finding::ok("disk sync", format!("{} us", took.as_micros()))
        }
        Ok(took) => Finding::warn(
            "disk sync",
            format!("{} ms", took.as_millis()),
            "a faster disk, or store.journal_sync = \"interval\"",
        ),
    }];
    let mode = std::fs::metadata(dir).map_or(0, |about| about.permissions().mode() & 0o777);
    if mode & 0o007 != 0 {
        found.push(Finding::warn(
            check,
            format!("{} has mode {mode:o}", dir.display()),
            "chmod 700: what is kept of conversations lies there",
        ));
    }
    found.push(match rustix::fs::statvfs(dir) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let shown = format!("{} MB free", free.div_euclid(1_000_000));
            if free >= LITTLE {
                Finding::ok("room on the disk", shown)
            } else {
                Finding::warn(
                    "room on the disk",
                    shown,
                    "make room: calls are refused when the journal can not grow",
                )
            }
        }
        Err(error) => Finding::warn("room on the disk", error.to_string(), "look at the disk"),
    });
    found
}

/// The slowest of some writes to the disk.
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

/// Whether the system lets the process open what `limits.connections` allows: each call needs a connection
/// on both sides.
fn descriptors(config: &Config) -> Finding {
    let needed = u64::try_from(config.limits.connections)
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        .saturating_add(512);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // The program raises it as far.
    let most = limit.maximum.unwrap_or(u64::MAX);
    let shown = format!("{most} descriptors, {needed} for limits.connections");
    if most >= needed {
        Finding::ok("descriptors", shown)
    } else {
        Finding::warn(
            "descriptors",
            shown,
            "raise it (ulimit -n, LimitNOFILE), or lower limits.connections",
        )
    }
}

fn port(what: &str, address: SocketAddr, is_running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(what, format!("{address} is free")),
        Err(_) if is_running => Finding::ok(what, format!("{address}, by the running gateway")),
        Err(error) => Finding::fail(
            what,
            format!("{address}: {error}"),
            "end the other process, or give another address",
        ),
    }
}

/// The ledger and the journal, and the clock they have seen.
fn books(config: &Config, is_running: bool) -> Vec<Finding> {
    let began = Instant::now();
    let what = if config.store.postgres.is_some() {
        "ledger (PostgreSQL)"
    } else {
        "ledger (SQLite)"
    };
    let asked = assemble::ledger(config).and_then(|ledger| Ok(ledger.latest_ms()?));
    let latest_ms = match asked {
        Ok(latest_ms) => latest_ms,
        Err(error) => {
            let remedy = "start the database, or correct store.postgres";
            return vec![Finding::fail(what, format!("{error:#}"), remedy)];
        }
    };
    let answered = format!("answers in {} ms", began.elapsed().as_millis());
    let mut found = vec![Finding::ok(what, answered)];
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
    found.push(match assemble::inspect(config) {
        Err(error) => Finding::fail("journal", format!("{error:#}"), "restore it from a backup"),
        Ok(it) if is_running => Finding::ok(
            "journal",
            format!("in use; {} bytes are not in the ledger yet", it.lag),
        ),
        Ok(it) if it.torn > 0 => Finding::warn(
            "journal",
            format!("a torn record of {} bytes at its end", it.torn),
            "none: the next start cuts it",
        ),
        Ok(it) if it.lag > 0 || it.open > 0 => Finding::warn(
            "journal",
            format!(
                "{} bytes are not in the ledger, {} holds are open",
                it.lag, it.open
            ),
            "none: the next start takes them up",
        ),
        Ok(_) => Finding::ok("journal", "all of it is in the ledger"),
    });
    found
}

/// Whether each endpoint has a key and can be connected to.
fn endpoints(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let patience = Duration::from_millis(config.upstream.connect_timeout_ms);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut found = Vec::new();
    for endpoint in &config.endpoints {
        let check = format!("endpoint {}", endpoint.name);
        let uri: Uri = match endpoint.url.parse() {
            Ok(uri) => uri,
            Err(_) => continue,
        };
        let began = Instant::now();
        let reached = runtime.block_on(upstream::reach(&uri, endpoint.into(), patience));
        found.push(match reached {
            Ok(()) if endpoint.key.is_none() => Finding::warn(
                check,
                "reached; it has no key",
                "give it one, unless it wants none",
            ),
            Ok(()) => {
                let took = began.elapsed().as_millis();
                Finding::ok(check, format!("reached in {took} ms"))
            }
            Err(error) => Finding::fail(
                check,
                error,
                "look at its url, DNS, firewall and certificate",
            ),
        });
    }
    Ok(found)
}
