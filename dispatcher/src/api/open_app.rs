//! The [`App`] as handlers get it: while there is one, and until the process stops.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::Arc;

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};

use super::error::ApiError;
use crate::app::{App, AppSlot};

/// Taken at the start of a call; what was open then may be closed since.
pub(crate) struct OpenApp {
    app: Arc<App>,
    slot: web::Data<AppSlot>,
}

impl OpenApp {
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let slot = request.app_data::<web::Data<AppSlot>>().cloned();
        let slot = slot.ok_or_else(|| ApiError::internal("the listener has no app"))?;
        let starting = ApiError::Closed("JetStream has not answered yet; try again");
        let app = Arc::clone(slot.app().ok_or(starting)?);
        let open = Self { app, slot };
        open.check_still_open()?;
        Ok(open)
    }

    pub(crate) fn check_still_open(&self) -> Result<(), ApiError> {
        if self.slot.is_closed() {
            return Err(ApiError::Closed("this replica is stopping; try again"));
        }
        Ok(())
    }
}

impl Deref for OpenApp {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl FromRequest for OpenApp {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}
