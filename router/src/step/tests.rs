//! The words of steps, and what their priors do to a score. Which call is which step is in
//! `router/tests/steps.rs`.

use proptest::prelude::*;

use super::*;

fn seen(text: &str, shape: Shape) -> Step {
    let features = Features {
        text,
        shape: &shape,
    };
    Step::of(&features, "")
}

#[test]
fn every_step_has_one_word() {
    for step in Step::ALL {
        assert_eq!(Step::parse(step.as_str()), Some(step));
        let word = serde_json::to_string(&step).expect("a word");
        assert_eq!(word, format!("\"{}\"", step.as_str()));
    }
    let words: Vec<&str> = Step::ALL.iter().map(|step| step.as_str()).collect();
    assert_eq!(Step::WORDS, words.join(", "));
    assert_eq!(Step::parse("Plan"), None);
}

#[test]
fn hard_steps_lean_to_deep_and_plain_ones_to_fast() {
    let plain = Shape::default();
    let few = Shape {
        tools: 1,
        tool_required: 2,
        ..plain
    };
    let stuck = Shape {
        failures: 3,
        repeats: 1,
        ..plain
    };
    let disagree = Shape {
        last_results: 2,
        result_errors: 1,
        ..plain
    };
    let many_files = Shape {
        diff_files: 4,
        ..plain
    };
    assert_eq!(prior(Step::Chat, &plain).to_bits(), 0.0_f32.to_bits());
    assert!(prior(Step::Plan, &plain) > 0.0 && prior(Step::Repair, &plain) > 0.0);
    assert!(prior(Step::Digest, &plain) < 0.0 && prior(Step::Summarise, &plain) < 0.0);
    assert!(prior(Step::Act, &few) < prior(Step::Act, &plain));
    assert!(prior(Step::Repair, &stuck) > prior(Step::Repair, &plain));
    assert!(prior(Step::Verify, &disagree) > prior(Step::Verify, &plain));
    assert!(prior(Step::Act, &many_files) > prior(Step::Act, &plain));
}

#[test]
fn a_phrase_counts_as_whole_words_and_the_first_wins() {
    let tools = Shape {
        tools: 3,
        ..Shape::default()
    };
    for (text, step) in [
        ("Please REVIEW the diff, then make a plan.", Step::Verify),
        ("make a plan, then review the diff", Step::Plan),
        ("the previewer and the reviewers", Step::Act),
        ("<system-reminder>review</system-reminder> go on", Step::Act),
        (
            "<system-reminder>plan mode is active</system-reminder> go on",
            Step::Plan,
        ),
    ] {
        assert_eq!(seen(text, tools), step, "{text}");
    }
    let long = format!("{} Summarize this.", "word ".repeat(600));
    assert_eq!(seen(&long, tools), Step::Summarise);
    assert_eq!(seen("Review this.", Shape::default()), Step::Chat, "alone");
}

#[test]
fn unsound_priors_are_named() {
    assert_eq!(StepPriors::default().unsound(), None);
    for wrong in [f32::NAN, f32::INFINITY, -11.0] {
        let priors = StepPriors {
            stuck: wrong,
            ..StepPriors::default()
        };
        assert_eq!(priors.unsound(), Some("stuck"));
    }
}

proptest! {
    #[test]
    fn any_text_is_some_step(text in ".{0,3000}", tools in 0_u32..20, turns in 0_u32..3) {
        let shape = Shape { tools, assistant_turns: turns, ..Shape::default() };
        let step = seen(&text, shape);
        prop_assert!(Step::ALL.contains(&step));
    }

    #[test]
    fn a_prior_moves_the_log_odds_by_itself(score in 0.001_f32..0.999, prior in -5.0_f32..5.0) {
        let odds = |score: f32| (score / (1.0 - score)).ln();
        let moved = shifted(Score(score), prior).0;
        prop_assert!((0.0..=1.0).contains(&moved));
        if (0.001..0.999).contains(&moved) {
            prop_assert!((odds(moved) - odds(score) - prior).abs() < 0.01);
        }
        prop_assert_eq!(shifted(Score(score), 0.0).0.to_bits(), score.to_bits());
    }
}
