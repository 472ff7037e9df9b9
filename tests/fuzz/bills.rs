//! Bills of providers: pages of JSON, and CSV.

use crate::import::{self, Format};

const FORMATS: [Format; 5] = [
    Format::Csv,
    Format::OpenaiUsage,
    Format::OpenaiCosts,
    Format::AnthropicUsage,
    Format::AnthropicCost,
];

/// Any text is a bill or an error, and a bill has as many rows as it says.
pub fn read(text: &str) {
    for format in FORMATS {
        let endpoints = ["there".to_owned()];
        if let Ok(bill) = import::read(format, text, &endpoints, &str::to_owned) {
            assert_eq!(bill.rows_count, bill.rows.len() as u64);
            assert!(bill.from_ms <= bill.until_ms);
        }
    }
}
