//! Lists in pages: `limit` 1 to 100, and an opaque `cursor`.
//!
//! Lists are in the order of ids, which is the order of creation, and a cursor is the last id of
//! its page: things that come or go meanwhile never repeat or hide another.

use std::fmt::Display;
use std::future::{Ready, ready};
use std::ops::Bound;
use std::str::FromStr;

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// Which part of a list of things with ids of type `I` is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<I> {
    pub(crate) limit: usize,
    pub(crate) after: Option<I>,
}

/// A page as it is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// Cursor of the next page; null on the last.
    #[schema(required)]
    pub(crate) next: Option<String>,
}

/// Texts, so that a malformed number is told in our words.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Items on the page.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100, default = 20, nullable = false)]
    limit: Option<String>,
    /// `next` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

impl<I: Copy + Ord + Display + FromStr> Page<I> {
    fn from_query(query: &str) -> Result<Self, ApiError> {
        let query = web::Query::<PageQuery>::from_query(query)
            .map_err(|_| ApiError::bad_request("limit and cursor may be given once each"))?;
        let limit = match &query.limit {
            None => LIMIT_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| ApiError::bad_request("limit must be from 1 to 100"))?,
        };
        let after = match &query.cursor {
            None => None,
            Some(text) => Some(parse_cursor(text).ok_or_else(|| {
                ApiError::bad_request("cursor must be the `next` of an answer to this call")
            })?),
        };
        Ok(Self { limit, after })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The cursor.
    pub(crate) fn after(&self) -> Option<I> {
        self.after
    }

    /// Of a sorted set of ids, those that may be on the page.
    pub(crate) fn bounds(&self) -> (Bound<I>, Bound<I>) {
        let first = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        (first, Bound::Unbounded)
    }

    /// The page, from things in the order of their ids. Those before it are passed over.
    pub(crate) fn cut<T>(
        &self,
        things: impl Iterator<Item = T>,
        id_of: impl Fn(&T) -> I,
    ) -> List<T> {
        let mut rest = things.filter(|thing| self.after.is_none_or(|after| id_of(thing) > after));
        let items: Vec<T> = rest.by_ref().take(self.limit).collect();
        let next = rest
            .next()
            .and(items.last())
            .map(|last| cursor(id_of(last)));
        List { items, next }
    }
}

impl<T> List<T> {
    /// A page after which the list goes on at `next`, if it does.
    pub(crate) fn going_on(items: Vec<T>, next: Option<impl Display>) -> Self {
        let next = next.map(cursor);
        Self { items, next }
    }

    pub(crate) fn map<U>(self, show: impl FnMut(T) -> U) -> List<U> {
        List {
            items: self.items.into_iter().map(show).collect(),
            next: self.next,
        }
    }
}

impl<I: Copy + Ord + Display + FromStr + 'static> FromRequest for Page<I> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::from_query(request.query_string()))
    }
}

/// The `next` of a page that ends with `last`.
pub(crate) fn cursor(last: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(last.to_string())
}

fn parse_cursor<I: FromStr>(text: &str) -> Option<I> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use shared::ids::{AccountId, WebhookId};

    use super::*;

    fn page(query: &str) -> Result<Page<WebhookId>, ApiError> {
        Page::from_query(query)
    }

    fn ids(count: u8) -> Vec<WebhookId> {
        (0..count).map(|n| WebhookId::from_bytes([n; 16])).collect()
    }

    #[test]
    fn pages_hold_everything_once_in_order() {
        for (count, limit) in [(0, 3), (1, 3), (3, 3), (4, 3), (7, 3), (7, 100), (5, 1)] {
            let (mut seen, mut query) = (Vec::new(), format!("limit={limit}"));
            loop {
                let list = page(&query).unwrap().cut(ids(count).into_iter(), |id| *id);
                assert!(list.items.len() <= limit);
                seen.extend(list.items);
                let Some(next) = list.next else { break };
                assert_eq!(seen.len() % limit, 0, "a page before the last is full");
                query = format!("limit={limit}&cursor={next}");
            }
            assert_eq!(seen, ids(count), "{count} in pages of {limit}");
        }
    }

    #[test]
    fn a_cursor_outlives_what_it_names() {
        let mut things = ids(4);
        let list = page("limit=2")
            .unwrap()
            .cut(things.iter().copied(), |id| *id);
        things.remove(1);
        let query = format!("cursor={}", list.next.unwrap());
        let rest = page(&query).unwrap();
        assert_eq!(
            rest.cut(things.iter().copied(), |id| *id).items,
            ids(4)[2..]
        );
        assert_eq!(rest.bounds().0, Bound::Excluded(ids(4)[1]));
    }

    #[test]
    fn other_queries_are_not_understood() {
        assert_eq!(page("").unwrap().limit, LIMIT_DEFAULT);
        assert_eq!(page("limit=100&other=1").unwrap().limit, 100);
        let foreign = cursor(AccountId::from_bytes([1; 16]));
        for query in [
            "limit=0",
            "limit=101",
            "limit=",
            "limit=1&limit=2",
            "cursor=",
            "cursor=%00",
            &format!("cursor={foreign}"),
        ] {
            assert!(matches!(page(query), Err(ApiError::Refused(_))), "{query}");
        }
    }
}
