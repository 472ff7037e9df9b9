//! The checks of a brief that code can decide.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::brief::{Check, What, fits};
use crate::digest::Digest;
use crate::event::{Event, cut_at};
use crate::state::{EffectPhase, State};

/// Bytes of an artefact that checks and judges read.
pub const MOST_READ: usize = 1 << 20;

/// A file of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub sha256: Digest,
    pub bytes: u64,
    /// Its text, at most [`MOST_READ`] bytes of it; documents are read as text where that is known how.
    pub text: Option<String>,
}

/// The files of a task by their names.
pub type Files = BTreeMap<String, File>;

/// Looks at all checks that code can decide: what has changed of the artefacts, and how each check stands.
pub fn look(state: &State, files: &Files) -> Vec<Event> {
    let mut events = Vec::new();
    for (name, file) in files {
        if state
            .artifacts
            .get(name)
            .is_none_or(|known| known.sha256 != file.sha256)
        {
            events.push(Event::ArtifactWritten {
                name: name.clone(),
                sha256: file.sha256,
                bytes: file.bytes,
                node: maker(state, name),
            });
        }
    }
    for check in &state.brief.definition_of_done {
        if let Some(found) = decide(state, check, files) {
            events.push(match found {
                Ok(evidence) => Event::CheckPassed {
                    check: check.id.clone(),
                    evidence,
                },
                Err(why) => Event::CheckFailed {
                    check: check.id.clone(),
                    why,
                },
            });
        }
    }
    events
}

/// The step whose act named this file last.
fn maker(state: &State, name: &str) -> Option<String> {
    let wrote = state
        .effects
        .values()
        .filter(|it| it.phase == EffectPhase::Succeeded);
    let named = |value: &Value| {
        value
            .as_str()
            .is_some_and(|path| path.trim_start_matches("./") == name)
    };
    let mut wrote = wrote.filter(|effect| {
        let fields = effect.arguments.as_object();
        fields.is_some_and(|fields| fields.values().any(named))
            && effect.verb != crate::tool::Verb::Retrieve
    });
    wrote.next_back().map(|effect| effect.node.clone())
}

fn decide(state: &State, check: &Check, files: &Files) -> Option<Result<String, String>> {
    let file = |name: &str| {
        let file = files.get(name).filter(|file| file.bytes > 0);
        file.ok_or_else(|| format!("there is no artefact {name}, or it is empty"))
    };
    let text = |name: &str| {
        let text = file(name)?.text.as_deref();
        text.ok_or_else(|| format!("{name} can not be read as text"))
    };
    Some(match &check.what {
        What::Judge { .. } => return None,
        What::ArtifactExists { name } => {
            file(name).map(|file| format!("{name}, {} bytes, {}", file.bytes, file.sha256.short()))
        }
        What::JsonSchema { artifact, schema } => text(artifact).and_then(|text| {
            let value: Value = serde_json::from_str(text)
                .map_err(|error| format!("{artifact} is no JSON: {error}"))?;
            if wire::schema::admits(schema, &value) {
                Ok(format!("{artifact} is as its schema says"))
            } else {
                Err(format!("{artifact} is not as its schema says"))
            }
        }),
        What::Regex { artifact, pattern } => text(artifact).and_then(|text| {
            let regex = regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build();
            let regex = regex.map_err(|error| error.to_string())?;
            let found = regex
                .find(text)
                .map(|found| cut_at(found.as_str(), 80).to_owned());
            found
                .map(|found| format!("found `{found}`"))
                .ok_or_else(|| format!("`{pattern}` is not in {artifact}"))
        }),
        What::Count {
            artifacts,
            at_least,
        } => {
            let count = files.keys().filter(|name| fits(artifacts, name)).count();
            let enough = count >= usize::try_from(*at_least).unwrap_or(usize::MAX);
            let text = format!("{count} artefacts fit {artifacts}");
            if enough { Ok(text) } else { Err(text) }
        }
        What::EffectDone { tool, at_least } => {
            let done = state
                .effects
                .values()
                .filter(|it| it.phase == EffectPhase::Succeeded && fits(tool, &it.tool));
            let count = done.count();
            let enough = count >= usize::try_from(*at_least).unwrap_or(usize::MAX);
            let text = format!("{tool} was done {count} times");
            if enough { Ok(text) } else { Err(text) }
        }
    })
}
