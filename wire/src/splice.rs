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

/// The edit that takes a member out of its object, with the comma that then stands alone.
pub fn cut(body: &[u8], member: Range<usize>) -> Edit {
    let is_space = |byte: &u8| b" \n\t\r".contains(byte);
    let before = body.get(..member.start).unwrap_or_default();
    let behind = body.get(member.end..).unwrap_or_default();
    let last = before.iter().rposition(|byte| !is_space(byte));
    let next = behind.iter().position(|byte| !is_space(byte));
    let comma = |byte: Option<&u8>| byte == Some(&b',');
    let at = match (last, next) {
        (Some(last), _) if comma(before.get(last)) => last..member.end,
        (_, Some(next)) if comma(behind.get(next)) => member.start..member.end + next + 1,
        _ => member,
    };
    Edit {
        at,
        with: Bytes::new(),
    }
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

    #[test]
    fn a_member_is_cut_with_its_comma() {
        let check = |body: &'static str, member: &str, left: &str| {
            let body = Bytes::from_static(body.as_bytes());
            let start = memchr::memmem::find(&body, member.as_bytes()).expect("a member");
            let edit = cut(&body, start..start + member.len());
            assert_eq!(apply(&body, vec![edit]).concat(), left.as_bytes());
        };
        check("{\"a\":1}", "\"a\":1", "{}");
        check("{ \"a\":1 , \"b\":2}", "\"a\":1", "{  \"b\":2}");
        check("{\"a\":1,\n \"b\":2 }", "\"b\":2", "{\"a\":1 }");
        check("{\"a\":1,\"b\":2,\"c\":3}", "\"b\":2", "{\"a\":1,\"c\":3}");
    }
}
