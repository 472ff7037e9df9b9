//! The committed weights are whole, put what is plainly easy below what is hard, and give any text a
//! score.

use proptest::prelude::*;
use wire::Shape;

use super::*;
use crate::features::MOST_BYTES;

fn scored(text: &str) -> f32 {
    score(&Features {
        text,
        shape: &Shape::default(),
    })
    .0
}

#[test]
fn the_committed_weights_are_whole() {
    assert_eq!(WEIGHTS.len(), Header::BYTES + BUCKETS * LANES);
    let header = Header::read(WEIGHTS).expect("a header");
    assert_eq!(header.bytes(), WEIGHTS[..Header::BYTES]);
    assert!(header.quantiles.is_sorted());
    let all_inputs = header.trees.iter().flat_map(|tree| tree.questions);
    assert!(
        all_inputs
            .into_iter()
            .all(|(input, _)| usize::from(input) < INPUTS)
    );
}

#[test]
fn a_row_full_of_the_largest_weights_does_not_overflow() {
    let mut lanes = Lanes::default();
    let mut rare = Rarity::default();
    for _ in 0..8_192 / Lanes::FULL {
        lanes.add([(u64::MAX, 1); Lanes::FULL].into_iter(), &mut rare);
    }
    assert!(
        lanes
            .sums()
            .iter()
            .all(|sum| (sum - 127.0 * 8_192.0).abs() < 1.0)
    );
}

#[test]
fn the_head_without_a_correction_gives_the_score() {
    let shape = Shape::default();
    let features = Features {
        text: "How many primes are there below 100?",
        shape: &shape,
    };
    let layers = layers(&features);
    assert_eq!(crate::Head::default().score(&layers), score(&features));
    let saved = serde_json::to_string(&layers).expect("saves");
    let restored: Layers = serde_json::from_str(&saved).expect("restores");
    assert_eq!(restored, layers);
}

/// Easy first; new weights may move the scores, not this order.
#[test]
fn goldens_keep_their_order() {
    let texts = [
        "What is the capital of France?",
        "Let $G$ be a group of order 56. Prove that $G$ has a normal Sylow subgroup, and find the \
         number of homomorphisms from $G$ to the symmetric group $S_3$.",
        "Write a function to find the nth catalan number.",
    ];
    let scores = texts.map(scored);
    assert!(scores.is_sorted(), "{scores:?}");
}

proptest! {
    #[test]
    fn any_text_has_a_score(text in ".{0,6000}") {
        let all = scored(&text);
        prop_assert!((0.0..=1.0).contains(&all));
        let cut = (0..=text.len().min(MOST_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (head, _) = text.split_at(cut);
        prop_assert_eq!(all.to_bits(), scored(head).to_bits(), "nothing beyond the first bytes counts");
    }
}
