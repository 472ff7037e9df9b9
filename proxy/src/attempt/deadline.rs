//! Until when a caller waits for the first content of its answer: as it says itself, or as its client says for it.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use wire::Refusal;
use wire::dialect::allowance::{CLIENT_TIMEOUTS_S, span_ms};

use crate::names;
use crate::refusal;
use crate::runtime::Target;

/// The header in which callers say how many milliseconds they wait.
pub(crate) const HEADER: &str = "x-request-timeout-ms";
/// A deadline that is farther away is not held against what models need: none needs longer.
const FAR: Duration = Duration::from_mins(1);

/// The deadline of a call that arrived at `arrived`; `None` where nobody says one.
///
/// # Errors
/// When the caller's own header is no number.
pub(crate) fn of(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, Refusal> {
    let text = |name: &str| {
        let value = names::find(headers, name)?;
        Some(value.to_str().unwrap_or_default().trim())
    };
    let own = match text(HEADER) {
        None => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            let what = format!("header `{HEADER}` must be a whole number of milliseconds");
            refusal::invalid(what)
        })?),
    };
    let clients = CLIENT_TIMEOUTS_S
        .iter()
        .filter_map(|name| span_ms(text(name)?));
    let ms = clients.filter(|ms| *ms > 0).chain(own).min();
    Ok(ms.and_then(|ms| arrived.checked_add(Duration::from_millis(ms))))
}

/// Why `target` can not be asked any more: less is left than half of its calls have needed lately.
pub(super) fn too_late(
    target: &Target,
    is_stream: bool,
    deadline: Option<Instant>,
) -> Option<Refusal> {
    let left = deadline?.saturating_duration_since(Instant::now());
    if left >= FAR {
        return None;
    }
    let usual = target.health.speeds(is_stream).percentile(50);
    let usual = Duration::from_millis(usual.unwrap_or(0).into());
    (left < usual || left.is_zero()).then(|| refusal::too_late(&target.name, left, usual))
}
