//! Editing a body by byte ranges: what is not edited is forwarded as it came, without a copy.

use std::ops::Range;

use bytes::Bytes;

/// Replaces the bytes of `at` (an empty range inserts) by `with`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub at: Range<usize>,
    pub with: Bytes,
}

/// The body with `edits` applied, as the pieces it now consists of. Edits may come in any order but
/// must not overlap; one that does, or that lies outside the body, is left out.
pub fn apply(body: &Bytes, mut edits: Vec<Edit>) -> Vec<Bytes> {
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let mut pieces = Vec::with_capacity(edits.len() * 2 + 1);
    let mut done = 0;
    for edit in edits {
        let sound = edit.at.start >= done && edit.at.end <= body.len();
        debug_assert!(sound, "edits overlap or leave the body: {edit:?}");
        if !sound {
            continue;
        }
        pieces.push(body.slice(done..edit.at.start));
        pieces.push(edit.with);
        done = edit.at.end;
    }
    pieces.push(body.slice(done..));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_change_their_range_and_nothing_else() {
        let body = Bytes::from_static(b"{\"model\":\"auto\",\"x\":1}");
        let edits = vec![
            Edit {
                at: 9..15,
                with: Bytes::from_static(b"\"m\""),
            },
            Edit {
                at: 1..1,
                with: Bytes::from_static(b"\"cap\":5,"),
            },
        ];
        assert_eq!(
            apply(&body, edits).concat(),
            b"{\"cap\":5,\"model\":\"m\",\"x\":1}"
        );
        assert_eq!(apply(&body, Vec::new()), vec![body.clone()]);
        assert_eq!(
            apply(&body, Vec::new())[0].as_ptr(),
            body.as_ptr(),
            "nothing was copied"
        );
    }
}
