//! Guest ⇄ host messages about the network: one JSON value in each packet of a `SOCK_SEQPACKET` socket.
//!
//! The answer to an allowed `connect` carries one end of a fresh stream socket pair as a descriptor. Descriptors go from
//! host to guest only: never a socket of a real network, which a guest could connect anew to elsewhere.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::EGRESS_MESSAGE_BYTES;

/// Names one question; the guest counts up.
pub type AskId = u64;

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Chosen by the guest; its answer bears it.
    pub id: AskId,
    /// What it asks for.
    pub want: Want,
}

/// What a guest may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Want {
    /// May this name be looked up? Nothing is looked up.
    Lookup {
        /// The name, as the program gave it.
        name: String,
    },
    /// Connect me.
    Connect {
        /// A name or an address.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question.
    pub id: AskId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Yes; for a connection, with its descriptor.
    Ok,
    /// The policy says no.
    Refused {
        /// A sentence for whoever reads it.
        text: String,
    },
    /// It was allowed and did not work.
    Failed {
        /// A sentence for whoever reads it.
        text: String,
    },
}

/// A message as one packet.
///
/// # Errors
/// `InvalidData` for one over the bound.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > EGRESS_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is over its bound"));
    }
    Ok(bytes)
}

/// A message from one packet.
///
/// # Errors
/// `InvalidData` for anything that is not exactly one message.
pub fn decode<M: DeserializeOwned>(packet: &[u8]) -> io::Result<M> {
    serde_json::from_slice(packet).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
