//! What Carillon adds to jq for connectors, and what of jq is in Rust here, since a program asks for
//! it dozens of times in a callback: in jq these took most of what a callback costs.

use jaq_core::data::JustLut;
use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::{Bind, Cv, Error, Exn, ValR};
use jaq_json::{Map, Val};

use super::program::as_text;
use crate::time::Timestamp;

type Data = JustLut<Val>;

/// Name, arguments and implementation of each.
pub(super) fn all() -> [Fun<Data>; 9] {
    let filter = || Box::new([Bind::Fun(())]);
    [
        run(("unix_seconds", v(0), |cv| bome(Ok(unix_seconds(&cv.1))))),
        run(("text", v(0), |cv| bome(Ok(text(cv.1))))),
        run(("texts", v(1), |cv| {
            unary(cv, |value, names| texts(&value, &names))
        })),
        run(("omit_missing", v(0), |cv| bome(omit_missing(cv.1)))),
        run(("IN", filter(), |cv| Box::new(std::iter::once(is_in(cv))))),
        run(("join", v(1), |cv| {
            unary(cv, |value, separator| join(&value, &separator))
        })),
        run(("isstring", v(0), |cv| bome(Ok(Val::Bool(is_string(&cv.1)))))),
        run(("isarray", v(0), |cv| bome(Ok(Val::Bool(is_array(&cv.1)))))),
        run(("isobject", v(0), |cv| bome(Ok(Val::Bool(is_object(&cv.1)))))),
    ]
}

/// `unix_seconds`: an RFC 3339 text as a number, anything else as null.
fn unix_seconds(value: &Val) -> Val {
    as_text(value)
        .and_then(|text| Timestamp::parse_rfc3339(text).ok())
        .and_then(|time| isize::try_from(time.as_seconds()).ok())
        .map_or(Val::Null, Val::from)
}

/// `text`: a non-empty text or a number as text; anything else is missing (null). For ids and names.
fn text(value: Val) -> Val {
    match value {
        Val::TStr(text) if !text.is_empty() => Val::TStr(text),
        Val::Num(_) => Val::utf8_str(value.to_string()),
        Val::Null | Val::Bool(_) | Val::BStr(_) | Val::TStr(_) | Val::Arr(_) | Val::Obj(_) => {
            Val::Null
        }
    }
}

/// `omit_missing`: an object without what carries nothing, so that a unified field is either there
/// with a value or absent.
fn omit_missing(value: Val) -> ValR<Val> {
    let Val::Obj(fields) = &value else {
        return Err(Error::typ(value, "object"));
    };
    let carries = |value: &Val| match value {
        Val::Null => false,
        Val::TStr(text) => !text.is_empty(),
        Val::Arr(items) => !items.is_empty(),
        Val::Obj(fields) => !fields.is_empty(),
        Val::Bool(_) | Val::Num(_) | Val::BStr(_) => true,
    };
    let kept = fields.iter().filter(|(_, value)| carries(value));
    let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
    Ok(Val::obj(kept.collect()))
}

/// `texts("id remote_id=id title")`: the named fields as [`text`], under their own names or, as
/// `new=old`, under another; those that are missing are left out. Of null none.
fn texts(value: &Val, names: &Val) -> ValR<Val> {
    let fields = match value {
        Val::Obj(fields) => fields,
        Val::Null => return Ok(Val::obj(Map::default())),
        Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::TStr(_) | Val::Arr(_) => {
            return Err(Error::typ(value.clone(), "object"));
        }
    };
    let names = as_text(names).ok_or_else(|| Error::typ(names.clone(), "text"))?;
    let mut texts = Map::default();
    for name in names.split_ascii_whitespace() {
        let (new, old) = name.split_once('=').unwrap_or((name, name));
        let key = Val::utf8_str(old.to_owned());
        match fields.get(&key).cloned().map(text) {
            Some(Val::Null) | None => {}
            Some(text) if new == old => _ = texts.insert(key, text),
            Some(text) => _ = texts.insert(Val::utf8_str(new.to_owned()), text),
        }
    }
    Ok(Val::obj(texts))
}

/// `IN(values)`: whether the input is one of them.
fn is_in(mut cv: Cv<'_, Data>) -> Result<Val, Exn<'_, Val>> {
    let (values, context) = cv.0.pop_fun();
    let input = cv.1;
    for value in values.run((context, input.clone())) {
        if value? == input {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

/// `join(separator)`, of texts, numbers, booleans and null, which is empty.
fn join(value: &Val, separator: &Val) -> ValR<Val> {
    let Val::Arr(items) = value else {
        return Err(Error::typ(value.clone(), "array"));
    };
    let separator = as_text(separator).ok_or_else(|| Error::typ(separator.clone(), "text"))?;
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        match item {
            Val::Null => {}
            Val::Bool(_) | Val::Num(_) => joined.push_str(&item.to_string()),
            Val::TStr(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => {
                joined.push_str(as_text(item).ok_or_else(|| Error::typ(item.clone(), "text"))?)
            }
        }
    }
    Ok(Val::utf8_str(joined))
}

fn is_string(value: &Val) -> bool {
    matches!(value, Val::TStr(_) | Val::BStr(_))
}

fn is_array(value: &Val) -> bool {
    matches!(value, Val::Arr(_))
}

fn is_object(value: &Val) -> bool {
    matches!(value, Val::Obj(_))
}
