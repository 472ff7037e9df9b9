//! One life: a task from its brief to its end, through deaths, freezes and a person's decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt;
use orchestrator::actor::{Lease, Stopped, append, read_from, run};
use orchestrator::brief::Brief;
use orchestrator::commit::commit;
use orchestrator::event::{Caller, Event, Gate, Scope, Settle};
use orchestrator::log::{Kind, NewTask, RowChange, TaskLog};
use orchestrator::state::{Asked, EffectPhase, State};
use orchestrator::tool::{Class, Verb};
use orchestrator::{TaskId, Usd};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::world::{Death, World};

/// Longer than any life should be.
const MOST_STEPS: usize = 4_000;
const LEASE_MS: i64 = 30_000;

/// What happened in one life, or in many.
#[derive(Debug, Default, Clone)]
pub struct Told {
    pub crashes: u64,
    pub frozen: u64,
    pub acts: u64,
    pub doubts: u64,
    pub events: u64,
    pub completed: u64,
    pub incomplete: u64,
    pub cancelled: u64,
    pub failed: u64,
}

impl Told {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.frozen += other.frozen;
        self.acts += other.acts;
        self.doubts += other.doubts;
        self.events += other.events;
        self.completed += other.completed;
        self.incomplete += other.incomplete;
        self.cancelled += other.cancelled;
        self.failed += other.failed;
    }
}

/// Lives through `seed`; panics where something does not hold.
pub fn live(seed: u64) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = World::new(seed);
    let told = runtime.block_on(Life::begin(&world).live());
    let violations = world.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:?}");
    told
}

type Running = Pin<Box<dyn Future<Output = Stopped>>>;

struct Life<'a> {
    world: &'a Arc<World>,
    task: TaskId,
    told: Told,
    /// Frozen actors, with the leases they believe in.
    frozen: Vec<Running>,
    /// Acts that a person said should be done again, by their key.
    again: BTreeMap<String, u32>,
    cancelled_at: Option<usize>,
}

impl<'a> Life<'a> {
    fn begin(world: &'a Arc<World>) -> Self {
        let autonomy = 1 + world.draw(|it| it.below(3));
        let mut brief = json!({
            "objective": "Write the note to to-1, and send it.",
            "definition_of_done": [{"id": "done", "check": "artifact_exists", "name": "note.md"}],
            "allowed_tools": ["w__*"], "autonomy": autonomy,
            "approval": {"expires_in": "PT1H", "thresholds": {"recipients": 1}},
        });
        if world.draw(|it| it.one_in(2)) {
            let judge = json!({"id": "good", "check": "judge", "criterion": "it is good"});
            brief["definition_of_done"]
                .as_array_mut()
                .unwrap()
                .push(judge);
        }
        if let Some(limit) = world.limit {
            brief["budget"] = json!({"cost_usd": Usd(limit).to_string(),
                "on_exhausted": if world.draw(|it| it.one_in(3)) { "ask" } else { "incomplete" }});
        }
        if world.draw(|it| it.one_in(5)) {
            brief["budget"]["wall"] = json!("PT20M");
        }
        let brief: Brief = serde_json::from_value(brief).unwrap();
        brief.check().unwrap();
        let now_ms = world.now_ms.load(Ordering::SeqCst);
        let task = TaskId::new(now_ms, [7; 10]);
        let caller = Caller {
            tenant: "acme".into(),
            key: "k1".into(),
            ..Caller::default()
        };
        let created = Event::Created {
            task,
            brief: Box::new(brief),
            caller,
            schedule: None,
            policy: String::new(),
            skills: BTreeMap::new(),
        };
        let event = created.record(Default::default(), now_ms, 0, "key:k1");
        let row = RowChange {
            status: "queued".into(),
            ended: false,
            wake_at_ms: Some(now_ms),
            summary: "{}".into(),
        };
        let new = NewTask {
            id: task,
            tenant: "acme".into(),
            idempotency: None,
            created_at_ms: now_ms,
            events: vec![event],
            row,
        };
        world.log.create(&new, &[]).unwrap();
        Self {
            world,
            task,
            told: Told::default(),
            frozen: Vec::new(),
            again: BTreeMap::new(),
            cancelled_at: None,
        }
    }

    async fn live(mut self) -> Told {
        for _ in 0..MOST_STEPS {
            let state = self.check();
            if state.ended.is_some() {
                return self.end(&state);
            }
            self.meddle(&state);
            let Some(claim) = self.world.log.claim("one", LEASE_MS, 1).unwrap().pop() else {
                self.pass();
                continue;
            };
            self.work(claim.epoch).await;
        }
        panic!("it never ends: {:?}", self.check().status());
    }

    /// Lets the time pass to when something can happen.
    fn pass(&self) {
        let now = self.world.now_ms.load(Ordering::SeqCst);
        let next = self.world.log.next_ms();
        self.world
            .advance(next.map_or(60_000, |at| (at - now).max(1)));
    }

    /// One lease: until the actor gives the task back, dies, or freezes.
    async fn work(&mut self, epoch: u64) {
        let world = self.world;
        let calm = world.draw(|it| it.one_in(4));
        let fuse = if calm {
            i64::MAX
        } else {
            1 + i64::try_from(world.draw(|it| it.below(14))).unwrap()
        };
        let death = match world.draw(|it| it.below(5)) {
            0 | 1 => Death::Before,
            2 | 3 => Death::After,
            _ => Death::Freeze,
        };
        *world.death.lock().unwrap() = death;
        world.fuse.store(fuse, Ordering::SeqCst);
        world.dead.store(false, Ordering::SeqCst);
        let until = world.now_ms.load(Ordering::SeqCst) + LEASE_MS;
        let lease = Lease {
            epoch,
            until_ms: Arc::new(AtomicI64::new(until)),
            news: Arc::new(Notify::new()),
            stop: CancellationToken::new(),
        };
        let lease_ends = Arc::clone(&lease.until_ms);
        let mut running: Running = Box::pin(run(world.ports(), "one".into(), self.task, lease));
        loop {
            let started = tokio::time::Instant::now();
            let step = tokio::time::sleep(std::time::Duration::from_millis(200));
            tokio::select! {
                biased;
                () = world.died.notified() => {
                    self.world.fuse.store(i64::MAX, Ordering::SeqCst);
                    if death == Death::Freeze {
                        self.freeze(running).await;
                    } else {
                        self.told.crashes += 1;
                        // The process is gone; its lease runs out.
                        drop(running);
                        world.dead.store(false, Ordering::SeqCst);
                        world.advance(LEASE_MS);
                    }
                    return;
                }
                stopped = &mut running => {
                    if world.dead.swap(false, Ordering::SeqCst) {
                        // It fell in the very moment in which the program died.
                        self.told.crashes += 1;
                        let _heard = world.died.notified().now_or_never();
                        world.advance(LEASE_MS);
                        return;
                    }
                    assert!(!matches!(stopped, Stopped::Broken(_)), "an actor broke: {stopped:?}");
                    assert_ne!(stopped, Stopped::Fenced, "nobody else was there");
                    return;
                }
                () = step => {
                    // The worker's heartbeat.
                    let took = i64::try_from(started.elapsed().as_millis()).unwrap();
                    world.advance(took.max(1));
                    if world.log.renew("one", &[(self.task, epoch)], LEASE_MS).unwrap()[0].until_ms.is_some() {
                        lease_ends.store(world.now_ms.load(Ordering::SeqCst) + LEASE_MS, Ordering::SeqCst);
                    }
                    if world.draw(|it| it.one_in(6)) {
                        let state = self.check();
                        if state.ended.is_none() {
                            self.meddle(&state);
                        }
                    }
                }
            }
        }
    }

    /// The actor stands still past its lease; another takes over, and then the first goes on.
    async fn freeze(&mut self, running: Running) {
        self.told.frozen += 1;
        self.frozen.push(running);
        self.world.advance(LEASE_MS + 1);
        if let Some(claim) = self.world.log.claim("two", LEASE_MS, 1).unwrap().pop() {
            let until = self.world.now_ms.load(Ordering::SeqCst) + LEASE_MS;
            let lease = Lease {
                epoch: claim.epoch,
                until_ms: Arc::new(AtomicI64::new(until)),
                news: Arc::new(Notify::new()),
                stop: CancellationToken::new(),
            };
            let mut second: Running = Box::pin(run(
                self.world.ports(),
                "two".into(),
                self.task,
                lease.clone(),
            ));
            // Both live for a while, the frozen one woken.
            for _ in 0..50 {
                self.world.thawed.notify_waiters();
                self.frozen
                    .retain_mut(|frozen| frozen.as_mut().now_or_never().is_none());
                tokio::select! {
                    biased;
                    stopped = &mut second => {
                        assert!(!matches!(stopped, Stopped::Broken(_)), "an actor broke: {stopped:?}");
                        break;
                    }
                    () = tokio::time::sleep(std::time::Duration::from_millis(20)) => self.world.advance(20),
                }
            }
        }
        self.frozen.clear();
        self.world.advance(LEASE_MS);
    }

    /// A person does something, or not.
    fn meddle(&mut self, state: &State) {
        let open = state.requests.iter().find(|(_, it)| it.open);
        if let Some((id, request)) = open
            && self.world.draw(|it| it.one_in(2))
        {
            let id = id.clone();
            let event = match request.what.clone() {
                Asked::Input { .. } => Event::InputReceived {
                    request: id,
                    answer: "to-2 it is".into(),
                    by_default: false,
                },
                Asked::Approval { asking, items, .. } => self.decide(state, id, asking, &items),
            };
            self.outside(state, &event);
            return;
        }
        match self.world.draw(|it| it.below(160)) {
            0 => {
                self.outside(
                    state,
                    &Event::CancelRequested {
                        why: "enough".into(),
                    },
                );
            }
            1 if state.paused.is_none() => {
                self.outside(state, &Event::Paused { why: "wait".into() })
            }
            2..=60 if state.paused.is_some() => self.outside(state, &Event::Resumed),
            61 | 62 => self.outside(
                state,
                &Event::Steered {
                    text: "Be quick.".into(),
                },
            ),
            _ => {}
        }
    }

    fn decide(
        &mut self,
        state: &State,
        request: String,
        asking: orchestrator::event::Asking,
        items: &[orchestrator::event::Item],
    ) -> Event {
        use orchestrator::event::Asking;
        let approve = self.world.draw(|it| !it.one_in(4));
        let mut settle = None;
        if asking == Asking::Unknown {
            let effect = &state.effects[items[0].effect.as_ref().unwrap()];
            let happened = self
                .world
                .done
                .lock()
                .unwrap()
                .iter()
                .any(|deed| deed.key == effect.key);
            // This person looks before they speak.
            settle = Some(if happened {
                Settle::Happened
            } else {
                [Settle::Again, Settle::GiveUp]
                    [usize::try_from(self.world.draw(|it| it.below(2))).unwrap()]
            });
            if settle == Some(Settle::Again) {
                *self.again.entry(effect.key.clone()).or_default() += 1;
            }
        }
        Event::ApprovalDecided {
            request,
            by: "user:ana".into(),
            approve,
            settle,
            reason: String::new(),
            standing: None,
            scope: if self.world.draw(|it| it.one_in(3)) {
                Scope::Task
            } else {
                Scope::Once
            },
            more: (asking == Asking::Budget).then_some(Usd(5_000_000)),
        }
    }

    fn outside(&mut self, state: &State, event: &Event) {
        let now_ms = self.world.now_ms.load(Ordering::SeqCst);
        let made = commit(
            state,
            std::slice::from_ref(event),
            "user:ana",
            now_ms,
            Some(now_ms),
        )
        .unwrap();
        if append(&self.world.log, self.task, state.head, None, &made).is_ok()
            && matches!(event, Event::CancelRequested { .. })
        {
            self.cancelled_at
                .get_or_insert(self.world.done.lock().unwrap().len());
        }
    }

    /// What must hold at every moment.
    fn check(&self) -> State {
        let events = read_from(&self.world.log, self.task, 0).unwrap();
        let mut state = State::fold(&events[..1]).unwrap();
        for event in &events[1..] {
            state.take(event).unwrap();
            if let Some(limit) = state.limit() {
                let used = state.spent + state.reserved();
                assert!(used <= limit, "{used} of {limit} at event {}", event.seq);
            }
        }
        let records = self
            .world
            .log
            .records(Kind::Request, Some("acme"), "", 100)
            .unwrap();
        let open: BTreeSet<String> = state
            .requests
            .iter()
            .filter(|(_, it)| it.open)
            .map(|(id, _)| orchestrator::commit::request_key(&state, id))
            .collect();
        let kept: BTreeSet<String> = records.into_iter().map(|record| record.id).collect();
        assert_eq!(open, kept, "a task waits exactly where a request stands");
        self.check_deeds(&state);
        state
    }

    fn check_deeds(&self, state: &State) {
        let done = self.world.done.lock().unwrap();
        let by_key: BTreeMap<&String, &orchestrator::state::Effect> = state
            .effects
            .values()
            .map(|effect| (&effect.key, effect))
            .collect();
        let mut times: BTreeMap<&String, u32> = BTreeMap::new();
        for deed in done.iter().filter(|deed| deed.new) {
            *times.entry(&deed.key).or_default() += 1;
            let effect = by_key
                .get(&deed.key)
                .unwrap_or_else(|| panic!("{deed:?} is in no log"));
            assert!(effect.attempts > 0, "{deed:?} was never committed");
            if effect.verb == Verb::Execute {
                self.check_leave(state, effect);
            }
        }
        for (key, times) in times {
            let effect = by_key[key];
            let most = match effect.class {
                Class::Read | Class::Workspace => u32::MAX,
                Class::Keyed | Class::Probeable | Class::Unkeyed => {
                    1 + self.again.get(key).copied().unwrap_or(0)
                }
            };
            assert!(
                times <= most,
                "{} was done {times} times: {effect:?}",
                effect.tool
            );
        }
        let did =
            |effect: &orchestrator::state::Effect| done.iter().any(|deed| deed.key == effect.key);
        for effect in state.effects.values() {
            let looks = matches!(effect.tool.as_str(), "w__find" | "w__look" | "ask_user");
            if effect.phase == EffectPhase::Succeeded && !looks {
                assert!(
                    did(effect),
                    "the log says it was done, and nobody did it: {effect:?}"
                );
            }
            if effect.phase == EffectPhase::Denied {
                assert!(
                    !did(effect) || effect.attempts > 0,
                    "it was denied and done: {effect:?}"
                );
            }
        }
    }

    /// An act on the world was allowed by a rule or by a person.
    fn check_leave(&self, state: &State, effect: &orchestrator::state::Effect) {
        let ok = match &effect.gate {
            Gate::Denied { .. } => false,
            Gate::Allowed { .. } => state.brief.autonomy >= 2,
            Gate::Ask { .. } => effect.request.as_ref().is_some_and(|id| {
                state.requests[id].end.starts_with("approved")
                    || state.requests[id].end.starts_with("denied by")
                        && matches!(
                            state.requests[id].what,
                            Asked::Approval {
                                asking: orchestrator::event::Asking::Unknown,
                                ..
                            }
                        )
                    || !state.requests[id].open && id.starts_with("req-unknown")
                    || id.starts_with("req-unknown")
            }),
        };
        assert!(
            ok,
            "it was done without leave: {effect:?} {:?}",
            effect.request.as_ref().map(|id| &state.requests[id])
        );
    }

    /// What must hold in the end.
    fn end(mut self, state: &State) -> Told {
        if std::env::var_os("PARETO_SEED").is_some() {
            for event in read_from(&self.world.log, self.task, 0).unwrap() {
                println!(
                    "{} {} {}",
                    event.seq,
                    event.kind,
                    event.payload.unwrap_or_default()
                );
            }
        }
        let row = self.world.log.task(self.task).unwrap().unwrap();
        assert!(row.ended && row.head == state.head);
        assert_eq!(row.status, state.status().as_str());
        assert!(
            self.world.log.claim("x", LEASE_MS, 1).unwrap().is_empty(),
            "an ended task wants nothing"
        );
        let bill = self.world.bill.lock().unwrap();
        let mut charged = 0;
        for call in state.calls.values() {
            let end = call.end.as_ref();
            let billed = bill.get(&call.request).copied().unwrap_or(0);
            charged += billed;
            match end {
                Some(end) if end.ok => assert_eq!(end.cost.0, billed, "{call:?}"),
                Some(end) if end.lost && state.limit().is_some() => {
                    assert!(end.cost.0 >= billed, "{call:?}")
                }
                _ => {}
            }
        }
        assert_eq!(
            charged,
            bill.values().sum::<i64>(),
            "every call that was billed is in the log"
        );
        if let Some(at) = self.cancelled_at {
            let late = self.world.done.lock().unwrap().len() - at;
            assert!(late <= 4, "{late} deeds after the cancellation");
        }
        self.told.events = state.head.seq;
        self.told.acts = self
            .world
            .done
            .lock()
            .unwrap()
            .iter()
            .filter(|deed| deed.new)
            .count() as u64;
        self.told.doubts = state.effects.values().filter(|it| it.attempts > 1).count() as u64;
        match state.status().as_str() {
            "completed" => self.told.completed += 1,
            "incomplete" => self.told.incomplete += 1,
            "cancelled" => self.told.cancelled += 1,
            _ => {
                self.told.failed += 1;
                panic!("it ended {:?}", state.ended);
            }
        }
        self.told
    }
}
