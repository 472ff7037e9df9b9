//! What endpoints say of pauses and allowances, compiled in here.

use http::{HeaderMap, HeaderName, HeaderValue};

#[path = "../../proxy/src/care/pause.rs"]
mod pause;

/// Lines of a head, as an endpoint may send them: a pause is a number or nothing.
pub fn read(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for now_ms in [0, 1_795_334_400_000, i64::MAX] {
        pause::asked_ms(&headers, now_ms);
        pause::used_up_ms(&headers, now_ms);
    }
}
