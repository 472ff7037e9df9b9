//! What a task asks of a person: shown so that nothing of it is hidden, and answered in a few letters.

use serde_json::{Map, Value, json};

use super::super::client::{AskError, Client, list, segment, text};
use super::super::plain;

/// Uses and days of a standing approval that is made at the prompt.
const USES: u32 = 20;
const LASTS: &str = "P30D";
/// Bytes of an argument that the gateway's preview shows.
const PREVIEWED: usize = 2_000;

/// What a person does about a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Move {
    /// The decision, without its digest.
    Decide(Value),
    /// The answer to a question.
    Answer(String),
    /// To see the rule by which such acts would need no asking.
    Rule,
    /// To see all arguments, however long.
    Whole,
    /// To leave it open.
    Leave,
    /// What was meant is unclear; this says what can be said.
    Unclear(String),
}

/// The request in full: what would happen, where it goes, why it asks.
pub(super) fn shown(request: &Value) -> String {
    let asking = text(request, "/asking");
    let mut lines = vec![format!(
        "--- {} ({})",
        headline(asking),
        text(request, "/id")
    )];
    if asking == "input" {
        lines.push(plain::text(text(request, "/question")));
        for (place, choice) in list(request, "/choices").iter().enumerate() {
            let choice = plain::line(choice.as_str().unwrap_or_default(), 200);
            lines.push(format!("  {}  {choice}", place + 1));
        }
        if let Some(default) = request.get("default").and_then(Value::as_str) {
            lines.push(format!("without an answer: {}", plain::line(default, 200)));
        }
        return lines.join("\n");
    }
    for item in list(request, "/items") {
        lines.extend(act(item));
    }
    lines.push(format!("why: {}", plain::line(text(request, "/why"), 300)));
    let approvers: Vec<&str> = list(request, "/approvers")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if !approvers.is_empty() {
        lines.push(format!("may approve: {}", approvers.join(", ")));
    }
    lines.push(format!(
        "digest: {}  spent so far: {} USD",
        text(request, "/digest"),
        text(request, "/spent_usd")
    ));
    lines.join("\n")
}

fn headline(asking: &str) -> &'static str {
    match asking {
        "plan" => "May these acts of the plan happen, when their time comes?",
        "unknown" => "Did this happen? Nobody saw its end",
        "budget" => "The money is used up. May it spend more?",
        "input" => "A question",
        _ => "May this happen?",
    }
}

/// One act, as the gateway's code describes it.
fn act(item: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} ({}, {}) in step {}, {} USD",
        text(item, "/tool"),
        text(item, "/verb"),
        text(item, "/class"),
        text(item, "/node"),
        text(item, "/cost_usd"),
    )];
    let destinations = list(item, "/destinations");
    if !destinations.is_empty() {
        let named = destinations.iter().filter_map(Value::as_str);
        let named: Vec<String> = named.map(|it| plain::line(it, 300)).collect();
        lines.push(format!("  goes to: {}", named.join(", ")));
    }
    // The first line is the tool's own title, which its server chose.
    let preview = plain::text(text(item, "/preview"));
    lines.extend(preview.lines().skip(1).map(|line| format!("  | {line}")));
    for (name, bytes) in cut(item) {
        lines.push(format!(
            "  NOTE: {name} is cut here, it has {bytes} bytes; [v] shows all of it"
        ));
    }
    if item.get("tainted") == Some(&Value::Bool(true)) {
        lines.push(
            "  WARNING: this step has read text that nobody vouches for; what it wants may be that text's wish"
                .to_owned(),
        );
    }
    lines
}

/// The arguments that are longer than a preview shows, with their bytes.
fn cut(item: &Value) -> Vec<(&str, usize)> {
    let arguments = item.get("arguments").and_then(Value::as_object);
    let lengths = arguments.into_iter().flatten().map(|(name, value)| {
        let length = value
            .as_str()
            .map_or_else(|| value.to_string().len(), str::len);
        (name.as_str(), length)
    });
    lengths.filter(|(_, length)| *length > PREVIEWED).collect()
}

/// All arguments of a request's acts, uncut.
pub(super) fn whole(request: &Value) -> String {
    let acts = list(request, "/items").iter().map(|item| {
        let arguments = item.get("arguments").and_then(Value::as_object);
        let lines = arguments.into_iter().flatten().map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{}:\n{}\n", plain::line(name, 100), plain::text(&value))
        });
        format!("--- {}\n{}", text(item, "/tool"), lines.collect::<String>())
    });
    acts.collect()
}

/// What can be said, in one line.
pub(super) fn prompt(request: &Value) -> String {
    let words = match text(request, "/asking") {
        "input" if list(request, "/choices").is_empty() => "[text] answer  [q] leave",
        "input" => "[number] answer  [q] leave",
        "budget" => "[y AMOUNT] more USD  [n REASON] no  [q] leave",
        "unknown" => "[h] it happened  [a] it did not, do it again  [g] give it up  [q] leave",
        "plan" => "[y] yes  [n REASON] no  [q] leave",
        _ => {
            "[y] once  [t] this tool to these places in this task  [s] a standing approval  [n REASON] no  [q] leave"
        }
    };
    format!("{words} > ")
}

/// What a person's line means.
pub(super) fn read(request: &Value, line: &str) -> Move {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let asking = text(request, "/asking");
    let unclear = || Move::Unclear(prompt(request));
    match (asking, word) {
        (_, "q") => Move::Leave,
        ("acts" | "plan" | "unknown", "v") => Move::Whole,
        (_, "") => unclear(),
        ("input", _) => answer(request, line).map_or_else(unclear, Move::Answer),
        ("unknown", "h" | "happened") => settle("happened"),
        ("unknown", "a" | "again") => settle("again"),
        ("unknown", "g" | "give_up") => settle("give_up"),
        ("unknown", _) => unclear(),
        ("budget", "y") if meter::NanoUsd::from_usd(rest).is_ok_and(|it| it.0 > 0) => {
            Move::Decide(json!({ "approve": true, "more_usd": rest }))
        }
        ("budget", "y") => Move::Unclear("say how much more, such as: y 1.00 > ".to_owned()),
        (_, "n") => Move::Decide(json!({ "approve": false, "reason": rest })),
        (_, "y") => Move::Decide(json!({ "approve": true, "scope": "once" })),
        ("acts", "t") => Move::Decide(json!({ "approve": true, "scope": "task" })),
        ("acts", "s") if rule(request).is_some() => Move::Rule,
        _ => unclear(),
    }
}

/// An answer to a question: one of the choices by its number or its words, or any text where there are none.
fn answer(request: &Value, line: &str) -> Option<String> {
    let choices = list(request, "/choices");
    let mut choices = choices.iter().filter_map(Value::as_str);
    if choices.clone().next().is_none() {
        return Some(line.to_owned());
    }
    let by_number = line.parse::<usize>().ok().and_then(|it| it.checked_sub(1));
    let numbered = by_number.and_then(|place| choices.clone().nth(place));
    let chosen = numbered.or_else(|| choices.find(|it| *it == line));
    chosen.map(str::to_owned)
}

fn settle(word: &str) -> Move {
    Move::Decide(json!({ "approve": word != "give_up", "settle": word }))
}

/// What is done where the command line says yes or no to everything; nothing where only a person can tell.
pub(super) fn by_itself(request: &Value, yes: bool) -> Option<Move> {
    match (text(request, "/asking"), yes) {
        ("acts" | "plan", true) => Some(Move::Decide(json!({ "approve": true, "scope": "once" }))),
        ("acts" | "plan" | "budget", false) => {
            let reason = "everything is denied in this run (--no)";
            Some(Move::Decide(json!({ "approve": false, "reason": reason })))
        }
        ("unknown", false) => Some(settle("give_up")),
        // How much more, and what has happened, is no matter of yes.
        _ => None,
    }
}

/// The rule that covers acts like the first of the request: the same tool, to the same places.
pub(super) fn rule(request: &Value) -> Option<Value> {
    let item = list(request, "/items").first()?;
    let places = list(item, "/destinations");
    let arguments = item.get("arguments")?.as_object()?;
    // A star of the act's own would stand for any text in a rule.
    let named = arguments.iter().filter_map(|(name, value)| {
        let text = value.as_str().filter(|it| !it.contains('*'))?;
        places
            .contains(value)
            .then(|| (name.clone(), Value::from(text)))
    });
    let named: Map<String, Value> = named.collect();
    (named.len() >= usize::from(!places.is_empty())).then(|| {
        json!({
            "tool": text(item, "/tool"), "arguments": named, "max_uses": USES, "expires_in": LASTS,
        })
    })
}

/// The rule in words, with what the gateway says that it would have covered.
pub(super) fn rule_shown(rule: &Value, tried: &Value) -> String {
    let covered = list(tried, "/would_have_covered").len();
    let arguments = rule.get("arguments").map(Value::to_string);
    format!(
        "--- A standing approval: {} where its arguments are {}, {USES} times at most, within 30 days.\n\
         Of past acts it would have covered {covered}.\n\
         [y] keep this rule and approve  [q] back > ",
        text(rule, "/tool"),
        plain::line(&arguments.unwrap_or_default(), 400),
    )
}

/// Tells the gateway what was decided over what was shown.
pub(super) async fn carry_out(
    client: &Client,
    request: &Value,
    chosen: &Move,
) -> Result<(), AskError> {
    let id = segment(text(request, "/id"));
    match chosen {
        Move::Decide(decision) => {
            let mut said = decision.clone();
            if let Some(fields) = said.as_object_mut() {
                let digest = request.get("digest").cloned();
                fields.insert("digest".to_owned(), digest.unwrap_or_default());
            }
            let path = format!("/v1/approvals/{id}/decision");
            client.post(&path, &said).await?;
        }
        Move::Answer(answer) => {
            let said = json!({ "answer": answer });
            client.post(&format!("/v1/inputs/{id}"), &said).await?;
        }
        Move::Rule | Move::Whole | Move::Leave | Move::Unclear(_) => {}
    }
    Ok(())
}

/// How somebody answers from elsewhere.
pub(super) fn how_to(request: &Value, place: &str) -> String {
    let id = text(request, "/id");
    match text(request, "/asking") {
        "input" => format!("answer with: pareto task answer {id} TEXT{place}"),
        "unknown" => {
            format!(
                "settle it with: pareto task approve {id} --settle happened|again|give_up{place}"
            )
        }
        "budget" => format!(
            "decide with: pareto task approve {id} --more USD{place}  (or --deny --reason TEXT)"
        ),
        _ => {
            format!("decide with: pareto task approve {id}{place}  (or with --deny --reason TEXT)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts() -> Value {
        json!({ "id": "ab.r1", "asking": "acts", "digest": "d", "why": "it asks", "spent_usd": "0.01", "items": [{
            "tool": "mail__send", "verb": "execute", "class": "unkeyed", "node": "n4", "cost_usd": "0",
            "destinations": ["lena@x.example"], "arguments": { "to": "lena@x.example", "body": "Hi" },
            "preview": "Send\nto: lena@x.example\nbody: Hi\u{1b}[2K", "tainted": true }] })
    }

    #[test]
    fn what_is_approved_is_seen() {
        let shown = shown(&acts());
        for words in [
            "goes to: lena@x.example",
            "| body: Hi\\u{1b}[2K",
            "WARNING",
            "it asks",
            "digest: d",
        ] {
            assert!(shown.contains(words), "{words}\n{shown}");
        }
    }

    #[test]
    fn letters_mean_what_the_prompt_says() {
        let acts = acts();
        let decided = |value| Move::Decide(value);
        assert_eq!(
            read(&acts, "y\n"),
            decided(json!({ "approve": true, "scope": "once" }))
        );
        assert_eq!(
            read(&acts, "t"),
            decided(json!({ "approve": true, "scope": "task" }))
        );
        assert_eq!(
            read(&acts, "n  not  now "),
            decided(json!({ "approve": false, "reason": "not  now" }))
        );
        assert_eq!(read(&acts, "s"), Move::Rule);
        assert_eq!(read(&acts, "q"), Move::Leave);
        for unclear in ["", "yes", "h"] {
            assert!(
                matches!(read(&acts, unclear), Move::Unclear(_)),
                "{unclear}"
            );
        }
        let budget = json!({ "asking": "budget" });
        assert_eq!(
            read(&budget, "y 0.50"),
            decided(json!({ "approve": true, "more_usd": "0.50" }))
        );
        assert!(matches!(read(&budget, "y"), Move::Unclear(_)));
        let unknown = json!({ "asking": "unknown" });
        assert_eq!(read(&unknown, "again"), settle("again"));
        assert!(matches!(read(&unknown, "y"), Move::Unclear(_)));
        let input = json!({ "asking": "input", "choices": ["red", "blue"] });
        assert_eq!(read(&input, "2"), Move::Answer("blue".to_owned()));
        assert_eq!(read(&input, "red"), Move::Answer("red".to_owned()));
        assert!(matches!(read(&input, "3"), Move::Unclear(_)));
    }

    #[test]
    fn a_rule_names_every_place_and_no_star() {
        let rule_of = rule(&acts()).unwrap();
        assert_eq!(rule_of["arguments"], json!({ "to": "lena@x.example" }));
        let mut starred = acts();
        starred["items"][0]["destinations"] = json!(["*"]);
        starred["items"][0]["arguments"]["to"] = json!("*");
        assert_eq!(rule(&starred), None);
    }

    #[test]
    fn yes_to_everything_is_no_answer_to_what_nobody_knows() {
        assert!(by_itself(&acts(), true).is_some());
        for asking in ["budget", "unknown", "input"] {
            assert_eq!(by_itself(&json!({ "asking": asking }), true), None);
        }
        assert_eq!(
            by_itself(&json!({ "asking": "unknown" }), false),
            Some(settle("give_up"))
        );
    }
}
