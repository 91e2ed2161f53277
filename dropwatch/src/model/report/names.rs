//! What a report needs names of.

use crate::model::{
    class::{Class, Destination},
    container::Container,
    foreign::Foreign,
    location::{Location, SourceLine},
    namespace::Namespace,
    reason::Reason,
    socket::{Ownership, Socket},
};

/// Gives names to what the kernel counts by number.
pub trait Names {
    /// The function at an address where a packet was freed.
    fn location(&mut self, address: u64) -> Location;
    /// The function that a call returns to.
    ///
    /// A call that never returns can be the last of its function: what is looked for is the call.
    fn frame(&mut self, address: u64) -> Location {
        let call = self.location(address.wrapping_sub(1));
        call.returned(address)
    }
    /// The name of a network namespace.
    fn netns(&mut self, namespace: Namespace) -> Option<Foreign>;
    /// The names that a network namespace was given on purpose, also those it no longer has.
    fn netns_names(&mut self, namespace: Namespace) -> Vec<Foreign> {
        let _ = namespace;
        Vec::new()
    }
    /// The names of interfaces that have these bits.
    fn interfaces(&mut self, bits: u32) -> Vec<Foreign> {
        let _ = bits;
        Vec::new()
    }
    /// Whose a socket is.
    fn owner(&mut self, socket: &Socket) -> Ownership {
        let _ = socket;
        Ownership::Unknown
    }
    /// What a socket's owner runs in.
    fn container(&mut self, socket: &Socket) -> Option<Container> {
        let _ = socket;
        None
    }
    /// The line of source at a location.
    fn source(&mut self, location: &Location) -> Option<SourceLine>;
    /// The reason with a number; none on kernels that give none.
    fn reason(&mut self, code: u32) -> Option<Reason>;
    /// What a drop is worth by where and why it happened; none if that is not known.
    fn class(&mut self, location: u64, reason: u32, destination: Destination) -> Option<Class> {
        let _ = (location, reason, destination);
        None
    }
}
