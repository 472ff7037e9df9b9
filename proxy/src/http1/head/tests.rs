//! Tables of heads that are taken and refused, and how far cutting the input matters: not at all.

use super::*;

const BOUNDS: Bounds = Bounds {
    bytes: 2_000,
    fields: 5,
    line: 100,
};

/// What becomes of a request that comes in two pieces: the head, and how much is left behind it.
fn read(input: &[u8], cut_at: usize) -> Option<Result<(RequestHead, usize), BadHead>> {
    let mut search = Search::default();
    let mut inbox = BytesMut::new();
    for piece in [&input[..cut_at], &input[cut_at..]] {
        inbox.extend_from_slice(piece);
        match search.find(&inbox, BOUNDS) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let head = cut(&mut inbox, found);
                let rest = input.len() - cut_at + inbox.len();
                let left = if piece.len() == cut_at {
                    rest
                } else {
                    inbox.len()
                };
                return Some(request(&head).map(|read| (read, left)));
            }
            Err(bad) => return Some(Err(bad)),
        }
    }
    None
}

fn refused(input: &str) -> BadHead {
    let whole = read(input.as_bytes(), input.len()).expect("seen at once");
    let bad = whole.expect_err(input);
    for cut_at in 0..input.len() {
        let got = read(input.as_bytes(), cut_at);
        let got = got.expect("seen").expect_err(input);
        assert_eq!(got, bad, "{input:?} cut at {cut_at}");
    }
    bad
}

#[test]
fn good_requests_are_read_wherever_they_are_cut() {
    for (input, method, uri, version, fields) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET",
            "/",
            Version::HTTP_11,
            1,
        ),
        (
            "GET /a?b=c HTTP/1.0\r\n\r\n",
            "GET",
            "/a?b=c",
            Version::HTTP_10,
            0,
        ),
        (
            "\r\nPOST /%7Ea HTTP/1.1\r\nHost:a\r\nX:\t b \t\r\n\r\n",
            "POST",
            "/%7Ea",
            Version::HTTP_11,
            2,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS",
            "*",
            Version::HTTP_11,
            1,
        ),
        (
            "GET http://a:80/b HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET",
            "http://a:80/b",
            Version::HTTP_11,
            1,
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT",
            "a:443",
            Version::HTTP_11,
            1,
        ),
        (
            "fetch / HTTP/1.9\r\nA: \u{fc}\r\nA:\r\n\r\n",
            "fetch",
            "/",
            Version::HTTP_11,
            2,
        ),
    ] {
        for cut_at in 0..=input.len() {
            let (head, _) = read(input.as_bytes(), cut_at).expect(input).expect(input);
            assert_eq!(head.method.as_str(), method, "{input:?}");
            assert_eq!(head.uri.to_string(), uri, "{input:?}");
            assert_eq!(
                (head.version, head.headers.len()),
                (version, fields),
                "{input:?}"
            );
        }
    }
}

#[test]
fn what_follows_a_head_is_left_and_white_space_around_values_is_not() {
    let two = b"GET / HTTP/1.1\r\n\r\nGET /next";
    let (_, left) = read(two, two.len()).unwrap().unwrap();
    assert_eq!(left, "GET /next".len());
    let (head, _) = read(b"GET / HTTP/1.1\r\nX:\t b c \t\r\n\r\n", 9)
        .unwrap()
        .unwrap();
    assert_eq!(head.headers["x"], "b c");
}

#[test]
fn half_requests_wait() {
    let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for length in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..length], length / 2).is_none());
    }
}

#[test]
fn malformed_first_lines_are_refused() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/11",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / http/1.1",
        "GET / HTTPS/1.1",
        "GET / HTTP 1.1",
        "G(T / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /<a> HTTP/1.1",
        "GET /a\\b HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "/ HTTP/1.1",
        "hello",
        "\r",
    ] {
        let bad = refused(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(bad, BadHead::FirstLine, "{line:?}");
    }
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), BadHead::FirstLine);
    assert_eq!(refused("\nGET / HTTP/1.1\r\n\r\n"), BadHead::FirstLine);
    assert_eq!(
        refused("\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        BadHead::FirstLine
    );
    for line in [
        "GET / HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/0.9",
        "PRI * HTTP/2.1",
    ] {
        let method = line.replace("PRI *", "PRI /");
        assert_eq!(
            refused(&format!("{method}\r\n\r\n")),
            BadHead::Version,
            "{line}"
        );
    }
    let long = format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(40));
    assert_eq!(refused(&long), BadHead::Method);
}

#[test]
fn malformed_fields_are_refused() {
    for field in [
        "Host : a",
        "Host\t: a",
        " Host: a",
        "\tHost: a",
        "Host",
        ": a",
        "Ho st: a",
        "Ho\0st: a",
        "H\u{f6}st: a",
        "Host: a\r\n b",
        "Host: a\r\n\tb",
        "Host: a\0b",
        "Host: a\u{1}b",
        "Host: a\u{7f}b",
        "Host: a\rb",
        "Host: a\r\r\nX: b",
        "Host: a\nX: b",
        "Host: a\r\nX: b\n",
    ] {
        let bad = refused(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n"));
        assert_eq!(bad, BadHead::Field, "{field:?}");
    }
}

#[test]
fn heads_beyond_their_bounds_are_refused_before_they_end() {
    let too_large = BadHead::TooLarge(2_000, 5);
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100));
    assert_eq!(refused(&target), BadHead::LongTarget);
    let endless = format!("GET /{}", "a".repeat(200));
    assert_eq!(
        read(endless.as_bytes(), 150).unwrap().unwrap_err(),
        BadHead::LongTarget
    );
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(6));
    assert_eq!(read(many.as_bytes(), 30).unwrap().unwrap_err(), too_large);
    let enough = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5));
    assert!(read(enough.as_bytes(), 30).unwrap().is_ok());
    let wide = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(2_000));
    assert_eq!(
        read(wide.as_bytes(), 1_000).unwrap().unwrap_err(),
        too_large
    );
    let whole = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(2_000));
    assert_eq!(read(whole.as_bytes(), 0).unwrap().unwrap_err(), too_large);
}

fn framed(version: Version, fields: &[(&str, &str)]) -> Result<Framing, BadHead> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    framing(version, &headers)
}

#[test]
fn a_body_has_one_length_or_none() {
    let new = Version::HTTP_11;
    assert_eq!(framed(new, &[]), Ok(Framing::Unsaid));
    for (text, length) in [
        ("0", 0),
        ("5", 5),
        ("0005", 5),
        ("9223372036854775807", i64::MAX),
    ] {
        let length = u64::try_from(length).unwrap();
        assert_eq!(
            framed(new, &[("content-length", text)]),
            Ok(Framing::Length(length))
        );
    }
    for bad in [
        "",
        "-1",
        "+5",
        "0x5",
        "5,5",
        "5, 5",
        "5 5",
        "1e3",
        "5.0",
        "a",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999",
        "00000000000000000000005",
    ] {
        assert!(framed(new, &[("content-length", bad)]).is_err(), "{bad:?}");
    }
    for second in ["5", "6"] {
        let twice = [("content-length", "5"), ("content-length", second)];
        assert!(framed(new, &twice).is_err());
    }
    for good in ["chunked", "Chunked", "CHUNKED"] {
        assert_eq!(
            framed(new, &[("transfer-encoding", good)]),
            Ok(Framing::Chunked)
        );
        assert!(framed(Version::HTTP_10, &[("transfer-encoding", good)]).is_err());
        let both = [("transfer-encoding", good), ("content-length", "5")];
        assert!(framed(new, &both).is_err());
        let twice = [("transfer-encoding", good), ("transfer-encoding", good)];
        assert!(framed(new, &twice).is_err());
    }
    for bad in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;a",
        "xchunked",
        "chunked,",
    ] {
        assert!(
            framed(new, &[("transfer-encoding", bad)]).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn answers_are_read_strictly_too() {
    let read = |head: &str| response(&Bytes::copy_from_slice(head.as_bytes()));
    for (head, status, fields) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 200, 0),
        ("HTTP/1.1 200\r\nA: b\r\n\r\n", 200, 1),
        ("HTTP/1.1 529 \r\nA: b\r\n\r\n", 529, 1),
        (
            "HTTP/1.0 404 Not at all \u{fc}\r\nA: b\r\nA: b\r\n\r\n",
            404,
            2,
        ),
    ] {
        let read = read(head).unwrap();
        assert_eq!(
            (read.status.as_u16(), read.headers.len()),
            (status, fields),
            "{head:?}"
        );
    }
    for bad in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1",
        "ICY 200 OK",
        "",
    ] {
        assert!(read(&format!("{bad}\r\n\r\n")).is_err(), "{bad:?}");
    }
    for bad in ["A : b", " A: b", "A: b\r\n c", "A: \0", "A"] {
        let head = format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n");
        assert_eq!(read(&head).unwrap_err(), BadHead::Field, "{bad:?}");
    }
}
