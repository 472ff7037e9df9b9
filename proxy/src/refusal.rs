//! Every way a call can fail, as one answer: whose fault, which status, whether to try again.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use meter::{Denied, JournalError, NanoUsd};
use wire::archive::{ArchiveError, Shelf};
use wire::{Dialect, Fault, Loss, Refusal, RequestId, ScanError};

use crate::admission::Short;
use crate::context::fit::DoesNotFit;
use crate::edge::Malformed;
use crate::gateway::Body;
use crate::http1::BadRequest;
use crate::identify::Stranger;
use crate::intake::ReadCallError;

/// Refusals made while the body is not, or not wholly, read.
const UNREAD: [&str; 9] = [
    "malformed_request",
    "body_too_large",
    "body_timeout",
    "body_incomplete",
    "missing_api_key",
    "invalid_api_key",
    "revoked_api_key",
    "too_many_wrong_keys",
    "overloaded",
];

/// Shorthand for a refusal that another try may change.
fn refusal(fault: Fault, status: u16, code: &'static str, message: String) -> Refusal {
    Refusal {
        fault,
        status,
        code,
        message,
        retry_after_s: None,
        is_final: false,
        allow: "",
    }
}

pub(crate) fn malformed(error: Malformed) -> Refusal {
    let status = match error {
        Malformed::ContentEncoding => 415,
        _ => 400,
    };
    refusal(
        Fault::Caller,
        status,
        "malformed_request",
        error.to_string(),
    )
}

/// A request of which not even the head could be read.
pub(crate) fn unread(bad: &BadRequest) -> Refusal {
    refusal(
        Fault::Caller,
        bad.status(),
        "malformed_request",
        bad.to_string(),
    )
}

pub(crate) fn stranger(error: Stranger) -> Refusal {
    let code = match error {
        Stranger::NoKey => "missing_api_key",
        Stranger::TwoKeys | Stranger::WrongKey => "invalid_api_key",
        Stranger::Revoked => "revoked_api_key",
    };
    refusal(Fault::Caller, 401, code, error.to_string())
}

/// A wrong key is one of too many; for `seconds` it is of no use to send another.
pub(crate) fn guessing(seconds: u64) -> Refusal {
    let message = "too many wrong keys came from this address, or for this key; right ones are let in at any time";
    Refusal {
        retry_after_s: Some(seconds),
        ..refusal(
            Fault::Caller,
            429,
            "too_many_wrong_keys",
            message.to_owned(),
        )
    }
}

pub(crate) fn unreadable(error: &ReadCallError) -> Refusal {
    let (status, code) = match error {
        ReadCallError::Crowded => return overloaded(Short::Bodies, 1),
        ReadCallError::TooLong(_) => (413, "body_too_large"),
        ReadCallError::Slow(_) => (408, "body_timeout"),
        ReadCallError::Broken => (400, "body_incomplete"),
        ReadCallError::Scan(ScanError::Json(_) | ScanError::NotAnObject) => (400, "invalid_json"),
        ReadCallError::Scan(ScanError::Duplicate(_) | ScanError::Case(..)) => {
            (400, "duplicate_field")
        }
        ReadCallError::Scan(ScanError::Missing(_) | ScanError::Wrong(..))
        | ReadCallError::Step(_) => (400, "invalid_field"),
    };
    refusal(Fault::Caller, status, code, error.to_string())
}

pub(crate) fn no_model(error: &router::NoModel) -> Refusal {
    let (status, code) = match error {
        router::NoModel::Barred { .. } => (403, "model_not_allowed"),
        router::NoModel::Refused(_) => (403, "policy_refused"),
        _ => (404, "model_not_found"),
    };
    refusal(Fault::Caller, status, code, error.to_string())
}

/// A spent budget is final until its window ends: SDKs are told not to try again.
pub(crate) fn denied(error: &Denied, now_ms: i64) -> Refusal {
    match error {
        Denied::Budget { resets_at_ms, .. } | Denied::OnlyFree { resets_at_ms, .. } => Refusal {
            retry_after_s: seconds_until(*resets_at_ms, now_ms),
            is_final: true,
            ..refusal(Fault::Caller, 429, "budget_exceeded", error.to_string())
        },
        Denied::Rate { resets_at_ms, .. } => Refusal {
            retry_after_s: seconds_until(*resets_at_ms, now_ms).or(Some(1)),
            ..refusal(Fault::Caller, 429, "rate_limit_exceeded", error.to_string())
        },
        Denied::Unavailable { .. } => Refusal {
            retry_after_s: Some(5),
            ..refusal(Fault::Gateway, 503, "budget_unavailable", error.to_string())
        },
        Denied::Clock { .. } => Refusal {
            retry_after_s: Some(5),
            ..refusal(Fault::Gateway, 503, "clock_behind", error.to_string())
        },
        Denied::Unpriced { .. } => Refusal {
            is_final: true,
            ..refusal(Fault::Gateway, 403, "model_unpriced", error.to_string())
        },
        Denied::Journal(error) => journal(error),
    }
}

/// Whole seconds until a window ends.
fn seconds_until(end_ms: Option<i64>, now_ms: i64) -> Option<u64> {
    let left = end_ms?.saturating_sub(now_ms).max(0);
    Some(u64::try_from(left).ok()?.div_ceil(1_000))
}

/// No model answers for what the caller is ready to pay.
pub(crate) fn too_dear(model: &str, most: NanoUsd, needed: Option<NanoUsd>) -> Refusal {
    let may = needed.map_or_else(
        || "has no price".to_owned(),
        |needed| format!("may cost {needed} USD"),
    );
    let message = format!(
        "the call {may} at model `{model}`, and `x-pareto-max-cost` is {most}; raise it, shorten the \
         call or set a smaller output cap"
    );
    Refusal {
        is_final: true,
        ..refusal(Fault::Caller, 402, "max_cost_exceeded", message)
    }
}

pub(crate) fn journal(error: &JournalError) -> Refusal {
    tracing::error!(%error, "a call was refused because it could not be written down");
    let message = "calls can not be written down at the moment; try again later".to_owned();
    Refusal {
        retry_after_s: Some(5),
        ..refusal(Fault::Gateway, 503, "ledger_unavailable", message)
    }
}

pub(crate) fn ledger_unavailable() -> Refusal {
    let message = "the ledger does not answer at the moment; try again later".to_owned();
    Refusal {
        retry_after_s: Some(5),
        ..refusal(Fault::Gateway, 503, "ledger_unavailable", message)
    }
}

/// There is no place for the call, nor one coming; `seconds` from now there may be.
pub(crate) fn overloaded(short: Short, seconds: u64) -> Refusal {
    let what = match short {
        Short::Places => {
            "limits.in_flight calls are under way, and as many as may wait for a place"
        }
        Short::Lag => "more comes than the gateway can serve",
        Short::Memory => "the gateway has nearly all the memory it may have",
        Short::Descriptors => "the gateway can open no more connections",
        Short::Bodies => "other bodies have all the memory there is for bodies",
    };
    Refusal {
        retry_after_s: Some(seconds),
        ..refusal(
            Fault::Gateway,
            503,
            "overloaded",
            format!("{what}; try again shortly"),
        )
    }
}

pub(crate) fn panicked() -> Refusal {
    let message =
        "the gateway failed on this call; the log has it under this request id".to_owned();
    refusal(Fault::Gateway, 500, "internal_error", message)
}

pub(crate) fn no_such_path(path: &str) -> Refusal {
    let message =
        format!("nothing answers at {path}; calls go to /v1/chat/completions or /v1/messages");
    refusal(Fault::Caller, 404, "unknown_path", message)
}

pub(crate) fn wrong_method(path: &str, allow: &'static str) -> Refusal {
    let message = format!("{path} takes {allow}");
    Refusal {
        allow,
        ..refusal(Fault::Caller, 405, "method_not_allowed", message)
    }
}

/// A method that nothing here takes.
pub(crate) fn unknown_method(method: &Method) -> Refusal {
    let known = "GET, HEAD, POST, PATCH and DELETE are taken; methods are written in capitals";
    // As long as the request's line may be, and of whatever bytes a name may have.
    let shown: String = method.as_str().chars().take(32).collect();
    let message = format!("the method {shown} is not taken anywhere here; {known}");
    refusal(Fault::Caller, 501, "method_not_implemented", message)
}

pub(crate) fn no_such_call(id: &str) -> Refusal {
    let message = format!(
        "no settled call `{id}` of this key's tenant; ids look like req_ and 32 hex digits"
    );
    refusal(Fault::Caller, 404, "call_not_found", message)
}

/// A refusal that an upstream is the cause of.
pub(crate) fn upstream(status: u16, code: &'static str, message: String) -> Refusal {
    refusal(Fault::Upstream, status, code, message)
}

/// The caller waits for less time than the model needs.
pub(crate) fn too_late(model: &str, left: Duration, usual: Duration) -> Refusal {
    let (left, usual) = (left.as_millis(), usual.as_millis());
    let message = format!(
        "the call's deadline leaves {left} ms, and model `{model}` has lately needed {usual} ms to its first \
         content; allow more time, or name a quicker model"
    );
    Refusal {
        is_final: true,
        ..refusal(Fault::Caller, 504, "deadline_too_short", message)
    }
}

/// The caller's deadline has passed while a model worked on the call.
pub(crate) fn deadline_passed(model: &str) -> Refusal {
    let message = format!("the call's deadline has passed before model `{model}` answered");
    refusal(Fault::Caller, 504, "deadline_exceeded", message)
}

/// The call is understood by its scan, but not as a conversation.
pub(crate) fn undecodable(error: &str) -> Refusal {
    let message = format!("the call can not be read as a conversation: {error}");
    refusal(Fault::Caller, 400, "invalid_field", message)
}

/// A translation would lose what the policy does not let be lost.
pub(crate) fn lossy(model: &str, loss: &Loss) -> Refusal {
    let message = format!(
        "on the way to model `{model}` this would be lost: {loss}; leave it out, or name a model that speaks \
         your dialect"
    );
    refusal(Fault::Caller, 400, "translation_loss", message)
}

/// Nothing of what a call asks can be told to the model.
pub(crate) fn untold(model: &str, what: &str) -> Refusal {
    let message = format!(
        "model `{model}` can be told nothing of what this call asks, which is {what}; say it in words, or name a \
         model that speaks your dialect"
    );
    refusal(Fault::Caller, 400, "translation_loss", message)
}

/// The prompt does not fit the model's window, whatever is left out.
pub(crate) fn too_long(error: &DoesNotFit) -> Refusal {
    refusal(
        Fault::Caller,
        400,
        "context_length_exceeded",
        error.to_string(),
    )
}

/// What the call names by id is longer than a call may be.
pub(crate) fn too_much_context(limit: usize) -> Refusal {
    let message = format!(
        "what this call names by id has more than {limit} bytes; begin anew, or raise limits.body_bytes"
    );
    refusal(Fault::Caller, 413, "context_too_large", message)
}

/// An upstream's word on the caller's own mistake.
pub(crate) fn rejected(status: u16, told: String) -> Refusal {
    refusal(Fault::Caller, status, "upstream_rejected", told)
}

pub(crate) fn archive_unavailable(error: &ArchiveError) -> Refusal {
    tracing::error!(%error, "the archive does not answer");
    let message = "kept conversations can not be read at the moment; try again later".to_owned();
    Refusal {
        retry_after_s: Some(5),
        ..refusal(Fault::Gateway, 503, "archive_unavailable", message)
    }
}

pub(crate) fn no_such_document(shelf: Shelf, id: &str) -> Refusal {
    let what = shelf.as_str();
    let message =
        format!("{what} `{id}` was not found; it may be another tenant's, deleted or too old");
    refusal(Fault::Caller, 404, "not_found", message)
}

/// What a call goes on from is not there: the call itself is wrong, not its path.
pub(crate) fn no_such_previous(shelf: Shelf, error: Refusal) -> Refusal {
    match (error.status, shelf) {
        (404, Shelf::Response) => Refusal {
            status: 400,
            code: "previous_response_not_found",
            ..error
        },
        (404, _) => Refusal {
            status: 400,
            ..error
        },
        _ => error,
    }
}

/// A response that can not be gone on from, because it has no answer.
pub(crate) fn unanswered(id: &str, status: &str) -> Refusal {
    invalid(format!(
        "`previous_response_id` is `{id}`, which is {status}: a call goes on from one that was answered"
    ))
}

/// A response has no events to listen to.
pub(crate) fn no_stream(id: &str) -> Refusal {
    invalid(format!(
        "response `{id}` has no events to listen to: only one that was asked for with `background` and `stream` \
         has, and for some minutes after its end; ask for it without `stream`"
    ))
}

/// Nobody could fetch the answer.
pub(crate) fn unstored() -> Refusal {
    let message = "`background` needs `store`: what is not kept can not be fetched later";
    invalid(message.to_owned())
}

/// An upstream has kept a response, and did not delete it.
pub(crate) fn not_deleted(id: &str, origin: &str, what: &str) -> Refusal {
    let message = format!(
        "response `{id}` is kept by {origin} too, which did not delete it: {what}; try again"
    );
    upstream(502, "upstream_failed", message)
}

/// A field of a kept thing is not as it must be.
pub(crate) fn invalid(message: String) -> Refusal {
    refusal(Fault::Caller, 400, "invalid_field", message)
}

/// A call's idempotency key is none, or one of two.
pub(crate) fn bad_idempotency_key(most: usize) -> Refusal {
    invalid(format!(
        "`Idempotency-Key` must stand once, with 1 to {most} visible characters of ASCII"
    ))
}

/// The key was given to another call.
pub(crate) fn reused_idempotency_key(first: RequestId) -> Refusal {
    let message = format!(
        "this `Idempotency-Key` came with another body before, as call {first}; give each call a key of its own"
    );
    Refusal {
        is_final: true,
        ..refusal(Fault::Caller, 422, "idempotency_key_reused", message)
    }
}

/// The caller wants a web socket; clients that hear this go on over plain HTTP.
pub(crate) fn no_web_socket() -> Refusal {
    let message = "web sockets are not spoken here; send the call as an HTTP request".to_owned();
    refusal(Fault::Caller, 426, "upgrade_not_supported", message)
}

/// A call whose cost no bound can be given for, under a budget that must not be passed.
pub(crate) fn unbounded() -> Refusal {
    let message = "tools that the provider runs itself have no bound on their cost, and a hard budget \
                   covers this key; leave them out, or use a key without a hard budget";
    Refusal {
        is_final: true,
        ..refusal(Fault::Caller, 403, "unbounded_cost", message.to_owned())
    }
}

/// The answer to the caller, in the caller's dialect.
pub(crate) fn response(
    refusal: &Refusal,
    dialect: &dyn Dialect,
    request: RequestId,
) -> Response<Body> {
    let text = dialect.refuse(refusal, request);
    let mut response = json(refusal.status, text);
    dress(response.headers_mut(), refusal);
    response
}

/// Adds the fields of a refusal's answer, in whatever words it is told.
pub(crate) fn dress(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(seconds) = refusal.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.is_final {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    // What these statuses must say (RFC 9110, 15.5.2, 15.5.6, 15.5.16, 15.5.22).
    let must = match refusal.status {
        401 => Some((WWW_AUTHENTICATE, "Bearer realm=\"pareto\"")),
        405 => Some((ALLOW, refusal.allow)),
        415 => Some((ACCEPT_ENCODING, "identity")),
        426 => Some((UPGRADE, "HTTP/1.1")),
        _ => None,
    };
    if let Some((name, value)) = must {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is left of a body nobody reads must not be taken for the next request.
    if UNREAD.contains(&refusal.code) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A JSON answer.
pub(crate) fn json(status: u16, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
