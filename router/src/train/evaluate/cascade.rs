//! A second try: where the fast answer can be checked, part of the budget is kept for what the check finds.
//! Assumed: code is checked by its unit tests and a tool call by its validity, so a failure is a fast score
//! below one half, and a check catches a share of the failures or raises false alarms.

use std::io::Write;

use crate::train::data::Row;

const BUDGET: f64 = 0.2;
const SOURCES: [&str; 2] = ["rb_mbpp", "bfcl"];
/// Name, share of failures caught, share of sound answers that alarm.
const CHECKS: [(&str, f64, f64); 4] = [
    ("catches 25 %", 0.25, 0.0),
    ("catches 50 %", 0.5, 0.0),
    ("catches all", 1.0, 0.0),
    ("all, 5 % false", 1.0, 0.05),
];
/// Parts of the budget spent up front that are tried.
const STEPS: usize = 20;

/// Prints quality at 20 % deep calls, by how much of them is spent before the fast model is asked.
pub(super) fn print(rows: &[&Row], scores: &[f32], say: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        say,
        "\nescalation at 20 % deep calls overall; calls are fast and deep ones for 100 requests"
    )?;
    for source in SOURCES {
        let mut ranked: Vec<usize> = (0..rows.len())
            .filter(|i| rows[*i].source == source)
            .collect();
        ranked.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let members: Vec<&Row> = ranked.iter().map(|i| rows[*i]).collect();
        let mean = |of: fn(&Row) -> f32| {
            members.iter().map(|row| f64::from(of(row))).sum::<f64>() / members.len() as f64
        };
        let (weak, strong) = (mean(|row| row.weak), mean(|row| row.strong));
        writeln!(
            say,
            "{source}: {} rows, all fast {weak:.3}, all deep {strong:.3}",
            members.len()
        )?;
        let alone = spend(&members, BUDGET, (0.0, 0.0));
        line("prompt alone", &alone, weak, strong, say)?;
        for (name, caught, alarms) in CHECKS {
            let only = spend(&members, 0.0, (caught, alarms));
            line(&format!("{name}, check alone"), &only, weak, strong, say)?;
            let tried = (0..=STEPS).map(|k| {
                let up_front = BUDGET * k as f64 / STEPS as f64;
                spend(&members, up_front, (caught, alarms))
            });
            let best = tried.max_by(|a, b| a.quality.total_cmp(&b.quality));
            if let Some(best) = best {
                line(&format!("{name}, best part"), &best, weak, strong, say)?;
            }
        }
    }
    Ok(())
}

/// What a division of the budget comes to, for one request.
struct Spent {
    up_front: f64,
    escalated: f64,
    quality: f64,
}

/// Sends `up_front` deep by score, then escalates from the highest score down while the budget lasts. Which
/// failure a check misses is chance, so each request counts with its expected value.
fn spend(ranked: &[&Row], up_front: f64, (caught, alarms): (f64, f64)) -> Spent {
    let n = ranked.len() as f64;
    let first = (up_front * n).round() as usize;
    let mut left = (BUDGET * n).round() - first as f64;
    let (mut quality, mut escalated) = (0.0, 0.0);
    for (place, row) in ranked.iter().enumerate() {
        let (weak, strong) = (f64::from(row.weak), f64::from(row.strong));
        if place < first {
            quality += strong;
            continue;
        }
        let chance = if weak < 0.5 { caught } else { alarms };
        let deep = chance.min(left.max(0.0));
        left -= deep;
        escalated += deep;
        quality += weak + deep * (strong - weak);
    }
    Spent {
        up_front: first as f64 / n,
        escalated: escalated / n,
        quality: quality / n,
    }
}

fn line(
    name: &str,
    spent: &Spent,
    weak: f64,
    strong: f64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let Spent {
        up_front,
        escalated,
        quality,
    } = *spent;
    let pgr = (quality - weak) / (strong - weak);
    writeln!(
        say,
        "  {name:<28} up front {:>4.1} % escalated {:>4.1} % quality {quality:.3} PGR {pgr:.3} calls {:.1} \
         fast + {:.1} deep",
        100.0 * up_front,
        100.0 * escalated,
        100.0 * (1.0 - up_front),
        100.0 * (up_front + escalated),
    )?;
    Ok(())
}
