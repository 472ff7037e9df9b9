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
    let day = day(date)?;
    // Later traces name their zone, always the same.
    let clock = clock.split(['+', 'Z']).next()?;
    let mut parts = clock.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds = parts.next()?;
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let seconds: u64 = seconds.parse().ok()?;
    let at = Duration::new(((day * 24 + hours) * 60 + minutes) * 60 + seconds, nanos);
    Some((
        at,
        fields.next()?.parse().ok()?,
        fields.next()?.parse().ok()?,
    ))
}

/// The number of a day, so that a trace may go over the end of a month.
fn day(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    if !(1..=12).contains(&month) {
        return None;
    }
    // Years begin in March here, so that a leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    Some(year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds from the first row and both sizes, of rows in a trace.
    fn rows(text: &str) -> Vec<(f64, u64, u64)> {
        let shown = |it: Arrival| (it.at.as_secs_f64(), it.context_tokens, it.generated_tokens);
        let csv = format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{text}");
        read(&csv).into_iter().map(shown).collect()
    }

    #[test]
    fn times_are_counted_over_days_and_months() {
        let text = "2024-02-28 23:59:59.5,1,2\r\n2024-02-29 00:00:00,3,4\n2024-03-01 00:00:01.25+00:00,5,6\n\
                    2025-01-01 00:00:00Z,7,8\n";
        // 307 days from the 29th of February to the new year.
        let last = 0.5 + 307.0 * 86_400.0;
        let expected = [(0.0, 1, 2), (0.5, 3, 4), (86_401.75, 5, 6), (last, 7, 8)];
        assert_eq!(rows(text), expected);
    }

    #[test]
    fn lines_that_are_no_arrivals_are_left_out() {
        let text = "\nnothing\n2024-02-28,1,2\n2024-13-01 00:00:00,1,2\n2024-02-28 10:00:00,x,2\n2024-02-28 10:00:00,1\n\
                    2024-02-28 10:00:00.1,9,9\n";
        assert_eq!(rows(text), [(0.0, 9, 9)]);
        assert_eq!(read(""), []);
    }

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
