//! How deep a JSON text is nested.
//!
//! `data` is passed on without being parsed, and so would be a million brackets, which the JSON
//! parsers of receivers (and of ours, elsewhere) answer with an error or an overflowing stack.

/// The limit of serde_json's own parser, which provider callbacks are held to as well.
const DEPTH_MAX: usize = 128;

/// Whether brackets and braces stand deeper than any parser of ours would follow. Correct for
/// JSON; of other text it says anything, but never panics.
pub(crate) fn is_too_deep(json: &str) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_brackets_count() {
        let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
        assert!(!is_too_deep(&deep(128)));
        assert!(is_too_deep(&deep(129)));
        assert!(!is_too_deep(&format!(
            r#"{{"a":"{}\"{}"}}"#,
            "[".repeat(500),
            "{".repeat(500)
        )));
        assert!(!is_too_deep(&"[],".repeat(1000)));
    }
}
