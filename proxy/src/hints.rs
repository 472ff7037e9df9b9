//! What callers say of a call: how sensitive it is (`x-pareto-label`), and its step: the header `x-pareto-step`, or `metadata.pareto_step` in the body.
//! The header wins; either wins over what the router sees. The word is for the gateway alone: it is cut
//! out of the body before anything else reads it, because some upstreams refuse metadata they do not know
//! (Anthropic all but `user_id`, OpenAI any where the answer is not stored).

use bytes::Bytes;
use http::HeaderMap;
use router::{Route, Step};
use wire::{Dialect, Refusal, RequestId, Scan, ScanError, splice};

use crate::{names, refusal};

/// The header that names a call's step, asked and answered.
pub(crate) const HEADER: &str = crate::names::STEP_TEXT;
/// The header that says how sensitive a call is.
pub(crate) const LABEL: &str = "x-pareto-label";
/// Regions that a call may go to.
pub(crate) const REGIONS: &str = "x-pareto-residency";
const FIELD: &str = "metadata.pareto_step";

/// What a caller says of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) step: Option<Step>,
    pub(crate) source: Source,
}

impl Hint {
    /// What the gateway knows of a call of its own.
    pub(crate) fn of(step: Step) -> Self {
        Self {
            step: Some(step),
            source: Source::Gateway,
        }
    }
}

/// Where a hint stood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// There was none.
    #[default]
    Nowhere,
    Header,
    Body,
    /// The gateway makes the call itself.
    Gateway,
}

impl Source {
    /// The word used in logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nowhere => "nowhere",
            Self::Header => "header",
            Self::Body => "body",
            Self::Gateway => "gateway",
        }
    }
}

/// A hint names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{place}` is `{word}`; write one of {}, or leave it out", Step::WORDS)]
pub(crate) struct UnknownStep {
    place: &'static str,
    word: String,
}

/// Reads the hints of a call.
///
/// # Errors
/// When one of them names no step, even where the other would win.
pub(crate) fn read(headers: &HeaderMap, scan: &Scan) -> Result<Hint, UnknownStep> {
    let step = |place: &'static str, word: &str| {
        Step::parse(word.trim()).ok_or_else(|| UnknownStep {
            place,
            // Whoever sends a whole text by mistake does not need it back.
            word: word.chars().take(40).collect(),
        })
    };
    let body = scan.hint.as_ref().map(|hint| step(FIELD, &hint.word));
    let header = names::find(headers, HEADER);
    let header = header.map(|value| step(HEADER, value.to_str().unwrap_or_default()));
    Ok(match (header.transpose()?, body.transpose()?) {
        (Some(step), _) => Hint {
            step: Some(step),
            source: Source::Header,
        },
        (None, Some(step)) => Hint {
            step: Some(step),
            source: Source::Body,
        },
        (None, None) => Hint::default(),
    })
}

/// Logs which step a call was taken for, and who said so.
pub(crate) fn told(hint: Hint, route: &Route, request: RequestId) {
    tracing::debug!(
        target: "pareto::route",
        request = %request,
        step = route.step.as_str(),
        hint = hint.source.as_str(),
        score = route.score.map(|score| score.0),
    );
}

/// The body and its scan without the hint in it. Costs a copy and a second scan, to those alone who put
/// one there.
pub(crate) fn taken_out(
    body: Bytes,
    scan: Scan,
    dialect: &dyn Dialect,
) -> Result<(Bytes, Scan), ScanError> {
    let Some(hint) = &scan.hint else {
        return Ok((body, scan));
    };
    let edit = splice::cut(&body, hint.at.clone());
    let body = Bytes::from(splice::apply(&body, vec![edit]).concat());
    let scan = dialect.scan(&body)?;
    Ok((body, scan))
}

/// The sensitivity label that the caller names; empty where it names none.
///
/// # Errors
/// When it is no plain text.
pub(crate) fn label(headers: &HeaderMap) -> Result<&str, Refusal> {
    plain(headers, LABEL)
}

/// The regions that the caller keeps to, which the header names with commas between them; empty: any.
///
/// # Errors
/// When they are no plain text, or the header is there and names none.
pub(crate) fn regions(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let names = plain(headers, REGIONS)?.split(',').map(str::trim);
    let named = names.filter(|name| !name.is_empty());
    let regions: Vec<String> = named.map(str::to_owned).collect();
    if regions.is_empty() && headers.contains_key(REGIONS) {
        let what = format!("header `{REGIONS}` names no region; write some, such as `eu,eea`");
        return Err(refusal::invalid(what));
    }
    Ok(regions)
}

fn plain<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let Some(value) = names::find(headers, name) else {
        return Ok("");
    };
    value
        .to_str()
        .map_err(|_| refusal::invalid(format!("header `{name}` must be plain text")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use wire::dialect;

    use super::*;

    fn scanned(dialect: &dyn Dialect, metadata: &str) -> (Bytes, Scan) {
        let text = format!("{{\"model\":\"auto\",\"max_tokens\":5,{metadata}\"messages\":[{{}}]}}");
        let body = Bytes::from(text);
        let scan = dialect.scan(&body).expect("a scan");
        (body, scan)
    }

    fn asked(header: Option<&'static str>, body: &str) -> Result<Hint, UnknownStep> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(HEADER, HeaderValue::from_static(header));
        }
        read(&headers, &scanned(dialect::OPENAI_CHAT, body).1)
    }

    #[test]
    fn the_header_wins_over_the_body_and_unknown_words_are_told() {
        let plan = "\"metadata\":{\"pareto_step\":\"plan\"},";
        let hint = |step, source| Ok(Hint { step, source });
        assert_eq!(asked(None, ""), hint(None, Source::Nowhere));
        assert_eq!(asked(None, plan), hint(Some(Step::Plan), Source::Body));
        assert_eq!(
            asked(Some("act"), plan),
            hint(Some(Step::Act), Source::Header)
        );
        let both = [
            asked(Some("acts"), plan),
            asked(Some("act"), "\"metadata\":{\"pareto_step\":\"planning\"},"),
        ];
        for (told, place) in both.into_iter().zip([HEADER, FIELD]) {
            let told = told.expect_err("no step").to_string();
            assert!(told.contains(place) && told.contains(Step::WORDS), "{told}");
        }
    }

    #[test]
    fn nothing_of_the_hint_is_left_in_the_body() {
        let others = "\"metadata\":{\"user_id\":\"u\"},";
        for (metadata, left) in [
            ("\"metadata\":{\"pareto_step\":\"plan\"},", ""),
            ("\"metadata\" : { \"pareto_step\" : \"plan\" },", ""),
            (
                "\"metadata\":{\"pareto_step\":\"plan\",\"user_id\":\"u\"},",
                others,
            ),
            (
                "\"metadata\":{\"user_id\":\"u\",\"pareto_step\":\"plan\"},",
                others,
            ),
            (
                "\"metadata\":{\"user_id\":\"u\",\"pareto_ste\\u0070\":\"plan\"},",
                others,
            ),
        ] {
            for dialect in [dialect::OPENAI_CHAT, dialect::ANTHROPIC_MESSAGES] {
                let (body, scan) = scanned(dialect, metadata);
                let (body, scan) = taken_out(body, scan, dialect).expect("a body");
                let (wanted, wanted_scan) = scanned(dialect, left);
                assert_eq!(body, wanted, "{metadata}");
                assert_eq!(scan, wanted_scan);
            }
        }
    }
}
