//! How long a body is, and in what it comes.

use super::super::{BAD, Case, Kept, Last, Refused, Unserved, Want, body, case, post};
use super::table;

pub(super) fn lengths() -> Vec<Case> {
    let body = body();
    let right = body.len();
    let number = |text: &str| text.replace('N', &right.to_string());
    let rows = [
        (" N", Kept(&[200])),
        ("N", Kept(&[200])),
        ("\tN\t", Kept(&[200])),
        (" 0N", Kept(&[200])),
        (" 0000000000N", Kept(&[200])),
        ("", BAD),
        (" ", BAD),
        (" +N", BAD),
        (" -N", BAD),
        (" -1", BAD),
        (" -0", BAD),
        (" 0xN", BAD),
        (" 0x0", BAD),
        (" N.0", BAD),
        (" N,0", BAD),
        (" Ne0", BAD),
        (" N_", BAD),
        (" N N", BAD),
        (" N,N", BAD),
        (" N, N", BAD),
        (" N,", BAD),
        (" ,N", BAD),
        (" N;", BAD),
        (" N;x=y", BAD),
        (" \"N\"", BAD),
        (" 'N'", BAD),
        (" N\0", BAD),
        (" \0N", BAD),
        (" N\u{b}", BAD),
        (" \u{c}N", BAD),
        (" N\u{a0}", BAD),
        (" ٣", BAD),
        (" １", BAD),
        (" NaN", BAD),
        (" inf", BAD),
        (" chunked", BAD),
        (" 9223372036854775808", BAD),
        (" 18446744073709551615", BAD),
        (" 18446744073709551616", BAD),
        (" 18446744073709551700", BAD),
        (" 99999999999999999999999999999999", BAD),
        (" 4294967296000", Refused(&[413])),
        (" 10485761", Refused(&[413])),
        (" 9223372036854775807", Refused(&[413])),
        ("\r\n N", BAD),
        (" N\r\n N", BAD),
        (" N\r\ncontent-length: N", BAD),
        (" N\r\ncontent-length: 0", BAD),
        (" 0\r\ncontent-length: N", BAD),
        (" N\r\nContent-Length: 1", BAD),
        (" N\r\ncontent-length:", BAD),
        (" N\r\ncontent-length: x", BAD),
        (" N\r\ncontent-length : N", BAD),
        (" N\r\n content-length: 0", BAD),
        (" N\r\ncontent_length: 0", Kept(&[200])),
        (" N\r\nx-content-length: 0", Kept(&[200])),
        (" N\r\nconnection: content-length", Kept(&[200])),
        (" N\r\nconnection: close, content-length", Last(200)),
        (" N\r\nconnection: Content-Length, keep-alive", Kept(&[200])),
        (" N\r\ntransfer-encoding: chunked", BAD),
        (" N\r\ntransfer-encoding: identity", BAD),
        (" N\r\ntransfer-encoding:", BAD),
        (" N\r\ntransfer-encoding: x", BAD),
        (" N\r\ntransfer-encoding : chunked", BAD),
        (" N\r\n transfer-encoding: chunked", BAD),
        (" N\r\ntransfer_encoding: chunked", Kept(&[200])),
        (" N\r\nx: y\ntransfer-encoding: chunked", BAD),
        (" N\r\nx: y\rtransfer-encoding: chunked", BAD),
        (" N\r\nexpect: 100-continue", Kept(&[200])),
        (" N\r\nte: chunked", Kept(&[200])),
    ];
    let mut cases = table("length", &rows, |text| {
        post(&format!("content-length:{}\r\n", number(text)), &body)
    });
    let get = |fields: &str, body: &str| {
        format!(
            "GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n{fields}\r\n{body}"
        )
    };
    let old = |fields: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.0\r\nhost: a\r\nauthorization: Bearer KEY\r\n{fields}\r\n{body}"
        )
    };
    let inner = "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
    cases.extend([
        case("a body of GET", get("content-length: 5\r\n", "hello"), Kept(&[200])),
        case("a body of GET, chunked", get("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), Kept(&[200])),
        case(
            "a request as the body of GET",
            get(&format!("content-length: {}\r\n", inner.len()), inner),
            Kept(&[200]),
        ),
        case("no length", post("", ""), Kept(&[400, 411])),
        case("a length that is too short", post(&format!("content-length: {}\r\n", right - 1), &body), Unserved),
        case("a length of nothing before a body", post("content-length: 0\r\n", &body), Unserved),
        case("a body nobody declared", post("", &body), Unserved),
        case("HTTP/1.0 with a length", old(&format!("content-length: {right}\r\n")), Last(200)),
        case("HTTP/1.0 without a length", old(""), Last(400)),
        case("HTTP/1.0 in chunks", old("transfer-encoding: chunked\r\n"), BAD),
        case("HTTP/1.0 both ways", old(&format!("content-length: {right}\r\ntransfer-encoding: chunked\r\n")), BAD),
        case(
            "HTTP/1.0 both ways, kept alive",
            old(&format!("connection: keep-alive\r\ntransfer-encoding: chunked\r\ncontent-length: {right}\r\n")),
            BAD,
        ),
    ]);
    cases
}

pub(super) fn codings() -> Vec<Case> {
    let wrong = Refused(&[400, 501]);
    let rows = [
        (": chunked", Kept(&[200])),
        (":chunked", Kept(&[200])),
        (":\tchunked \t", Kept(&[200])),
        (": Chunked", Kept(&[200])),
        (": CHUNKED", Kept(&[200])),
        (":", wrong),
        (": ", wrong),
        (": identity", wrong),
        (": gzip", wrong),
        (": deflate", wrong),
        (": compress", wrong),
        (": x", wrong),
        (": cow", wrong),
        (": xchunked", wrong),
        (": chunkedx", wrong),
        (": chunke", wrong),
        (": hunked", wrong),
        (": chunked chunked", wrong),
        (": chunked,chunked", wrong),
        (": chunked, chunked", wrong),
        (": chunked, identity", wrong),
        (": identity, chunked", wrong),
        (": gzip, chunked", wrong),
        (": chunked, gzip", wrong),
        (": chunked,", wrong),
        (": ,chunked", wrong),
        (": , chunked", wrong),
        (": chunked;", wrong),
        (": chunked;q=1", wrong),
        (": chunked;foo=bar", wrong),
        (": \"chunked\"", wrong),
        (": 'chunked'", wrong),
        (": chunked\0", wrong),
        (": \0chunked", wrong),
        (": \u{b}chunked", wrong),
        (": chunked\u{b}", wrong),
        (": \u{c}chunked", wrong),
        (": \u{a0}chunked", wrong),
        (": chünked", wrong),
        (": c\u{200b}hunked", wrong),
        (": trailers", wrong),
        (": close", wrong),
        (": chunked\r\ntransfer-encoding: chunked", wrong),
        (": chunked\r\ntransfer-encoding: identity", wrong),
        (": identity\r\ntransfer-encoding: chunked", wrong),
        (": gzip\r\ntransfer-encoding: chunked", wrong),
        (": chunked\r\ntransfer-encoding: gzip", wrong),
        (": chunked\r\nTransfer-Encoding:", wrong),
        (": chunked\r\nTRANSFER-ENCODING: cow", wrong),
        (":\r\n chunked", wrong),
        (": chunked\r\n ", wrong),
        (": chunked\r\n , identity", wrong),
        (": chunked\n", wrong),
        (" : chunked", wrong),
        ("\t: chunked", wrong),
        (": chunked\r\ncontent-length: 0", wrong),
        (": chunked\r\ncontent-length: 5", wrong),
        (": chunked\r\ncontent-length: x", wrong),
        (": chunked\r\ncontent-length:", wrong),
        (": chunked\r\nContent-Length: 3\r\ncontent-length: 3", wrong),
        (": cow\r\ncontent-length: 5", wrong),
        (": chunked\r\nconnection: transfer-encoding", Kept(&[200])),
        (
            ": chunked\r\nconnection: close, transfer-encoding",
            Last(200),
        ),
        (": chunked\r\ntrailer: content-length", Kept(&[200])),
        (": chunked\r\nte: trailers", Kept(&[200])),
        (": chunked\r\nexpect: 100-continue", Kept(&[200])),
    ];
    let body = body();
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut cases = table("coding", &rows, |text| {
        post(&format!("transfer-encoding{text}\r\n"), &chunks)
    });
    for name in [
        "transfer_encoding",
        "transfer.encoding",
        "x-transfer-encoding",
        "transferencoding",
    ] {
        let request = post(&format!("{name}: chunked\r\n"), &chunks);
        cases.push(case(format!("{name} is no coding"), request, Unserved));
    }
    cases
}

pub(super) fn chunks() -> Vec<Case> {
    let body = body();
    let size = body.len();
    let (half, rest) = body.split_at(size / 2);
    let (first, second) = (half.len(), rest.len());
    let wide = format!(";{}", "a".repeat(15_000));
    let wider = format!(";{}", "a".repeat(17_000));
    let trailers = "a: b\r\n".repeat(8_000);
    let bytes: String = body
        .bytes()
        .map(|byte| format!("1\r\n{}\r\n", char::from(byte)))
        .collect();
    let ok = Kept(&[200]);
    let rows: Vec<(String, Want)> = vec![
        (format!("{size:x}\r\n{body}\r\n0\r\n\r\n"), ok),
        (format!("{size:X}\r\n{body}\r\n0\r\n\r\n"), ok),
        (format!("{size:016x}\r\n{body}\r\n0000\r\n\r\n"), ok),
        (
            format!("{first:x}\r\n{half}\r\n{second:x}\r\n{rest}\r\n0\r\n\r\n"),
            ok,
        ),
        (format!("{bytes}0\r\n\r\n"), ok),
        (format!("{size:x};a\r\n{body}\r\n0\r\n\r\n"), ok),
        (
            format!("{size:x};a=b;c=\"d;e\"\r\n{body}\r\n0;f\r\n\r\n"),
            ok,
        ),
        (format!("{size:x} ;a\r\n{body}\r\n0\r\n\r\n"), ok),
        (format!("{size:x}{wide}\r\n{body}\r\n0\r\n\r\n"), ok),
        (
            format!("{size:x}\r\n{body}\r\n0\r\na: b\r\nc: d\r\n\r\n"),
            ok,
        ),
        (
            format!("{size:x}\r\n{body}\r\n0\r\ncontent-length: 5\r\n\r\n"),
            ok,
        ),
        (
            format!("{size:x}\r\n{body}\r\n0\r\ntransfer-encoding: chunked\r\nhost: b\r\n\r\n"),
            ok,
        ),
        (
            format!("{size:x}\r\n{body}\r\n0\r\nauthorization: Bearer x\r\n\r\n"),
            ok,
        ),
        (format!("{size:x}{wider}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\n{trailers}\r\n"), BAD),
        (format!("{size:017x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:0100x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("1{size:016x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("8000000000000000\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("ffffffffffffffff\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("fffffffffffffffe\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("+{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("-{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("-1\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("0X{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}h\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}_\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}.0\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x},{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x} {size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("\"{size:x}\"\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!(" {size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("\t{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x} \r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\t\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\0\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!(";a\r\n{body}\r\n0\r\n\r\n"), BAD),
        ("\r\n\r\n".to_owned(), BAD),
        ("x\r\n\r\n".to_owned(), BAD),
        ("{}\r\n\r\n".to_owned(), BAD),
        (format!("{size:x}\n{body}\n0\n\n"), BAD),
        (format!("{size:x}\r{body}\r0\r\r"), BAD),
        (format!("{size:x}\r\n{body}\n0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\n\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\n\r\r\n"), BAD),
        (format!("{size:x}\r\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0 \r\n\r\n"), BAD),
        (format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 1), BAD),
        (format!("{:x}\r\n{body}\r\n0\r\n\r\n", size + 1), BAD),
        (format!("{size:x};a\nb\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};a\rb\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};a=\"\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};a=\"\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};a=\"b\r\n\"\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};\0\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x};a\u{1}\r\n{body}\r\n0\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\na\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\n: b\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\na b: c\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\na : c\r\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\n a: c\r\n\r\n"), BAD),
        (
            format!("{size:x}\r\n{body}\r\n0\r\na: b\r\n c\r\n\r\n"),
            BAD,
        ),
        (format!("{size:x}\r\n{body}\r\n0\r\na: b\n\r\n"), BAD),
        (format!("{size:x}\r\n{body}\r\n0\r\na: b\0\r\n\r\n"), BAD),
        (
            format!("{size:x}\r\n{body}\r\n0\r\nGET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"),
            BAD,
        ),
        ("0\r\n\r\n".to_owned(), Kept(&[400])),
        ("0\r\n\r\n0\r\n\r\n".to_owned(), Unserved),
        (
            format!("0\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
            Unserved,
        ),
    ];
    let rows: Vec<(&str, Want)> = rows
        .iter()
        .map(|(text, want)| (text.as_str(), *want))
        .collect();
    table("chunks", &rows, |text| {
        post("transfer-encoding: chunked\r\n", text)
    })
}
