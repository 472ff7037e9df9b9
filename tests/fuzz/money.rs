//! How amounts are read, compiled in here: the rest of the meter brings a tokenizer with it.

#[expect(dead_code, reason = "only its readers are asked")]
#[path = "../../meter/src/money.rs"]
mod money;

use money::{NanoUsd, PicoPerUnit};

/// What is taken for an amount is written and read again as the same.
pub fn amounts(text: &str) {
    if let Ok(amount) = NanoUsd::from_usd(text) {
        assert_eq!(NanoUsd::from_usd(&amount.to_usd()), Ok(amount));
        assert!(text.bytes().any(|byte| byte.is_ascii_digit()));
    }
    if let Ok(price) = PicoPerUnit::per_million(text) {
        assert!(price.0 >= 0 && (price.0 == 0 || !text.starts_with('-')));
    }
}
