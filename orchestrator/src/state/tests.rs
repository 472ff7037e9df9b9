//! What becomes of an act whose attempts end one way and another.

use std::collections::BTreeMap;

use serde_json::json;

use super::{EffectPhase, State};
use crate::event::{Caller, Event, Gate, Purpose, ToolUse};
use crate::id::TaskId;
use crate::log::Head;
use crate::plan::Plan;
use crate::tool::{Class, Verb};
use crate::{Digest, Usd};

const ACT: &str = "eff-1";

fn follow(state: &mut State, events: &[Event]) {
    for event in events {
        state.follow(event, 0, "task").expect("it follows");
    }
}

fn intent() -> Event {
    Event::EffectIntent {
        effect: ACT.to_owned(),
        node: "n1".to_owned(),
        use_id: "call-1".to_owned(),
        tool: "rec__put".to_owned(),
        pin: Digest::default(),
        arguments: json!({}),
        class: Class::Keyed,
        verb: Verb::Execute,
        destinations: Vec::new(),
        tainted: false,
        digest: Digest::default(),
        key: "key-1".to_owned(),
        cost: Usd::ZERO,
        gate: Gate::Allowed {
            by: "autonomy".to_owned(),
        },
    }
}

/// A task in which a model wants one act that has a key.
fn wanted() -> State {
    let brief = json!({ "objective": "Put it there.", "mode": "explore" });
    let created = Event::Created {
        task: TaskId::new(0, [0; 10]),
        brief: Box::new(serde_json::from_value(brief).expect("a brief")),
        caller: Caller::default(),
        schedule: None,
        policy: String::new(),
        skills: BTreeMap::new(),
    };
    let first = created.record(Head::default(), 0, 0, "task");
    let mut state = State::fold(&[first]).expect("a task");
    let (plan, node) = (Plan::single(&state.brief), "n1".to_owned());
    let asked = Event::ModelRequested {
        call: 1,
        purpose: Purpose::Node { node: node.clone() },
        asked: "auto".to_owned(),
        request: String::new(),
        reserved: Usd::ZERO,
        prompt: Digest::default(),
    };
    let answered = Event::ModelCompleted {
        call: 1,
        text: String::new(),
        uses: vec![ToolUse {
            id: "call-1".to_owned(),
            name: "rec__put".to_owned(),
            arguments: "{}".to_owned(),
        }],
        cut: false,
        model: String::new(),
        tier: String::new(),
        route: String::new(),
        cost: Usd::ZERO,
        input_tokens: 0,
        output_tokens: 0,
    };
    let planned = Event::PlanProposed {
        plan,
        by: "code".to_owned(),
    };
    let started = Event::NodeStarted { node, attempt: 1 };
    follow(&mut state, &[planned, started, asked, answered, intent()]);
    state
}

fn committed(attempt: u32) -> Event {
    Event::EffectCommitted {
        effect: ACT.to_owned(),
        attempt,
        approval: None,
    }
}

fn not_sent() -> Event {
    Event::EffectNotSent {
        effect: ACT.to_owned(),
        why: "no place".to_owned(),
    }
}

fn taken() -> Event {
    Event::Taken {
        node: "two".to_owned(),
    }
}

fn phase_after(events: &[Event]) -> EffectPhase {
    let mut state = wanted();
    follow(&mut state, events);
    state.effects[ACT].phase
}

#[test]
fn an_act_that_may_have_happened_stays_in_doubt_when_its_repetition_is_not_sent() {
    let never = [committed(1), not_sent()];
    assert_eq!(phase_after(&never), EffectPhase::Cleared);
    let lost = Event::EffectLost {
        effect: ACT.to_owned(),
        why: "no answer".to_owned(),
    };
    for doubt in [taken(), lost] {
        let repeated = [committed(1), doubt.clone(), committed(2), not_sent()];
        assert_eq!(phase_after(&repeated), EffectPhase::InDoubt);
        let looked = Event::EffectReconciled {
            effect: ACT.to_owned(),
            happened: false,
            how: "it was looked for".to_owned(),
            result: None,
        };
        let settled = [committed(1), doubt, looked, committed(2), not_sent()];
        assert_eq!(phase_after(&settled), EffectPhase::Cleared);
    }
}
