//! What callers say of a call to the router: how sensitive it is.

use http::HeaderMap;
use wire::Refusal;

use crate::refusal;

/// The sensitivity label that the caller names; empty where it names none.
///
/// # Errors
/// When it is no plain text.
pub(crate) fn label(headers: &HeaderMap) -> Result<&str, Refusal> {
    let Some(value) = headers.get("x-pareto-label") else {
        return Ok("");
    };
    value
        .to_str()
        .map_err(|_| refusal::invalid("header `x-pareto-label` must be plain text".to_owned()))
}
