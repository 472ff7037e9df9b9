//! Whether the time that the check of a key takes tells how much of it is right: keys that are right but for
//! their last letters against keys of random letters, in random order, and Welch's t-test over what each took
//! (the method of dudect). It fails where |t| reaches 4.5. To show that a leak would be seen, the same is measured
//! with a comparison behind the check that stops at the first wrong letter; it fails where that is not seen.
//!
//! `cargo bench -p tests --bench keys`; on a machine that others work on as well, too: they disturb both alike.

use std::hint::black_box;
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use proxy::apart::KeyCheck;

/// Of each kind.
const SAMPLES: usize = 1_000_000;
/// Keys that are made before any of them is checked.
const BATCH: usize = 10_000;
/// What takes longer than so many percent of the first batch was interrupted, and says nothing.
const KEPT: usize = 90;
/// Beyond it, times differ: by chance in one of a hundred thousand runs.
const MOST: f64 = 4.5;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A generator of Marsaglia's: what is drawn here is no secret.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn letter(&mut self) -> char {
        let at = (self.next() >> 32) % 62;
        char::from(LETTERS[usize::try_from(at).expect("small")])
    }
}

/// What the samples of one kind have been so far.
#[derive(Default, Clone, Copy)]
struct Sums {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    fn variance_of_mean(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// The right key, and what is made of it.
struct Key {
    text: String,
    /// Where its secret begins.
    secret: usize,
}

impl Key {
    /// Right but for its last two letters, or only in its public id. Either is made in the same way, so that
    /// they lie in memory alike.
    fn wrong(&self, is_near: bool, random: &mut Random) -> HeaderMap {
        let kept = if is_near {
            self.text.len() - 2
        } else {
            self.secret
        };
        let mut text = String::with_capacity(128);
        text.push_str("Bearer ");
        for (at, right) in self.text.chars().enumerate() {
            let drawn = random.letter();
            text.push(if at < kept { right } else { drawn });
        }
        if text.ends_with(&self.text[self.text.len() - 1..]) {
            // It would be right, now and then.
            text.pop();
            text.push(if self.text.ends_with('0') { '1' } else { '0' });
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            AUTHORIZATION,
            HeaderValue::from_str(&text).expect("letters"),
        );
        headers
    }

    /// Compares as nobody should.
    fn is(&self, headers: &HeaderMap) -> bool {
        let sent = headers[AUTHORIZATION].as_bytes()["Bearer ".len()..].iter();
        let mut both = sent.zip(self.text.as_bytes());
        both.all(|(sent, right)| black_box(sent) == black_box(right))
    }
}

/// Welch's t of what `check` takes for near misses against other wrong keys, and how far apart the means are, in
/// nanoseconds.
fn t(key: &Key, random: &mut Random, check: impl Fn(&HeaderMap) -> bool) -> (f64, f64) {
    let mut sums = [Sums::default(); 2];
    let mut longest = f64::INFINITY;
    for round in 0..=2 * SAMPLES / BATCH {
        let keys: Vec<_> = (0..BATCH)
            .map(|_| {
                let is_near = random.next() >> 63 == 1;
                (is_near, key.wrong(is_near, random))
            })
            .collect();
        let mut took = Vec::with_capacity(BATCH);
        for (_, headers) in &keys {
            let began = Instant::now();
            let is_in = check(black_box(headers));
            took.push(began.elapsed().as_nanos() as f64);
            assert!(!is_in, "a wrong key");
        }
        if round == 0 {
            // The first batch warms up, and says what is usual.
            took.sort_by(f64::total_cmp);
            longest = took[BATCH * KEPT / 100];
            continue;
        }
        for ((is_near, _), took) in keys.iter().zip(took) {
            if took <= longest {
                sums[usize::from(*is_near)].add(took);
            }
        }
    }
    let [other, near] = sums;
    let apart = near.mean - other.mean;
    (
        apart / (near.variance_of_mean() + other.variance_of_mean()).sqrt(),
        apart,
    )
}

fn a_near_miss_takes_as_long_as_any_wrong_key() {
    let (check, text) = KeyCheck::new().expect("randomness");
    let secret = text.rfind('-').expect("a secret") + 1;
    let key = Key { text, secret };
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = Random(u64::from(seed) | 1 << 40);
    let (leaky, leak_ns) = t(&key, &mut random, |headers| {
        check.lets_in(headers) | key.is(headers)
    });
    println!("a comparison that stops early: t = {leaky:.1}, {leak_ns:.1} ns apart");
    assert!(leaky.abs() > MOST, "a leak would not be seen here");
    let (t, apart_ns) = t(&key, &mut random, |headers| check.lets_in(headers));
    let told = format!(
        "t = {:.1} over {SAMPLES} checks of each kind, {:.1} ns apart; with a comparison that stops early {:.0}",
        t.abs(),
        apart_ns.abs(),
        leaky.abs()
    );
    println!("{told}");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/figures");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("E2"), told).expect("a place for it");
    assert!(
        t.abs() < MOST,
        "the time of a check tells how near a key is"
    );
}

fn main() {
    a_near_miss_takes_as_long_as_any_wrong_key();
}
