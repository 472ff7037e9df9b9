//! Where a task is shown: a picture that stays at the bottom of a terminal with events above it, or plain
//! lines; and what a person types.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

/// The width of lines where the terminal does not say its own.
const WIDTH: usize = 110;

/// Where events and pictures go.
pub(super) enum Screen {
    /// A terminal, with the picture while there is one.
    Terminal(Option<ProgressBar>),
    /// Lines on standard output.
    Lines,
    /// Lines on standard error: standard output is for a program.
    Aside,
}

impl Screen {
    /// A terminal where both ends are one, lines elsewhere.
    pub(super) fn find(is_for_program: bool) -> Self {
        if is_for_program {
            Self::Aside
        } else if is_terminal() {
            Self::Terminal(None)
        } else {
            Self::Lines
        }
    }

    /// Whether a person can be asked here.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Says something that stays.
    pub(super) fn say(&self, words: &str) {
        // Nobody is left to tell when the terminal is gone; the task goes on all the same.
        let _written = match self {
            Self::Terminal(Some(bar)) => {
                bar.println(words);
                Ok(())
            }
            Self::Terminal(None) | Self::Aside => writeln!(std::io::stderr(), "{words}"),
            Self::Lines => writeln!(std::io::stdout(), "{words}"),
        };
    }

    /// Says something that an answer follows on the same line.
    pub(super) fn prompt(&mut self, words: &str) {
        self.clear();
        let mut out = std::io::stderr();
        // As above.
        let _written = write!(out, "{words}").and_then(|()| out.flush());
    }

    /// Shows a picture in the place of the last.
    pub(super) fn draw(&mut self, picture: String) {
        let Self::Terminal(shown) = self else { return };
        let bar = shown.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(picture);
    }

    /// Takes the picture away.
    pub(super) fn clear(&mut self) {
        if let Self::Terminal(shown) = self
            && let Some(bar) = shown.take()
        {
            bar.finish_and_clear();
        }
    }
}

/// How many letters a line has.
pub(super) fn width() -> usize {
    let said = std::env::var("COLUMNS").ok();
    let said = said.and_then(|columns| columns.parse().ok());
    said.unwrap_or(WIDTH).max(40)
}

/// Whether a person sits in front of it.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What is typed, line by line, until the input ends. A thread of its own waits for it: it can not be told
/// to stop waiting, and ends with the program.
pub(super) fn keyboard() -> mpsc::UnboundedReceiver<String> {
    let (typed, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if typed.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
