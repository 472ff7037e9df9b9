//! Errors as each vendor writes them.

use serde_json::json;

use super::request::Dialect;

/// The body of an error with `status`, on call `number`.
pub(super) fn body(dialect: Dialect, status: u16, message: &str, number: u64) -> String {
    match dialect {
        Dialect::Messages => json!({
            "type": "error",
            "error": { "type": anthropic(status), "message": message },
            "request_id": format!("req_up_{number}"),
        }),
        Dialect::Chat | Dialect::Responses => {
            let (kind, code) = openai(status);
            json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
        }
    }
    .to_string()
}

fn anthropic(status: u16) -> &'static str {
    match status {
        400 | 405 | 409 | 415 | 422 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn openai(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        _ => ("server_error", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendor_has_its_own_words() {
        let anthropic = body(Dialect::Messages, 529, "busy", 3);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&anthropic).unwrap(),
            json!({ "type": "error", "request_id": "req_up_3",
                "error": { "type": "overloaded_error", "message": "busy" } })
        );
        let openai = body(Dialect::Responses, 429, "slow", 3);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&openai).unwrap(),
            json!({ "error": { "type": "requests", "message": "slow", "param": null,
                "code": "rate_limit_exceeded" } })
        );
    }
}
