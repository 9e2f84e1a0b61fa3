//! `/v2/drain`: starts the same drain as SIGTERM, but the server does not stop at its end. Superusers only.

use crate::directory::TokenScope;

use super::ApiState;
use super::envelope::{Data, Reply};
use super::error::ApiError;
use super::request::{Method, RequestContext};

/// GET reports what is left, POST starts the drain, DELETE ends it.
pub(super) fn answer(state: &ApiState, bearer: TokenScope, ask: &RequestContext) -> Result<Reply, ApiError> {
    if bearer != TokenScope::Superuser {
        return Err(ApiError::Forbidden);
    }
    if !ask.verb.reads() {
        let begin = ask.verb == Method::Post;
        state.control.drain(begin).map_err(ApiError::Refused)?;
        tracing::info!(request_id = ask.id, begin, "draining, by the API");
    }
    Ok(Reply::Data(Data::DrainStatus(state.control.left())))
}
