//! The gateway's reader of HTTP/1.1. It is nobody else's affair, so its files are compiled in here instead of
//! being made public.

use bytes::{Bytes, BytesMut};

#[path = "../../proxy/src/http1/chunked.rs"]
mod chunked;
#[expect(dead_code, reason = "only its readers are asked")]
#[path = "../../proxy/src/http1/head.rs"]
mod head;

use chunked::{BadChunk, Chunked};
use head::{BadHead, Bounds, Framing, Search};

const BOUNDS: Bounds = Bounds {
    bytes: 4 << 10,
    fields: 32,
    line: 1 << 10,
};

/// A head is found at the same place, or not at all, wherever the bytes before it are cut.
fn found(bytes: &[u8], size: usize) -> Result<Option<Bytes>, BadHead> {
    let mut search = Search::default();
    let mut inbox = BytesMut::new();
    for piece in bytes.chunks(size.max(1)) {
        inbox.extend_from_slice(piece);
        if let Some(found) = search.find(&inbox, BOUNDS)? {
            return Ok(Some(head::cut(&mut inbox, found)));
        }
    }
    Ok(None)
}

/// What is taken for a head can be written out and read again as the same; the first byte says how it is cut.
pub fn heads(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = found(bytes, bytes.len());
    let pieces = found(bytes, usize::from(*size));
    assert_eq!(whole.is_ok(), pieces.is_ok());
    let Ok(Some(head)) = whole else {
        return;
    };
    assert_eq!(pieces.ok().flatten().as_ref(), Some(&head));
    if let Ok(request) = head::request(&head) {
        let line = format!("{} {} {:?}\r\n", request.method, request.uri, request.version);
        let again = head::request(&written(&line, &request.headers)).expect("it was one before");
        assert_eq!((&again.method, &again.headers), (&request.method, &request.headers));
        sound(&request.headers, head::framing(request.version, &request.headers));
    }
    if let Ok(response) = head::response(&head) {
        let line = format!("{:?} {}\r\n", response.version, response.status.as_str());
        let again = head::response(&written(&line, &response.headers)).expect("it was one before");
        assert_eq!((again.status, &again.headers), (response.status, &response.headers));
        sound(&response.headers, head::framing(response.version, &response.headers));
    }
}

fn written(line: &str, headers: &http::HeaderMap) -> Bytes {
    let mut out = line.as_bytes().to_vec();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    Bytes::from(out)
}

fn sound(headers: &http::HeaderMap, framing: Result<Framing, BadHead>) {
    for (name, value) in headers {
        assert!(!name.as_str().contains([' ', '\t', ':', '\r', '\n']));
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
    }
    let says = |name: &str| headers.get_all(name).iter().count();
    let (length, coding) = (says("content-length"), says("transfer-encoding"));
    let wanted = match framing {
        Ok(Framing::Length(_)) => (1, 0),
        Ok(Framing::Chunked) => (0, 1),
        Ok(Framing::Unsaid) => (0, 0),
        Err(_) => return assert!(length + coding > 0),
    };
    assert_eq!((length, coding), wanted, "two ways to read a body are none");
}

/// Content, and how much belonged to the message.
fn decoded(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), BadChunk> {
    let (mut reader, mut content, mut used) = (Chunked::default(), Vec::new(), 0);
    for piece in bytes.chunks(size.max(1)) {
        let mut piece = piece.to_vec();
        let decoded = reader.decode(&mut piece)?;
        content.extend_from_slice(&piece[decoded.content]);
        used += decoded.used;
    }
    Ok((content, used, reader.is_done()))
}

/// A chunked message has the same content wherever it is cut.
pub fn chunks(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decoded(bytes, bytes.len());
    let pieces = decoded(bytes, usize::from(*size));
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
        assert!(whole.0.len() <= whole.1 && whole.1 <= bytes.len());
    }
}
