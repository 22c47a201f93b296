//! Which part of a list is asked for, in HR-ON's way: `size`, `offset`, `eventName`.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use serde::{Deserialize, Serialize};
use shared::dialect::hr_on;
use utoipa::{IntoParams, ToSchema};

use crate::api::error::ApiError;

const SIZE_DEFAULT: usize = 20;
const SIZE_MAX: usize = 100;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) size: usize,
    pub(super) offset: usize,
    /// One of HR-ON's names.
    pub(super) event_name: Option<String>,
}

/// `pageInfo`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HrOnPageInfo)]
pub(super) struct PageInfo {
    pub(super) size: usize,
    pub(super) offset: usize,
    /// Of all parts.
    pub(super) total: usize,
}

/// Texts, so that a malformed number is told in our words.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct Query {
    /// Items in the part.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100, default = 20, nullable = false)]
    size: Option<String>,
    /// Items before it.
    #[param(value_type = Option<u32>, minimum = 0, default = 0, nullable = false)]
    offset: Option<String>,
    /// One of HR-ON's names: webhooks that subscribe to it.
    #[param(nullable = false)]
    event_name: Option<String>,
}

impl Part {
    fn from_query(query: &str) -> Result<Self, ApiError> {
        let query = web::Query::<Query>::from_query(query)
            .map_err(|_| ApiError::bad_request("each parameter may be given once"))?;
        let number = |text: &Option<String>, default: usize| match text {
            None => Some(default),
            Some(text) => text.parse::<u32>().ok()?.try_into().ok(),
        };
        let size = number(&query.size, SIZE_DEFAULT)
            .filter(|size| (1..=SIZE_MAX).contains(size))
            .ok_or_else(|| ApiError::bad_request("size must be from 1 to 100"))?;
        let offset = number(&query.offset, 0)
            .ok_or_else(|| ApiError::bad_request("offset must be a number of items to skip"))?;
        let event_name = query.event_name.clone();
        if let Some(name) = &event_name
            && hr_on::event_type(name).is_none()
        {
            return Err(ApiError::bad_request("eventName is none of HR-ON's"));
        }
        Ok(Self {
            size,
            offset,
            event_name,
        })
    }

    /// What of `all` is asked for, and how it lies in the whole.
    pub(super) fn cut<T>(&self, all: Vec<T>) -> (Vec<T>, PageInfo) {
        let info = PageInfo {
            size: self.size,
            offset: self.offset,
            total: all.len(),
        };
        let items = all.into_iter().skip(self.offset).take(self.size).collect();
        (items, info)
    }
}

impl FromRequest for Part {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::from_query(request.query_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_once() {
        for (query, items) in [
            ("", 0..20),
            ("size=100", 0..25),
            ("size=10&offset=20", 20..25),
            ("offset=25", 25..25),
            ("size=1&offset=4294967295", 25..25),
        ] {
            let part = Part::from_query(query).unwrap();
            let (cut, info) = part.cut((0..25).collect::<Vec<_>>());
            assert_eq!(cut, items.collect::<Vec<_>>(), "{query}");
            assert_eq!(info.total, 25);
        }
    }

    #[test]
    fn other_queries_are_not_understood() {
        for query in [
            "size=0",
            "size=101",
            "size=x",
            "offset=-1",
            "offset=4294967296",
            "eventName=EmployeeHired",
            "size=1&size=2",
        ] {
            let refused = Part::from_query(query);
            assert!(matches!(refused, Err(ApiError::Refused(_))), "{query}");
        }
        let part = Part::from_query("eventName=EmployeeCreated").unwrap();
        assert_eq!(part.event_name.as_deref(), Some("EmployeeCreated"));
    }
}
