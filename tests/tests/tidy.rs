//! Structure as tests: what the pure folders never name, what is named in one place only, and
//! how large a file may grow.
#![expect(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "what helps a test fails as the test does"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Take state, an input and a time; no runtime, no I/O, no clock, no randomness, no environment.
const PURE: [&str; 5] = [
    "shared/src/domain/",
    "shared/src/codec/",
    "shared/src/dialect/",
    "dispatcher/src/core/",
    "ingest/src/core/",
];
const IMPURE: [&str; 12] = [
    "tokio",
    "actix",
    "actix_rt",
    "actix_web",
    "async_nats",
    "reqwest",
    "SystemTime",
    "Instant",
    "SystemClock",
    "std::env",
    "getrandom",
    "rand",
];
/// `shared::random`, in pure code, would be randomness that is not an argument.
const OWN_RANDOMNESS: &str = "random::";
const FILE_LINES_MAX: usize = 600;
const NAMELESS_FILES: [&str; 3] = ["utils.rs", "helpers.rs", "common.rs"];
/// This file names what others may not.
const SELF: &str = "tests/tests/tidy.rs";

struct Source {
    /// From the workspace's folder, with slashes.
    path: String,
    text: String,
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every Rust file of the workspace's packages.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let packages = ["shared", "ingest", "dispatcher", "tests"];
    let mut folders: Vec<PathBuf> = packages
        .iter()
        .map(|package| workspace().join(package))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(workspace()).unwrap().to_str().unwrap();
                let path_text = relative.replace('\\', "/");
                if path_text != SELF {
                    let text = std::fs::read_to_string(&path).unwrap();
                    sources.push(Source {
                        path: path_text,
                        text,
                    });
                }
            }
        }
    }
    assert!(
        sources.len() > 20,
        "only {} files were found",
        sources.len()
    );
    sources
}

/// Numbered lines without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let uncommented = text.lines().map(|line| {
        if line.trim_start().starts_with("//") {
            return "";
        }
        line.split_once(" // ").map_or(line, |(code, _)| code)
    });
    (1..).zip(uncommented)
}

/// Whether `word` stands in the line as a word, or as the start of a path if it ends in `::`.
fn names(line: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(place, _)| {
        let before = line[..place].chars().next_back();
        let after = line[place + word.len()..].chars().next();
        !before.is_some_and(of_word) && (word.ends_with("::") || !after.is_some_and(of_word))
    })
}

/// Places that name one of the words in a file that may not.
fn violations(words: &[&str], forbidden_in: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| forbidden_in(&source.path)) {
        for (number, line) in code(&source.text) {
            for word in words.iter().filter(|word| names(line, word)) {
                found.push(format!("{}:{number} names {word}", source.path));
            }
        }
    }
    found
}

fn check(words: &[&str], forbidden_in: impl Fn(&str) -> bool, rule: &str) {
    let found = violations(words, forbidden_in);
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn words_are_told_from_parts_of_words() {
    for (line, word, expected) in [
        ("use actix::Actor;", "actix::", true),
        ("use actix_web::web;", "actix::", false),
        ("use actix_web::web;", "actix", false),
        ("let random: IdRandom;", "rand", false),
        ("rand::random()", "rand", true),
        ("crate::random::bytes()", "random::", true),
        ("pub random: u64,", "random::", false),
        ("std::time::Instant::now()", "Instant", true),
        ("fn instantiate()", "Instant", false),
    ] {
        assert_eq!(names(line, word), expected, "{line} {word}");
    }
    let lines = "a\n    // tokio\nb // tokio\n\"https://x\"";
    let left: Vec<_> = code(lines).map(|(_, line)| line).collect();
    assert_eq!(left, ["a", "", "b", "\"https://x\""]);
}

#[test]
fn pure_folders_name_nothing_impure() {
    let sources = sources();
    for folder in PURE {
        let present = sources.iter().any(|source| source.path.starts_with(folder));
        assert!(present, "{folder} holds no code: is it somewhere else now?");
    }
    let words: Vec<_> = IMPURE.into_iter().chain([OWN_RANDOMNESS]).collect();
    let pure = |path: &str| PURE.iter().any(|folder| path.starts_with(folder));
    check(
        &words,
        pure,
        "the pure core takes time and randomness as arguments, and does no I/O",
    );
}

#[test]
fn bytes_are_known_to_the_codec_alone() {
    let elsewhere = |path: &str| !path.starts_with("shared/src/codec/");
    check(
        &["bincode"],
        elsewhere,
        "only shared/src/codec names bincode",
    );
}

#[test]
fn actors_are_known_to_their_folder_alone() {
    let elsewhere = |path: &str| !path.starts_with("dispatcher/src/actors/");
    check(
        &["actix::"],
        elsewhere,
        "only dispatcher/src/actors names actix",
    );
}

#[test]
fn nats_is_spoken_in_one_place() {
    let elsewhere = |path: &str| {
        !path.starts_with("shared/src/nats/") && !path.split('/').any(|part| part == "tests")
    };
    check(
        &["async_nats"],
        elsewhere,
        "only shared/src/nats and tests name async_nats",
    );
}

#[test]
fn files_are_named_for_what_they_hold() {
    let nameless: Vec<_> = sources()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| {
            NAMELESS_FILES
                .iter()
                .any(|name| path.rsplit('/').next() == Some(name))
        })
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}

/// Lines before the file's own tests, which may be as many as they need.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

#[test]
fn files_are_short_enough_to_proofread() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (&source.path, lines_without_tests(&source.text)))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX}: {long:#?}");
}

#[test]
fn shared_without_features_has_no_runtime() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "-p", "shared", "--no-default-features"])
        .args(["-e", "normal", "--prefix", "none"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.starts_with("shared v"), "{tree}");
    for line in tree.lines() {
        let package = line.split(' ').next().unwrap_or_default();
        assert!(
            !["tokio", "actix-web", "async-nats", "reqwest"].contains(&package),
            "{line}"
        );
    }
}
