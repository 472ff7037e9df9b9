//! Counts over a text: words and their classes, marks, numbers, lines, listed options; and of the
//! request around it.

use wire::Shape;

use super::classes::{CLASSES, class};
use super::kinds::{Kinds, Word};

/// How many counts there are.
pub const DENSE: usize = 121;
/// The counts of one call as logarithms to base two and shares, in the order of `Counts::finish`.
pub type Dense = [f32; DENSE];

/// Marks that are counted each for itself.
const MARKS: &[u8; 24] = b"?!.,;:'\"()[]{}<>=+-*/^_\\";

/// Sums that one pass collects.
pub(super) struct Counts {
    /// Of each byte that is no part of a word.
    marks: [u16; 128],
    classes: [u16; CLASSES],
    /// Different words, by their hash.
    pub(super) different: u32,
    pub(super) words: u32,
    /// Where the first of them begins.
    first_word: usize,
    /// Bytes of words.
    bytes: u32,
    digits: u32,
    capitals: u32,
    high: u32,
    capital_words: u32,
    /// Capitalised words inside a sentence.
    names: u32,
    /// Words by their bytes, those of ten and more together.
    lengths: [u32; 11],
    longest_word: u32,
    numbers: u32,
    /// Numbers of one digit, of three and more, and behind a decimal point.
    number_kinds: [u32; 3],
    longest_number: u32,
    largest_number: u32,
    /// Words right behind a dot, before a parenthesis and before a bracket, as code has them.
    code: [u32; 3],
    sentences: u32,
    depth: u32,
    deepest: u32,
    lines: Lines,
    options: Options,
}

/// The lines of the text.
#[derive(Default)]
struct Lines {
    count: u32,
    blank: u32,
    indented: u32,
    deepest: u32,
    longest: u32,
    /// Where the present one starts.
    start: usize,
    /// Bytes of the last two that are not blank.
    last: [u32; 2],
}

/// Lines like `A. …` or `(B) …`, and what follows them.
#[derive(Default)]
struct Options {
    count: u32,
    /// Where the text of the present one starts.
    start: usize,
    /// Whether it has a digit, and which words, as a sketch.
    has_number: bool,
    sketch: [u64; 2],
    with_number: u32,
    /// Over the lengths in bytes.
    sum: u32,
    squares: u64,
    longest: u32,
    shortest: u32,
    /// Over the sketches: bits in all, and bits of all.
    bits: u32,
    together: [u64; 2],
    /// Bytes and numbers before the first option, and the mark before it.
    stem: u32,
    stem_numbers: u32,
    stem_ends: u8,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            marks: [0; 128],
            classes: [0; CLASSES],
            different: 0,
            words: 0,
            first_word: usize::MAX,
            bytes: 0,
            digits: 0,
            capitals: 0,
            high: 0,
            capital_words: 0,
            names: 0,
            lengths: [0; 11],
            longest_word: 0,
            numbers: 0,
            number_kinds: [0; 3],
            longest_number: 0,
            largest_number: 0,
            code: [0; 3],
            sentences: 0,
            depth: 0,
            deepest: 0,
            lines: Lines::default(),
            options: Options::default(),
        }
    }
}

impl Counts {
    /// What is counted for a text as a whole.
    pub(super) fn of(kinds: &Kinds) -> Self {
        Self {
            bytes: kinds.bytes,
            digits: kinds.digits,
            capitals: kinds.capitals,
            high: kinds.high,
            first_word: kinds.first_word(),
            ..Self::default()
        }
    }

    /// Counts the word that stands at `at`.
    #[inline]
    pub(super) fn word(&mut self, text: &[u8], at: usize, word: &Word) {
        self.longest_word = self.longest_word.max(word.length);
        if let Some(count) = self.classes.get_mut(usize::from(class(word.hash))) {
            *count = count.wrapping_add(1);
        }
        if let Some(count) = self.lengths.get_mut(word.length.min(10) as usize) {
            *count = count.wrapping_add(1);
        }
        if word.is_marked {
            self.marked(text, at, word);
        }
        if self.options.count > 0 {
            self.options.word(word);
        }
    }

    /// Counts what the word at `at` has beside small letters.
    fn marked(&mut self, text: &[u8], at: usize, word: &Word) {
        let end = at + word.length as usize;
        let before = at.checked_sub(1).and_then(|at| text.get(at)).copied();
        if word.is_number {
            self.number(text, at, end, before);
        } else if word.begins_capital {
            self.capital_words += 1;
            let after_word = at
                .checked_sub(2)
                .and_then(|at| text.get(at))
                .is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b',');
            self.names += u32::from(before == Some(b' ') && after_word);
            if word.length == 1 && matches!(text.get(end), Some(b'.' | b')')) {
                self.option(text, at, before);
            }
        }
    }

    fn number(&mut self, text: &[u8], at: usize, end: usize, before: Option<u8>) {
        let digits = text.get(at..end).unwrap_or_default();
        let value = digits.iter().fold(0_u32, |value, digit| {
            value
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        });
        self.numbers += 1;
        self.options.has_number = true;
        self.longest_number = self.longest_number.max(short(digits.len()));
        self.largest_number = self.largest_number.max(value);
        let kinds = [
            digits.len() == 1,
            digits.len() >= 3,
            before == Some(b'.') && at > 1,
        ];
        for (count, is) in self.number_kinds.iter_mut().zip(kinds) {
            *count += u32::from(is);
        }
    }

    /// An option begins at `at`, if it stands at the start of a line.
    fn option(&mut self, text: &[u8], at: usize, before: Option<u8>) {
        let start = if before == Some(b'(') { at - 1 } else { at };
        if start != self.lines.start || text.get(at).is_none_or(|letter| *letter > b'P') {
            return;
        }
        if self.options.count == 0 {
            self.options.stem = short(start);
            self.options.stem_numbers = self.numbers;
            self.options.stem_ends = ending(text.get(..start).unwrap_or_default());
            (self.options.has_number, self.options.sketch) = (false, [0; 2]);
        } else {
            self.options.close(start);
        }
        self.options.count += 1;
        self.options.start = at + 2;
    }

    /// Counts a byte that is no part of a word.
    pub(super) fn mark(&mut self, text: &[u8], at: usize, byte: u8) {
        if let Some(count) = self.marks.get_mut(usize::from(byte)) {
            *count += 1;
        }
        let [dot, parenthesis, bracket] = &mut self.code;
        match byte {
            b'\n' => self.lines.end(text, at),
            b'.' | b'?' | b'!' => {
                let next = text.get(at + 1).copied().unwrap_or(b'\n');
                self.sentences += u32::from(matches!(next, b' ' | b'\n'));
                *dot += u32::from(byte == b'.' && of_word(next) && self.first_word < at);
            }
            b'(' | b'[' | b'{' => {
                let before = at.checked_sub(1).and_then(|at| text.get(at));
                if before.is_some_and(|before| of_word(*before)) {
                    *parenthesis += u32::from(byte == b'(');
                    *bracket += u32::from(byte == b'[');
                }
                self.depth += 1;
                self.deepest = self.deepest.max(self.depth);
            }
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// The counts as numbers a model can take.
    pub(super) fn finish(mut self, text: &[u8], shape: &Shape) -> Dense {
        if text.last().is_some_and(|last| *last != b'\n') {
            self.lines.end(text, text.len());
        }
        if self.options.count > 0 {
            self.options.close(text.len());
        } else {
            self.options.stem = short(text.len());
            self.options.stem_numbers = self.numbers;
            self.options.stem_ends = ending(text);
        }
        let mut sheet = Sheet {
            dense: [0.0; DENSE],
            next: 0,
        };
        self.of_words(short(text.len()), &mut sheet);
        self.of_numbers(&mut sheet);
        self.of_marks(short(text.len()), &mut sheet);
        self.lines.write(&mut sheet);
        self.options.write(&mut sheet);
        let words = ratio(1, self.words.max(1));
        for count in self.classes.iter().skip(1) {
            sheet.log(u32::from(*count));
        }
        for class in [1, 12, 13, 14, 17] {
            let count = self.classes.get(class).copied().unwrap_or(0);
            sheet.put(f32::from(count) * words);
        }
        of_request(shape, &mut sheet);
        debug_assert_eq!(sheet.next, DENSE, "the sheet is full");
        sheet.dense
    }

    fn of_words(&self, bytes: u32, sheet: &mut Sheet) {
        let words = self.words.max(1);
        sheet.log(bytes);
        sheet.log(self.words);
        sheet.log(self.different);
        sheet.put(ratio(self.different, words));
        sheet.put(ratio(self.bytes, words));
        sheet.put(ratio(self.capitals, bytes.max(1)));
        sheet.put(ratio(self.high, bytes.max(1)));
        sheet.put(ratio(self.capital_words, words));
        sheet.log(self.capital_words);
        sheet.log(self.names);
        sheet.log(self.longest_word);
        // Of one letter, up to three, from seven and from ten bytes on.
        for lengths in [1..2, 1..4, 7..11, 10..11] {
            let count = self.lengths.get(lengths).unwrap_or_default();
            sheet.put(ratio(count.iter().sum(), words));
        }
        sheet.log(self.sentences);
        sheet.put(ratio(self.words, self.sentences + 1));
    }

    fn of_numbers(&self, sheet: &mut Sheet) {
        sheet.log(self.numbers);
        sheet.put(ratio(self.numbers, self.words.max(1)));
        sheet.log(self.digits);
        for count in self.number_kinds {
            sheet.log(count);
        }
        sheet.log(self.longest_number);
        sheet.log(self.largest_number);
    }

    fn of_marks(&self, bytes: u32, sheet: &mut Sheet) {
        let count = |byte: u8| {
            let count = self.marks.get(usize::from(byte)).copied();
            u32::from(count.unwrap_or(0))
        };
        for mark in MARKS {
            sheet.log(count(*mark));
        }
        let all = MARKS.iter().map(|mark| count(*mark)).sum();
        sheet.put(ratio(all, bytes.max(1)));
        sheet.log(count(b'$'));
        sheet.log(count(b'%'));
        for count in self.code {
            sheet.log(count);
        }
        sheet.log(self.deepest);
    }
}

impl Lines {
    /// The line ends before `at`.
    fn end(&mut self, text: &[u8], at: usize) {
        let line = text.get(self.start..at).unwrap_or_default();
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        self.count += 1;
        self.start = at + 1;
        if indent == line.len() {
            self.blank += 1;
            return;
        }
        self.indented += u32::from(indent > 0);
        self.deepest = self.deepest.max(short(indent));
        self.longest = self.longest.max(short(line.len()));
        self.last = [short(line.len()), self.last[0]];
    }

    fn write(&self, sheet: &mut Sheet) {
        for count in [
            self.count,
            self.blank,
            self.indented,
            self.deepest,
            self.longest,
            self.last[0],
            self.last[1],
        ] {
            sheet.log(count);
        }
    }
}

impl Options {
    fn word(&mut self, word: &Word) {
        let bit = 1 << ((word.hash >> 20) & 63);
        let half = usize::from(word.hash & 1 == 1);
        if let Some(sketch) = self.sketch.get_mut(half) {
            *sketch |= bit;
        }
    }

    /// The present option ends before `end`.
    fn close(&mut self, end: usize) {
        let length = short(end.saturating_sub(self.start));
        self.with_number += u32::from(self.has_number);
        self.sum += length;
        self.squares += u64::from(length) * u64::from(length);
        self.longest = self.longest.max(length);
        self.shortest = if self.count == 1 {
            length
        } else {
            self.shortest.min(length)
        };
        for (together, sketch) in self.together.iter_mut().zip(self.sketch) {
            self.bits += sketch.count_ones();
            *together |= sketch;
        }
        self.has_number = false;
        self.sketch = [0; 2];
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "lengths of at most 2,048 and their squares"
    )]
    fn write(&self, sheet: &mut Sheet) {
        let mean = ratio(self.sum, self.count.max(1));
        let variance = self.squares as f32 / self.count.max(1) as f32 - mean * mean;
        let together: u32 = self.together.iter().map(|bits| bits.count_ones()).sum();
        sheet.put(self.count as f32);
        sheet.put(mean.max(0.0).sqrt());
        sheet.put(variance.max(0.0).sqrt() / (1.0 + mean));
        sheet.log(self.longest);
        sheet.log(self.shortest);
        sheet.put(ratio(self.with_number, self.count.max(1)));
        sheet.put(ratio(self.bits, together.max(1) * self.count.max(1)));
        sheet.log(self.stem);
        sheet.log(self.stem_numbers);
        for mark in [b'?', b':', b'.', b'_'] {
            sheet.put(f32::from(u8::from(self.stem_ends == mark)));
        }
        sheet.put(f32::from(u8::from(self.stem_ends.is_ascii_alphanumeric())));
    }
}

fn of_request(shape: &Shape, sheet: &mut Sheet) {
    sheet.log(shape.tools);
    sheet.log(shape.tool_bytes);
    sheet.log(shape.tool_bytes / shape.tools.max(1));
    sheet.log(shape.tool_required);
    sheet.log(shape.tool_depth);
    sheet.log(shape.tool_enums);
}

/// Whether a byte is of a word.
const fn of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// The last byte that is no white space.
fn ending(text: &[u8]) -> u8 {
    text.trim_ascii_end().last().copied().unwrap_or(b' ')
}

fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of a count needs no 24th bit"
)]
fn ratio(part: u32, whole: u32) -> f32 {
    part as f32 / whole as f32
}

/// Counts in their order.
struct Sheet {
    dense: Dense,
    next: usize,
}

impl Sheet {
    fn put(&mut self, value: f32) {
        if let Some(slot) = self.dense.get_mut(self.next) {
            *slot = value;
        }
        self.next += 1;
    }

    fn log(&mut self, count: u32) {
        self.put(log(count));
    }
}

/// The logarithm to base two of one more than a count, straight between powers of two: the same bits on
/// every machine, unlike a library's.
#[expect(
    clippy::cast_precision_loss,
    reason = "a logarithm of a count needs no 24th bit"
)]
fn log(count: u32) -> f32 {
    let one_more = count.saturating_add(1);
    let power = one_more.ilog2();
    power as f32 + (one_more as f32 / (1_u64 << power) as f32 - 1.0)
}
