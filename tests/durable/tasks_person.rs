//! A person who decides over HTTP what tasks ask: in no hurry, always the same of the same request, and of
//! an act whose end nobody saw only after a look at what was really done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tests::Client;
use tokio_util::sync::CancellationToken;

use crate::kill::Random;
use crate::tasks_stage::recorded;

/// Somebody who decides.
pub(crate) struct Person {
    log: PathBuf,
    seed: u64,
    notes: Mutex<Notes>,
}

/// What the person remembers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Notes {
    /// What stood open when the person last looked, with its digest, and nothing was said of yet.
    pub(crate) open: BTreeMap<String, String>,
    /// What was said of which request. It may never have arrived.
    pub(crate) said: BTreeMap<String, BTreeSet<String>>,
}

impl Person {
    /// Who looks into the recorder's `log` before settling anything.
    pub(crate) fn new(log: PathBuf, seed: u64) -> Self {
        Self {
            log,
            seed,
            notes: Mutex::default(),
        }
    }

    pub(crate) fn notes(&self) -> Notes {
        self.notes.lock().unwrap().clone()
    }

    /// Whether the person is one who says yes to this request, whenever asked.
    pub(crate) fn agrees(&self, request: &str) -> bool {
        let mixed = request.bytes().fold(self.seed | 1, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        (mixed >> 17) % 6 != 0
    }

    /// Decides what is asked at any of `doors`, until `stop` or until one of them is gone.
    pub(crate) async fn sit(&self, doors: &[Client], mut random: Random, stop: CancellationToken) {
        for turn in 0.. {
            let door = &doors[turn % doors.len()];
            if stop.is_cancelled() || self.look(door, &mut random).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10 + random.below(40))).await;
        }
    }

    /// One look at the inbox; nothing where nobody answers.
    async fn look(&self, door: &Client, random: &mut Random) -> Option<()> {
        let inbox = door.get("/v1/approvals?limit=200").await;
        if inbox.status == 0 || inbox.broken {
            return None;
        }
        assert_eq!(inbox.status, 200, "{}", inbox.text());
        let inbox = inbox.json();
        let requests = inbox["data"].as_array().unwrap();
        let text = |request: &Value, name: &str| request[name].as_str().unwrap().to_owned();
        {
            let mut notes = self.notes.lock().unwrap();
            let all = requests
                .iter()
                .map(|it| (text(it, "id"), text(it, "digest")));
            notes.open = all.filter(|(id, _)| !notes.said.contains_key(id)).collect();
        }
        for request in requests {
            // Not everything at once, so that some stands open for a while.
            if random.below(3) == 0 {
                self.decide(door, request).await?;
            }
        }
        Some(())
    }

    /// Says what is to be said of a request; nothing where nobody answers.
    pub(crate) async fn decide(&self, door: &Client, request: &Value) -> Option<()> {
        let id = request["id"].as_str().unwrap();
        let mut decision = json!({ "digest": request["digest"], "approve": true, "reason": format!("about {id}") });
        let said = match request["asking"].as_str().unwrap() {
            "unknown" => {
                let settle = self.seen(door, request).await?;
                decision["settle"] = settle.into();
                settle
            }
            "budget" => {
                decision["more_usd"] = "0.10".into();
                "yes"
            }
            _ if self.agrees(id) => "yes",
            _ => {
                decision["approve"] = false.into();
                "no"
            }
        };
        {
            let mut notes = self.notes.lock().unwrap();
            notes.open.remove(id);
            notes
                .said
                .entry(id.to_owned())
                .or_default()
                .insert(said.to_owned());
        }
        let path = format!("/v1/approvals/{id}/decision");
        let reply = door.post(&path, decision.to_string()).await;
        // It may be decided already, when an earlier word of the person's arrived after all.
        assert!(
            matches!(reply.status, 0 | 200 | 409),
            "{} {}",
            reply.status,
            reply.text()
        );
        (reply.status != 0).then_some(())
    }

    /// What the recorder's log says of an act whose end nobody saw.
    async fn seen(&self, door: &Client, request: &Value) -> Option<&'static str> {
        let task = request["task"].as_str().unwrap();
        let reply = door.get(&format!("/v1/tasks/{task}/effects")).await;
        if reply.status != 200 || reply.broken {
            return None;
        }
        let effects = reply.json();
        let id = &request["items"][0]["effect"];
        let mut effects = effects["data"].as_array().unwrap().iter();
        let effect = effects.find(|it| it["id"] == *id).unwrap();
        let key = &effect["idempotency_key"];
        let happened = recorded(&self.log).iter().any(|line| line["key"] == *key);
        Some(if happened { "happened" } else { "again" })
    }
}
