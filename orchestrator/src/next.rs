//! What a task does next: a pure function of how it stands, of the rules in force and of the time. After a
//! crash the same state asks for the same, so nothing needs to be remembered but the log.

mod compact;
mod effects;
mod ending;
pub mod gate;
mod node;
mod planning;

use serde_json::Value;

use crate::digest::Digest;
use crate::event::{Event, Purpose, Scope};
use crate::money::Usd;
use crate::standing::Standing;
use crate::state::{Asked, EffectPhase, State};
use crate::tool::Offer;

pub use gate as gate_of;

/// The built-in by which a step asks its owner.
pub const ASK_USER: &str = "ask_user";
/// The built-in that reads what was left out of a result.
pub const ARTIFACT_READ: &str = "artifact_read";
/// The built-ins that open skills.
pub const SKILL_LOAD: &str = "skill_load";
pub const SKILL_READ: &str = "skill_read";

/// What holds for a task now, besides its own log.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// When they were put together, in milliseconds since 1970.
    pub now_ms: i64,
    /// The tools that can be offered, without those that only the runtime has.
    pub offer: Offer,
    /// The tenant's standing approvals.
    pub standing: Vec<Standing>,
    pub policy: Policy,
    /// From which idempotency keys are made.
    pub secret: Vec<u8>,
    /// Names and descriptions of the skills that the brief names.
    pub skills: Vec<Skill>,
}

/// A skill as a task may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    pub name: String,
    pub description: String,
    pub trusted: bool,
}

/// What an operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The digest of it all, so that approvals end with it.
    pub version: String,
    /// Patterns of tools that nobody may call.
    pub denied: Vec<String>,
    /// The most autonomy that a brief may ask for.
    pub autonomy: u8,
    /// Texts that must never leave.
    pub canaries: Vec<String>,
    /// Names of `[labels]`, least first, by which a brief's threshold is read.
    pub labels: Vec<String>,
    pub limits: Limits,
}

/// Bounds against tasks that never end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Turns of one step.
    pub turns: usize,
    /// Tools that one turn may call.
    pub uses: usize,
    /// Calls of models without any progress of the task.
    pub stalled_calls: u64,
    /// Refused acts after which it stops.
    pub denials: u32,
    /// Revisions of a plan.
    pub replans: u32,
    /// Attempts at a call that fails for a while.
    pub call_attempts: u32,
    /// Attempts at an act that may be tried again.
    pub effect_attempts: u32,
    /// Bytes of a step's transcript from which it is shortened.
    pub transcript_bytes: usize,
    /// Bytes of a result that models see at once.
    pub result_bytes: usize,
    /// The share of what is left that one call may reserve, in hundredths, while others may follow.
    pub call_share_pct: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns: 40,
            uses: 16,
            stalled_calls: 24,
            denials: 5,
            replans: 3,
            call_attempts: 5,
            effect_attempts: 3,
            transcript_bytes: 96 * 1024,
            result_bytes: 8 * 1024,
            call_share_pct: 50,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: String::new(),
            denied: Vec::new(),
            autonomy: 3,
            canaries: Vec::new(),
            labels: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Ask a model.
    Ask(Ask),
    /// Commit an act, and call its tool.
    Act(Act),
    /// Look whether an act has happened.
    Probe(String),
    /// Look at the artefacts and decide the checks that code can decide.
    Check,
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub call: u64,
    pub purpose: Purpose,
    /// `auto`, `fast`, `deep` or a model's name.
    pub asked: String,
    /// The router's word for it.
    pub step: &'static str,
    /// The most it may cost; `None` where the task has no budget of its own.
    pub reserve: Option<Usd>,
}

/// An act to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub effect: String,
    pub attempt: u32,
    /// The request whose approval it uses.
    pub approval: Option<String>,
    /// The standing approval that it uses.
    pub standing: Option<String>,
}

/// What comes next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Next {
    /// To be appended first; then the state is another, and is asked again.
    pub record: Vec<Event>,
    /// To be begun, where it is not under way.
    pub commands: Vec<Command>,
    /// When to ask again, at the latest.
    pub wake_at_ms: Option<i64>,
}

impl Next {
    fn record(event: Event) -> Self {
        Self {
            record: vec![event],
            ..Self::default()
        }
    }

    fn wake(&mut self, at_ms: i64) {
        let at = self.wake_at_ms.map_or(at_ms, |now| now.min(at_ms));
        self.wake_at_ms = Some(at);
    }
}

/// Decides what `state` does at `now_ms`.
pub fn next(state: &State, rules: &Rules, now_ms: i64) -> Next {
    if state.ended.is_some() {
        return Next::default();
    }
    if let Some(event) = lost_call(state) {
        return Next::record(event);
    }
    if let Some(event) = expired(state, now_ms) {
        return Next::record(event);
    }
    if state.cancel.is_some() {
        return ending::cancelled(state);
    }
    let mut next = if state.paused.is_some() {
        Next::default()
    } else {
        work(state, rules, now_ms)
    };
    for request in state.requests.values().filter(|request| request.open) {
        next.wake(request.expires_at_ms);
    }
    // A paused task is not ended by its deadline; once resumed, it is.
    let deadline = state.brief.deadline_ms(state.created_ms);
    if let Some(deadline) = deadline.filter(|at| *at > now_ms) {
        next.wake(deadline);
    }
    next
}

fn work(state: &State, rules: &Rules, now_ms: i64) -> Next {
    if let Some(what) = ending::out_of(state, rules, now_ms) {
        return ending::wind_up(state, rules, &what, now_ms);
    }
    if let Some(next) = ending::notices(state) {
        return next;
    }
    if !state.is_planned() {
        return planning::plan(state, rules, now_ms);
    }
    let open = |node: &crate::plan::Node| {
        let at = state.nodes.get(&node.id);
        at.is_none_or(|at| !at.phase.is_over() || node::tries_again(node, at))
    };
    if state.plan.nodes.iter().any(open) {
        return node::run(state, rules, now_ms);
    }
    ending::verify(state, rules, now_ms)
}

/// A call that an earlier lease left open. What was reserved counts as spent, since the upstream may have
/// answered; the gateway charges such a call the same way.
fn lost_call(state: &State) -> Option<Event> {
    let mut calls = state.calls.iter();
    let (number, call) = calls.find(|(_, call)| call.end.is_none() && call.epoch < state.epoch)?;
    Some(Event::ModelLost {
        call: *number,
        cost: call.reserved,
    })
}

/// A request that nobody has answered in time.
fn expired(state: &State, now_ms: i64) -> Option<Event> {
    let mut requests = state.requests.iter();
    let (id, request) = requests.find(|(_, it)| it.open && it.expires_at_ms <= now_ms)?;
    Some(match &request.what {
        Asked::Input {
            default: Some(answer),
            ..
        } => Event::InputReceived {
            request: id.clone(),
            answer: answer.clone(),
            by_default: true,
        },
        Asked::Input { .. } => Event::InputReceived {
            request: id.clone(),
            answer: "Nobody answered in time. Go on as well as you can without it.".to_owned(),
            by_default: true,
        },
        Asked::Approval { .. } => Event::ApprovalExpired {
            request: id.clone(),
        },
    })
}

/// The number of the next call.
fn next_call(state: &State) -> u64 {
    state.calls.keys().next_back().map_or(1, |last| last + 1)
}

/// A call to a model, with what it may cost: a share of what is left, so that steps beside it have some,
/// and all of it where nothing else is under way or the share was too little before.
fn ask(
    state: &State,
    rules: &Rules,
    purpose: Purpose,
    kind: &str,
    wants: &str,
    step: &'static str,
) -> Option<Ask> {
    let reserve = match state.left() {
        None => None,
        Some(left) if left <= Usd::ZERO => return None,
        Some(left) => {
            let alone = state.reserved() == Usd::ZERO;
            let tight = too_dear_before(state, purpose.node());
            match (tight, alone) {
                // All that is left was not enough before.
                (true, _) if reserved_before(state, purpose.node()) >= left => return None,
                (true, false) => return None,
                (true, true) => Some(left),
                (false, _) => Some(left.percent(rules.policy.limits.call_share_pct).max(Usd(1))),
            }
        }
    };
    let asked = state.brief.routing.overrides.get(kind);
    let asked = asked.or(state.brief.routing.mode.as_ref());
    Some(Ask {
        call: next_call(state),
        purpose,
        asked: asked.map_or_else(|| wants.to_owned(), Clone::clone),
        step,
        reserve,
    })
}

/// When a call that has just failed may be tried again: each failure in a row doubles the wait, from one
/// second to 32. Steps have what the gateway says instead.
fn pause(state: &State, purpose: &Purpose) -> Option<i64> {
    let mine = state
        .calls
        .values()
        .rev()
        .filter(|call| call.purpose == *purpose);
    let failed = |call: &&crate::state::ModelCall| call.end.as_ref().is_some_and(|end| !end.ok);
    let failures = mine.clone().take_while(failed).count();
    let last = mine.take(1).next().filter(failed)?;
    let end = last.end.as_ref()?;
    let wait = 1_000_i64 << failures.saturating_sub(1).min(5);
    Some(last.at_ms + end.ms + wait)
}

/// What the last call of a step was given.
fn reserved_before(state: &State, node: Option<&str>) -> Usd {
    let mut calls = state.calls.values().rev();
    let last = calls.find(|call| call.purpose.node() == node);
    last.map_or(Usd::ZERO, |call| call.reserved)
}

/// Whether the last call of a step was refused because it could cost more than was reserved.
fn too_dear_before(state: &State, node: Option<&str>) -> bool {
    let mut ends = state.calls.values().rev();
    let last = ends.find(|call| call.purpose.node() == node);
    let end = last.and_then(|call| call.end.as_ref());
    end.is_some_and(|end| end.why.starts_with(TOO_DEAR))
}

/// The class of a call that could cost more than was reserved for it.
pub const TOO_DEAR: &str = "max_cost_exceeded";
/// The class of a call that a budget above the task has no money for.
pub const NO_MONEY: &str = "budget";

/// The digest that an approval is bound to.
pub fn approval_digest(
    state: &State,
    policy: &str,
    tool: &str,
    pin: Digest,
    arguments: &Value,
    destinations: &[String],
) -> Digest {
    let principal = state.brief.on_behalf_of.as_deref();
    let principal = principal.unwrap_or(&state.caller.key);
    Digest::of_value(&serde_json::json!([
        state.caller.tenant,
        principal,
        tool,
        pin,
        arguments,
        destinations,
        state.brief.routing.max_label,
        policy,
    ]))
}

/// Whether a request reaches further than one act.
pub fn reach(scope: Scope) -> &'static str {
    match scope {
        Scope::Once => "once",
        Scope::Task => "task",
    }
}

/// Whether anything of the task is under way outside under the lease in force.
pub fn is_busy(state: &State) -> bool {
    state
        .calls
        .values()
        .any(|call| call.end.is_none() && call.epoch == state.epoch)
        || state
            .effects
            .values()
            .any(|it| it.phase == EffectPhase::Committed)
}
