//! Proves that the page of the largest task there is, forty steps and five hundred acts with long texts in
//! everything, stays small. The task is folded from a log, as every task is.

use std::collections::BTreeMap;

use dashboards::{Asked, tasks};
use orchestrator::brief::Brief;
use orchestrator::event::{Event, Gate, Item, Purpose, Stored, ToolUse};
use orchestrator::state::State;
use orchestrator::tool::{Class, Verb};
use orchestrator::{Caller, Digest, TaskId, Usd, view};
use serde_json::{Value, json};

/// 21 November 2026, 14:00 in UTC.
pub const NOW_MS: i64 = 1_795_269_600_000;
const STEPS: usize = 40;
const EFFECTS: usize = 500;
const LONG: &str =
    "A long text with <tags> & \"quotes\" of some supplier's quality manual, volume two, ";

/// A task with forty steps, five hundred acts and a request, as the API shows it.
pub struct Large {
    state: State,
    events: Vec<Value>,
}

impl Large {
    pub fn new() -> Self {
        let task = TaskId::new(NOW_MS - 3_600_000, [7; 10]);
        let brief: Brief = serde_json::from_value(json!({
            "objective": LONG.repeat(20),
            "definition_of_done": [{ "id": "d1", "check": "judge", "criterion": LONG.repeat(4) }],
            "budget": { "cost_usd": "50.00" },
        }))
        .unwrap();
        let created = Event::Created {
            task,
            brief: Box::new(brief),
            caller: Caller {
                tenant: "acme".into(),
                key: "k1".into(),
                ..Caller::default()
            },
            schedule: None,
            policy: "p1".into(),
            skills: BTreeMap::new(),
        };
        let first = created.record(Default::default(), NOW_MS - 3_600_000, 0, "key:k1");
        let mut large = Self {
            state: State::fold(&[first]).unwrap(),
            events: Vec::new(),
        };
        large.run();
        large
    }

    fn say(&mut self, event: &Event) {
        let at_ms = self.state.updated_ms + 900;
        let recorded = self.state.follow(event, at_ms, "task").unwrap();
        let data = serde_json::from_str::<Value>(recorded.payload.as_deref().unwrap()).unwrap();
        self.events.push(json!({
            "seq": recorded.seq, "at_ms": at_ms, "type": recorded.kind, "actor": "task", "data": data,
        }));
    }

    fn run(&mut self) {
        self.say(&Event::Taken { node: "one".into() });
        let nodes: Vec<Value> = (0..STEPS)
            .map(|n| {
                let before: Vec<String> = (n.saturating_sub(5)..n / 4 * 4).map(|it| format!("step-{it}")).collect();
                json!({ "id": format!("step-{n}"), "kind": "analyse", "title": LONG.repeat(2), "depends_on": before })
            })
            .collect();
        let plan = serde_json::from_value(json!({ "nodes": nodes })).unwrap();
        self.say(&Event::PlanProposed {
            plan,
            by: "deep-model".into(),
        });
        let mut call = 0;
        for step in 0..STEPS {
            let node = format!("step-{step}");
            self.say(&Event::NodeStarted {
                node: node.clone(),
                attempt: 1,
            });
            let mine = EFFECTS * (step + 1) / STEPS - EFFECTS * step / STEPS;
            for effect in 0..mine {
                call += 1;
                self.call(call, &node);
                self.act(
                    &format!("eff-{call:016x}"),
                    &node,
                    effect == 0 && step == STEPS - 1,
                );
            }
        }
    }

    fn call(&mut self, call: u64, node: &str) {
        self.say(&Event::ModelRequested {
            call,
            purpose: Purpose::Node {
                node: node.to_owned(),
            },
            asked: "auto".into(),
            request: format!("req_{call:032x}"),
            reserved: Usd(9_000_000),
            prompt: Digest::of(b"prompt"),
        });
        self.say(&Event::ModelCompleted {
            call,
            text: LONG.repeat(10),
            uses: vec![ToolUse {
                id: "u1".into(),
                name: "supplier_portal__update_record".into(),
                arguments: "{}".into(),
            }],
            cut: false,
            model: "claude-opus-4-5-20251101".into(),
            tier: if call % 5 == 0 { "deep" } else { "fast" }.into(),
            route: "score, above the threshold, after an escalation".into(),
            cost: Usd(1_234_567),
            input_tokens: 12_345,
            output_tokens: 678,
        });
    }

    fn act(&mut self, effect: &str, node: &str, waits: bool) {
        let digest = Digest::of(effect.as_bytes());
        let arguments = json!({ "path": "review.md", "content": LONG.repeat(40) });
        let gate = if waits {
            Gate::Ask {
                why: LONG.repeat(2),
            }
        } else {
            Gate::Allowed { by: LONG.repeat(2) }
        };
        self.say(&Event::EffectIntent {
            effect: effect.to_owned(),
            node: node.to_owned(),
            use_id: "u1".into(),
            tool: "supplier_portal__update_record".into(),
            pin: Digest::of(b"pin"),
            arguments: arguments.clone(),
            class: Class::Keyed,
            verb: Verb::Execute,
            destinations: vec!["https://portal.supplier.example/records/0123456789".into(); 3],
            tainted: true,
            digest,
            key: digest.to_string(),
            cost: Usd(1_000_000),
            gate,
        });
        if waits {
            self.say(&Event::ApprovalRequested {
                request: "req-1".into(),
                asking: orchestrator::event::Asking::Acts,
                items: vec![Item {
                    digest,
                    effect: Some(effect.to_owned()),
                    tool: "supplier_portal__update_record".into(),
                    arguments,
                    preview: LONG.repeat(3),
                }],
                why: LONG.to_owned(),
                expires_at_ms: NOW_MS + 3_600_000,
            });
            return;
        }
        self.say(&Event::EffectCommitted {
            effect: effect.to_owned(),
            attempt: 1,
            approval: None,
        });
        self.say(&Event::EffectSucceeded {
            effect: effect.to_owned(),
            result: Stored {
                shown: LONG.repeat(40),
                is_error: false,
                whole: None,
                bytes: 3_000,
            },
        });
    }

    /// What the API says at `path`.
    pub fn api(&self, path: &str) -> Result<Value, tasks::Refused> {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let last = self.events.len().saturating_sub(200);
        Ok(match path.rsplit_once('/').unwrap().1 {
            "effects" => view::effects(&self.state),
            "explain" => view::explain(&self.state),
            "events" => json!({ "data": self.events[last..] }),
            _ => view::task(&self.state),
        })
    }

    pub fn path(&self) -> String {
        format!("/tasks/{}", self.state.id)
    }

    /// The page at the task's address with this query.
    pub fn page(&self, query: &str) -> String {
        let asked = Asked {
            path: &self.path(),
            query,
            now_ms: NOW_MS,
            is_operator: true,
        };
        match tasks::answer(asked, &|path| self.api(path)).unwrap() {
            Some(tasks::Told::Answer(answer)) => answer.body,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_page_of_the_largest_task_is_small() {
    let large = Large::new();
    let whole = large.page("");
    for (query, wanted) in [
        ("", "rect class=\"step"),
        ("part=now", "Page 17 of 17"),
        ("acts=1&calls=1", "Page 1 of 17"),
        (
            "acts=10&calls=3&step=step-7&effect=eff-0000000000000003",
            "id=\"effect\"",
        ),
        ("part=asks", "What changes of the text"),
    ] {
        let began = std::time::Instant::now();
        let page = large.page(query);
        println!("{} bytes at {query:?} in {:?}", page.len(), began.elapsed());
        assert!(page.len() < 200_000, "{} bytes at {query:?}", page.len());
        assert!(page.contains(wanted), "{query}: no {wanted}");
    }
    assert_eq!(whole.matches("rect class=\"step").count(), STEPS);
    assert!(!whole.contains("<tags>"));
    let csv = large.page("format=csv&table=steps");
    assert_eq!(csv.lines().count(), STEPS + 1);
}
