//! Proves that guessing keys is slowed: beyond so many wrong ones in a minute, from one address or for one key,
//! each is told to wait, longer each time, in the words of its dialect; and that right keys are let in all the
//! while.

use http::Method;
use tests::world::{World, chat};
use tests::{Client, Reply};

const MANY: usize = 20;
const CHAT: &str = "/v1/chat/completions";

/// A key that nobody has; each has another id.
fn guess(n: usize) -> String {
    format!("sk-par-guess{n:05}-0000000000000000000000000000000000000000000")
}

fn hi() -> String {
    chat("fast", "Hi", "")
}

/// The status, and how long to wait.
fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.header("retry-after"))
}

/// One wrong key too many, told for the `n`-th time.
fn slowed(n: u32) -> (u16, String) {
    (429, 2_u64.pow(n).to_string())
}

const REFUSED: (u16, String) = (401, String::new());

#[tokio::test]
async fn wrong_keys_of_one_address_are_told_to_wait_and_right_ones_are_let_in() {
    let world = World::start("", "").await;
    for n in 0..MANY {
        let reply = world.caller(&guess(n)).post(CHAT, hi()).await;
        assert_eq!(told(&reply), REFUSED, "{n}");
    }
    for n in 0..4 {
        let reply = world.caller(&guess(100)).post(CHAT, hi()).await;
        assert_eq!(told(&reply), slowed(n));
        assert_eq!(reply.header("connection"), "close", "each guess dials anew");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "too_many_wrong_keys", "{error}");
        assert_eq!(error["type"], "rate_limit_error");
        assert!(
            !reply.text().contains("sk-"),
            "what was sent is not repeated"
        );
        let right = world.client.post(CHAT, hi()).await;
        assert_eq!(right.status, 200, "{}", right.text());
    }
    let messages = world.caller(&guess(101)).post("/v1/messages", hi()).await;
    assert_eq!(told(&messages), slowed(4));
    let error = messages.json();
    let kinds = (&error["type"], &error["error"]["type"]);
    assert_eq!(kinds, (&"error".into(), &"rate_limit_error".into()));
    let listed = world.caller(&guess(102)).get("/v1/models").await;
    assert_eq!(told(&listed), slowed(5), "wherever a key is asked for");
    let nothing = world
        .client
        .send(Method::POST, CHAT, &[("x-api-key", "")], hi());
    assert_eq!(nothing.await.status, 429, "an empty key is a wrong one");
    let local = "127.0.0.2".parse().unwrap();
    let other = Client::from(local, world.running.address, &guess(103));
    assert_eq!(
        told(&other.post(CHAT, hi()).await),
        REFUSED,
        "from elsewhere"
    );
    assert!(world.metric("pareto_wrong_keys_total").await >= 28.0);
    let refused = world.bill().len();
    assert_eq!(refused, 4, "no guess has reached an endpoint");
}

#[tokio::test]
async fn one_key_is_not_guessed_from_many_addresses() {
    let world = World::start("limits.wrong_keys = 3", "").await;
    let right = &world.client.key;
    let wrong = format!("{}{}", &right[..right.len() - 1], "~");
    let mut answers = Vec::new();
    for n in 2..10 {
        let local = [127, 0, 0, n].into();
        let guesser = Client::from(local, world.running.address, &wrong);
        answers.push(told(&guesser.post(CHAT, hi()).await));
        assert_eq!(world.client.post(CHAT, hi()).await.status, 200);
    }
    assert_eq!(answers[..3], [REFUSED, REFUSED, REFUSED]);
    let waits: Vec<_> = (0..5).map(slowed).collect();
    assert_eq!(answers[3..], waits);
}

#[tokio::test]
async fn wrong_tokens_of_operators_are_told_to_wait_and_the_right_one_is_let_in() {
    let world = World::start("limits.wrong_keys = 3", "").await;
    let guesser = Client::new(world.running.admin_address, "guess");
    for _ in 0..3 {
        assert_eq!(told(&guesser.get("/api/keys").await), REFUSED);
    }
    for n in 0..3 {
        assert_eq!(told(&guesser.get("/api/keys").await), slowed(n));
        assert_eq!(world.admin().get("/api/keys").await.status, 200);
    }
    let unsigned = [("authorization", "")];
    let browser = guesser.send(Method::GET, "/", &unsigned, "").await;
    assert_eq!(
        browser.status, 401,
        "who says nothing is asked for the token"
    );
    assert_eq!(world.caller("sk-wrong").get("/v1/models").await.status, 401);
}

#[tokio::test]
async fn the_limit_is_taken_from_a_new_configuration() {
    let world = World::start("limits.wrong_keys = 1", "").await;
    let guesser = world.caller(&guess(0));
    assert_eq!(told(&guesser.post(CHAT, hi()).await), REFUSED);
    assert_eq!(told(&guesser.post(CHAT, hi()).await), slowed(0));
    world.configure(|text| text.replace("limits.wrong_keys = 1", "limits.wrong_keys = 0"));
    for _ in 0..30 {
        assert_eq!(told(&guesser.post(CHAT, hi()).await), REFUSED);
    }
}
