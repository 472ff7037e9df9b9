//! What changes when JSON is read: values hold 64 bits of a whole number and 53 of any other, and an amount or an
//! account may have more digits; and of two fields of one name only the last stays. Where such a one stands in
//! what a tool is called with, or in a schema, its loss is told.

use std::collections::HashSet;

use serde_json::Number;

use crate::call::Call;
use crate::json::{JsonError, Kind, Scanner};
use crate::loss::Losses;

/// What is told of the arguments of tools.
pub(crate) const ARGUMENTS: &str = "tool_call.arguments";

/// What in the object `body` holds what changes, in the words of losses.
pub(crate) fn changed(body: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    // What is no JSON is refused by whoever reads it whole.
    let _walked = Scanner::new(body)
        .and_then(|mut scanner| scanner.object(|scanner, _| walk(scanner, None, &mut found)));
    found
}

/// Whether anything in the arguments `text` changes when they are read.
pub(crate) fn change_in(text: &str) -> bool {
    let mut found = Vec::new();
    let walked = Scanner::new(text.as_bytes())
        .and_then(|mut scanner| walk(&mut scanner, Some(ARGUMENTS), &mut found));
    walked.is_ok() && !found.is_empty()
}

/// Tells which numbers of a call were changed by reading it.
pub(crate) fn tell(call: &Call, losses: &mut Losses) {
    for what in &call.changed_numbers {
        losses.approximated(*what);
    }
}

/// Walks the next value, which stands `within` what is told of, if it does.
fn walk(
    scanner: &mut Scanner<'_>,
    within: Option<&'static str>,
    found: &mut Vec<&'static str>,
) -> Result<(), JsonError> {
    match scanner.peek()? {
        Kind::Object => {
            let mut names = HashSet::new();
            scanner.object(|scanner, key| {
                if let Some(what) = within
                    && !found.contains(&what)
                    && !names.insert(key.text())
                {
                    found.push(what);
                }
                let within = within.or(match key.raw {
                    "arguments" | "input" => Some(ARGUMENTS),
                    "parameters" | "input_schema" => Some("tools.schema"),
                    "schema" => Some("response_format.schema"),
                    _ => None,
                });
                walk(scanner, within, found)
            })
        }
        Kind::Array => scanner.array(|scanner| walk(scanner, within, found)),
        Kind::Number => {
            let number = scanner.number()?;
            if let Some(what) = within
                && !found.contains(&what)
                && changes(number)
            {
                found.push(what);
            }
            Ok(())
        }
        _ => scanner.skip().map(|_| ()),
    }
}

/// Whether a number is another one once it is read, whatever its spelling. Up to 15 digits always stay.
fn changes(number: &str) -> bool {
    if number.len() < 16 && !number.contains(['e', 'E']) {
        return false;
    }
    let read = serde_json::from_str::<Number>(number);
    // What can not be read at all is refused with the whole body.
    read.is_ok_and(|read| decimal(number) != decimal(&read.to_string()))
}

/// A number as its sign, its digits without zeros at either end, and the power of ten behind them; zero has
/// no digits. `None` for a power that nothing can hold.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some((false, String::new(), 0));
    }
    let behind = i64::try_from(digits.len() - kept.len()).ok()?;
    let before = i64::try_from(fraction.len()).ok()?;
    let power: i64 = power.parse().ok()?;
    let power = power.checked_add(behind)?.checked_sub(before)?;
    Some((sign, kept.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_value_is_a_change() {
        for (number, is_change) in [
            ("1", false),
            ("1.10", false),
            ("1E+2", false),
            ("1e2", false),
            ("-0", false),
            ("0.0e99", false),
            ("-0.00000000000000000", false),
            ("1e-9", false),
            ("1.5e300", false),
            ("0.30000000000000004", false),
            ("1000000000000000000000", false),
            ("1.0000000000000000000000", false),
            ("9007199254740993", false),
            ("18446744073709551615", false),
            ("-9223372036854775808", false),
            ("18446744073709551616", true),
            ("18446744073709551617", true),
            ("-9223372036854775809", true),
            ("9007199254740993.0", true),
            ("12345678901234567890123", true),
            ("1234567890123456789.12", true),
            ("0.1000000000000000000001", true),
            ("1e-400", true),
            ("1.00000000000000001e3", true),
        ] {
            assert_eq!(changes(number), is_change, "{number}");
        }
    }

    #[test]
    fn only_arguments_and_schemas_are_told_of() {
        let long = "12345678901234567890123";
        for (body, told) in [
            (
                format!(r#"{{"temperature":{long},"input":[{{"x":{long}}}]}}"#),
                vec![],
            ),
            (
                format!(r#"{{"messages":[{{"content":"{long}"}}]}}"#),
                vec![],
            ),
            (
                format!(r#"{{"messages":[{{"content":[{{"input":{{"a":[{long}]}}}}]}}]}}"#),
                vec![ARGUMENTS],
            ),
            (
                format!(
                    r#"{{"tools":[{{"parameters":{{"maximum":{long}}}}}],"text":{{"format":{{"schema":{{"const":{long}}}}}}}}}"#
                ),
                vec!["tools.schema", "response_format.schema"],
            ),
            (format!(r#"{{"a":{{"input":{long}"#), vec![ARGUMENTS]),
        ] {
            assert_eq!(changed(body.as_bytes()), told, "{body}");
        }
        let twice = r#"{"input":[{"x":1,"x":2,"arguments":{"y":[{"z":1,"z":1}]}}]}"#;
        assert_eq!(changed(twice.as_bytes()), [ARGUMENTS]);
        assert!(change_in(r#"{"n":1,"m":{"n":1},"\u006e":2}"#));
        assert!(!change_in(r#"{"n":1,"m":[{"n":1},{"n":1}]}"#));
        assert!(change_in(&format!("{{\"n\":{long}}}")));
        assert!(!change_in("{\"n\":1}") && !change_in(&format!("{{\"n\":{long}")));
    }
}
