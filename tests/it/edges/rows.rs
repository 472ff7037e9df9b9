//! The rows: what the standards single out, and what has been used against servers before.

mod bodies;
mod calls;
mod heads;

use super::{Case, Want, case};

/// All rows.
pub(super) fn all() -> Vec<Case> {
    [
        of_messages(),
        calls::keys(),
        calls::steering(),
        calls::paths(),
    ]
    .concat()
}

/// Those that say the same of any server: whom it serves, and what, makes no difference.
pub(super) fn of_messages() -> Vec<Case> {
    [
        heads::first_lines(),
        heads::hosts(),
        heads::fields(),
        bodies::lengths(),
        bodies::codings(),
        bodies::chunks(),
        heads::options(),
    ]
    .concat()
}

/// A request for the list of models with `line` as its first line.
fn with_line(line: &str) -> String {
    format!("{line}\r\nhost: a\r\nauthorization: Bearer KEY\r\n\r\n")
}

/// The same with `fields`, each with its line ending.
fn with_fields(fields: &str) -> String {
    format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n{fields}\r\n")
}

fn table(group: &str, rows: &[(&str, Want)], request: impl Fn(&str) -> String) -> Vec<Case> {
    let made = rows.iter().map(|(text, want)| {
        case(
            format!(
                "{group} {}",
                text.chars().take(80).collect::<String>().escape_debug()
            ),
            request(text),
            *want,
        )
    });
    made.collect()
}
