//! What a page is asked for: everything is in the URL, and every link is made from it.

use jiff::tz::TimeZone;
use meter::finance::{FILTERED, Filter, Grain, View};
use meter::ledger::Dimension;

use crate::period::{self, Period, Span};

/// A request for a page.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `/explore`.
    pub path: &'a str,
    /// What stands behind the question mark.
    pub query: &'a str,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Whether who asks may see tasks, not sums alone.
    pub is_operator: bool,
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) path: String,
    pub(crate) is_operator: bool,
    params: Vec<(String, String)>,
    pub(crate) filter: Filter,
    pub(crate) period: Period,
    pub(crate) view: View,
    pub(crate) now_ms: i64,
    /// What was asked for and is not what is shown.
    pub(crate) notices: Vec<String>,
}

/// How a filter's value for "names none" is written.
pub(crate) const NONE: &str = "(none)";

impl Ask {
    /// Reads a request; what is no period, zone or view is taken as the default, and told where it changes sums.
    pub(crate) fn read(asked: Asked<'_>) -> Self {
        let params = decode(asked.query);
        let find = |name: &str| param(&params, name);
        let zone_name = find("zone").unwrap_or("UTC");
        let (zone, zone_name) = match TimeZone::get(zone_name) {
            Ok(zone) => (zone, zone_name.to_owned()),
            Err(_) => (TimeZone::UTC, "UTC".to_owned()),
        };
        let dates = (find("from"), find("until"));
        let preset = find("period").unwrap_or(if asked.path == "/chargeback" {
            "year"
        } else {
            "month"
        });
        let fiscal = find("fiscal_start").and_then(|text| text.parse().ok());
        let fiscal = fiscal.filter(|month| (1..=12).contains(month)).unwrap_or(1);
        let period = Period::read(preset, dates, (zone, zone_name), fiscal, asked.now_ms);
        let notices = notices(&params, &period);
        let mut filter = Filter::default().over(period.span.from_ms, period.span.until_ms);
        for dimension in FILTERED {
            let named = find(word(dimension));
            let value = named.map(|value| if value == NONE { "" } else { value }.to_owned());
            filter = filter.with(dimension, value);
        }
        let view = match find("view") {
            Some("sell") => View::Sell,
            Some("margin") => View::Margin,
            _ => View::Cost,
        };
        Self {
            path: asked.path.to_owned(),
            is_operator: asked.is_operator,
            view,
            now_ms: asked.now_ms,
            filter,
            period,
            params,
            notices,
        }
    }

    /// A parameter that is there and not empty.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        param(&self.params, name)
    }

    /// The dimension that parameter `name` names.
    pub(crate) fn dimension(&self, name: &str) -> Option<Dimension> {
        let text = self.param(name)?;
        let more = [Dimension::User, Dimension::Price, Dimension::Day];
        FILTERED
            .into_iter()
            .chain(more)
            .find(|one| word(*one) == text)
    }

    /// How finely the ledger must be asked so that days of the zone can be put together.
    pub(crate) fn grain(&self) -> Grain {
        self.period.grain()
    }

    /// The filter over another time.
    pub(crate) fn during(&self, span: Span) -> Filter {
        self.filter.clone().over(span.from_ms, span.until_ms)
    }

    /// The address of `path` with the same filters, and `changes` to the parameters; an empty one
    /// goes away. What belongs to a single page does not go to another.
    pub(crate) fn link(&self, path: &str, changes: &[(&str, &str)]) -> String {
        let own = path == self.path;
        let mut text = path.to_owned();
        let mut mark = '?';
        let kept = self.params.iter().filter(|(name, value)| {
            let changed = changes.iter().any(|(change, _)| change == name);
            !changed
                && !value.is_empty()
                && name != "format"
                && name != "table"
                && name != "part"
                && name != "seen"
                && (own || global(name))
        });
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        let new = changes
            .iter()
            .copied()
            .filter(|(_, value)| !value.is_empty());
        for (name, value) in kept.chain(new) {
            text.push(mark);
            text.push_str(name);
            text.push('=');
            text.push_str(&encode(value));
            mark = '&';
        }
        text
    }
}

/// What of the time that was asked for is shown otherwise.
fn notices(params: &[(String, String)], period: &Period) -> Vec<String> {
    let find = |name: &str| param(params, name);
    let shown = format!("What is shown is {}.", period.title());
    let mut notices = Vec::new();
    if let Some(word) = find("period").filter(|word| *word != period.preset) {
        notices.push(format!(
            "There is no period \u{201c}{word}\u{201d}. {shown}"
        ));
    }
    if let Some(name) = find("zone").filter(|name| *name != period.zone_name) {
        notices.push(format!(
            "There is no time zone \u{201c}{name}\u{201d}. Days are those of {}.",
            period.zone_name
        ));
    }
    let amiss = || period::amiss((find("from"), find("until")), period.today);
    if let Some(why) = (period.preset == "custom").then(amiss).flatten() {
        notices.push(format!("The custom period is another one. {why} {shown}"));
    }
    notices
}

/// Whether a parameter means the same on every page.
fn global(name: &str) -> bool {
    matches!(
        name,
        "period" | "from" | "until" | "zone" | "view" | "fiscal_start"
    ) || FILTERED.iter().any(|one| word(*one) == name)
}

/// The word of a dimension in URLs.
pub(crate) fn word(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenant => "tenant",
        Dimension::Team => "team",
        Dimension::Project => "project",
        Dimension::Key => "key",
        Dimension::User => "user",
        Dimension::Workflow => "workflow",
        Dimension::Model => "model",
        Dimension::Endpoint => "provider",
        Dimension::Tier => "tier",
        Dimension::Lane => "lane",
        Dimension::Price => "price",
        Dimension::Day | Dimension::Hour => "day",
    }
}

/// The word of a view.
pub(crate) fn view_word(view: View) -> &'static str {
    match view {
        View::Cost => "cost",
        View::Sell => "sell",
        View::Margin => "margin",
    }
}

/// A machine-readable name of a sum: which column, over what. Tests compute the same from the
/// entries and compare.
pub(crate) fn key(measure: &str, filter: &Filter) -> String {
    format!("{measure}?{}", of(filter))
}

/// The part of [`key`] that says over what.
pub(crate) fn of(filter: &Filter) -> String {
    let mut text = format!("from={}&until={}", filter.from_ms, filter.until_ms);
    for dimension in FILTERED {
        if let Some(value) = filter.named(dimension) {
            text.push('&');
            text.push_str(&part(dimension, value));
        }
    }
    text
}

/// One condition of [`of`].
pub(crate) fn part(dimension: Dimension, value: &str) -> String {
    format!("{}={}", word(dimension), encode(value))
}

pub(crate) fn param<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = params.iter().rev().find(|(known, _)| known == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// Reads `a=b&c=d` as browsers write it.
pub(crate) fn decode(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// Reads a part of a path, where a plus sign is itself.
pub(crate) fn decoded_path(text: &str) -> String {
    decoded(&text.replace('+', "%2B"))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let byte = match (first, behind) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        rest = after;
                        u8::try_from(high * 16 + low).unwrap_or(b'?')
                    }
                    _ => b'%',
                }
            }
            _ => *first,
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes a value as it stands in a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/:@,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
    }
    out
}
