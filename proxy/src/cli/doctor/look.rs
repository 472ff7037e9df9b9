//! What the doctor looks at. Nothing here costs money, no call is made at an endpoint, and nothing is made that a
//! start would make: whoever runs the doctor may be somebody else than who serves.

mod secrets;
mod stored;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use http::Uri;

use super::Finding;
use crate::assemble;
use crate::clock::now_ms;
use crate::config::Config;
use crate::runtime::Runtime;
use crate::{serve, upstream};

const DAY_MS: i64 = 86_400_000;
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
    found.extend(secrets::readable(path, config));
    found.extend(stored::folder(config));
    found.extend(certificate(config));
    found.push(descriptors(config));
    let is_running = assemble::is_running(&config.store.dir);
    for (what, address) in [
        ("server.listen", config.server.listen),
        ("admin.listen", config.admin.listen),
    ] {
        found.push(port(what, address, is_running));
    }
    found.extend(stored::books(config, is_running));
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

/// How long callers will take the certificate.
fn certificate(config: &Config) -> Option<Finding> {
    let check = "server.tls_cert";
    let path = config.server.tls_cert.as_deref()?;
    Some(match serve::ending(path, now_ms()) {
        None => Finding::ok(check, "it does not expire soon"),
        Some(what) => Finding::warn(check, what, "put a new one in its place and reload"),
    })
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
