//! Files that a configuration names, looked at before a start would fail of them. One that is there and that this
//! user may not read is no finding: whoever serves may be somebody else.

use std::io::ErrorKind;
use std::path::Path;

use meter::tokens::Tokenizer;

use super::Config;
use crate::serve;

/// What is wrong with files, by key.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    tls(config, &mut found);
    for (index, endpoint) in config.endpoints.iter().enumerate() {
        if let Some(message) = endpoint.tls_ca.as_deref().and_then(untrusted) {
            found.push((format!("endpoint[{index}].tls_ca"), message));
        }
    }
    if let Some(message) = config.request_log.path.as_deref().and_then(unwritable) {
        found.push(("request_log.path".to_owned(), message));
    }
    for (index, model) in config.models.iter().enumerate() {
        let Some(name) = &model.tokenizer else {
            continue;
        };
        if Tokenizer::named(name).is_some() {
            continue;
        }
        if let Some(message) = unreadable(Path::new(name)) {
            let message =
                format!("{message}; write o200k_base, cl100k_base or the path of a tokenizer.json");
            found.push((format!("model[{index}].tokenizer"), message));
        }
    }
    found
}

fn tls(config: &Config, found: &mut Vec<(String, String)>) {
    let (Some(certificate), Some(key)) = (&config.server.tls_cert, &config.server.tls_key) else {
        return;
    };
    let before = found.len();
    for (place, path) in [("server.tls_cert", certificate), ("server.tls_key", key)] {
        if let Some(message) = unreadable(path) {
            found.push((place.to_owned(), message));
        }
    }
    let can_be_read = [certificate, key]
        .into_iter()
        .all(|path| std::fs::File::open(path).is_ok());
    if found.len() == before
        && can_be_read
        && let Err(error) = serve::tls(certificate, key)
    {
        let place = match error {
            serve::TlsError::Certificate(_) => "server.tls_cert",
            serve::TlsError::Key(_) => "server.tls_key",
        };
        found.push((place.to_owned(), error.to_string()));
    }
}

/// Why there are no certificates at `path`.
fn untrusted(path: &Path) -> Option<String> {
    let can_be_read = || std::fs::File::open(path).is_ok();
    unreadable(path).or_else(|| serve::trusted(path).err().filter(|_| can_be_read()))
}

/// Why there is nothing to be read at `path`.
fn unreadable(path: &Path) -> Option<String> {
    let error = match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => return Some(format!("`{}` is a folder", path.display())),
        Ok(_) => return None,
        Err(error) => error,
    };
    let is_hidden = error.kind() == ErrorKind::PermissionDenied;
    (!is_hidden).then(|| format!("`{}` can not be read: {error}", path.display()))
}

/// Why nothing can be written to `path`.
fn unwritable(path: &Path) -> Option<String> {
    if path == Path::new("-") {
        return None;
    }
    if path.as_os_str().is_empty() {
        return Some("is empty; write the path of a file, or \"-\" for standard output".to_owned());
    }
    if path.is_dir() {
        return Some(format!(
            "`{}` is a folder; write the path of a file in it",
            path.display()
        ));
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty())?;
    let is_missing = folder.try_exists().is_ok_and(|there| !there);
    is_missing.then(|| format!("there is no folder `{}`; make it", folder.display()))
}
