//! Learning from verdicts: each tenant's last layer, taught by what people say of its answers, beside
//! the one that everybody begins with. What nodes have learned is a function of the verdicts that the
//! ledger keeps, in their order; what is saved only spares reading them again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use meter::routing::Learning;
use meter::{Feedback, LedgerError, Verdicts};
use router::learn::{Head, Judged, Learner};
use router::score::{LAYERS, Layers};
use serde::{Deserialize, Serialize};

/// Verdicts read at a time.
const PAGE: u32 = 1_000;
/// The name under which it is saved.
pub(crate) const SAVED: &str = "learned";

/// What all tenants have taught.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// For calls: each taught tenant's head, and how often that has changed.
    heads: ArcSwap<HashMap<Arc<str>, (Head, u32)>>,
    school: Mutex<School>,
    /// The last verdict that what was saved last had learned from.
    saved: AtomicI64,
}

/// Where learning stands.
#[derive(Debug, Default, Serialize, Deserialize)]
struct School {
    /// The weights that the tenants' layers are of.
    weights: String,
    /// The last verdict that was learned from.
    seq: i64,
    tenants: BTreeMap<Arc<str>, Pupil>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Pupil {
    learner: Learner,
    judged: u64,
    /// How often the head changed between its own and everybody's.
    turns: u32,
}

impl Learned {
    /// Takes up what an earlier process saved; what other weights were taught is forgotten.
    pub(crate) fn restore(text: &str) -> Self {
        let school: School = serde_json::from_str(text).unwrap_or_default();
        let learned = Self::default();
        if school.weights == router::version() {
            learned.publish(&school);
            *learned.lock() = school;
        }
        learned
    }

    /// As text, to be saved; `None` where nothing was learned since the last time. What a failed write
    /// loses is learned again.
    pub(crate) fn saved(&self) -> Result<Option<String>, serde_json::Error> {
        let school = self.lock();
        let is_new = self.saved.swap(school.seq, Ordering::Relaxed) != school.seq;
        is_new.then(|| serde_json::to_string(&*school)).transpose()
    }

    /// The head that scores a tenant's calls, and how often it has changed.
    pub(crate) fn head(&self, tenant: &str) -> (Head, u32) {
        self.heads.load().get(tenant).copied().unwrap_or_default()
    }

    /// Learns from the verdicts that have come since. Blocks.
    pub(crate) fn study(
        &self,
        verdicts: &dyn Verdicts,
        config: &router::Config,
    ) -> Result<(), LedgerError> {
        let mut school = self.lock();
        if school.weights.is_empty() {
            school.weights = router::version();
        }
        loop {
            let page = verdicts.after(school.seq, PAGE)?;
            for (seq, feedback) in &page {
                school.seq = *seq;
                // A second one of a kind on a call teaches nothing.
                if let Some(feedback) = feedback {
                    school.learn(feedback, config);
                }
            }
            if page.is_empty() {
                break;
            }
            self.publish(&school);
        }
        Ok(())
    }

    fn publish(&self, school: &School) {
        let serving = school.tenants.iter().filter(|(_, it)| it.learner.serves());
        let heads = serving.map(|(tenant, it)| (Arc::clone(tenant), (it.learner.head(), it.turns)));
        self.heads.store(Arc::new(heads.collect()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, School> {
        self.school.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How learning stands, from what was saved.
pub(crate) fn standing(text: &str) -> Vec<Learning> {
    let school: School = serde_json::from_str(text).unwrap_or_default();
    let stands = |(tenant, pupil): (&Arc<str>, &Pupil)| {
        let (gain, deviation) = pupil.learner.advantage();
        Learning {
            tenant: tenant.to_string(),
            judged: pupil.judged,
            serves: pupil.learner.serves(),
            turns: pupil.turns,
            gain_ppm: millionths(gain),
            deviation_ppm: millionths(deviation),
        }
    };
    school.tenants.iter().map(stands).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a gain in quality, between -1 and 1"
)]
fn millionths(share: f64) -> i64 {
    (share * 1e6).round() as i64
}

impl School {
    fn learn(&mut self, feedback: &Feedback, config: &router::Config) {
        let Some(layers) = layers(&feedback.routing.layers) else {
            return;
        };
        if *feedback.routing.weights != *self.weights || !feedback.tells_of_the_choice() {
            return;
        }
        let pupil = self
            .tenants
            .entry(Arc::clone(&feedback.tenant))
            .or_default();
        let before = pupil.learner.serves();
        let judged = Judged {
            layers,
            // The tier whose odds are known: what a check made of a fast answer is its outcome as well.
            tier: feedback.first_tier,
            propensity: share(feedback.routing.propensity_ppm),
            outcome: share(feedback.good_ppm),
        };
        let target = config.target(&feedback.routing.class);
        pupil.learner.learn(&judged, target);
        pupil.judged += 1;
        let after = pupil.learner.serves();
        if before != after {
            pupil.turns += 1;
            let (gain, deviation) = pupil.learner.advantage();
            tracing::info!(
                target: "pareto::learning",
                tenant = %feedback.tenant,
                judged = pupil.judged,
                gain,
                deviation,
                "{}",
                if after { "a tenant's own head scores its calls" } else { "a tenant's own head was worse, and is rolled back" },
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share has six digits")]
fn share(ppm: u32) -> f32 {
    ppm as f32 / 1e6
}

/// Layers as the ledger keeps them: the score before calibration in millionths, then the parts.
pub(crate) fn written(layers: &Layers) -> Vec<i32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score before calibration is far below a thousand"
    )]
    let raw = (f64::from(layers.raw) * 1e6).round() as i32;
    std::iter::once(raw)
        .chain(layers.parts.iter().map(|part| i32::from(*part)))
        .collect()
}

/// What stood out in a call, as the ledger keeps it: five parts of the score, in deviations from what is
/// usual; empty where nothing was scored.
pub(crate) fn stood_out(written: &[i32]) -> String {
    let parts = layers(written).map(|layers| layers.standing_out(5));
    let shown = |(name, deviations): (&str, f32)| format!("{name} {deviations:+.1}");
    let shown: Vec<String> = parts.into_iter().flatten().map(shown).collect();
    shown.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "six digits are enough")]
fn layers(written: &[i32]) -> Option<Layers> {
    let (raw, rest) = written.split_first()?;
    let mut parts = [0; LAYERS];
    if rest.len() != LAYERS {
        return None;
    }
    for (part, value) in parts.iter_mut().zip(rest) {
        *part = i8::try_from(*value).ok()?;
    }
    Some(Layers {
        raw: *raw as f32 / 1e6,
        parts,
    })
}
