//! `/v2/drain`: starts the same drain as SIGTERM, but the server does not stop at its end. Superusers only.

use crate::directory::TokenScope;

use super::ApiState;
use super::envelope::{Data, Reply};
use super::error::Fault;
use super::request::{Ask, Verb};

/// GET reports what is left, POST starts the drain, DELETE ends it.
pub(super) fn answer(state: &ApiState, bearer: TokenScope, ask: &Ask) -> Result<Reply, Fault> {
    if bearer != TokenScope::Superuser {
        return Err(Fault::Forbidden);
    }
    if !ask.verb.reads() {
        let begin = ask.verb == Verb::Post;
        state.control.drain(begin).map_err(Fault::Refused)?;
        tracing::info!(request_id = ask.id, begin, "draining, by the API");
    }
    Ok(Reply::Data(Data::DrainStatus(state.control.left())))
}
