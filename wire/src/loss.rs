//! What a translation could not carry, by name. Nothing is lost silently: each loss is a word in the
//! `x-pareto-loss` header, a metric and a log line, and a refusal where the policy says so.

use std::borrow::Cow;
use std::fmt;

/// How something was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossKind {
    /// The target has no place for it.
    Dropped,
    /// The target has something near it.
    Approximated,
    /// It belongs to its origin, is kept for it, and goes nowhere else.
    Withheld,
    /// It was left out or shortened to fit the model's window.
    Trimmed,
}

impl LossKind {
    /// The word used in the header, in labels and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Approximated => "approximated",
            Self::Withheld => "withheld",
            Self::Trimmed => "trimmed",
        }
    }
}

/// One thing that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Loss {
    pub kind: LossKind,
    /// A path in the caller's words, for instance `seed` or `messages.input_audio`.
    pub what: Cow<'static, str>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.what)
    }
}

/// Losses in the order in which they came up, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses(Vec<Loss>);

/// The most that are told apart; a hostile body must not make a header without end.
const MOST: usize = 512;

impl Losses {
    /// Notes a loss.
    pub fn add(&mut self, kind: LossKind, what: impl Into<Cow<'static, str>>) {
        let loss = Loss {
            kind,
            what: what.into(),
        };
        if self.0.len() < MOST && !self.0.contains(&loss) {
            self.0.push(loss);
        }
    }

    /// Notes a loss before all others, so that it is told whatever else is.
    pub fn add_first(&mut self, kind: LossKind, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        self.0.insert(0, Loss { kind, what });
        self.0.truncate(MOST);
    }

    /// Notes that the target has no place for `what`.
    pub fn dropped(&mut self, what: impl Into<Cow<'static, str>>) {
        self.add(LossKind::Dropped, what);
    }

    /// Notes that the target has only something near `what`.
    pub fn approximated(&mut self, what: impl Into<Cow<'static, str>>) {
        self.add(LossKind::Approximated, what);
    }

    /// Notes that `what` is kept for its origin.
    pub fn withheld(&mut self, what: impl Into<Cow<'static, str>>) {
        self.add(LossKind::Withheld, what);
    }

    /// Notes `what` as dropped if it is there.
    pub fn dropped_if(&mut self, there: bool, what: &'static str) {
        if there {
            self.dropped(what);
        }
    }

    /// Takes over what `other` lost.
    pub fn append(&mut self, other: Self) {
        for loss in other.0 {
            self.add(loss.kind, loss.what);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Loss> {
        self.0.iter()
    }

    /// The first loss that changes what the caller asked for. Private parts are not among them: they
    /// are kept, and no other origin could read them.
    pub fn serious(&self) -> Option<&Loss> {
        self.0.iter().find(|loss| loss.kind != LossKind::Withheld)
    }

    /// The value of the `x-pareto-loss` header: losses joined by commas, plain letters only.
    pub fn header(&self) -> String {
        let words: Vec<String> = self.0.iter().map(Loss::to_string).collect();
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        let text: String = words.join(", ").chars().filter(|c| plain(*c)).collect();
        text.chars().take(4_096).collect()
    }
}
