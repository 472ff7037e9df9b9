//! What a new text changes of an old one, line by line, so that a person sees what an act would do.

use maud::{Markup, html};

use super::words::plain;

/// Lines around a change that are shown with it.
const AROUND: usize = 3;
/// Pairs of lines that are compared; beyond, all old lines go and all new ones come.
const MOST_PAIRS: usize = 1_000_000;
/// Lines shown.
const MOST_SHOWN: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The changes with a few lines around them; `place` tells them from others on the page.
pub(super) fn html(old: &str, new: &str, place: &str) -> Markup {
    let lines = lines(old, new);
    let count = |is: fn(&Line<'_>) -> bool| lines.iter().filter(|line| is(line)).count();
    let gone = count(|line| matches!(line, Line::Gone(_)));
    let come = count(|line| matches!(line, Line::New(_)));
    if gone + come == 0 {
        return html! { p.note { "The text stays as it is." } };
    }
    let shown = near(&lines);
    html! {
        p.note { (gone) " lines go, " (come) " come." }
        div.scroll tabindex="0" role="region" aria-label={ "Changes by act " (place) ", line by line" } {
            pre.diff {
                @for (n, piece) in shown.iter().take(MOST_SHOWN).enumerate() {
                    @if n > 0 { "\n" }
                    @match piece {
                        None => span.gap { "  \u{22ee}" },
                        Some(Line::Same(line)) => { "  " (plain(line)) },
                        Some(Line::Gone(line)) => del { "\u{2212} " (plain(line)) },
                        Some(Line::New(line)) => ins { "+ " (plain(line)) },
                    }
                }
            }
        }
        @if shown.len() > MOST_SHOWN {
            p.note { (shown.len() - MOST_SHOWN) " more lines are not shown here; all of the new text stands in the arguments." }
        }
    }
}

/// Changed lines and those around them; `None` where some are left out.
fn near<'a>(lines: &[Line<'a>]) -> Vec<Option<Line<'a>>> {
    let changed: Vec<usize> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| !matches!(line, Line::Same(_)))
        .map(|(place, _)| place)
        .collect();
    let (mut shown, mut upto) = (Vec::new(), 0);
    for place in changed {
        let from = place.saturating_sub(AROUND).max(upto);
        if from > upto {
            shown.push(None);
        }
        let end = (place + AROUND + 1).min(lines.len());
        shown.extend(
            lines
                .get(from..end)
                .into_iter()
                .flatten()
                .copied()
                .map(Some),
        );
        upto = end.max(upto);
    }
    if upto < lines.len() {
        shown.push(None);
    }
    shown
}

fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let first = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let head: Vec<Line<'_>> = old.drain(..first).map(Line::Same).collect();
    new.drain(..first);
    let last = old.iter().rev().zip(new.iter().rev());
    let last = last.take_while(|(a, b)| a == b).count();
    let tail = old.split_off(old.len() - last);
    new.truncate(new.len() - last);
    let mut all = head;
    all.extend(middle(&old, &new));
    all.extend(tail.into_iter().map(Line::Same));
    all
}

/// By the longest common sequence, worked out from the end.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > MOST_PAIRS {
        let gone = old.iter().map(|line| Line::Gone(line));
        return gone.chain(new.iter().map(|line| Line::New(line))).collect();
    }
    let mut common = vec![0_u32; (old.len() + 1) * width];
    let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let longest = if a == b {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = longest;
            }
        }
    }
    let (mut i, mut j, mut all) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                all.push(Line::Same(a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), Some(_)) if at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                all.push(Line::Gone(a));
                i += 1;
            }
            (Some(a), None) => {
                all.push(Line::Gone(a));
                i += 1;
            }
            (_, Some(b)) => {
                all.push(Line::New(b));
                j += 1;
            }
            (None, None) => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_all_of_both_texts_and_only_what_differs() {
        let old = "a\nb\nc\nd\ne";
        let new = "a\nx\nc\ne\nf";
        let lines = lines(old, new);
        assert_eq!(
            lines,
            [
                Line::Same("a"),
                Line::Gone("b"),
                Line::New("x"),
                Line::Same("c"),
                Line::Gone("d"),
                Line::Same("e"),
                Line::New("f"),
            ]
        );
        let told = html(old, new, "1").into_string();
        assert!(told.contains("<del>\u{2212} b</del>") && told.contains("<ins>+ f</ins>"));
        assert!(html("a\nb", "a\nb", "1").into_string().contains("stays"));
    }

    #[test]
    fn long_texts_keep_what_is_near_a_change() {
        let old: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let new = old.replace("line 50\n", "line fifty\n");
        let found = lines(&old, &new);
        let shown = near(&found);
        assert_eq!(shown.len(), 2 + 2 * AROUND + 2);
        assert_eq!((shown[0], shown[shown.len() - 1]), (None, None));
        let told = html(&old, &new, "1").into_string();
        assert!(told.contains("line fifty") && !told.contains("line 10\n"));
    }
}
