//! The file tools: what each does with its arguments. All of them come to the same state when they are
//! run again under the same key.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::place::Place;
use super::workspace::{Workspace, WorkspaceError};
use crate::digest::Digest;
use crate::tool::ToolResult;

/// Files larger than this are not searched.
const SEARCHED_BYTES: u64 = 4 << 20;
/// Characters of a line that a search shows.
const SHOWN_CHARS: usize = 300;
/// Entries that a list shows.
const LISTED: usize = 500;

/// Reads a tool's arguments.
pub(super) fn arguments<T: DeserializeOwned>(arguments: &Value) -> Result<T, WorkspaceError> {
    T::deserialize(arguments)
        .map_err(|error| WorkspaceError::Refused(format!("the arguments do not fit: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFolder {
    #[serde(default)]
    path: String,
}

fn folder(at: &Workspace, path: &str) -> Result<Place, WorkspaceError> {
    match path {
        "" | "." | "./" => Ok(Place::root()),
        path => at.place(path),
    }
}

pub(super) fn list(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: OfFolder = arguments(given)?;
    let entries = at.list(&folder(at, &given.path)?)?;
    let lines = entries.iter().take(LISTED).map(|entry| {
        if entry.is_folder {
            format!("{}/", entry.place.as_str())
        } else {
            format!("{}\t{} bytes", entry.place.as_str(), entry.size)
        }
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    if entries.is_empty() {
        "nothing is there".clone_into(&mut text);
    } else if entries.len() > LISTED {
        text.extend([format!(
            "\n[{} more; list a folder]",
            entries.len() - LISTED
        )]);
    }
    Ok(ToolResult::text(text))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    path: String,
    #[serde(default)]
    offset: u64,
    limit: Option<u64>,
}

pub(super) fn read(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: Read = arguments(given)?;
    let place = at.place(&given.path)?;
    let most = at.limits().read_bytes;
    let limit = given.limit.unwrap_or(most).clamp(4, most.max(4));
    let (bytes, size) = at.read_range(&place, given.offset, limit)?;
    let Some(text) = whole_text(&bytes) else {
        return Ok(ToolResult::text(format!(
            "`{}` is no UTF-8 text there; it has {size} bytes",
            place.as_str()
        )));
    };
    let end = given.offset + u64::try_from(text.len()).unwrap_or(0);
    let mut text = text.to_owned();
    if given.offset > 0 || end < size {
        let from = given.offset;
        text.extend([format!("\n[bytes {from} to {end} of {size}")]);
        if end < size {
            text.extend([format!("; read on with offset {end}")]);
        }
        text.push(']');
    }
    Ok(ToolResult::text(text))
}

/// The text that `bytes` are, but for a character that was cut at the end.
fn whole_text(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            let whole = bytes.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).ok()
        }
        Err(_) => None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    path: String,
    content: String,
}

pub(super) fn write(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: Write = arguments(given)?;
    let place = at.place(&given.path)?;
    at.write_file(&place, given.content.as_bytes())?;
    Ok(written(&place, given.content.as_bytes()))
}

/// What is said of a file that was written.
pub(super) fn written(place: &Place, bytes: &[u8]) -> ToolResult {
    let (path, size, sha256) = (place.as_str(), bytes.len(), Digest::of(bytes));
    ToolResult {
        structured: Some(json!({"path": path, "size": size, "sha256": sha256})),
        ..ToolResult::text(format!("wrote {path}, {size} bytes"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
    old: String,
    new: String,
}

pub(super) fn patch(
    at: &Workspace,
    key: &str,
    given: &Value,
) -> Result<ToolResult, WorkspaceError> {
    let given: Patch = arguments(given)?;
    let place = at.place(&given.path)?;
    let before = at.read_file(&place)?;
    if at.was_replaced(key, &place)? {
        return Ok(written(&place, &before));
    }
    let refused = |why: &str| {
        let text = format!("`{}` {why}", place.as_str());
        Err(WorkspaceError::Refused(text))
    };
    let Ok(text) = std::str::from_utf8(&before) else {
        return refused("is no UTF-8 text");
    };
    if given.old.is_empty() {
        return refused("was not changed: `old` is empty; name the text to replace");
    }
    match text.matches(&given.old).count() {
        1 => {}
        0 => return refused("does not contain `old`; read it and copy the text exactly"),
        n => return refused(&format!("contains `old` {n} times; add text around it")),
    }
    let after = text.replacen(&given.old, &given.new, 1);
    at.replace_once(key, &place, &before, after.as_bytes())?;
    Ok(written(&place, after.as_bytes()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from: String,
    to: String,
}

pub(super) fn rename(
    at: &Workspace,
    key: &str,
    given: &Value,
) -> Result<ToolResult, WorkspaceError> {
    let given: Move = arguments(given)?;
    let (from, to) = (at.place(&given.from)?, at.place(&given.to)?);
    at.move_once(key, &from, &to)?;
    let text = format!("moved {} to {}", from.as_str(), to.as_str());
    Ok(ToolResult::text(text))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPath {
    path: String,
}

pub(super) fn trash(
    at: &Workspace,
    key: &str,
    given: &Value,
) -> Result<ToolResult, WorkspaceError> {
    let given: OfPath = arguments(given)?;
    let place = at.place(&given.path)?;
    at.trash_once(key, &place)?;
    Ok(ToolResult::text(format!("trashed {}", place.as_str())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    text: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    case: bool,
}

pub(super) fn search(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: Search = arguments(given)?;
    if given.text.trim().is_empty() {
        let text = "`text` is empty; name what to look for".to_owned();
        return Err(WorkspaceError::Refused(text));
    }
    let fold = |text: &str| {
        if given.case {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    let wanted = fold(&given.text);
    let mut hits = Vec::new();
    for entry in at.list(&folder(at, &given.path)?)? {
        if entry.is_folder || entry.size > SEARCHED_BYTES {
            continue;
        }
        let Ok(text) = String::from_utf8(at.read_file(&entry.place)?) else {
            continue;
        };
        for (number, line) in (1..).zip(text.lines()) {
            if fold(line).contains(&wanted) {
                let shown: String = line.chars().take(SHOWN_CHARS).collect();
                hits.push(format!("{}:{number}: {shown}", entry.place.as_str()));
            }
            if hits.len() > at.limits().hits {
                hits.truncate(at.limits().hits);
                hits.push("[there is more; look for longer text]".to_owned());
                return Ok(ToolResult::text(hits.join("\n")));
            }
        }
    }
    if hits.is_empty() {
        return Ok(ToolResult::text("nothing found"));
    }
    Ok(ToolResult::text(hits.join("\n")))
}
