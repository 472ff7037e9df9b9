//! Real arrivals and sizes; see `data/README.md` for origin and licence.

use std::time::Duration;

/// One arrival of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Time since the first arrival.
    pub at: Duration,
    pub context_tokens: u64,
    pub generated_tokens: u64,
}

/// The committed slice of a conversation trace.
pub fn conversations() -> Vec<Arrival> {
    read(include_str!("../data/azure_llm_conv_2023_slice.csv"))
}

/// Reads `TIMESTAMP,ContextTokens,GeneratedTokens`; lines that are none are left out.
pub fn read(csv: &str) -> Vec<Arrival> {
    let rows: Vec<(Duration, u64, u64)> = csv.lines().skip(1).filter_map(row).collect();
    let first = rows.first().map_or(Duration::ZERO, |row| row.0);
    rows.into_iter()
        .map(|(at, context_tokens, generated_tokens)| Arrival {
            at: at.saturating_sub(first),
            context_tokens,
            generated_tokens,
        })
        .collect()
}

fn row(line: &str) -> Option<(Duration, u64, u64)> {
    let mut fields = line.trim().split(',');
    let (date, clock) = fields.next()?.split_once(' ')?;
    let day: u64 = date.rsplit('-').next()?.parse().ok()?;
    let mut parts = clock.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let (seconds, fraction) = parts.next()?.split_once('.')?;
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let seconds: u64 = seconds.parse().ok()?;
    let at = Duration::new(((day * 24 + hours) * 60 + minutes) * 60 + seconds, nanos);
    Some((
        at,
        fields.next()?.parse().ok()?,
        fields.next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_slice_is_read() {
        let arrivals = conversations();
        assert_eq!(arrivals.len(), 3_000);
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let first = Arrival {
            at: Duration::ZERO,
            context_tokens: 374,
            generated_tokens: 44,
        };
        assert_eq!(arrivals[0], first);
        assert_eq!(arrivals[1].at, Duration::from_micros(4_314_579));
    }
}
