//! Health probes. `/healthz`: the process answers. `/readyz`: the server accepts work. It does not while it starts or
//! drains, or while the journal cannot store changes.

use super::envelope::Reply;
use super::error::Fault;
use super::request::Verb;
use super::route::Probe;

/// Answers a probe. No token is needed, and the response holds no details.
pub(super) fn answer(probe: Probe, ready: bool, verb: Verb) -> Result<Reply, Fault> {
    if !verb.reads() {
        return Err(Fault::MethodNotAllowed { allow: "GET, HEAD", cause: None });
    }
    match probe {
        Probe::Ready if !ready => Err(Fault::NotReady),
        Probe::Ready | Probe::Live => Ok(Reply::Healthy),
    }
}
