//! Proves that a conversation of 200,000 tokens goes on in a window of 32,000 with its facts: those
//! that were pinned word for word, the others by the fast tier's summaries, which are metered like any
//! call. What went is named, and the cut stands still from turn to turn.

use bench::upstream::Script;
use tests::World;
use tests::talk::{Talk, Tongue};
use tests::world::{DEEP, FAST, script};

/// Rounds of the conversation, at about 500 tokens each.
const ROUNDS: usize = 400;
const FACTS: usize = 10;

/// Five facts are pinned by how their line begins; five are only said.
fn fact(number: usize) -> String {
    let line = format!("the number of house {number} is {}", 7_000 + number * 37);
    if number.is_multiple_of(2) {
        format!("Remember: {line}.")
    } else {
        format!("By the way, {line}.")
    }
}

fn long_talk(tongue: Tongue) -> Talk {
    let mut talk = Talk::plain(tongue, "You keep house numbers.");
    for round in 0..ROUNDS {
        let told = if round % (ROUNDS / FACTS) == 3 {
            fact(round / (ROUNDS / FACTS))
        } else {
            String::new()
        };
        talk.say(
            "user",
            &format!(
                "Question {round}. {}\n{told}",
                "some words of the user ".repeat(45)
            ),
        );
        talk.say(
            "assistant",
            &format!("Answer {round}. {}", "some words of an answer ".repeat(45)),
        );
    }
    talk
}

/// A world whose deep model has a small window, and whose fast tier summarises as a model would: it
/// repeats the sentences that have a number in them.
async fn world(context: u32) -> World {
    let small = "[[endpoint]]\nname = \"small\"\ndialect = \"openai_responses\"\nurl = \"URL\"\n\
        [[model]]\nname = \"small\"\ntier = \"deep\"\nendpoint = \"small\"\nprice = \"test/deep\"\ncontext = 32000\n\
        tokenizer = \"o200k_base\"\n";
    let world = World::start("", "").await;
    let small = small.replace("URL", &world.deep.url());
    world.configure(|text| text + &small.replace("32000", &context.to_string()));
    world.deep.set_script(Script {
        strict: true,
        ..script(DEEP)
    });
    world.fast.set_script(Script {
        digest: Some("house".to_owned()),
        ..script(FAST)
    });
    world
}

/// A conversation that is too long for the small model goes on there under this header, and nothing of it
/// goes to the fast tier.
async fn stays_with_small(world: &World, header: (&str, &str)) {
    let mut talk = long_talk(Tongue::Responses);
    talk.say("user", "And now? <<script {\"say\":\"Now this.\"}>>");
    let body = talk.body("small").to_string();
    let (path, post) = (Tongue::Responses.path(), http::Method::POST);
    let reply = world.client.send(post, path, &[header], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-pareto-model"), "small");
    assert!(
        world.fast.bill().is_empty(),
        "nothing went to the fast tier"
    );
}

/// The small model may see what is secret, the fast ones may not: the oldest turns are told by their first
/// words rather than sent there.
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_goes_to_no_model_that_may_not_see_the_conversation() {
    let world = world(32_000).await;
    world.configure(|text| {
        text.replace("context = 32000", "context = 32000\nlabel = \"secret\"")
            + "[policy]\nlabels = [\"open\", \"secret\"]\n"
    });
    stays_with_small(&world, ("x-pareto-label", "secret")).await;
}

/// Nor does what must stay in a region leave it by way of a summary.
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_stays_in_the_regions_that_the_caller_keeps_to() {
    let world = world(32_000).await;
    world.configure(|text| {
        text.replace(
            "name = \"small\"\ndialect",
            "name = \"small\"\nregion = \"eu\"\ndialect",
        )
    });
    stays_with_small(&world, ("x-pareto-residency", "eu")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_facts_survive_a_window_a_sixth_as_long() {
    for tongue in Tongue::ALL {
        let world = world(32_000).await;
        let mut talk = long_talk(tongue);
        talk.say("user", "And now? <<script {\"say\":\"Now this.\"}>>");
        let (reply, _, _) = talk.ask(&world.client, "small").await;
        let sent = world.deep.bill().pop().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        let text = body["input"].to_string();
        let tokens = meter::tokens::Tokenizer::o200k().count(&text);
        assert!(tokens < 32_000, "{tokens} tokens were sent");
        for number in 0..FACTS {
            let house = format!("house {number} is {}", 7_000 + number * 37);
            assert!(text.contains(&house), "{tongue:?}: {house}");
        }
        assert!(text.contains("And now?"));
        let loss = reply.header("x-pareto-loss");
        let dropped: usize = loss
            .split("trimmed:turns.1-")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let kept = body["input"].as_array().unwrap().iter().filter(|item| {
            let text = item["content"].to_string();
            text.contains("Question ") || text.contains("Answer ") && !text.contains("summarised")
        });
        assert_eq!(
            dropped + kept.count(),
            ROUNDS * 2,
            "{tongue:?}: each turn is kept or named: {loss}"
        );
        summaries_are_metered(&world).await;
        the_cut_stands_still(&world, talk, &body).await;
    }
}

/// Every summary is a call of the tenant's in the ledger, at the fast tier.
async fn summaries_are_metered(world: &World) {
    let entries = world.entries().await;
    let summaries: Vec<_> = entries
        .iter()
        .filter(|entry| &*entry.held.requested == "fast")
        .collect();
    assert!(summaries.len() > 10, "{}", summaries.len());
    assert_eq!(u64::try_from(summaries.len()).unwrap(), world.fast.calls());
    assert!(
        summaries
            .iter()
            .all(|entry| &*entry.held.subject.tenant == "acme" && entry.cost.0 > 0)
    );
    let own = entries
        .iter()
        .find(|entry| &*entry.held.requested == "small")
        .unwrap();
    assert!(
        own.held.losses.contains("trimmed:turns.1-"),
        "the ledger has it too"
    );
}

/// The next turn begins with the same bytes, and nothing is summarised again: not even where a shorter
/// answer leaves the prompt more room.
async fn the_cut_stands_still(world: &World, mut talk: Talk, before: &serde_json::Value) {
    let made = world.fast.calls();
    talk.say("user", "And then? <<script {\"say\":\"Then that.\"}>>");
    let mut body = talk.body("small");
    body[talk.tongue.cap_field()] = 256.into();
    let reply = world
        .client
        .post(talk.tongue.path(), body.to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(world.fast.calls(), made);
    let sent = world.deep.bill().pop().unwrap();
    let after: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    let (before, after) = (
        before["input"].as_array().unwrap(),
        after["input"].as_array().unwrap(),
    );
    let same = before
        .iter()
        .zip(after)
        .take_while(|(a, b)| a.to_string() == b.to_string());
    assert_eq!(same.count(), before.len());
    assert_eq!(after.len(), before.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_even_the_summaries_are_too_long_they_are_summarised() {
    let world = world(16_000).await;
    let mut talk = long_talk(Tongue::Messages);
    talk.say("user", "And now? <<script {\"say\":\"Now this.\"}>>");
    talk.clone().ask(&world.client, "small").await;
    let sent = world.deep.bill().pop().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    let text = body["input"].to_string();
    let tokens = meter::tokens::Tokenizer::o200k().count(&text);
    assert!(tokens < 16_000, "{tokens} tokens were sent");
    for number in 0..FACTS {
        assert!(
            text.contains(&format!("house {number} is {}", 7_000 + number * 37)),
            "{number}"
        );
    }
    // Not every chunk is given to a model at once; what stands for the others stays as it is.
    talk.clone().ask(&world.client, "small").await;
    let again = world.deep.bill().pop().unwrap();
    assert!(again.body == sent.body, "the prefix stands still");
    let folded = world
        .fast
        .bill()
        .iter()
        .filter(|billed| String::from_utf8_lossy(&billed.body).contains("In short."))
        .count();
    assert!(folded > 1, "{folded} summaries of summaries");
}

#[tokio::test]
async fn a_prompt_that_can_not_fit_is_refused_with_its_length() {
    let world = world(32_000).await;
    let mut talk = Talk::plain(Tongue::Messages, "");
    talk.say("user", &"far too many words ".repeat(12_000));
    let reply = world
        .client
        .post("/v1/messages", talk.body("small").to_string())
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    let told = reply.json();
    assert_eq!(told["error"]["code"], "context_length_exceeded");
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .contains("takes 27904"),
        "{told}"
    );
    assert_eq!(world.deep.calls(), 0);
}

#[tokio::test]
async fn a_trimmed_tool_result_can_be_fetched_by_its_handle() {
    let world = world(32_000).await;
    let mut talk = Talk::working(Tongue::Chat, "Read.");
    let log = (0..9_000)
        .map(|line| format!("line {line}\n"))
        .collect::<String>();
    talk.say(
        "user",
        "Read the log. <<script {\"call\":{\"name\":\"note\",\"arguments\":{\"text\":\"x\"}}}>>",
    );
    let (_, _, calls) = talk.ask(&world.client, "deep-chat").await;
    talk.results(&[(calls[0].0.clone(), log.clone())]);
    talk.ask(&world.client, "deep-chat").await;
    talk.say("user", "What did it say? <<script {\"say\":\"Lines.\"}>>");
    let (reply, _, _) = talk.ask(&world.client, "small").await;
    let loss = reply.header("x-pareto-loss");
    let at = loss.find("result_").unwrap();
    let handle = loss[at..].split(',').next().unwrap().to_owned();
    assert!(handle.starts_with("result_"), "{loss}");
    let fetched = world.client.get(&format!("/v1/results/{handle}")).await;
    assert_eq!(fetched.json()["text"], log.as_str());
    let stranger = world.caller(&world.key("other").await);
    assert_eq!(
        stranger.get(&format!("/v1/results/{handle}")).await.status,
        404
    );
}
