//! The request log: a line of JSON for each attempt of a call and for each refusal, to a file or standard output.
//! Names are OpenTelemetry's for generative AI where it has one. Prompts and answers are in no line.
//!
//! A call costs one look at whether it is on; where it is, a copy of its entry for a queue. A thread writes; when
//! it does not keep up, or the disk is full, lines are dropped and counted, and no call waits.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use meter::{Entry, Outcome};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Refusal, RequestId};

use crate::clock::now_ms;
use crate::otlp::semconv as name;
use crate::telemetry;

/// Lines that may wait: some seconds of a busy gateway, at a kilobyte each.
const WAITING: usize = 8_192;
/// What looks like a secret or an address of a person, wherever a caller has written it.
const SHAPES: [&str; 3] = [
    r"(?i)\b(?:sk|pk|rk|xox[abp]|ghp|gho|glpat|AKIA)[-_][A-Za-z0-9_-]{8,}",
    r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{8,}",
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
];
/// What stands in their place.
const REDACTED: &str = "[redacted]";

/// `[request_log]`: a line for each attempt of a call and for each refusal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLog {
    /// The file, or `-` for standard output; off if absent.
    pub path: Option<PathBuf>,
    /// Megabytes after which the file is renamed and another begun.
    pub max_mb: u64,
    /// Renamed files that are kept.
    pub keep: u32,
    /// What is blotted out besides keys and e-mail addresses: regular expressions.
    pub redact: Vec<String>,
}

impl Default for RequestLog {
    fn default() -> Self {
        Self {
            path: None,
            max_mb: 100,
            keep: 5,
            redact: Vec::new(),
        }
    }
}

impl RequestLog {
    /// What is wrong with it: the place of an expression, and why.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let tried = self.redact.iter().enumerate();
        tried
            .filter_map(|(index, it)| {
                let error = Regex::new(it).err()?;
                Some((format!("request_log.redact[{index}]"), error.to_string()))
            })
            .collect()
    }
}

/// What a line is made of, off the calls' threads.
#[derive(Debug)]
enum Record {
    Settled {
        entry: Box<Entry>,
        /// What the endpoint speaks.
        spoken: &'static str,
        total_ms: f64,
    },
    Refused {
        request: RequestId,
        tenant: Option<Arc<str>>,
        dialect: &'static str,
        code: &'static str,
        fault: &'static str,
        status: u16,
        at_ms: i64,
    },
    /// No line: wakes the thread, so that it lets go of the file.
    Reopen,
}

/// Where lines go, while it is on.
static SINK: ArcSwapOption<Sink> = ArcSwapOption::const_empty();

#[derive(Debug)]
struct Sink {
    config: RequestLog,
    queue: SyncSender<Record>,
    /// The file is to be opened anew before the next line.
    reopen: Arc<AtomicBool>,
}

/// A request log that is open, and not in force yet.
#[must_use]
pub(crate) struct Opened(Option<Arc<Sink>>);

impl Opened {
    /// Puts it in force.
    pub(crate) fn put(self) {
        SINK.store(self.0);
    }
}

/// Opens what a configuration asks for; what is in force stays.
///
/// # Errors
/// When the file can not be opened.
pub(crate) fn open(config: &RequestLog) -> io::Result<Opened> {
    let present = SINK.load_full();
    if present.as_ref().is_some_and(|it| it.config == *config) {
        return Ok(Opened(present));
    }
    let Some(path) = &config.path else {
        return Ok(Opened(None));
    };
    let mut writer = Writer::open(path, config)?;
    let reopen = Arc::clone(&writer.asked);
    let (queue, waiting) = sync_channel(WAITING);
    std::thread::Builder::new()
        .name("request-log".to_owned())
        .spawn(move || writer.run(&waiting))?;
    Ok(Opened(Some(Arc::new(Sink {
        config: config.clone(),
        queue,
        reopen,
    }))))
}

/// Has the file opened anew, for whoever has renamed it; nothing where there is none.
pub(crate) fn reopen() {
    if let Some(sink) = &*SINK.load() {
        sink.reopen.store(true, Ordering::Release);
        // Where lines wait, the thread sees it with the next of them.
        let _woken = sink.queue.try_send(Record::Reopen);
    }
}

/// Writes down how an attempt ended, at an endpoint of the dialect `spoken`.
pub(crate) fn settled(entry: &Entry, spoken: &'static str, took: Duration) {
    if let Some(sink) = &*SINK.load() {
        sink.put(Record::Settled {
            entry: Box::new(entry.clone()),
            spoken,
            total_ms: took.as_secs_f64() * 1_000.0,
        });
    }
}

/// Writes down that a call was refused.
pub(crate) fn refused(
    refused: &Refusal,
    request: RequestId,
    tenant: Option<&Arc<str>>,
    dialect: &'static str,
) {
    if let Some(sink) = &*SINK.load() {
        sink.put(Record::Refused {
            request,
            tenant: tenant.cloned(),
            dialect,
            code: refused.code,
            fault: refused.fault.as_str(),
            status: refused.status,
            at_ms: now_ms(),
        });
    }
}

impl Sink {
    fn put(&self, record: Record) {
        match self.queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => telemetry::line_dropped(),
        }
    }
}

/// The thread that writes.
struct Writer {
    /// `None` for standard output.
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    bytes: u64,
    most: u64,
    keep: u32,
    redaction: Redaction,
    /// Somebody has renamed the file, and another is to be begun.
    asked: Arc<AtomicBool>,
}

/// What is blotted out of whatever leaves: keys, addresses of persons, and what is configured.
#[derive(Debug, Clone)]
pub(crate) struct Redaction(Vec<Regex>);

impl Redaction {
    pub(crate) fn new(config: &RequestLog) -> Self {
        let shapes = SHAPES.iter().copied();
        let shapes = shapes.chain(config.redact.iter().map(String::as_str));
        // Those that are none were told when the configuration was read.
        Self(shapes.filter_map(|it| Regex::new(it).ok()).collect())
    }

    /// The one place at which a text is made fit to leave.
    pub(crate) fn of<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for shape in &self.0 {
            if let Cow::Owned(changed) = shape.replace_all(&text, REDACTED) {
                text = Cow::Owned(changed);
            }
        }
        text
    }
}

impl Writer {
    fn open(path: &Path, config: &RequestLog) -> io::Result<Self> {
        let is_stdout = path == Path::new("-");
        let mut writer = Self {
            path: (!is_stdout).then(|| path.to_owned()),
            out: Box::new(io::stdout()),
            bytes: 0,
            most: config.max_mb.max(1).saturating_mul(1_000_000),
            keep: config.keep,
            redaction: Redaction::new(config),
            asked: Arc::default(),
        };
        writer.reopen()?;
        Ok(writer)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let mut options = OpenOptions::new();
            // It says who calls what: none of everybody's business.
            let file: File = options.create(true).append(true).mode(0o600).open(path)?;
            self.bytes = file.metadata()?.len();
            self.out = Box::new(file);
        }
        Ok(())
    }

    /// Writes until nobody sends any more.
    fn run(&mut self, waiting: &Receiver<Record>) {
        while let Ok(record) = waiting.recv() {
            if self.asked.swap(false, Ordering::AcqRel)
                && let Err(error) = self.reopen()
            {
                tracing::warn!(%error, "the request log can not be opened anew; lines go where they went");
            }
            let Some(line) = line(&record) else { continue };
            let mut line = self.redaction.of(&line.to_string()).into_owned();
            line.push('\n');
            if self.write(line.as_bytes()).is_err() {
                // A full disk may have room again for the next.
                telemetry::line_dropped();
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.most {
            self.turn()?;
        }
        self.out.write_all(line)?;
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Renames the file, and those before it, and begins another.
    fn turn(&mut self) -> io::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let numbered = |n: u32| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            // There may be none of this number yet.
            let _moved = std::fs::rename(numbered(n), numbered(n.saturating_add(1)));
        }
        if self.keep > 0 {
            std::fs::rename(&path, numbered(1))?;
        } else {
            std::fs::remove_file(&path)?;
        }
        self.reopen()
    }
}

/// A record as the line says it; what is empty is left out.
fn line(record: &Record) -> Option<Value> {
    let (at_ms, fields) = match record {
        Record::Reopen => return None,
        Record::Settled {
            entry,
            spoken,
            total_ms,
        } => (
            entry.settled_at_ms,
            settled_fields(entry, spoken, *total_ms),
        ),
        Record::Refused {
            request,
            tenant,
            dialect,
            code,
            fault,
            status,
            at_ms,
        } => {
            let told = Told {
                request: *request,
                tenant: tenant.as_deref(),
                dialect,
                code,
                fault,
                status: *status,
            };
            (*at_ms, refused_fields(&told))
        }
    };
    let told = std::iter::once(("timestamp", time(at_ms)))
        .chain(fields)
        .filter(|(_, it)| !it.is_null() && it != "");
    let named: Map<String, Value> = told.map(|(name, it)| (name.to_owned(), it)).collect();
    Some(Value::Object(named))
}

/// What is told of a call that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) request: RequestId,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) dialect: &'static str,
    pub(crate) code: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) status: u16,
}

/// What a line says of a refusal, but for the time.
pub(crate) fn refused_fields(told: &Told<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("event.name", json!("pareto.refusal")),
        ("pareto.request_id", json!(told.request.to_string())),
        (name::OPERATION, json!(name::operation(told.dialect))),
        ("pareto.dialect", json!(told.dialect)),
        ("pareto.tenant", json!(told.tenant)),
        (name::STATUS, json!(told.status)),
        (name::ERROR, json!(told.code)),
        ("pareto.fault", json!(told.fault)),
    ]
}

/// What a line says of an attempt, but for the time.
pub(crate) fn settled_fields(
    entry: &Entry,
    spoken: &str,
    total_ms: f64,
) -> Vec<(&'static str, Value)> {
    let (held, usage) = (&entry.held, &entry.usage);
    let subject = &held.subject;
    let failed = (entry.outcome != Outcome::Completed).then(|| entry.outcome.as_str());
    vec![
        ("event.name", json!("pareto.attempt")),
        ("pareto.request_id", json!(held.request.to_string())),
        ("pareto.attempt", json!(held.attempt)),
        (name::OPERATION, json!(name::operation(&held.dialect))),
        (name::PROVIDER, json!(name::provider(spoken))),
        (name::REQUESTED, json!(held.requested)),
        (name::MODEL, json!(held.model)),
        (name::SESSION, json!(format!("{:016x}", held.session))),
        (name::PROMPT_TOKENS, json!(usage.prompt())),
        (name::ANSWER_TOKENS, json!(usage.answer())),
        (name::CACHE_READ, json!(usage.cache_read)),
        (name::CACHE_WRITE, json!(usage.cache_write())),
        (name::STATUS, json!(entry.status)),
        (name::ERROR, json!(failed)),
        ("pareto.endpoint", json!(held.endpoint)),
        ("pareto.tenant", json!(subject.tenant)),
        ("pareto.team", json!(subject.team)),
        ("pareto.project", json!(subject.project)),
        ("pareto.key", json!(subject.key)),
        ("pareto.user", json!(subject.user)),
        ("pareto.task", json!(subject.task)),
        ("pareto.workflow", json!(subject.workflow)),
        ("pareto.dialect", json!(held.dialect)),
        ("pareto.route", json!(held.reason)),
        ("pareto.loss", json!(held.losses)),
        ("pareto.tier", json!(held.tier)),
        ("pareto.stream", json!(held.stream)),
        ("pareto.usage_source", json!(entry.source)),
        ("pareto.cost_usd", json!(entry.cost.to_usd())),
        ("pareto.first_byte_ms", json!(entry.first_byte_ms)),
        ("pareto.duration_ms", json!(total_ms)),
    ]
}

fn time(at_ms: i64) -> Value {
    let time = Timestamp::from_millisecond(at_ms);
    json!(time.map(|it| it.to_string()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("requests.jsonl");
        let config = RequestLog {
            keep: 2,
            ..RequestLog::default()
        };
        let mut writer = Writer::open(&path, &config).expect("opens");
        writer.most = 10;
        for n in 0..8 {
            writer
                .write(format!("line {n}\n").as_bytes())
                .expect("writes");
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(read("requests.jsonl").as_deref(), Some("line 6\nline 7\n"));
        assert_eq!(
            read("requests.jsonl.1").as_deref(),
            Some("line 4\nline 5\n")
        );
        assert_eq!(
            read("requests.jsonl.2").as_deref(),
            Some("line 2\nline 3\n")
        );
        assert_eq!(read("requests.jsonl.3"), None);
    }

    #[test]
    fn keys_addresses_and_what_is_configured_are_blotted_out() {
        let config = RequestLog {
            redact: vec!["plum-[0-9]+".to_owned()],
            ..RequestLog::default()
        };
        let writer = Writer::open(Path::new("-"), &config).expect("opens");
        for secret in [
            "sk-par-abcdef12-0123456789",
            "Bearer abcdefgh12345",
            "jane.doe@mail.example.com",
            "plum-17",
        ] {
            let line = format!("{{\"a\":\"before {secret} behind\"}}");
            let wanted = format!("{{\"a\":\"before {REDACTED} behind\"}}");
            assert_eq!(writer.redaction.of(&line), wanted, "{secret}");
        }
    }
}
