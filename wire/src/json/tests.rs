//! Proves that the scanner takes valid JSON and nothing else, whatever the bytes.

use super::*;

fn valid(text: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text)?;
    scanner.skip()?;
    scanner.end()
}

#[test]
fn the_grammar_is_strict() {
    for good in [
        "0",
        "-0.5e+10",
        "[]",
        "{}",
        " [1, {\"a\" : null}] ",
        "\"\\u00e4\\n\"",
        "true",
        "[1e309]",
        "123456789012345678901234567890",
        "\"\\ud800\"",
    ] {
        assert_eq!(valid(good.as_bytes()), Ok(()), "{good}");
    }
    for bad in [
        "",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "[1,]",
        "{,}",
        "{\"a\":1,}",
        "{a:1}",
        "'x'",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "nul",
        "[1 2]",
        "1 2",
        "\"",
        "[",
        "{\"a\"}",
        "tru",
        "NaN",
        "\u{feff}1",
    ] {
        assert!(valid(bad.as_bytes()).is_err(), "{bad}");
    }
    assert_eq!(valid(b"\"\xff\""), Err(JsonError::Utf8(1)));
}

#[test]
fn depth_is_bounded() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(valid(nested(128).as_bytes()), Ok(()));
    assert!(matches!(
        valid(nested(129).as_bytes()),
        Err(JsonError::Depth(_))
    ));
    assert!(valid("[".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn strings_unescape_and_quote_back() {
    let text = "quote \" slash \\ tab \t ä 🙂 \u{1}";
    let quoted = quote(text);
    let mut scanner = Scanner::new(quoted.as_bytes()).expect("utf-8");
    let found = scanner.string().expect("a string");
    assert_eq!(found.text(), text);
    assert!(found.is(text));
    let pair = Scanner::new(b"\"\\ud83d\\ude42 \\ud83d\"")
        .expect("utf-8")
        .string()
        .expect("a string")
        .text();
    assert_eq!(pair, "🙂 \u{fffd}");
}

#[test]
fn every_special_byte_is_found_wherever_it_stands() {
    for length in 0..40 {
        for at in 0..=length {
            for byte in (0..=255_u8).filter(|byte| *byte < 0x80) {
                let mut text = vec![b'x'; length];
                text.insert(at, byte);
                let special = byte < 0x20 || matches!(byte, b'"' | b'\\');
                assert_eq!(
                    plain(&text),
                    if special { at } else { text.len() },
                    "{byte} at {at}"
                );
            }
        }
    }
    let text = "Grüße 🙂 naïve \u{80}\u{a2}\u{5c5c}".as_bytes();
    assert_eq!(
        plain(text),
        text.len(),
        "bytes of longer characters are none"
    );
}

#[test]
fn half_characters_are_read_as_replacement_characters() {
    for (text, wanted) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""a\ude00b""#, "a\u{fffd}b"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\n\\ud83d""#, "\u{fffd}\n\\ud83d"),
    ] {
        assert_eq!(read::<String>(text.as_bytes()).unwrap(), wanted, "{text}");
    }
    for broken in [r#""\ud83d"#, r#""\ud8"#, r#""\"#, r#""\u+123""#] {
        assert!(read::<String>(broken.as_bytes()).is_err(), "{broken}");
    }
}
