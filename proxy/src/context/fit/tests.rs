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

fn fitted(call: &mut Call, limit: u64, losses: &mut Losses) -> Result<Fitted, u64> {
    fitted_again(call, (limit, limit), Shape::default(), losses)
}

/// As the next call of a conversation that was shortened to `before`.
fn fitted_again(
    call: &mut Call,
    (limit, context): (u64, u64),
    before: Shape,
    losses: &mut Losses,
) -> Result<Fitted, u64> {
    let pins = ["Remember:".to_owned()];
    let tokenizer = Tokenizer::o200k();
    let window = Window {
        limit,
        untouched: limit,
        context,
        tokenizer: &tokenizer,
        pins: &pins,
    };
    fit(call, window, before, &|_| "result_1".to_owned(), losses)
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

/// The calls of a conversation that goes on for `rounds` rounds, each with a loop of three tools.
fn calls(rounds: usize) -> Vec<Call> {
    let mut call = conversation(0);
    let mut calls = Vec::new();
    let long = "line of a log\n".repeat(400);
    for round in 0..rounds {
        call.turns.push(assistant(&"text ".repeat(100)));
        call.turns.push(user(&format!("Question {round}")));
        calls.push(call.clone());
        for step in 0..3 {
            call.turns.extend(tool_loop(round * 10 + step, &long));
            calls.push(call.clone());
        }
    }
    calls
}

#[test]
fn the_prefix_stands_still_though_the_room_moves() {
    let (mut before, mut shape, mut moves) = (Vec::<Turn>::new(), Shape::default(), 0);
    let calls = calls(24);
    let count = calls.len();
    for (at, mut call) in calls.into_iter().enumerate() {
        let room = 15_000 + u64::try_from(at).expect("small") * 7_919 % 3_000;
        let fitted = fitted_again(&mut call, (room, 24_000), shape, &mut Losses::default());
        let fitted = fitted.expect("it fits");
        let now = fitted.shape;
        assert!(now.cut >= shape.cut && now.trimmed >= shape.trimmed);
        let summaries = vec!["a summary".to_owned(); fitted.chunks.len()];
        fitted.put_into(&mut call, &summaries);
        if now == shape {
            assert!(call.turns.starts_with(&before), "at call {at}");
        }
        moves += usize::from(now != shape);
        (before, shape) = (call.turns, now);
    }
    assert!(
        shape.cut > 0 && moves > 3,
        "{moves} of {count}: it had to move"
    );
    assert!(
        moves < count / 3,
        "{moves} of {count}: and then stood still"
    );
}

#[test]
fn a_transcript_that_was_taken_back_begins_anew() {
    let far = Shape {
        cut: 41,
        trimmed: 44,
    };
    let mut call = conversation(10);
    let fitted =
        fitted_again(&mut call, (30_000, 32_000), far, &mut Losses::default()).expect("it fits");
    assert_eq!(fitted.shape, Shape::default());
    assert_eq!(call, conversation(10));
}

#[test]
fn pinned_lines_stay_when_a_result_becomes_a_handle() {
    let mut call = conversation(1);
    let long = "line of a log\n".repeat(500);
    let [asked, told] = tool_loop(99, &format!("{long}Remember: the door is green\n{long}"));
    call.turns.splice(1..1, [user("Read it"), asked, told]);
    fitted(&mut call, 2_000, &mut Losses::default()).expect("it fits");
    let text = call.turns[3].plain_text();
    assert!(text.contains("Remember: the door is green\n[") && text.len() < 1_000);
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
    assert_eq!(dropped.shape.cut, 0, "no turn had to go");
    assert_eq!(dropped.results, [("result_1".to_owned(), long)]);
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
    assert_eq!(dropped.shape.cut, 0, "there is nothing else to drop");
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

/// A step at a time over the whole transcript would take an hour, and be ended as a test that hangs.
#[test]
fn a_thousand_steps_are_weighed_in_one_pass() {
    let mut call = conversation(2_000);
    call.turns.push(user(&"word ".repeat(5_000)));
    let window = (4_000, 4_096);
    let fitted = fitted_again(&mut call, window, Shape::default(), &mut Losses::default());
    assert!(fitted.is_err());
}
