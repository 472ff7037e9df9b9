//! What routing is worth: the ledger's own sums, and estimates that the control group and people's
//! verdicts allow.

use std::collections::HashMap;
use std::sync::Arc;

use meter::finance::{Filter, Finance, RoutedSum};
use meter::routing::{Appraiser, Interval};
use meter::{Entry, Feedback, Ledger, LedgerError, Routing, Verdicts, Worth};
use router::Reason;
use router::estimate::{self, Estimate, Policy, Sample};
use wire::Tier;

use crate::learning;

/// Calls of the control group that are looked at, the newest first.
const MOST_DRAWN: u32 = 20_000;
/// Strata of the scores, for the model of quality.
const TENTHS: u32 = 10;

/// An appraiser over a ledger.
#[derive(Debug)]
pub(crate) struct Appraisal {
    pub(crate) finance: Arc<dyn Finance>,
    pub(crate) verdicts: Arc<dyn Verdicts>,
    pub(crate) ledger: Arc<dyn Ledger>,
}

impl Appraiser for Appraisal {
    fn worth(&self, filter: &Filter) -> Result<Worth, LedgerError> {
        let routes = self.finance.routes(filter)?;
        let drawn = self.finance.drawn(filter, MOST_DRAWN)?;
        let tenant = filter.tenant.as_deref();
        let verdicts = self
            .verdicts
            .between(filter.from_ms, filter.until_ms, tenant)?;
        let mut chosen = RoutedSum::default();
        let by_score = [
            Reason::Score,
            Reason::Split,
            Reason::Control,
            Reason::Cascade,
            Reason::Escalated,
        ];
        for row in &routes {
            if by_score.iter().any(|it| it.as_str() == row.reason) {
                chosen.add(row);
            }
        }
        let (deep, scored) = (chosen.deep, chosen.calls);
        let judged = judged(&verdicts);
        let of = |policy| quality(estimate::value(&judged, policy));
        let lot = Policy::Lot(ratio(deep, scored));
        let against = |policy, other| millionths(estimate::contrast(&judged, policy, other));
        let costs = costs(&drawn);
        let saved = estimate::contrast(&costs, Policy::Deep, Policy::Chosen);
        let state = self.ledger.state()?;
        let learned = state.iter().find(|(name, _)| name == learning::SAVED);
        let learning = learned.map(|(_, text)| learning::standing(text));
        Ok(Worth {
            learning: learning.unwrap_or_default(),
            routed: of(Policy::Served),
            fast: of(Policy::Fast),
            deep: of(Policy::Deep),
            lot: of(lot),
            over_lot: against(Policy::Served, lot),
            under_deep: against(Policy::Deep, Policy::Served),
            saved_per_call: interval(saved, 1.0),
            scored,
            drawn: u32::try_from(drawn.len()).unwrap_or(u32::MAX),
            verdicts: u32::try_from(verdicts.len()).unwrap_or(u32::MAX),
            routes,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of calls")]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an estimate, rounded to whole units"
)]
fn interval(estimate: Estimate, scale: f64) -> Interval {
    let whole = |value: f64| (value * scale).round() as i64;
    Interval {
        value: whole(estimate.value),
        low: whole(estimate.low),
        high: whole(estimate.high),
        calls: u32::try_from(estimate.calls).unwrap_or(u32::MAX),
        is_telling: estimate.is_telling(),
    }
}

fn millionths(estimate: Estimate) -> Interval {
    interval(estimate, 1e6)
}

/// A share of what can be: no quality is below 0 or above 1, whatever the arithmetic says.
fn quality(estimate: Estimate) -> Interval {
    let within = |value: f64| value.clamp(0.0, 1.0);
    millionths(Estimate {
        value: within(estimate.value),
        low: within(estimate.low),
        high: within(estimate.high),
        ..estimate
    })
}

/// Whether the router, left alone, would have sent a call deep.
fn chosen_deep(routing: &Routing) -> Option<bool> {
    Some(routing.score_ppm? > routing.threshold_ppm?)
}

/// Verdicts as samples: of several on one call the mean counts once. Calls whose tier was no choice of
/// the router's tell nothing of its choices.
fn judged(verdicts: &[Feedback]) -> Vec<Sample> {
    let mut calls: HashMap<wire::RequestId, (u32, f64, &Feedback)> = HashMap::new();
    for feedback in verdicts.iter().filter(|it| it.tells_of_the_choice()) {
        let call = calls.entry(feedback.request).or_insert((0, 0.0, feedback));
        call.0 += 1;
        call.1 += f64::from(feedback.good_ppm) / 1e6;
    }
    let mut samples: Vec<(wire::RequestId, Sample)> = calls
        .into_iter()
        .filter_map(|(request, (count, sum, feedback))| {
            let routing = &feedback.routing;
            let sample = Sample {
                deep: feedback.first_tier == Tier::Deep,
                chosen_deep: chosen_deep(routing)?,
                propensity: f64::from(routing.propensity_ppm) / 1e6,
                stratum: routing.score_ppm? / (1_000_000 / TENTHS),
                outcome: sum / f64::from(count),
            };
            Some((request, sample))
        })
        .collect();
    // The order of a map is nobody's: sums must come out the same each time.
    samples.sort_by_key(|(request, _)| *request);
    samples.into_iter().map(|(_, sample)| sample).collect()
}

/// What the calls of the control group cost, in nano-USD. Among themselves they went deep by lot alone,
/// so their propensity is the share of those that did.
#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate of money, which no account is charged with"
)]
fn costs(drawn: &[Entry]) -> Vec<Sample> {
    let known: Vec<(&Entry, bool)> = drawn
        .iter()
        .filter_map(|entry| Some((entry, chosen_deep(entry.held.routing.as_deref()?)?)))
        .collect();
    let deep = known.iter().filter(|(it, _)| it.held.tier == Tier::Deep);
    let share = deep.count() as f64 / known.len().max(1) as f64;
    known
        .iter()
        .map(|(entry, chosen_deep)| {
            let deep = entry.held.tier == Tier::Deep;
            Sample {
                deep,
                chosen_deep: *chosen_deep,
                propensity: if deep { share } else { 1.0 - share },
                stratum: entry.usage.prompt().max(1).ilog2(),
                outcome: entry.cost.0 as f64,
            }
        })
        .collect()
}
