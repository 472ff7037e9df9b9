//! Between a request and its score nothing is allocated, whatever the text.

use router::{Features, layers, score};
use wire::Shape;

#[test]
fn scoring_allocates_nothing() {
    let shape = Shape {
        tools: 3,
        tool_bytes: 900,
        ..Shape::default()
    };
    let prose = "Prove that every finite integral domain is a field. ".repeat(2_000);
    let long_word = "x".repeat(100_000);
    let wide = "数学の問題を解いてください。".repeat(300);
    let code = "def f(x):\n    return [y['a'] for y in x if y != 3.25]\n".repeat(90);
    let call = |text: &str| {
        let features = Features {
            text,
            shape: &shape,
        };
        (score(&features), layers(&features))
    };
    // The first call reads the weights' header.
    call("");
    for text in ["", "Hi", &prose, &long_word, &wide, &code] {
        let counted = allocation_counter::measure(|| {
            std::hint::black_box(call(std::hint::black_box(text)));
        });
        assert_eq!(counted.count_total, 0, "{text:.20}");
    }
}
