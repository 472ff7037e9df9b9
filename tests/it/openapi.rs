//! Proves that both listeners answer what their OpenAPI documents say, each operation to each kind of key and to
//! nobody else, and no method besides.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;
use tests::world::World;
use tests::{Client, Reply};

const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];
const FINANCE: &str = "finance-secret";

async fn document(client: &Client) -> BTreeMap<String, BTreeMap<String, Value>> {
    let told = client.get("/openapi.json").await;
    assert_eq!(told.status, 200, "{}", told.text());
    serde_json::from_value(told.json()["paths"].clone()).unwrap()
}

async fn ask(client: &Client, method: &Method, path: &str) -> Reply {
    let path = path.replace(['{', '}'], "");
    let kind = [("content-type", "application/json")];
    client.send(method.clone(), &path, &kind, "{}").await
}

/// Whether there is nothing at a path, whatever is asked for.
fn is_nowhere(reply: &Reply) -> bool {
    let text = reply.text();
    reply.status == 404
        && ["nothing answers", "there is nothing at", "no page"]
            .iter()
            .any(|words| text.contains(words))
}

/// Asks everything of a document as somebody with no key, with the right one, and with a key of another kind, which
/// is enough for some; and tries the methods that it does not name. Says what is not as it is told.
async fn hold(client: &Client, stranger: &Client, other: Option<&Client>) -> (usize, Vec<String>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, operations) in document(client).await {
        for method in &METHODS {
            let mut check = |holds: bool, who: &str, reply: &Reply| {
                if !holds {
                    let allow = reply.headers.get("allow");
                    wrong.push(format!(
                        "{method} {path}, {who}: {} {allow:?} {}",
                        reply.status,
                        reply.text()
                    ));
                }
            };
            let Some(operation) = operations.get(&method.as_str().to_lowercase()) else {
                let reply = ask(client, method, &path).await;
                let allow = reply.headers.get("allow").map(|it| it.to_str().unwrap());
                let allow = allow.unwrap_or_default().to_lowercase();
                let mut allow: Vec<&str> = allow.split(',').map(str::trim).collect();
                allow.retain(|it| *it != "head");
                let same = allow.len() == operations.len()
                    && allow.iter().all(|it| operations.contains_key(*it));
                check(reply.status == 405 && same, "not told", &reply);
                continue;
            };
            asked += 1;
            let is_open = operation["security"] == Value::Array(Vec::new());
            let reply = ask(stranger, method, &path).await;
            check((reply.status == 401) != is_open, "without a key", &reply);
            if let Some(other) = other.filter(|_| !is_open) {
                let reply = ask(other, method, &path).await;
                let may = operation["x-pareto-finance"] == true;
                check(
                    (reply.status != 403) == may && reply.status != 401,
                    "finance",
                    &reply,
                );
            }
            let reply = ask(client, method, &path).await;
            let refused = matches!(reply.status, 401 | 403 | 405 | 500..);
            check(
                !refused && !is_nowhere(&reply),
                "with the right key",
                &reply,
            );
        }
    }
    (asked, wrong)
}

#[tokio::test]
async fn every_operation_is_there_for_its_keys_and_for_no_other() {
    let head = format!("admin.finance_token = \"{FINANCE}\"\norchestrator.enabled = true");
    let world = World::start(&head, "").await;
    let stranger = world.caller("");
    let (asked, mut wrong) = hold(&world.client, &stranger, None).await;
    assert!(asked >= 50, "{asked}");
    let admin = world.admin();
    let stranger = Client::new(admin.address, "");
    let finance = Client::new(admin.address, FINANCE);
    let (asked, others) = hold(&admin, &stranger, Some(&finance)).await;
    assert!(asked >= 60, "{asked}");
    wrong.extend(others);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a route is called in the source, and in the document.
#[test]
fn every_route_of_operators_is_in_the_document() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/src");
    let table = std::fs::read_to_string(folder.join("openapi/operators.rs")).unwrap();
    let mut routes = 0;
    for file in ["admin.rs", "admin/books.rs"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for route in text.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap();
            assert!(table.contains(&format!("\"{path}\"")), "{file}: {path}");
            routes += 1;
        }
    }
    assert!(routes >= 15, "{routes}");
}
