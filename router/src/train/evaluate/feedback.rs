//! Feedback from a source that was never trained on: routing at 20 %, only the tier that served is judged,
//! and what the head has learned is tried on the rest of the source.

use std::io::Write;

use router::learn::{Judged, Learner};
use router::score::{LAYERS, Layers, Score};
use router::split::Split;
use wire::{Shape, Tier};

use crate::train::data::Row;
use crate::train::fit::Model;
use crate::train::ship;
use crate::train::shuffle::Random;

const TARGET: u16 = 200;
const EVENTS: usize = 2_000;
const SEEDS: u64 = 5;
/// Shares of calls that are routed by chance, deep with a chance of 20 %.
const EXPLORED: [f32; 4] = [0.01, 0.05, 0.1, 0.2];

/// A prompt as the last layer sees it, and both outcomes.
pub(super) struct Call {
    layers: Layers,
    weak: f32,
    strong: f32,
}

/// The rows of a source, seen by a model that was trained without.
pub(super) fn calls(model: &Model, trained: &[&Row], own: &[&Row]) -> Vec<Call> {
    let standard = ship::layers(trained, model);
    own.iter()
        .map(|row| {
            let values = Layers::values(&model.inputs(row), &Shape::default());
            Call {
                layers: Layers::new(model.raw(row), &values, &standard),
                weak: row.weak,
                strong: row.strong,
            }
        })
        .collect()
}

/// Prints PGR@20 on the rest before and after, by source and share of exploration.
pub(super) fn print(
    sources: &[&str],
    calls: &[Vec<Call>],
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(
        say,
        "\nfeedback on an unseen source, {SEEDS} seeds: up to {EVENTS} events and at most six tenths of it; \
         PGR@20 on the rest, frozen and what learning adds (worst seed), PGR while it learns, heads that serve"
    )?;
    for (source, calls) in sources.iter().zip(calls) {
        for explored in EXPLORED {
            let mut runs = Vec::new();
            for run in 0..SEEDS {
                runs.push(simulate(calls, explored, seed * 100 + run));
            }
            let mean = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / SEEDS as f64;
            let added = |run: &Run| run.learned - run.frozen;
            let worst = runs.iter().map(added).fold(f64::INFINITY, f64::min);
            writeln!(
                say,
                "{source:<14} explored {:>4.1} % events {:>4} frozen {:.3} added {:+.3} (worst {worst:+.3}) \
                 meanwhile {:.3} against {:.3}, serve {:.1}",
                100.0 * explored,
                runs[0].events,
                mean(|run| run.frozen),
                mean(added),
                mean(|run| run.meanwhile),
                mean(|run| run.meanwhile_frozen),
                mean(|run| f64::from(u8::from(run.serves))),
            )?;
        }
    }
    Ok(())
}

struct Run {
    events: usize,
    frozen: f64,
    learned: f64,
    meanwhile: f64,
    meanwhile_frozen: f64,
    serves: bool,
}

fn simulate(calls: &[Call], explored: f32, seed: u64) -> Run {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..calls.len()).collect();
    random.shuffle(&mut order);
    let events = EVENTS.min(calls.len() * 6 / 10);
    let (mut learner, mut split) = (Learner::default(), Split::new(TARGET));
    let share = f32::from(TARGET) / 1_000.0;
    let (mut gained, mut gap) = (0.0, 0.0);
    for i in &order[..events] {
        let call = &calls[*i];
        let wanted = split.choose(learner.head().score(&call.layers)).tier;
        let tier = if random.unit() >= explored {
            wanted
        } else if random.unit() < share {
            Tier::Deep
        } else {
            Tier::Fast
        };
        let by_chance = explored
            * if tier == Tier::Deep {
                share
            } else {
                1.0 - share
            };
        let propensity = by_chance + if tier == wanted { 1.0 - explored } else { 0.0 };
        let outcome = if tier == Tier::Deep {
            call.strong
        } else {
            call.weak
        };
        let judged = Judged {
            layers: call.layers,
            tier,
            propensity,
            outcome,
        };
        learner.learn(&judged, TARGET);
        let gain = f64::from(call.strong - call.weak);
        gap += gain;
        gained += if tier == Tier::Deep { gain } else { 0.0 };
    }
    let rest = &order[events..];
    let head = learner.head();
    let frozen = router::learn::Head::default();
    Run {
        events,
        frozen: pgr(calls, rest, |call| frozen.score(&call.layers)),
        learned: pgr(calls, rest, |call| head.score(&call.layers)),
        meanwhile: gained / gap,
        meanwhile_frozen: pgr(calls, &order[..events], |call| frozen.score(&call.layers)),
        serves: learner.serves(),
    }
}

/// PGR at exactly 20 % of the calls.
fn pgr(calls: &[Call], places: &[usize], score: impl Fn(&Call) -> Score) -> f64 {
    let mut ranked: Vec<(f32, f64)> = places
        .iter()
        .map(|i| {
            let call = &calls[*i];
            (score(call).0, f64::from(call.strong - call.weak))
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let gap: f64 = ranked.iter().map(|call| call.1).sum();
    let first = ranked.len() * usize::from(TARGET) / 1_000;
    ranked[..first].iter().map(|call| call.1).sum::<f64>() / gap
}

const _: () = assert!(LAYERS <= 32, "serde takes no longer arrays");
