//! Proves promise 8: no key no call, admin apart with its own token, revocation seen at once.

use http::Method;
use tests::Client;
use tests::world::{World, chat};

#[tokio::test]
async fn a_wrong_or_revoked_key_gets_401_in_the_callers_dialect() {
    let world = World::start("", "").await;
    for key in [
        "",
        "sk-par-x-y",
        "sk-other",
        &format!("{}x", world.client.key),
    ] {
        let stranger = world.caller(key);
        let chat_reply = stranger
            .post("/v1/chat/completions", chat("fast", "Hi", ""))
            .await;
        assert_eq!(
            (chat_reply.status, &chat_reply.json()["error"]["type"]),
            (401, &"invalid_request_error".into())
        );
        assert!(
            !chat_reply.text().contains("sk-"),
            "what was sent is not repeated"
        );
        let messages = stranger.post("/v1/messages", chat("fast", "Hi", "")).await;
        assert_eq!(
            (messages.status, &messages.json()["type"]),
            (401, &"error".into())
        );
        assert_eq!(stranger.get("/v1/models").await.status, 401);
    }
    let id = world.client.key.split('-').nth(2).unwrap();
    let revoked = world
        .admin()
        .send(Method::DELETE, &format!("/api/keys/{id}"), &[], "")
        .await;
    assert_eq!(revoked.status, 204);
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (401, &"revoked_api_key".into())
    );
    assert_eq!(world.bill().len(), 0);
}

#[tokio::test]
async fn the_key_may_stand_in_either_header_and_models_are_listed_in_either_shape() {
    let world = World::start("", "").await;
    let key = [("x-api-key", world.client.key.as_str())];
    let reply = world
        .client
        .send(
            Method::POST,
            "/v1/chat/completions",
            &key,
            chat("fast", "Hi", ""),
        )
        .await;
    assert_eq!(reply.status, 200);
    let openai = world.client.get("/v1/models").await.json();
    assert_eq!(
        (&openai["object"], &openai["data"][0]["id"]),
        (&"list".into(), &"auto".into())
    );
    let headers = [
        ("x-api-key", world.client.key.as_str()),
        ("anthropic-version", "2026-10-21"),
    ];
    let anthropic = world
        .client
        .send(Method::GET, "/v1/models", &headers, "")
        .await
        .json();
    assert_eq!(
        (&anthropic["has_more"], &anthropic["data"][0]["type"]),
        (&false.into(), &"model".into())
    );
}

#[tokio::test]
async fn the_admin_listener_wants_its_token_everywhere_but_for_health() {
    let world = World::start("", "").await;
    let stranger = Client::new(world.running.admin_address, "guess");
    for path in [
        "/",
        "/metrics",
        "/api/usage",
        "/api/budgets",
        "/api/calls/x",
        "/api/keys",
        "/api/config",
    ] {
        assert_eq!(stranger.get(path).await.status, 401, "{path}");
    }
    assert_eq!(
        stranger
            .post("/api/keys", "{\"tenant\":\"x\"}")
            .await
            .status,
        401
    );
    assert_eq!(stranger.post("/api/reload", "").await.status, 401);
    assert_eq!(stranger.get("/livez").await.status, 200);
    assert_eq!(stranger.get("/readyz").await.status, 200);
    world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    world.entries().await;
    let admin = world.admin();
    assert!(admin.get("/").await.text().contains("Overview"));
    let keys = admin.get("/api/keys").await.text();
    assert!(
        keys.contains("acme") && !keys.contains("hmac") && !keys.contains("sk-par"),
        "{keys}"
    );
    let usage = admin.get("/api/usage?by=tenant,model").await.json();
    assert_eq!(usage["rows"][0]["group"][0], "acme", "{usage}");
    let basic = [("authorization", "Basic cGFyZXRvOmFkbWluLXNlY3JldA==")];
    assert_eq!(
        admin.send(Method::GET, "/", &basic, "").await.status,
        200,
        "as browsers log in"
    );
}
