//! Which trace a call belongs to, by the W3C's Trace Context: what a caller says of it, and what is made up
//! where none does.

use std::fmt;

use http::{HeaderMap, HeaderName};
use wire::RequestId;

use crate::care::mixed;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest state that is carried on: everybody has to carry so much, and nobody more.
const LONGEST_STATE: usize = 512;
/// Every bit of a trace id that is drawn by lot, and so decides which traces are sent.
const LOT: u64 = (1 << 56) - 1;

/// A span as others are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) is_sampled: bool,
}

impl Spot {
    /// What the headers of a request say, if they say it well; of two nothing is believed.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut told = headers.get_all(TRACEPARENT).iter();
        match (told.next(), told.next()) {
            (Some(one), None) => Self::read(one.as_bytes()),
            _ => None,
        }
    }

    /// Reads `00-<trace>-<span>-<flags>`. Later versions may say more behind that.
    fn read(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'-');
        let [version] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let is_longer = parts.next().is_some();
        let is_sound = version != 0xff && !(version == 0 && is_longer);
        (is_sound && trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// As `traceparent` has it.
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

/// Reads so many bytes of small hex digits, and no other number of them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (to, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// A call's place in its trace.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) spot: Spot,
    pub(crate) parent: Option<[u8; 8]>,
    /// What other systems keep with the trace, as the caller sent it.
    pub(crate) state: Option<Box<str>>,
}

impl Context {
    /// The place of the call `request`, which arrived at `arrived_ns` with `headers`. Without a parent its id is
    /// the trace's, so that one finds the other; `least` is the first lot that is sent.
    pub(crate) fn of(headers: &HeaderMap, request: RequestId, arrived_ns: u64, least: u64) -> Self {
        let id = request.bytes();
        let lot = low(&id);
        let span = span_id(lot, arrived_ns);
        let Some(parent) = Spot::of(headers) else {
            let spot = Spot {
                trace: id,
                span,
                is_sampled: lot & LOT >= least,
            };
            let (parent, state) = (None, None);
            return Self {
                spot,
                parent,
                state,
            };
        };
        Self {
            spot: Spot { span, ..parent },
            parent: Some(parent.span),
            state: state(headers),
        }
    }

    /// The span of an attempt of the call.
    pub(crate) fn attempt(&self, number: u16) -> Spot {
        let span = span_id(u64::from_be_bytes(self.spot.span), u64::from(number) + 1);
        Spot { span, ..self.spot }
    }
}

/// The last eight bytes of an id.
fn low(id: &[u8; 16]) -> u64 {
    let bytes = u128::from_be_bytes(*id) & u128::from(u64::MAX);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A span's id, from what is drawn by lot already and what tells spans of one trace apart: two rounds of
/// a mixer that maps different numbers to different ones.
fn span_id(seed: u64, number: u64) -> [u8; 8] {
    // None may be zero.
    mixed(mixed(seed) ^ number).max(1).to_be_bytes()
}

/// The first lot that is sent where so many are, as a part of all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part from 0 to 1 of 56 bits, of which some billionths may be lost"
)]
pub(crate) fn least_lot(ratio: f64) -> u64 {
    // 1 must take all and 0 none, whatever is rounded.
    let all = (LOT + 1) as f64;
    ((1.0 - ratio.clamp(0.0, 1.0)) * all) as u64
}

/// What the caller's `tracestate` says, if it is one.
fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let mut joined = String::new();
    for value in headers.get_all(TRACESTATE) {
        let text = value.to_str().ok()?;
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(text);
    }
    let is_member = |it: &str| {
        let (key, value) = it.trim().split_once('=').unwrap_or_default();
        let is_key =
            |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"_-*/@".contains(&it);
        !key.is_empty() && key.bytes().all(is_key) && !value.is_empty() && !value.contains('=')
    };
    let is_sound = joined.len() <= LONGEST_STATE && joined.split(',').all(is_member);
    (is_sound && !joined.is_empty()).then(|| joined.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_read_is_written_alike_and_what_is_unsound_is_no_parent() {
        let spot = Spot::read(SOUND.as_bytes()).expect("sound");
        assert!(spot.is_sampled);
        assert_eq!(spot.to_string(), SOUND);
        let later = SOUND.replacen("00", "cc", 1) + "-more";
        assert_eq!(Spot::read(later.as_bytes()), Some(spot));
        for unsound in [
            "",
            "00-1-2-3",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(Spot::read(unsound.as_bytes()), None, "{unsound}");
        }
    }

    #[test]
    fn a_state_that_is_none_or_too_long_is_left() {
        for (value, is_kept) in [
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true),
            ("a prompt", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(TRACESTATE, HeaderValue::from_static(value));
            assert_eq!(state(&headers).is_some(), is_kept, "{value}");
        }
        let mut headers = HeaderMap::new();
        let long = format!("a={}", "b".repeat(LONGEST_STATE));
        headers.append(TRACESTATE, HeaderValue::from_str(&long).expect("a value"));
        assert_eq!(state(&headers), None);
    }

    #[test]
    fn so_many_are_sent_as_the_ratio_says_and_the_caller_decides_where_it_has_one() {
        let none = HeaderMap::new();
        let sampled = |ratio: f64| {
            let least = least_lot(ratio);
            let calls = (0..1_000_u64).map(|n| {
                let mut random = [0; 10];
                random
                    .iter_mut()
                    .zip(mixed(n + 1).to_be_bytes())
                    .for_each(|(to, it)| *to = it);
                random.rotate_right(2);
                Context::of(&none, RequestId::new(n, random), 1, least)
            });
            calls.filter(|it| it.spot.is_sampled).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 1_000));
        let quarter = sampled(0.25);
        assert!((200..300).contains(&quarter), "{quarter}");
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(SOUND));
        let request = RequestId::new(1, [7; 10]);
        let continued = Context::of(&headers, request, 1, least_lot(0.0));
        assert!(continued.spot.is_sampled);
        assert_eq!(
            continued.parent,
            Some(0xb7ad_6b71_6920_3331_u64.to_be_bytes())
        );
        assert_ne!(continued.spot.span, continued.attempt(0).span);
        assert_ne!(continued.attempt(0).span, continued.attempt(1).span);
    }
}
