//! Texts of models, tools and callers, made fit for a terminal: whoever wrote them can not move the cursor,
//! paint over what stands there, or turn the order of letters round.

use comfy_table::{Row, Table};
use wire::letters::is_hidden;

/// A table whose cells keep to their places: what is not seen in them is written out, line ends too.
pub(super) fn table(table: &mut Table) -> String {
    for row in table.row_iter_mut() {
        let cells = row.cell_iter().map(|it| cell(&it.content()));
        let plain = Row::from(cells.collect::<Vec<_>>());
        *row = plain;
    }
    table.to_string()
}

fn cell(written: &str) -> String {
    let mut safe = String::with_capacity(written.len());
    for letter in written.chars() {
        if is_hidden(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// The text with line ends kept and every other character that is not seen written out.
pub(super) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => safe.push('\n'),
            '\t' => safe.push_str("    "),
            // A carriage return before a line end is the line end's.
            '\r' => {}
            _ if is_hidden(letter) => safe.extend(letter.escape_unicode()),
            _ => safe.push(letter),
        }
    }
    safe
}

/// The text on one line of at most `most` characters.
pub(super) fn line(written: &str, most: usize) -> String {
    let one = text(written)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    line_kept(&one, most)
}

/// The line with its spaces, cut to `most` characters.
pub(super) fn line_kept(written: &str, most: usize) -> String {
    let one = text(written).replace('\n', " ");
    if one.chars().count() <= most {
        return one;
    }
    let cut = one.chars().take(most.saturating_sub(1));
    cut.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_a_table_stays_in_its_line() {
        let mut written = Table::new();
        written.add_row(["a\u{1b}[2Kb\nc", "\u{202e}evil", "Größe"]);
        let shown = table(&mut written);
        assert_eq!(shown.lines().count(), 3, "{shown}");
        let line = "| a\\u{1b}[2Kb\\nc | \\u{202e}evil | Größe |";
        assert_eq!(shown.lines().nth(1), Some(line));
    }

    #[test]
    fn nobody_paints_over_what_is_shown() {
        assert_eq!(text("a\u{1b}[2Kb\r\nc\td"), "a\\u{1b}[2Kb\nc    d");
        assert_eq!(text("pay \u{202e}evil"), "pay \\u{202e}evil");
        assert_eq!(text("a\u{34f}b\u{fe01}"), "a\\u{34f}b\\u{fe01}");
        assert_eq!(text("Größe 日本 ✓"), "Größe 日本 ✓");
        assert_eq!(line("one\n two   three", 100), "one two three");
        assert_eq!(line("one two three", 8), "one two…");
    }
}
