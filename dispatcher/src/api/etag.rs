//! Entity tags: the registry sequence of a thing's last entry, so that two editors cannot
//! overwrite each other unawares.

use std::future::{Ready, ready};

use actix_web::http::header::IF_MATCH;
use actix_web::{FromRequest, HttpRequest, dev::Payload};
use shared::ids::Sequence;
use utoipa::IntoParams;

use super::error::ApiError;

/// The tag of a thing whose last entry has this sequence.
pub(crate) fn etag(sequence: Sequence) -> String {
    format!("\"{sequence}\"")
}

/// The header in documents.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(crate) struct IfMatchHeader {
    /// `ETag` of the version that is to be changed; 412 when it is another one by now.
    #[param(rename = "If-Match", nullable = false)]
    tags: Option<String>,
}

/// The `If-Match` header, if there is one.
#[derive(Debug)]
pub(crate) enum IfMatch {
    /// No header, or `*`: whatever is there may be changed.
    Any,
    /// The tags that it names; those that cannot be ours match nothing.
    Tags(Vec<String>),
}

impl IfMatch {
    /// 412 unless what is there now may be changed.
    pub(crate) fn check(&self, current: Sequence) -> Result<(), ApiError> {
        match self {
            Self::Any => Ok(()),
            Self::Tags(tags) if tags.contains(&etag(current)) => Ok(()),
            Self::Tags(_) => Err(ApiError::stale()),
        }
    }

    /// What a deletion must find unchanged, given that [`Self::check`] passed `current`.
    pub(crate) fn base(&self, current: Sequence) -> Option<Sequence> {
        match self {
            Self::Any => None,
            Self::Tags(_) => Some(current),
        }
    }

    /// Weak tags (`W/…`) match nothing: RFC 9110, 13.1.1, asks for the strong comparison.
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let tags: Vec<_> = lines
            .flat_map(|line| line.split(','))
            .map(|tag| tag.trim().to_owned())
            .collect();
        match tags.as_slice() {
            [] => Self::Any,
            [star] if star == "*" => Self::Any,
            _ => Self::Tags(tags),
        }
    }
}

impl FromRequest for IfMatch {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lines = request.headers().get_all(IF_MATCH);
        // A line that is no text becomes a tag that matches nothing.
        ready(Ok(Self::parse(
            lines.map(|line| line.to_str().unwrap_or_default()),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_needs_a_tag_that_holds() {
        let cases: [(&[&str], bool); 9] = [
            (&[], true),
            (&["*"], true),
            (&["\"7\""], true),
            (&["\"6\", \"7\""], true),
            (&["\"6\"", "\"7\""], true),
            (&["\"6\""], false),
            (&["7"], false),
            (&["W/\"7\""], false),
            (&[""], false),
        ];
        for (lines, passes) in cases {
            let if_match = IfMatch::parse(lines.iter().copied());
            assert_eq!(if_match.check(Sequence(7)).is_ok(), passes, "{lines:?}");
        }
    }
}
