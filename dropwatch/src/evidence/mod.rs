//! What else the system knows about lost packets.

pub mod budget;
pub mod counters;
mod netlink;
pub mod objects;
pub mod places;
mod qdiscs;

/// Reads what may be the rules of iptables-legacy; for the fuzz targets.
#[cfg(feature = "fakes")]
pub use objects::read_saved;

/// Reads what the kernel may answer, whole or a message of it, as everything that it may be about; for the fuzz targets.
#[cfg(feature = "fakes")]
pub fn read_answer(bytes: &[u8]) {
    let messages: Vec<_> = netlink::messages(bytes).map(|message| message.payload().to_vec()).collect();
    for message in messages.iter().map(Vec::as_slice).chain([bytes]) {
        let _ = (netlink::ended(message), qdiscs::parse(message));
        counters::read_answer(message);
        objects::read_answer(message);
    }
}
