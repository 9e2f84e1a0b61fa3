//! `/v2/drain`: what SIGTERM begins, without the end. For those who may see everything.

use crate::directory::Bearer;

use super::ApiState;
use super::envelope::{Data, Reply};
use super::error::Fault;
use super::request::{Ask, Verb};

/// GET says what is left, POST begins to drain, DELETE takes that back.
pub(super) fn answer(state: &ApiState, bearer: Bearer, ask: &Ask) -> Result<Reply, Fault> {
    if bearer != Bearer::Superuser {
        return Err(Fault::Forbidden);
    }
    if !ask.verb.reads() {
        let begin = ask.verb == Verb::Post;
        state.control.drain(begin).map_err(Fault::Refused)?;
        tracing::info!(request_id = ask.id, begin, "draining, by the API");
    }
    Ok(Reply::Data(Data::Left(state.control.left())))
}
