//! Proves that the finance token reads sums and changes nothing, and what pages' headers say.

use http::Method;
use tests::{Client, World};

fn finance(world: &World, token: &str) -> Client {
    Client::new(world.running.admin_address, token)
}

#[tokio::test]
async fn the_finance_token_reads_sums_and_changes_nothing() {
    let world = World::start("admin.finance_token = \"finance-secret\"\n", "").await;
    let reader = finance(&world, "finance-secret");
    for path in [
        "/",
        "/explore",
        "/budgets",
        "/units",
        "/savings",
        "/routing",
        "/chargeback",
        "/quality",
        "/prices",
        "/live",
        "/metrics",
        "/api/usage?by=tenant",
        "/api/budgets",
        "/explore?format=csv",
    ] {
        assert_eq!(reader.get(path).await.status, 200, "{path}");
    }
    for (method, path) in [
        (Method::GET, "/api/keys"),
        (Method::POST, "/api/keys"),
        (Method::DELETE, "/api/keys/x"),
        (Method::GET, "/api/config"),
        (Method::POST, "/api/reload"),
    ] {
        let reply = reader
            .send(method.clone(), path, &[], r#"{"tenant":"x"}"#)
            .await;
        assert_eq!(reply.status, 403, "{method} {path}");
        assert_eq!(
            reply.header("content-type"),
            "application/problem+json",
            "{path}"
        );
        assert_eq!(reply.json()["status"], 403);
    }
    assert_eq!(reader.send(Method::POST, "/", &[], "").await.status, 405);
    assert_eq!(finance(&world, "wrong").get("/").await.status, 401);
    assert_eq!(finance(&world, "").get("/").await.status, 401);
}

#[tokio::test]
async fn a_finance_token_is_made_and_kept_where_none_is_given() {
    let world = World::start("", "").await;
    let file = world.folder.path().join("data/finance.token");
    let token = std::fs::read_to_string(file).unwrap();
    assert_eq!(token.trim().len(), 64);
    assert_eq!(finance(&world, token.trim()).get("/").await.status, 200);
    assert_eq!(
        finance(&world, token.trim()).get("/api/keys").await.status,
        403
    );
    assert_eq!(world.admin().get("/api/keys").await.status, 200);
}

#[tokio::test]
async fn pages_are_not_kept_and_their_files_for_ever() {
    let world = World::start("", "").await;
    let admin = world.admin();
    let page = admin.get("/").await;
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'self'")
    );
    assert!(
        page.header("server-timing").starts_with("total;dur="),
        "{:?}",
        page.headers
    );
    let text = page.text();
    let files = text.split('"').filter(|part| part.starts_with("/assets/"));
    let mut seen = 0;
    for path in files {
        let file = admin.get(path).await;
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("cache-control").contains("immutable"));
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
    assert!(
        !text.contains("<style") && !text.contains(" style="),
        "no style inside"
    );
    for path in ["/nothing", "/assets/nothing.js", "/budgets/nothing"] {
        assert_eq!(admin.get(path).await.status, 404, "{path}");
    }
    let csv = admin.get("/explore?format=csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert!(csv.header("content-disposition").contains("pareto-pivot-"));
}
