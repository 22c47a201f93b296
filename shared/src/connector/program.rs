//! jq programs of connectors, and JSON in and out of them.
//!
//! Invariants: a program computes from its input alone. It reads no clock, file, environment or
//! other module, cannot end the process (`halt` would, through `jaq_core::unwrap_valr`), and cannot
//! start jaq's own JSON parser, which has no limit on nesting. A compiled program is shared by all
//! workers. Absent: a limit on steps, for which jaq has no hook; connectors are installed by the
//! operator, and their programs are trusted to end.

use std::io;

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, compile};
use jaq_json::{Num, Val};
use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::functions;

/// Definitions of jq's standard library that do not exist here: they would print, end the process
/// or parse JSON text, or need mathematics, regular expressions, dates and formats that no connector
/// has asked for.
const LEFT_OUT: &[&str] = &[
    "stderr",
    "debug",
    "halt",
    "halt_error",
    "totype",
    "tonumber",
    "toboolean",
    "logb",
    "significand",
    "pow10",
    "drem",
    "nexttoward",
    "scalb",
    "gamma",
    "capture_of_match",
    "test",
    "scan_",
    "match",
    "capture",
    "splits",
    "sub",
    "gsub",
    "scan",
    "todate",
    "fromdate",
    "@sh",
    "@html",
    "@htmld",
    "@uri",
    "@urid",
    "@base64",
    "@base64d",
];

/// Definitions of jq's that are in Rust here: programs use them for every field of a callback, and
/// jq's own compare with values that they make each time. None of them is a path, which what is in
/// Rust here cannot be.
const REPLACED: &[&str] = &["isobject", "isarray", "isstring", "join"];

/// Functions left out for the same reasons.
const FUNCTIONS_LEFT_OUT: &[&str] = &["halt", "fromjson", "escape_sh"];

/// How deep a value that leaves a program may be nested; as deep as one that enters.
const DEPTH_MAX: usize = 128;

/// A compiled program.
pub(super) struct Program {
    filter: jaq_core::Filter<JustLut<Val>>,
}

/// The program raised an error. Its text is dropped: jaq quotes the values at hand, which are the
/// provider's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raised;

impl Program {
    /// The error says what is wrong and quotes the program.
    pub(super) fn compile(code: &str) -> Result<Self, String> {
        let arena = Arena::default();
        let all = jaq_core::defs()
            .chain(jaq_std::defs())
            .chain(jaq_json::defs());
        let standard = all.filter(|def| {
            let by_regex = def.name == "split" && def.args.len() == 2;
            !by_regex && !LEFT_OUT.contains(&def.name) && !REPLACED.contains(&def.name)
        });
        let modules = Loader::new(standard)
            .load(&arena, File { code, path: () })
            .map_err(|errors| describe(errors, load_error))?;
        let functions = jaq_core::funs()
            .chain(jaq_std::base_funs())
            .chain(jaq_json::funs())
            .filter(|(name, _, _)| !FUNCTIONS_LEFT_OUT.contains(name))
            .chain(functions::all());
        let filter = Compiler::default()
            .with_funs(functions)
            .compile(modules)
            .map_err(|errors| describe(errors, compile_error))?;
        Ok(Self { filter })
    }

    /// The outputs, computed as they are asked for.
    pub(super) fn outputs(&self, input: Val) -> impl Iterator<Item = Result<Val, Raised>> + '_ {
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        // Not `unwrap_valr`, which ends the process on `halt`.
        self.filter
            .id
            .run((context, input))
            .map(|output| output.map_err(|_| Raised))
    }
}

fn describe<S, P, E>(errors: load::Errors<S, P, E>, notes: impl Fn(&E) -> Vec<String>) -> String {
    let notes: Vec<String> = errors.iter().flat_map(|(_, error)| notes(error)).collect();
    notes.join("; ")
}

fn load_error(error: &load::Error<&str>) -> Vec<String> {
    let note = |expected: &str, found: &str| match found.chars().take(40).collect::<String>() {
        end if end.is_empty() => format!("expected {expected}, found the end"),
        found => format!("expected {expected}, found {found:?}"),
    };
    match error {
        load::Error::Io(errors) => errors
            .iter()
            .map(|(path, detail)| format!("{path:?}: {detail}"))
            .collect(),
        load::Error::Lex(errors) => errors
            .iter()
            .map(|(expect, found)| note(expect.as_str(), found))
            .collect(),
        load::Error::Parse(errors) => errors
            .iter()
            .map(|(expect, found)| note(expect.as_str(), found))
            .collect(),
    }
}

fn compile_error(errors: &Vec<compile::Error<&str>>) -> Vec<String> {
    errors
        .iter()
        .map(|(name, undefined)| format!("undefined {} {name:?}", undefined.as_str()))
        .collect()
}

/// A text's characters; null for anything else.
pub(super) fn as_text(value: &Val) -> Option<&str> {
    match value {
        Val::TStr(bytes) => std::str::from_utf8(bytes).ok(),
        Val::Null | Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => None,
    }
}

/// The order of an object's fields in written JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// As the program made them: for people.
    AsMade,
    /// By name, so that the text is the same however the provider ordered them: for comparison.
    Sorted,
}

/// Why a value is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritable {
    TooLong,
    /// Nested too deep, or something that JSON cannot say: bytes, NaN, a key that is no text.
    NoJson,
}

/// Compact JSON of at most `bytes_max` bytes.
pub(super) fn to_json(value: &Val, fields: Fields, bytes_max: usize) -> Result<String, Unwritable> {
    let mut out = Bounded {
        bytes: Vec::new(),
        left: Some(bytes_max),
    };
    let written = serde_json::to_writer(
        &mut out,
        &Json {
            value,
            fields,
            depth: 0,
        },
    );
    if out.left.is_none() {
        return Err(Unwritable::TooLong);
    }
    written.map_err(|_| Unwritable::NoJson)?;
    String::from_utf8(out.bytes).map_err(|_| Unwritable::NoJson)
}

struct Bounded {
    bytes: Vec<u8>,
    /// `None` once more was to be written than there was room for.
    left: Option<usize>,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.and_then(|left| left.checked_sub(bytes.len()));
        self.left
            .ok_or_else(|| io::Error::other("over the limit"))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Json<'a> {
    value: &'a Val,
    fields: Fields,
    depth: usize,
}

impl<'a> Json<'a> {
    fn inner(&self, value: &'a Val) -> Self {
        Self {
            value,
            fields: self.fields,
            depth: self.depth.saturating_add(1),
        }
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.depth >= DEPTH_MAX {
            return Err(S::Error::custom("nested too deep"));
        }
        match self.value {
            Val::Null => serializer.serialize_unit(),
            Val::Bool(value) => serializer.serialize_bool(*value),
            Val::Num(number) => serialize_number(number, serializer),
            Val::TStr(_) => serializer
                .serialize_str(as_text(self.value).ok_or_else(|| S::Error::custom("not UTF-8"))?),
            Val::BStr(_) => Err(S::Error::custom("bytes")),
            Val::Arr(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values.iter() {
                    list.serialize_element(&self.inner(value))?;
                }
                list.end()
            }
            Val::Obj(entries) => {
                let mut named = Vec::with_capacity(entries.len());
                for (key, value) in entries.iter() {
                    named.push((
                        as_text(key).ok_or_else(|| S::Error::custom("key is no text"))?,
                        value,
                    ));
                }
                if self.fields == Fields::Sorted {
                    named.sort_unstable_by_key(|(name, _)| *name);
                }
                let mut object = serializer.serialize_map(Some(named.len()))?;
                for (name, value) in named {
                    object.serialize_entry(name, &self.inner(value))?;
                }
                object.end()
            }
        }
    }
}

fn serialize_number<S: Serializer>(number: &Num, serializer: S) -> Result<S::Ok, S::Error> {
    let unusable = || S::Error::custom("number outside JSON's usual range");
    match number {
        Num::Int(value) => {
            serializer.serialize_i64(i64::try_from(*value).map_err(S::Error::custom)?)
        }
        Num::BigInt(value) => {
            serializer.serialize_u64(value.to_string().parse().map_err(S::Error::custom)?)
        }
        Num::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
        Num::Float(_) => Err(unusable()),
        // Only a decimal literal in the program's text, since input comes through serde.
        Num::Dec(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => serializer.serialize_f64(value),
            Ok(_) | Err(_) => Err(unusable()),
        },
    }
}
