//! A sum of entries as lines of a bill: quantity, unit price and amount for each class, and the rest.

use crate::books::change::{Change, half_even, share};
use crate::money::NanoUsd;

/// One class of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its place in [`crate::books::change::CLASSES`].
    pub class: usize,
    pub quantity: i64,
    pub unit_pico: i64,
    /// Quantity times unit price, exactly.
    pub cost_pico: i128,
    pub cost: NanoUsd,
    pub list: NanoUsd,
    pub sell: NanoUsd,
}

/// A sum cut into its classes. Parts and rest together are the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub parts: Vec<Part>,
    /// What the classes do not explain: rounding, bounds, prices that are not known.
    pub rest: Change,
    /// The rest is no more than what rounding each of the rows can make.
    pub is_rounding: bool,
}

/// Cuts the sum of `rows` entries by unit prices.
pub fn split(sum: &Change, rows: u64, units: Option<[i64; 9]>) -> Split {
    let mut rest = *sum;
    let mut parts = Vec::new();
    let priced = (units.unwrap_or_default().iter())
        .zip(sum.counts)
        .fold(0_i128, |all, (unit, count)| {
            all.saturating_add(times(*unit, count))
        });
    let whole = half_even(priced, 1_000).unwrap_or(i64::MAX);
    let room = i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(10);
    let near = |a: i64, b: i64| a.saturating_sub(b).saturating_abs() <= room;
    // Where usage at these prices is not what was paid, the unit prices are not those of the sum.
    let explained = units.is_some() && near(whole, sum.cost.0);
    for (class, (quantity, unit)) in sum
        .counts
        .into_iter()
        .zip(units.unwrap_or_default())
        .enumerate()
    {
        if quantity == 0 {
            continue;
        }
        let unit_pico = if explained { unit } else { 0 };
        let cost_pico = times(unit_pico, quantity);
        let cost = half_even(cost_pico, 1_000).unwrap_or(i64::MAX);
        let part = Part {
            class,
            quantity,
            unit_pico,
            cost_pico,
            cost: NanoUsd(cost),
            list: NanoUsd(share(cost, sum.list.0, sum.cost.0, 0)),
            sell: NanoUsd(share(cost, sum.sell.0, sum.cost.0, 0)),
        };
        rest = rest.minus(&Change {
            cost: part.cost,
            list: part.list,
            sell: part.sell,
            ..Change::default()
        });
        parts.push(part);
    }
    rest.counts = [0; 9];
    let is_rounding = near(rest.cost.0, 0) && near(rest.sell.0, 0) && near(rest.list.0, 0);
    Split {
        parts,
        rest,
        is_rounding,
    }
}

/// Pico-USD of more than nine million USD do not fit into an `i64`.
fn times(unit: i64, quantity: i64) -> i128 {
    i128::from(unit).saturating_mul(i128::from(quantity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_rest_are_the_sum() {
        let sum = Change {
            counts: [1_003, 7, 0, 0, 55, 0, 0, 0, 0],
            cost: NanoUsd(1_224),
            list: NanoUsd(1_300),
            sell: NanoUsd(1_469),
            ..Change::default()
        };
        for units in [
            Some([1_000, 100, 0, 0, 4_000, 0, 0, 0, 0]),
            Some([9; 9]),
            None,
        ] {
            let cut = split(&sum, 4, units);
            let of = |pick: fn(&Part) -> NanoUsd| cut.parts.iter().map(pick).sum::<NanoUsd>();
            assert_eq!(of(|p| p.cost) + cut.rest.cost, sum.cost);
            assert_eq!(of(|p| p.list) + cut.rest.list, sum.list);
            assert_eq!(of(|p| p.sell) + cut.rest.sell, sum.sell);
            assert_eq!(
                cut.is_rounding,
                units.is_some_and(|u| u[0] == 1_000),
                "{cut:?}"
            );
        }
    }
}
