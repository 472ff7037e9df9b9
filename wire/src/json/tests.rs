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

/// What a string that begins behind the first byte is, looked at byte by byte: where it ends and whether it has
/// escapes.
fn byte_by_byte(text: &[u8]) -> Result<(usize, bool), JsonError> {
    let (mut at, mut escaped) = (1, false);
    loop {
        match text.get(at).ok_or(JsonError::Ended)? {
            b'"' => return Ok((at, escaped)),
            b'\\' => {
                let length = match text.get(at + 1).ok_or(JsonError::Ended)? {
                    b'u' => {
                        let hex = text.get(at + 2..at + 6).ok_or(JsonError::Ended)?;
                        let is_hex = hex.iter().all(u8::is_ascii_hexdigit);
                        is_hex.then_some(6).ok_or(JsonError::Escape(at + 1))?
                    }
                    letter if b"\"\\/bfnrt".contains(letter) => 2,
                    _ => return Err(JsonError::Escape(at + 1)),
                };
                (at, escaped) = (at + length, true);
            }
            0..0x20 => return Err(JsonError::Control(at)),
            _ => at += 1,
        }
    }
}

#[test]
fn whatever_stands_in_a_string_is_found_wherever_it_stands() {
    let bytes = (0..0x80).map(|byte| vec![byte]);
    let escapes = [
        r"\n",
        r#"\""#,
        r"\\",
        r"\\\",
        r#"\\""#,
        r"\u00e4",
        r"\ud83d\ude42",
        r"\u12",
        r"\x",
        r#"\n\"\t"#,
        "\\n\n",
        "ä",
        "\u{80}\u{a2}\u{5c5c}",
        "🙂",
    ];
    let odd: Vec<Vec<u8>> = bytes
        .chain(escapes.map(|it| it.as_bytes().to_vec()))
        .collect();
    let mut seen = 0;
    for length in (0..40).chain([47, 48, 63, 64, 65, 79, 80, 81, 127, 128, 129, 200]) {
        for at in 0..=length {
            for (number, odd) in odd.iter().enumerate() {
                // The other bytes of ASCII are all alike to it.
                if length > 40 && (0x23..0x5c).contains(&number) {
                    continue;
                }
                let (before, behind) = (vec![b'x'; at], vec![b'y'; length - at]);
                let text = [b"\"", &before[..], odd, &behind, b"\", 1]"].concat();
                let mut scanner = Scanner::new(&text).expect("utf-8");
                let found = scanner.string().map(|it| (it.at.end, it.escaped));
                assert_eq!(found, byte_by_byte(&text), "{odd:?} at {at} of {length}");
                if let Ok((end, _)) = found {
                    assert_eq!(scanner.offset(), end + 1);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 100_000, "{seen} strings");
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
