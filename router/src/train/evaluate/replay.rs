//! The split over the training prompts, replayed with cross-validated scores: shuffled, and one source after
//! another.

use std::collections::BTreeMap;
use std::io::Write;

use router::score::Score;
use router::split::Split;
use wire::Tier;

use crate::train::data::Row;
use crate::train::shuffle::Random;

const TARGET: u16 = 200;
const WINDOW: usize = 1_000;
/// Orders that are averaged.
const ORDERS: u64 = 8;

/// How scores become tiers.
#[derive(Clone, Copy)]
enum Way {
    /// Above the quantile of all scores.
    Frozen,
    /// The split's threshold, with no debt held.
    Free,
    /// The split.
    Held,
    /// One split for each of so many tenants, mixed by chance, and the debt of all.
    Tenants(usize),
}

/// Prints the worst window and the quality of each way.
pub(super) fn print(
    rows: &[&Row],
    scores: &[f32],
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(
        say,
        "\nsplit of 20 %, replayed, mean of {ORDERS} orders: worst window of {WINDOW} in points, PGR, \
         calls that the ledger overruled"
    )?;
    let ways = [
        ("frozen threshold", Way::Frozen),
        ("tracker, no ledger", Way::Free),
        ("split", Way::Held),
        ("split, 5 tenants", Way::Tenants(5)),
        ("split, 20 tenants", Way::Tenants(20)),
    ];
    for (name, way) in ways {
        write!(say, "{name:<20}")?;
        for in_blocks in [false, true] {
            let (mut worst, mut quality, mut overruled) = (0.0_f64, 0.0, 0.0);
            for order in 0..ORDERS {
                let mut random = Random::new(seed + order);
                let places = places(rows, in_blocks, &mut random);
                let found = replay(rows, scores, &places, way, &mut random);
                worst = worst.max(found.0);
                quality += found.1 / ORDERS as f64;
                overruled += found.2 / ORDERS as f64;
            }
            let order = if in_blocks { "in blocks" } else { "shuffled" };
            let share = 100.0 * overruled;
            write!(
                say,
                "  {order} {worst:>5.1} PGR {quality:.4} overruled {share:>4.1} %"
            )?;
        }
        writeln!(say)?;
    }
    Ok(())
}

fn places(rows: &[&Row], in_blocks: bool, random: &mut Random) -> Vec<usize> {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    random.shuffle(&mut places);
    if !in_blocks {
        return places;
    }
    let mut blocks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for place in places {
        blocks.entry(&rows[place].source).or_default().push(place);
    }
    let mut blocks: Vec<Vec<usize>> = blocks.into_values().collect();
    random.shuffle(&mut blocks);
    blocks.concat()
}

/// The worst window in points, PGR, and the share of calls that were overruled.
fn replay(
    rows: &[&Row],
    scores: &[f32],
    places: &[usize],
    way: Way,
    random: &mut Random,
) -> (f64, f64, f64) {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let frozen = sorted[sorted.len() * 4 / 5];
    let tenants = if let Way::Tenants(many) = way {
        many
    } else {
        1
    };
    let mut splits = vec![Split::new(TARGET); tenants];
    let mut overall = 0;
    let (mut deep, mut overruled) = (Vec::new(), 0);
    let (mut gained, mut gap) = (0.0, 0.0);
    for place in places {
        let score = Score(scores[*place]);
        let split = &mut splits[random.below(tenants)];
        let tier = match way {
            Way::Frozen if score.0 > frozen => Tier::Deep,
            Way::Frozen => Tier::Fast,
            Way::Free => {
                let choice = split.choose(score);
                // Taken back and counted as nothing owed: the threshold alone has decided.
                split.forget(choice.tier);
                choice.tier
            }
            Way::Held | Way::Tenants(_) => {
                let before = split.debt();
                let choice = split.choose_within(score, None, overall);
                overall += split.debt() - before;
                overruled += usize::from(choice.overruled);
                choice.tier
            }
        };
        let gain = f64::from(rows[*place].gain());
        gap += gain;
        gained += if tier == Tier::Deep { gain } else { 0.0 };
        deep.push(i64::from(tier == Tier::Deep));
    }
    let mut sums = vec![0];
    for is_deep in &deep {
        sums.push(sums[sums.len() - 1] + is_deep);
    }
    let aim = i64::from(TARGET); // of a window of 1,000
    let stray = |end: usize| (sums[end] - sums[end - WINDOW] - aim).abs();
    let worst = (WINDOW..=deep.len()).map(stray).max().unwrap_or(0);
    (
        worst as f64 / 10.0,
        gained / gap,
        overruled as f64 / deep.len() as f64,
    )
}
