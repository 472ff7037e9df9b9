//! What is counted, and that the walk sees each thing once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn walked(text: &str) -> (Vec<u32>, Dense) {
    let mut buckets = Vec::new();
    let shape = Shape::default();
    let features = Features {
        text,
        shape: &shape,
    };
    let dense = features.walk(|bucket, _| buckets.push(bucket));
    (buckets, dense)
}

#[test]
fn case_and_digits_are_folded_and_their_number_is_not() {
    let of = |text| walked(text).0;
    assert_eq!(of("Find 12 PRIMES"), of("find 47 primes"));
    assert_ne!(of("find 12 primes"), of("find 120 primes"));
}

#[test]
fn a_word_longer_than_eight_bytes_is_one_word() {
    let (buckets, dense) = walked("incomprehensibilities");
    assert_eq!(buckets.len(), 2, "the word, and the start with it");
    assert!(
        (dense[1] - 1.0).abs() < f32::EPSILON,
        "log2 of one more than one"
    );
}

#[test]
fn options_are_found_at_the_start_of_lines() {
    let options = |text| walked(text).1[DENSE - 55];
    let counted = (0..DENSE).find(|at| {
        let (two, three) = (
            walked("Which?\nA. one\nB. two"),
            walked("Which?\nA. one\nB. two\nC. six"),
        );
        (two.1[*at] - 2.0).abs() < 1e-6 && (three.1[*at] - 3.0).abs() < 1e-6
    });
    assert!(counted.is_some());
    assert!(options("Vitamin A. helps").abs() < f32::INFINITY);
}

#[test]
fn negations_have_a_class() {
    let class_of = |word: &[u8]| classes::class(Kinds::of(word).word(0, 0).hash);
    assert_eq!(class_of(b"NOT"), class_of(b"except"));
    assert_ne!(class_of(b"not"), 0);
    assert_eq!(class_of(b"zebra"), 0);
}

proptest! {
    #[test]
    fn each_bucket_is_told_once_and_counts_are_finite(text in ".{0,5000}") {
        let (buckets, dense) = walked(&text);
        let different: BTreeSet<u32> = buckets.iter().copied().collect();
        prop_assert_eq!(different.len(), buckets.len());
        prop_assert!(buckets.iter().all(|bucket| *bucket < 1 << BUCKET_BITS));
        prop_assert!(dense.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn nothing_beyond_the_first_bytes_counts(text in "[a-z ]{4096,5000}") {
        let (head, _) = text.split_at(MOST_BYTES);
        prop_assert_eq!(walked(&text), walked(head));
    }
}
