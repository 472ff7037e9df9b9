//! Whether a call can be put to a server of another dialect at all. Where nothing of what it asks can be told
//! there, the answer would be one to something else.

use super::{ANTHROPIC_MESSAGES, DecodeError, Dialect, strict};
use crate::call::{Call, Kind, Part, Role, Turn};
use crate::loss::Losses;

/// Holds that `call` has what its own dialect demands before it is answered: at home its vendor would say so.
/// Whoever only counts its tokens needs none of that.
///
/// # Errors
/// When a field is missing.
pub fn whole(call: &Call) -> Result<(), DecodeError> {
    if call.dialect == ANTHROPIC_MESSAGES.name() && call.max_output.is_none() {
        return Err(strict::wrong("`max_tokens` is missing"));
    }
    Ok(())
}

/// What of a call is in the way of asking a server of `to`, in the words of losses; `None` where anything can
/// be told of what was said since the last answer.
pub fn untold(call: &Call, to: &dyn Dialect) -> Option<String> {
    let is_user = |turn: &&Turn| turn.role == Role::User;
    // A prompt that its vendor keeps stands for what the user says.
    let is_kept = call.only_own.iter().any(|name| name == "prompt");
    if is_kept && !call.turns.last().as_ref().is_some_and(is_user) {
        return Some("prompt".to_owned());
    }
    let asking = asking(&call.turns);
    let has_user = asking.iter().any(is_user);
    let asking = asking
        .iter()
        .filter(|turn| !has_user || turn.role == Role::User);
    let parts: Vec<&Part> = asking.flat_map(|turn| &turn.parts).collect();
    if parts.iter().any(|part| says(part)) {
        return None;
    }
    let mut lost = Losses::default();
    let told = parts.iter().map(|part| match &part.kind {
        Kind::Own(own) if own.dialect != to.name() => {
            lost.dropped(own.name.clone());
            false
        }
        // As it was read, it would be what its own dialect says.
        kind => to.tells(&Part::new(kind.clone()), &mut lost),
    });
    let told: Vec<bool> = told.collect();
    let shows = |(part, told): (&&Part, &bool)| *told && !is_text(part);
    if parts.iter().zip(&told).any(shows) || (!told.is_empty() && told.iter().all(|told| *told)) {
        return None;
    }
    let lost: Vec<&str> = lost.iter().map(|loss| &*loss.what).collect();
    Some(if lost.is_empty() {
        "white space".to_owned()
    } else {
        lost.join(", ")
    })
}

/// What was said between the last two answers, or behind the last where it is whole; all turns where there are
/// answers alone.
fn asking(turns: &[Turn]) -> Vec<&Turn> {
    let is_answer = |turn: &&Turn| turn.role == Role::Assistant;
    let behind = turns.iter().rev().skip_while(is_answer);
    let asking: Vec<&Turn> = behind.take_while(|turn| !is_answer(turn)).collect();
    if asking.is_empty() {
        return turns.iter().collect();
    }
    asking
}

/// Whether every dialect can tell it, and it says something. That a tool was run is told even where its
/// result is lost.
fn says(part: &Part) -> bool {
    match &part.kind {
        Kind::Text(text) => !text.text.trim().is_empty(),
        Kind::Refusal(text) => !text.trim().is_empty(),
        Kind::ToolCall(_) | Kind::ToolResult(_) => true,
        _ => false,
    }
}

fn is_text(part: &Part) -> bool {
    matches!(part.kind, Kind::Text(_) | Kind::Refusal(_))
}
