//! Which call comes when: by lot at a rate, as soon as the last one has ended, as a trace has them, or
//! as turns of conversations.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::agent::Talk;
use super::call::Shape;
use super::chance::Chance;
use super::window::{Plan, Prepared, Target, Workload};
use crate::trace::Arrival;

/// A call to send.
#[derive(Debug)]
pub(super) struct Job {
    /// When, on the clock.
    pub(super) due: u64,
    pub(super) request: Arc<[u8]>,
    /// The conversation whose turn it is.
    talk: Option<usize>,
}

/// The calls of one worker.
pub(super) struct Feed<'a> {
    kind: Kind,
    /// None begins at or after this.
    stop: u64,
    made: &'a Prepared,
    target: &'a Target,
    shape: &'a Shape,
    number: usize,
}

enum Kind {
    Rate {
        at: u64,
        per_second: f64,
        chance: Chance,
    },
    Closed(BinaryHeap<Reverse<u64>>),
    Trace {
        rows: Vec<(u64, Arrival)>,
        next: usize,
    },
    Agent {
        at: u64,
        per_second: f64,
        chance: Chance,
        turns: u32,
        think: f64,
        talks: HashMap<usize, Talk>,
        due: BinaryHeap<Reverse<(u64, usize)>>,
    },
}

/// Which of how many workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    /// Its part of `whole` things.
    fn part(self, whole: usize) -> usize {
        whole / self.of + usize::from(self.index < whole % self.of)
    }

    fn rate(self, per_second: f64) -> f64 {
        per_second / f64::from(u32::try_from(self.of).unwrap_or(1))
    }

    fn chance(self, seed: u64) -> Chance {
        let index = u64::try_from(self.index).unwrap_or(0);
        Chance::new(seed.wrapping_add(index.wrapping_mul(0x5851_f42d_4c95_7f2d)))
    }
}

impl<'a> Feed<'a> {
    /// The share of one worker in the calls of a plan from `start` to `stop`.
    pub(super) fn new(
        plan: &'a Plan,
        target: &'a Target,
        made: &'a Prepared,
        share: Share,
        (start, stop): (u64, u64),
    ) -> Self {
        let mut chance = share.chance(plan.seed);
        let kind = match &plan.workload {
            Workload::Rate { per_second } => {
                let per_second = share.rate(*per_second);
                Kind::Rate {
                    at: start + chance.pause(per_second),
                    per_second,
                    chance,
                }
            }
            Workload::Saturation { connections } => {
                Kind::Closed(vec![Reverse(start); share.part(*connections)].into())
            }
            Workload::Streams { open, ramp } => {
                let ramp = u64::try_from(ramp.as_nanos()).unwrap_or(0);
                let all = u64::try_from(*open).unwrap_or(1).max(1);
                let mine = (share.index..*open).step_by(share.of);
                let due = mine.map(|n| {
                    let place = u64::try_from(n).unwrap_or(0);
                    Reverse(start + ramp / all * place)
                });
                Kind::Closed(due.collect())
            }
            Workload::Trace { arrivals, speed } => Kind::Trace {
                rows: rows(arrivals, *speed, share, start),
                next: 0,
            },
            Workload::Agent {
                per_second,
                turns,
                think,
            } => {
                let per_second = share.rate(*per_second);
                Kind::Agent {
                    at: start + chance.pause(per_second),
                    per_second,
                    chance,
                    turns: *turns,
                    think: think.as_secs_f64(),
                    talks: HashMap::new(),
                    due: BinaryHeap::new(),
                }
            }
        };
        Self {
            kind,
            stop,
            made,
            target,
            shape: &plan.shape,
            number: share.index,
        }
    }

    /// When the next call is due; `None` where none is planned, which ends of calls may change.
    pub(super) fn next(&self) -> Option<u64> {
        let at = match &self.kind {
            Kind::Rate { at, .. } => Some(*at),
            Kind::Closed(due) => due.peek().map(|due| due.0),
            Kind::Trace { rows, next } => rows.get(*next).map(|row| row.0),
            Kind::Agent { at, due, .. } => {
                let turn = due.peek().map_or(u64::MAX, |due| due.0.0);
                Some(turn.min(*at))
            }
        };
        at.filter(|at| *at < self.stop)
    }

    /// The next call, where it is due.
    pub(super) fn take(&mut self, now: u64) -> Option<Job> {
        let due = self.next().filter(|due| *due <= now)?;
        let (mut talk, mut request) = (None, None);
        match &mut self.kind {
            Kind::Rate {
                at,
                per_second,
                chance,
            } => *at += chance.pause(*per_second),
            Kind::Closed(due) => drop(due.pop()),
            Kind::Trace { rows, next } => {
                let row = rows[*next].1;
                *next += 1;
                self.number += 1;
                let shape = Shape {
                    body_bytes: usize::try_from(row.context_tokens * 4).unwrap_or(4_096),
                    max_tokens: row.generated_tokens,
                    ..self.shape.clone()
                };
                request = Some(self.target.request(&shape, &self.made.prompts, self.number));
            }
            Kind::Agent {
                at,
                per_second,
                chance,
                talks,
                due: turns,
                ..
            } => {
                let number = match turns.peek() {
                    Some(turn) if turn.0.0 == due => turns.pop().map_or(0, |turn| turn.0.1),
                    _ => {
                        *at += chance.pause(*per_second);
                        self.number += 1;
                        let begun = Talk::new(&self.made.prompts, self.number, self.shape);
                        talks.insert(self.number, begun);
                        self.number
                    }
                };
                let conversation = talks.get_mut(&number)?;
                let (dialect, model) = (self.target.dialect, &self.target.model);
                let body = conversation.next(&self.made.prompts, self.shape, dialect, model);
                request = Some(self.target.with_head(&body));
                talk = Some(number);
            }
        }
        let request = request.unwrap_or_else(|| {
            self.number += 1;
            let all = &self.made.requests;
            Arc::clone(&all[self.number % all.len()])
        });
        Some(Job { due, request, talk })
    }

    /// A call is over: the next of its loop or its conversation is due.
    pub(super) fn ended(&mut self, job: &Job, good: bool, now: u64) {
        match &mut self.kind {
            // One that fails at once would be a loop of failures: it pauses for a hundredth of a second.
            Kind::Closed(due) => due.push(Reverse(if good { now } else { now + 10_000_000 })),
            Kind::Agent {
                chance,
                turns,
                think,
                talks,
                due,
                ..
            } => {
                let Some(number) = job.talk else { return };
                let more = talks.get(&number).is_some_and(|it| it.turns() < *turns);
                if good && more {
                    let pause = if *think > 0.0 {
                        chance.pause(1.0 / *think)
                    } else {
                        0
                    };
                    due.push(Reverse((now + pause, number)));
                } else {
                    talks.remove(&number);
                }
            }
            Kind::Rate { .. } | Kind::Trace { .. } => {}
        }
    }
}

/// A worker's rows of a trace with the times at which they are due.
fn rows(arrivals: &[Arrival], speed: f64, share: Share, start: u64) -> Vec<(u64, Arrival)> {
    let due = |arrival: &Arrival| {
        let after = arrival.at.div_f64(speed.max(1e-9));
        start + u64::try_from(after.as_nanos()).unwrap_or(u64::MAX / 2)
    };
    let mine = arrivals.iter().skip(share.index).step_by(share.of);
    mine.map(|arrival| (due(arrival), *arrival)).collect()
}
