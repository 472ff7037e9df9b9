//! Proves that a long conversation fits a small window with what matters still in it, that whatever
//! goes is named, and that the cut stands still between its steps.

use wire::call::{ToolCall, ToolResult};

use super::*;

fn user(text: &str) -> Turn {
    Turn::new(Role::User, vec![Part::text(text)])
}

fn assistant(text: &str) -> Turn {
    Turn::new(Role::Assistant, vec![Part::text(text)])
}

fn tool_loop(n: usize, result: &str) -> [Turn; 2] {
    let id = format!("call_{n}");
    let call = ToolCall {
        id: id.clone(),
        name: "read".into(),
        arguments: "{}".into(),
        custom: false,
    };
    let result = ToolResult {
        id,
        parts: vec![Part::text(result)],
        is_error: false,
        custom: false,
    };
    [
        Turn::new(Role::Assistant, vec![Part::new(Kind::ToolCall(call))]),
        Turn::new(Role::User, vec![Part::new(Kind::ToolResult(result))]),
    ]
}

/// A conversation of `rounds` rounds of about 420 tokens each, with a pinned line in every tenth.
fn conversation(rounds: usize) -> Call {
    let mut turns = vec![Turn::new(
        Role::System,
        vec![Part::text("You are careful.")],
    )];
    for round in 0..rounds {
        let pin = if round % 10 == 0 {
            format!("\nRemember: fact {round} is {}", round * 7)
        } else {
            String::new()
        };
        turns.push(user(&format!(
            "Question {round} {}{pin}",
            "word ".repeat(100)
        )));
        turns.extend(tool_loop(round, &format!("row {round} ").repeat(60)));
        turns.push(assistant(&format!(
            "Answer {round} {}",
            "text ".repeat(100)
        )));
    }
    turns.push(user("And now?"));
    Call {
        turns,
        ..Call::default()
    }
}

fn fitted(call: &mut Call, limit: u64, losses: &mut Losses) -> Result<Dropped, u64> {
    let pins = ["Remember:".to_owned()];
    let tokenizer = Tokenizer::o200k();
    let window = Window {
        limit,
        tokenizer: &tokenizer,
        pins: &pins,
    };
    fit(call, window, &|_| "result_1".to_owned(), losses)
}

#[test]
fn what_fits_is_left_alone() {
    let mut call = conversation(5);
    let before = call.clone();
    let mut losses = Losses::default();
    let dropped = fitted(&mut call, 100_000, &mut losses).expect("it fits");
    dropped.put_into(&mut call, &[]);
    assert_eq!(call, before);
    assert!(losses.is_empty());
}

#[test]
fn a_long_conversation_fits_with_its_pins_and_the_losses_name_what_went() {
    let mut call = conversation(400);
    let tokenizer = Tokenizer::o200k();
    assert!(tokenizer.count_call(&call) > 150_000);
    let mut losses = Losses::default();
    let dropped = fitted(&mut call, 32_000, &mut losses).expect("it can be made to fit");
    let summaries = vec!["a summary".to_owned(); dropped.chunks.len()];
    let chunks = dropped.chunks.concat();
    dropped.put_into(&mut call, &summaries);
    assert!(tokenizer.count_call(&call) <= 32_000);
    let text: String = call.turns.iter().map(Turn::plain_text).collect();
    for round in (0..400).step_by(10) {
        assert!(
            text.contains(&format!("Remember: fact {round} is {}", round * 7)),
            "{round}"
        );
    }
    assert!(text.contains("You are careful.") && text.ends_with("And now?"));
    let kept = call
        .turns
        .iter()
        .map(Turn::plain_text)
        .filter(|text| text.starts_with("Question"));
    let asked = chunks
        .lines()
        .filter(|line| line.starts_with("user: Question"));
    assert_eq!(
        kept.count() + asked.count(),
        400,
        "each round is either kept or summarised"
    );
    assert!(
        losses.header().contains("trimmed:turns.1-"),
        "{}",
        losses.header()
    );
}

#[test]
fn no_tool_call_is_parted_from_its_result() {
    for limit in [8_000, 12_000, 20_000, 40_000] {
        let mut call = conversation(200);
        let dropped = fitted(&mut call, limit, &mut Losses::default()).expect("it fits");
        dropped.put_into(&mut call, &[]);
        let mut open: Vec<String> = Vec::new();
        for part in call.turns.iter().flat_map(|turn| &turn.parts) {
            match &part.kind {
                Kind::ToolCall(call) => open.push(call.id.clone()),
                Kind::ToolResult(result) => assert_eq!(open.pop().as_ref(), Some(&result.id)),
                _ => assert!(open.is_empty()),
            }
        }
    }
}

#[test]
fn the_cut_moves_in_steps() {
    let mut cuts = Vec::new();
    for rounds in 200..260 {
        let mut call = conversation(rounds);
        let mut losses = Losses::default();
        let dropped = fitted(&mut call, 32_000, &mut losses).expect("it fits");
        cuts.push(dropped.turns);
    }
    cuts.dedup();
    assert!(cuts.is_sorted());
    assert!(
        cuts.len() <= 60 / 10,
        "{cuts:?}: between steps the prefix stays the same"
    );
}

#[test]
fn long_results_become_handles_first() {
    let mut call = conversation(3);
    let long = "line of a log\n".repeat(2_000);
    let [asked, told] = tool_loop(99, &long);
    call.turns
        .splice(1..1, [user("Read it"), asked, told, assistant("Done.")]);
    let mut losses = Losses::default();
    let dropped = fitted(&mut call, 6_000, &mut losses).expect("it fits");
    assert_eq!(dropped, Dropped::default(), "no turn had to go");
    assert_eq!(losses.header(), "trimmed:result_1");
    assert!(call.turns[3].plain_text().contains("are kept as result_1]"));
}

#[test]
fn a_long_loop_on_one_prompt_keeps_its_last_results_whole() {
    let mut call = conversation(0);
    call.turns.push(user("Work through all of it"));
    for n in 0..40 {
        call.turns
            .extend(tool_loop(n, &format!("result {n} ").repeat(300)));
    }
    let mut losses = Losses::default();
    let dropped = fitted(&mut call, 12_000, &mut losses).expect("it fits");
    assert_eq!(dropped, Dropped::default(), "there is nothing else to drop");
    let last = call.turns.last().expect("a turn").plain_text();
    assert_eq!(last, "result 39 ".repeat(300));
    assert!(call.turns[4].plain_text().contains("are kept as result_1]"));
}

#[test]
fn what_can_not_fit_is_said() {
    let mut call = conversation(1);
    call.turns.push(user(&"word ".repeat(5_000)));
    let tokens = fitted(&mut call, 2_000, &mut Losses::default()).expect_err("too long");
    assert!(tokens > 5_000);
}
