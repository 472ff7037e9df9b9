//! How often a group of models may be asked again: a share of the calls of the last seconds, and a few
//! besides, so that an outage is not multiplied by those who go on from it. Pure, with the time as an argument.

/// Seconds that count.
const WINDOW: usize = 10;

/// How many extra attempts there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Of the calls, in percent.
    pub(crate) percent: u32,
    /// And so many each second, whatever the calls are.
    pub(crate) per_second: u32,
}

/// The calls of late, and the attempts besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Retries([Second; WINDOW]);

/// An attempt besides the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    /// After one that failed.
    Retry,
    /// Beside one that takes long.
    Hedge,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at_s: i64,
    calls: u32,
    retries: u32,
    hedges: u32,
}

impl Second {
    fn extras(&mut self, extra: Extra) -> &mut u32 {
        match extra {
            Extra::Retry => &mut self.retries,
            Extra::Hedge => &mut self.hedges,
        }
    }
}

impl Retries {
    /// A call begins.
    pub(crate) fn called(&mut self, now_ms: i64) {
        if let Some(second) = self.second(now_ms) {
            second.calls = second.calls.saturating_add(1);
        }
    }

    /// Takes an extra attempt, if there is one to take.
    pub(crate) fn take(&mut self, now_ms: i64, share: Share, extra: Extra) -> bool {
        let now_s = now_ms.div_euclid(1_000);
        let width = i64::try_from(WINDOW).unwrap_or(i64::MAX);
        let recent = self.0.iter_mut().filter(|it| now_s - it.at_s < width);
        let (calls, taken) = recent.fold((0_u64, 0_u64), |(calls, taken), it| {
            let extras = *it.extras(extra);
            (calls + u64::from(it.calls), taken + u64::from(extras))
        });
        let most = calls * u64::from(share.percent) / 100
            + u64::from(share.per_second) * u64::try_from(width).unwrap_or(0);
        if taken >= most {
            return false;
        }
        if let Some(second) = self.second(now_ms) {
            *second.extras(extra) += 1;
        }
        true
    }

    fn second(&mut self, now_ms: i64) -> Option<&mut Second> {
        let at_s = now_ms.div_euclid(1_000);
        let place = usize::try_from(at_s).unwrap_or(0) % WINDOW;
        let second = self.0.get_mut(place)?;
        if second.at_s != at_s {
            *second = Second {
                at_s,
                ..Second::default()
            };
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        percent: 10,
        per_second: 1,
    };

    #[test]
    fn a_tenth_of_the_calls_and_one_a_second_may_be_retried() {
        let mut retries = Retries::default();
        let taken = |retries: &mut Retries, now_ms| {
            (0..1_000)
                .take_while(|_| retries.take(now_ms, SHARE, Extra::Retry))
                .count()
        };
        assert_eq!(taken(&mut retries, 0), 10);
        for call in 0..500 {
            retries.called(1_000 + call * 10);
        }
        assert_eq!(taken(&mut retries, 6_000), 50, "ten are taken already");
        assert_eq!(taken(&mut retries, 6_001), 0);
        // The first ten are forgotten, and the rest later.
        assert_eq!(taken(&mut retries, 10_000), 10);
        assert_eq!(taken(&mut retries, 60_000), 10);
    }

    /// Whatever comes when, no ten seconds have more.
    #[test]
    fn a_storm_is_never_multiplied_by_more() {
        let mut retries = Retries::default();
        let mut taken = 0_u32;
        for now_ms in (0..60_000).step_by(2) {
            retries.called(now_ms);
            taken += u32::from(retries.take(now_ms, SHARE, Extra::Retry));
        }
        let (calls, seconds) = (30_000, 60);
        assert!(taken <= calls / 10 + seconds + 10, "{taken}");
        assert!(taken > calls / 11, "{taken}");
    }
}
