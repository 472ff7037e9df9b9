//! Whether the log is what was written: links of a tenant's chain, the events they point at, and that
//! nothing stands beside them. Reads in pages, so that no log is too long.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;
use crate::id::TaskId;
use crate::log::{Filter, Head, Link, TaskLog, TaskLogError};

/// Links and tasks read at a time.
const PAGE: u32 = 500;
/// Findings that are told; more are counted.
const MOST_TOLD: usize = 100;

/// What a look through a tenant's log has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub tenant: String,
    /// Nothing was found.
    pub ok: bool,
    pub links: u64,
    pub tasks: u64,
    pub events: u64,
    /// Events whose payloads were erased.
    pub erased: u64,
    /// The digest of the chain's last link: whoever keeps it can tell later that nothing before it was
    /// rewritten.
    pub head: Digest,
    pub findings: Vec<Finding>,
    /// Findings in all.
    pub found: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub what: String,
}

/// Looks through all that a tenant's tasks have left. Blocks.
///
/// # Errors
/// When the log does not answer.
pub fn verify(log: &dyn TaskLog, tenant: &str) -> Result<Report, TaskLogError> {
    let mut walk = Walk {
        log,
        report: Report {
            tenant: tenant.to_owned(),
            ..Report::default()
        },
        last: (0, Digest::default()),
        tasks: BTreeMap::new(),
    };
    walk.follow_links()?;
    walk.look_at_rows()?;
    let mut report = walk.report;
    let register = TaskId::of_register(tenant);
    let tasks = walk.tasks.keys().filter(|id| **id != register);
    report.tasks = u64::try_from(tasks.count()).unwrap_or(u64::MAX);
    report.head = walk.last.1;
    report.ok = report.found == 0;
    Ok(report)
}

struct Walk<'a> {
    log: &'a dyn TaskLog,
    report: Report,
    /// The last link: its number and hash.
    last: (u64, Digest),
    /// How far each task's events have been followed.
    tasks: BTreeMap<TaskId, Followed>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Followed {
    head: Head,
    /// What was wrong with it has been told.
    broken: bool,
}

impl Walk<'_> {
    fn found(&mut self, finding: Finding) {
        self.report.found += 1;
        if self.report.findings.len() < MOST_TOLD {
            self.report.findings.push(finding);
        }
    }

    /// Follows the chain from its last known link to its end.
    fn follow_links(&mut self) -> Result<(), TaskLogError> {
        loop {
            let tenant = self.report.tenant.clone();
            let links = self.log.links(&tenant, self.last.0, PAGE)?;
            if links.is_empty() {
                return Ok(());
            }
            for link in &links {
                self.link(link)?;
            }
        }
    }

    fn link(&mut self, link: &Link) -> Result<(), TaskLogError> {
        let (n, before) = self.last;
        let what = if link.n != n + 1 {
            Some(format!("link {} is missing", n + 1))
        } else if link.hash != link.chained(before) {
            Some("the link does not follow from the one before it".to_owned())
        } else {
            None
        };
        if let Some(what) = what {
            self.found(Finding {
                link: Some(link.n),
                task: Some(link.task),
                seq: None,
                what,
            });
        }
        self.report.links += 1;
        self.last = (link.n, link.hash);
        self.events_up_to(link)
    }

    /// Follows a task's events up to what a link says of them.
    fn events_up_to(&mut self, link: &Link) -> Result<(), TaskLogError> {
        let mut followed = self.tasks.get(&link.task).copied().unwrap_or_default();
        if followed.broken {
            return Ok(());
        }
        let mut what = None;
        while followed.head.seq < link.head.seq && what.is_none() {
            let left = link.head.seq - followed.head.seq;
            let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
            let events = self.log.events(link.task, followed.head.seq, limit)?;
            if events.is_empty() {
                what = Some((
                    followed.head.seq + 1,
                    "the event that the chain points at is not there",
                ));
                break;
            }
            for event in &events {
                let Ok(head) = followed.head.behind(std::slice::from_ref(event)) else {
                    what = Some((event.seq, "the event is not the one that was written"));
                    break;
                };
                followed.head = head;
                self.report.events += 1;
                self.report.erased += u64::from(event.payload.is_none());
            }
        }
        if what.is_none() && followed.head != link.head {
            what = Some((
                link.head.seq,
                "the events are not those that the chain points at",
            ));
        }
        if let Some((seq, what)) = what {
            followed.broken = true;
            self.found(Finding {
                link: Some(link.n),
                task: Some(link.task),
                seq: Some(seq),
                what: what.to_owned(),
            });
        }
        self.tasks.insert(link.task, followed);
        Ok(())
    }

    /// Looks for what no link points at: tasks, and events behind those that links know.
    fn look_at_rows(&mut self) -> Result<(), TaskLogError> {
        let mut filter = Filter {
            tenant: Some(self.report.tenant.clone()),
            limit: PAGE,
            ..Filter::default()
        };
        // It is a log without a task.
        let register = TaskId::of_register(&self.report.tenant);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let rows = self.log.list(&filter)?;
            let Some(last) = rows.last() else { break };
            filter.before = Some(last.id);
            for row in rows {
                seen.insert(row.id);
                // What was appended since the chain was read has links by now.
                if self.tasks.get(&row.id).map(|it| it.head.seq) != Some(row.head.seq) {
                    self.follow_links()?;
                }
                let known = self.tasks.get(&row.id).copied();
                let beyond = known.is_some_and(|it| !it.broken && it.head.seq < row.head.seq);
                let what = match known {
                    None => "no link of the chain points at the task",
                    Some(_) if beyond => "the task has events that no link points at",
                    Some(it)
                        if !it.broken && it.head.seq == row.head.seq && it.head != row.head =>
                    {
                        "the task's row does not fit its events"
                    }
                    Some(it) if !it.broken && self.has_more(row.id, it.head.seq)? => {
                        "the task has events that no link points at"
                    }
                    Some(_) => continue,
                };
                self.found(Finding {
                    link: None,
                    task: Some(row.id),
                    seq: None,
                    what: what.to_owned(),
                });
            }
        }
        let gone: Vec<TaskId> = self
            .tasks
            .keys()
            .copied()
            .filter(|it| !seen.contains(it) && *it != register)
            .collect();
        for task in gone {
            // It may have begun since the rows were read.
            if self.log.task(task)?.is_none() {
                self.found(Finding {
                    link: None,
                    task: Some(task),
                    seq: None,
                    what: "the task's row is gone".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Whether a task has events behind `seq` that the chain does not know even now.
    fn has_more(&mut self, task: TaskId, seq: u64) -> Result<bool, TaskLogError> {
        if self.log.events(task, seq, 1)?.is_empty() {
            return Ok(false);
        }
        self.follow_links()?;
        let now = self.tasks.get(&task).map_or(seq, |it| it.head.seq);
        Ok(!self.log.events(task, now, 1)?.is_empty() && now == seq)
    }
}
