//! Escapes that stand for half a character.
//!
//! `data` is passed on without being decoded, and so would be `"\ud800"`: JSON's grammar allows it
//! (RFC 8259, section 8.2, which calls what receivers make of it unpredictable), while strict
//! parsers, ours of callbacks among them, refuse the whole text.

/// Whether an escaped surrogate stands without its other half. Correct for JSON; of other text it
/// says anything, but never panics.
pub(crate) fn are_lone(json: &str) -> bool {
    // Whether the last thing read was the first half of a pair.
    let mut is_open = false;
    let mut rest = json;
    while let Some((before, escape)) = rest.split_once('\\') {
        if is_open && !before.is_empty() {
            return true;
        }
        let unit = code_unit(escape);
        is_open = match unit {
            Some(0xd800..0xdc00) if !is_open => true,
            Some(0xdc00..0xe000) if is_open => false,
            Some(0xd800..0xe000) => return true,
            Some(_) | None if is_open => return true,
            Some(_) | None => false,
        };
        // One character is escaped, perhaps another backslash, or five: `uXXXX`.
        let bytes = if unit.is_some() { 5 } else { 1 };
        rest = escape.get(bytes..).unwrap_or_default();
    }
    is_open
}

/// Of `uXXXX`.
fn code_unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix('u')?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_half_pairs_are_found() {
        for (json, expected) in [
            (r#""""#, false),
            (r#""ud800""#, false),
            (r#""\\ud800""#, false),
            (r#""\\\ud800""#, true),
            (r#""\u00e9\n\"\u0000""#, false),
            (r#""\ud83d\ude00""#, false),
            (r#""\uD83D\uDE00\ud83d\uDE00""#, false),
            (r#""\ud7ff\ue000""#, false),
            (r#""\ud800""#, true),
            (r#""\uDBFF""#, true),
            (r#""\udc00""#, true),
            (r#""\uDFFF\uD800""#, true),
            (r#""\ud800\ud800\udc00""#, true),
            (r#""\ud83d\ude00\ude00""#, true),
            (r#""\ud83d \ude00""#, true),
            (r#""\ud83d\n""#, true),
            (r#""\ud83d\u0041""#, true),
            (r#"["\ud83d","\ude00"]"#, true),
            (r#"{"\ud83d\ude00":"é"}"#, false),
            (r#"{"\ude00":1}"#, true),
        ] {
            assert_eq!(are_lone(json), expected, "{json}");
            let strict = serde_json::from_str::<serde_json::Value>(json);
            assert_eq!(strict.is_err(), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_strict_parsers_agree(
            text in "(\\\\(u(d[89a-f]|D[89A-F]|00)[0-9a-f]{2}|n|\\\\|\")|[aé]){0,6}",
            any in "[\\\\udD8cé0]{0,12}",
        ) {
            are_lone(&any);
            let json = format!("\"{text}\"");
            let strict = serde_json::from_str::<String>(&json);
            prop_assert_eq!(strict.is_err(), are_lone(&json), "{}", json);
        }
    }
}
