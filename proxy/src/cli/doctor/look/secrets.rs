//! Who can read the files that keep secrets: those that a start makes, those that the configuration names, and the
//! configuration itself where one stands in it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::cli::doctor::Finding;
use crate::config::{Config, file_of};

/// Files that a first start makes in the store's folder.
const KEPT: [&str; 4] = [
    "admin.token",
    "finance.token",
    "keys.pepper",
    "tasks.secret",
];
/// Where a configuration has secrets; a star stands for any key.
const PLACES: [&str; 11] = [
    "admin.token",
    "admin.finance_token",
    "keys.pepper",
    "endpoint.key",
    "endpoint.keys",
    "webhook.secret",
    "otlp.headers.*",
    "mcp.env.*",
    "mcp.headers.*",
    "orchestrator.secret",
    "orchestrator.canaries",
];

/// What a configuration says of its secrets.
#[derive(Default)]
struct Named {
    /// One stands in it.
    literal: bool,
    files: BTreeSet<PathBuf>,
}

pub(super) fn readable(path: &Path, config: &Config) -> Vec<Finding> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut named = Named::default();
    if let Ok(table) = text.parse() {
        gather("", &Value::Table(table), &mut named);
    }
    let dir = &config.store.dir;
    let mut files = named.files;
    files.extend(KEPT.iter().map(|name| dir.join(name)));
    files.extend(config.server.tls_key.clone());
    let beside = files.into_iter().map(|file| {
        let remedy = "chmod 600, and give it to the user who serves";
        (file, remedy)
    });
    let own = named.literal.then(|| {
        let remedy = "chmod 600, or name secrets as ${NAME} or ${file:PATH}";
        (path.to_owned(), remedy)
    });
    let found: Vec<_> = beside
        .chain(own)
        .filter_map(|(file, remedy)| {
            let mode = std::fs::metadata(&file).ok()?.permissions().mode() & 0o777;
            let what = format!("{} has mode {mode:o}", file.display());
            (mode & 0o077 != 0).then(|| Finding::warn("secrets", what, remedy))
        })
        .collect();
    if found.is_empty() {
        return vec![Finding::ok("secrets", "nobody else can read them")];
    }
    found
}

/// Gathers what `value`, which stands at `place`, says of secrets.
fn gather(place: &str, value: &Value, named: &mut Named) {
    match value {
        Value::String(text) => match file_of(text) {
            Some(file) => {
                named.files.insert(PathBuf::from(file));
            }
            None => named.literal |= !text.contains("${") && is_secret(place, text),
        },
        Value::Array(list) => {
            for one in list {
                gather(place, one, named);
            }
        }
        Value::Table(table) => {
            for (key, one) in table {
                let dot = if place.is_empty() { "" } else { "." };
                gather(&format!("{place}{dot}{key}"), one, named);
            }
        }
        _ => {}
    }
}

/// Whether `text` at `place` is one: by its place, or as an address with a password in it.
fn is_secret(place: &str, text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
    let has_password = user.is_some_and(|(user, _)| user.contains(':'))
        || (place == "store.postgres" && text.contains("password="));
    has_password || PLACES.iter().any(|it| stands(place, it))
}

fn stands(place: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => place.starts_with(start),
        None => place == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> (bool, Vec<String>) {
        let mut named = Named::default();
        let table = text.parse().expect("good TOML");
        gather("", &Value::Table(table), &mut named);
        let files = named.files.iter().map(|it| it.display().to_string());
        (named.literal, files.collect())
    }

    #[test]
    fn secrets_are_found_wherever_a_configuration_may_have_them() {
        for text in [
            "[admin]\ntoken = 'x'",
            "admin = { finance_token = 'x' }",
            "keys.pepper = 'x'",
            "[[endpoint]]\nkey='x'",
            "[[endpoint]]\nkeys = ['${A}', 'x']",
            "[[webhook]]\nsecret = 'x'",
            "[[webhook]]\nurl = 'https://me:x@host/'",
            "otlp.headers = { authorization = 'x' }",
            "[[mcp]]\nenv = { TOKEN = 'x' }",
            "[mcp.headers]\n\"x.y\" = 'x'",
            "[store]\npostgres = 'postgres://pareto:x@db/pareto'",
            "[store]\npostgres = 'host=db password=x'",
            "[orchestrator]\nsecret = 'x'",
            "[orchestrator]\ncanaries = ['x']",
        ] {
            assert_eq!(named(text), (true, Vec::new()), "{text}");
        }
        for text in [
            "[admin]\ntoken = '${TOKEN}'",
            "[store]\npostgres = 'postgres://pareto@db/pareto'",
            "[[endpoint]]\nname = 'key'",
            "[[budget]]\nkey = 'laptop'",
        ] {
            assert_eq!(named(text), (false, Vec::new()), "{text}");
        }
        let text = "[[endpoint]]\nkeys = ['${file:/a}']\n[store]\npostgres = '${file:/b}'";
        assert_eq!(named(text), (false, vec!["/a".into(), "/b".into()]));
    }
}
