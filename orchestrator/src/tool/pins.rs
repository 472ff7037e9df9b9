//! Which definitions of tools were accepted. They stand in the log as records of kind `pin`, for all
//! nodes and tenants; a tool that is another than the accepted one is withheld until somebody has looked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Definition;
use super::config::PinPolicy;
use crate::digest::Digest;
use crate::log::{AppendError, Change, Expected, Kind, Note, Record, TaskLog, TaskLogError, To};

/// For how long offers go by what was read before. Calls always read.
const FRESH: Duration = Duration::from_secs(30);
/// Records read at a time.
const PAGE: u32 = 500;
/// Who accepts what nobody has looked at.
const FIRST_USE: &str = "first_use";
/// Tries of a write against others who write the same.
const TRIES: usize = 5;

/// An accepted definition, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    pub pin: Digest,
    pub definition: Definition,
    /// Milliseconds since 1970, by the log's clock.
    pub accepted_at_ms: i64,
    /// Who accepted it: `first_use`, or a person.
    pub by: String,
}

/// How a definition stands to what was accepted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    Accepted,
    /// Nobody has accepted any definition of this tool.
    New,
    /// Another one was accepted.
    Changed(Arc<Pin>),
}

/// The pins of a log.
#[derive(Debug)]
pub(super) struct Pins {
    log: Arc<dyn TaskLog>,
    tracker: TaskTracker,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    at: Option<Instant>,
    pins: HashMap<String, Arc<Pin>>,
}

impl Pins {
    pub(super) fn new(log: Arc<dyn TaskLog>, tracker: TaskTracker) -> Self {
        Self {
            log,
            tracker,
            known: Mutex::default(),
        }
    }

    /// How definitions stand, for an offer. Accepts what is new where the policy says so.
    pub(super) async fn judge(
        &self,
        definitions: &[Definition],
        policy: PinPolicy,
    ) -> Result<Vec<Standing>, TaskLogError> {
        let mut pins = self.all(FRESH).await?;
        let is_settled = |pins: &HashMap<String, Arc<Pin>>| {
            definitions
                .iter()
                .all(|it| standing(pins.get(&it.name), it) == Standing::Accepted)
        };
        if !is_settled(&pins) {
            // Another node may have accepted it meanwhile.
            pins = self.all(Duration::ZERO).await?;
        }
        let mut standings = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let found = standing(pins.get(&definition.name), definition);
            standings.push(match (found, policy) {
                (Standing::New, PinPolicy::FirstUse) => self.first_use(definition).await?,
                (found, _) => found,
            });
        }
        Ok(standings)
    }

    /// How a definition stands now, for a call.
    pub(super) async fn judge_now(
        &self,
        definition: &Definition,
        policy: PinPolicy,
    ) -> Result<Standing, TaskLogError> {
        let found = self.read(&definition.name).await?;
        let pin = found.map(|(_, pin)| Arc::new(pin));
        match (standing(pin.as_ref(), definition), policy) {
            (Standing::New, PinPolicy::FirstUse) => self.first_use(definition).await,
            (found, _) => Ok(found),
        }
    }

    /// Accepts a definition, whatever was accepted before, and notes who did.
    pub(super) async fn accept(
        &self,
        definition: &Definition,
        by: &str,
    ) -> Result<(), TaskLogError> {
        for _ in 0..TRIES {
            let expected = match self.read(&definition.name).await? {
                Some((version, _)) => Expected::Version(version),
                None => Expected::Absent,
            };
            if self.write(definition, Some(by), expected).await? {
                return Ok(());
            }
        }
        Err(TaskLogError {
            what: "accept a tool",
            cause: "others accept it at the same time; try again".to_owned(),
        })
    }

    /// All pins, as they were read no longer than `max_age` ago.
    pub(super) async fn all(
        &self,
        max_age: Duration,
    ) -> Result<HashMap<String, Arc<Pin>>, TaskLogError> {
        {
            let known = self.known();
            if known.at.is_some_and(|at| at.elapsed() < max_age) {
                return Ok(known.pins.clone());
            }
        }
        let at = Instant::now();
        let read = self.ask(|log| {
            let mut pins = HashMap::new();
            let mut after = String::new();
            loop {
                let page = log.records(Kind::Pin, Some(""), &after, PAGE)?;
                let Some(last) = page.last() else {
                    return Ok(pins);
                };
                after.clone_from(&last.id);
                for record in page {
                    let pin = parse(&record)?;
                    pins.insert(record.id, Arc::new(pin));
                }
            }
        });
        let pins: HashMap<String, Arc<Pin>> = read.await?;
        *self.known() = Known {
            at: Some(at),
            pins: pins.clone(),
        };
        Ok(pins)
    }

    /// Accepts a definition if none was before.
    async fn first_use(&self, definition: &Definition) -> Result<Standing, TaskLogError> {
        if self.write(definition, None, Expected::Absent).await? {
            return Ok(Standing::Accepted);
        }
        // Somebody was faster, perhaps with another definition.
        let pin = self.read(&definition.name).await?;
        let pin = pin.map(|(_, pin)| Arc::new(pin));
        Ok(standing(pin.as_ref(), definition))
    }

    /// Writes a pin, with a note in the register where it is a person's; false where the record is not as
    /// expected.
    async fn write(
        &self,
        definition: &Definition,
        by: Option<&str>,
        expected: Expected,
    ) -> Result<bool, TaskLogError> {
        let (definition, by) = (definition.clone(), by.map(str::to_owned));
        let written = self.ask(move |log| {
            let pin = Pin {
                pin: definition.pin(),
                accepted_at_ms: log.now_ms()?,
                definition,
                by: by.clone().unwrap_or_else(|| FIRST_USE.to_owned()),
            };
            let body = serde_json::to_string(&pin).map_err(|error| TaskLogError {
                what: "write a pin",
                cause: error.to_string(),
            })?;
            let change = Change {
                kind: Kind::Pin,
                tenant: String::new(),
                id: pin.definition.name.clone(),
                expected,
                to: Some(To {
                    task: None,
                    due_at_ms: None,
                    body,
                }),
            };
            let note = by.map(|actor| Note {
                tenant: String::new(),
                actor,
                kind: "tool.accepted".to_owned(),
                at_ms: pin.accepted_at_ms,
                payload: json!({ "tool": pin.definition.name, "pin": pin.pin }).to_string(),
            });
            let written = match &note {
                Some(note) => log.note(note, &[change]),
                None => log.change(&[change]),
            };
            match written {
                Ok(()) => Ok(Some(pin)),
                Err(AppendError::Failed(error)) => Err(error),
                Err(_) => Ok(None),
            }
        });
        let Some(pin) = written.await? else {
            return Ok(false);
        };
        let name = pin.definition.name.clone();
        self.known().pins.insert(name, Arc::new(pin));
        Ok(true)
    }

    async fn read(&self, name: &str) -> Result<Option<(u64, Pin)>, TaskLogError> {
        let name = name.to_owned();
        self.ask(move |log| {
            let record = log.record(Kind::Pin, "", &name)?;
            let read = |record: Record| Ok((record.version, parse(&record)?));
            record.map(read).transpose()
        })
        .await
    }

    /// Asks the log, which blocks, off the reactor.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn TaskLog) -> Result<T, TaskLogError> + Send + 'static,
    ) -> Result<T, TaskLogError> {
        let log = Arc::clone(&self.log);
        let asked = self.tracker.spawn_blocking(move || question(&*log)).await;
        asked.unwrap_or_else(|error| {
            Err(TaskLogError {
                what: "read pins",
                cause: error.to_string(),
            })
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(record: &Record) -> Result<Pin, TaskLogError> {
    serde_json::from_str(&record.body).map_err(|error| TaskLogError {
        what: "read a pin",
        cause: format!("`{}`: {error}", record.id),
    })
}

pub(super) fn standing(pin: Option<&Arc<Pin>>, definition: &Definition) -> Standing {
    match pin {
        None => Standing::New,
        Some(pin) if pin.pin == definition.pin() => Standing::Accepted,
        Some(pin) => Standing::Changed(Arc::clone(pin)),
    }
}

/// What differs between two definitions, in words.
pub(super) fn changes(accepted: &Definition, now: &Definition) -> Vec<String> {
    [
        ("name", accepted.name != now.name),
        ("title", accepted.title != now.title),
        ("description", accepted.description != now.description),
        ("input_schema", accepted.input_schema != now.input_schema),
        ("output_schema", accepted.output_schema != now.output_schema),
        ("annotations", accepted.annotations != now.annotations),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(what, _)| what.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Edit = fn(&mut Definition);

    #[test]
    fn each_part_of_a_definition_counts() {
        let accepted = Definition {
            name: "files__read".to_owned(),
            server: "files".to_owned(),
            title: None,
            description: "reads".to_owned(),
            input_schema: json!({ "type": "object" }),
            output_schema: None,
            annotations: None,
        };
        assert_eq!(changes(&accepted, &accepted), Vec::<String>::new());
        let edits: [(&str, Edit); 6] = [
            ("name", |it| it.name.push('x')),
            ("title", |it| it.title = Some("Read".to_owned())),
            ("description", |it| it.description.push('!')),
            ("input_schema", |it| it.input_schema = json!({})),
            ("output_schema", |it| it.output_schema = Some(json!({}))),
            ("annotations", |it| it.annotations = Some(json!({}))),
        ];
        for (what, edit) in edits {
            let mut now = accepted.clone();
            edit(&mut now);
            assert_ne!(now.pin(), accepted.pin(), "{what}");
            assert_eq!(changes(&accepted, &now), [what]);
        }
    }
}
