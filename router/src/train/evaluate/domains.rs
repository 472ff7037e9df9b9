//! Domains left out: of each source that has several, a quarter at a time, while the rest of the source is
//! learned from. What a new subject in a known kind of prompt is worth.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::train::data::Row;
use crate::train::measure::Evaluation;
use crate::train::{bar, fit, hash};

/// Quarters of the domains.
const PARTS: usize = 4;

/// Prints STRAT over the sources with several domains, mean of the quarters.
pub(super) fn print(rows: &[Row], seed: u64, say: &mut impl Write) -> anyhow::Result<()> {
    let parts = parts(rows);
    let bar = bar(PARTS as u64, "domains")?;
    let made = fit::each(PARTS, |part| {
        let is_out = |i: &usize| parts[*i] == Some(part);
        let tested: Vec<usize> = (0..rows.len()).filter(is_out).collect();
        let clusters: BTreeSet<u64> = tested.iter().map(|i| rows[*i].cluster).collect();
        let is_in = |i: &usize| rows[*i].may_ship && !clusters.contains(&rows[*i].cluster);
        let inside: Vec<usize> = (0..rows.len()).filter(is_in).collect();
        let model = fit::fit(rows, &inside, seed);
        bar.inc(1);
        let tested: Vec<&Row> = tested.iter().map(|i| &rows[*i]).collect();
        let raw: Vec<f32> = tested.iter().map(|row| model.raw(row)).collect();
        (tested, raw)
    });
    bar.finish_and_clear();
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (tested, raw) in &made {
        for (name, _, found) in Evaluation::of(tested, raw).measures_once() {
            let sum = sums.entry(name.clone()).or_default();
            *sum = (sum.0 + found.apgr, sum.1 + found.pgr);
        }
    }
    write!(
        say,
        "\nleave domains out, mean of {PARTS} quarters, APGR/PGR@20:"
    )?;
    for (name, (apgr, pgr)) in sums {
        let n = PARTS as f64;
        write!(say, " {name} {:.3}/{:.3}", apgr / n, pgr / n)?;
    }
    writeln!(say)?;
    Ok(())
}

/// The quarter that a row's domain is left out in: none in a source of one domain, or whose rows may not
/// be trained on.
fn parts(rows: &[Row]) -> Vec<Option<usize>> {
    let mut domains: BTreeMap<&str, BTreeSet<(u64, &str)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.may_ship) {
        let here = domains.entry(&row.source).or_default();
        here.insert((hash(&row.domain), &row.domain));
    }
    rows.iter()
        .map(|row| {
            let here = domains.get(&*row.source).filter(|here| here.len() > 1)?;
            let place = here.iter().position(|(_, name)| *name == row.domain);
            place.map(|place| place % PARTS)
        })
        .collect()
}
