//! Settings of the HEP capture.

use std::net::SocketAddr;

use crate::util::secret::Secret;

/// Settings of the HEP capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hep {
    /// Address of the capture server.
    pub server: SocketAddr,
    /// Capture agent id that identifies this server there.
    pub agent_id: u32,
    /// Password for the capture server. HEP sends it in the clear.
    pub password: Option<Secret>,
    /// Filter: `all`, or realms and addresses, as they were written.
    pub traffic: Vec<String>,
}
