//! Proves what the admin API does with slips of the hand: what is misspelt, impossible or without effect is refused as
//! a problem document and changes nothing; and that nobody keeps what it says.

use http::Method;
use serde_json::json;
use tests::Reply;
use tests::world::World;

fn is_problem(reply: &Reply, status: u16, words: &str) {
    let text = reply.text();
    assert_eq!(reply.status, status, "{words}: {text}");
    let kind = reply.header("content-type");
    assert_eq!(kind, "application/problem+json", "{words}: {text}");
    assert!(text.contains(words), "{words}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_break_tables_and_questions_that_are_misspelt_are_refused() {
    let world = World::start("", "").await;
    let admin = world.admin();
    for (owner, status, words) in [
        (json!({ "tenant": "" }), 400, "`tenant` is empty"),
        (json!({ "tenant": " " }), 400, "only spaces"),
        (
            json!({ "tenant": "a\u{1b}[2J" }),
            400,
            "`tenant` has a character that can not be seen",
        ),
        (json!({ "tenant": "a", "team": "b\nc" }), 400, "`team`"),
        (
            json!({ "tenant": "a", "project": "\u{202e}evil" }),
            400,
            "`project`",
        ),
        (
            json!({ "tenant": "a", "label": "l".repeat(129) }),
            400,
            "longer than 128",
        ),
        (json!({ "team": "b" }), 422, "missing field `tenant`"),
    ] {
        is_problem(
            &admin.post("/api/keys", owner.to_string()).await,
            status,
            words,
        );
    }
    for (path, words) in [
        ("/api/usage?form_ms=1", "unknown field `form_ms`"),
        ("/api/usage?from_ms=2&until_ms=1", "before `from_ms`"),
        ("/api/usage?from_ms=x", "from_ms"),
        (
            "/api/export?format=csv&form_ms=1",
            "unknown field `form_ms`",
        ),
        (
            "/api/export?format=csv&from_ms=2&until_ms=1",
            "before `from_ms`",
        ),
        ("/api/export?format=doc", "doc"),
        ("/api/reconcile?from_ms=2&until_ms=1", "before `from_ms`"),
    ] {
        is_problem(&admin.get(path).await, 400, words);
    }
    let change = json!({ "budget": "acme/month", "usd": "1", "until_ms": 1, "author": "kim", "reason": "r", "form_ms": 1 });
    let list = json!(["acme/month", "1", null, 1, "kim", "r"]);
    for (body, words) in [
        (change, "unknown field `form_ms`"),
        (list, "no JSON object"),
    ] {
        let reply = admin.post("/api/overrides", body.to_string()).await;
        is_problem(&reply, 422, words);
    }
    is_problem(
        &admin.post("/api/usage", "{}").await,
        405,
        "does not take POST",
    );
    let kept = json!({ "tenant": "Größe", "label": "l".repeat(128) }).to_string();
    let made = admin.post("/api/keys", kept).await;
    assert_eq!(made.status, 201, "{}", made.text());
    for reply in [
        made,
        admin.get("/api/usage").await,
        admin.get("/api/nothing").await,
    ] {
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_page_does_not_show_as_asked_is_told_on_it() {
    let world = World::start("", "").await;
    let admin = world.admin();
    for (query, words) in [
        (
            "period=custom&from=2026-11-22&until=2026-11-01",
            "ends before it begins",
        ),
        (
            "period=custom&from=0001-01-01&until=9999-12-31",
            "no date of the years 2000 to 2100",
        ),
        ("period=bogus", "There is no period"),
        ("zone=Mars/X", "There is no time zone"),
    ] {
        let told = admin.get(&format!("/?{query}")).await.text();
        assert!(told.contains(words), "{query}: {told}");
    }
    let good = admin.get("/?period=custom&from=2026-11-01&until=2026-11-21&zone=Europe/Berlin");
    assert!(!good.await.text().contains("role=\"status\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_asked_for_by_any_name_of_a_tenant_and_by_their_head() {
    let world = World::start("", "").await;
    let admin = world.admin();
    let brief = json!({ "objective": "Say hello", "mode": "explore" }).to_string();
    for (tenant, query) in [
        ("a b/c", "a%20b%2Fc"),
        ("a b/c", "a+b%2fc"),
        ("Ünï", "%C3%9Cn%C3%AF"),
    ] {
        let key = world.key(tenant).await;
        let made = world.caller(&key).post("/v1/tasks", brief.clone()).await;
        assert!(made.status < 300, "{}", made.text());
        let listed = admin.get(&format!("/api/v1/tasks?tenant={query}")).await;
        let found = listed.json()["data"].as_array().map_or(0, Vec::len);
        assert!(found > 0, "{query}: {}", listed.text());
    }
    let head = admin.send(Method::HEAD, "/api/v1/tasks", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}
