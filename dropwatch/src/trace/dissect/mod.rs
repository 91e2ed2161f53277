//! A packet in the words of `tcpdump -nn`, and the facts in them for programs.
//!
//! The words are of the frame as far as it was captured: what is cut off inside a header reads `[|tcp]`, as there.
//! Sequence numbers are absolute (as with `-S`), VLAN tags and IPv4 fragments are always printed, and nothing above TCP
//! and UDP is.
//!
//! One walk through the frame writes the words and collects the facts, so that they cannot differ. It trusts no
//! byte: a length is checked against what is there, and packets in packets end at a depth.

mod arp;
mod icmp;
mod icmpv6;
mod ip;
mod layers;
mod link;
mod others;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod view;

use std::{fmt::Write as _, net::IpAddr};

use serde::Serialize;
use view::{Short, View};

use super::frame::Frame;

/// How many headers of the kinds that can hold each other are looked into.
const MAX_DEPTH: u8 = 8;

/// How much is said of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// The link header too, as with `tcpdump -e`.
    pub link_header: bool,
    /// Less of the protocols, as with `tcpdump -q`.
    pub quick: bool,
}

/// A packet in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The words.
    pub text: String,
    /// The facts in them.
    pub facts: Facts,
    style: Style,
    depth: u8,
}

/// The fields of a packet for programs; of nested packets, those of the outermost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The ethertype behind all tags; none for frames with a length there.
    pub ethertype: Option<u16>,
    /// The numbers of the VLANs, outermost first.
    pub vlans: Vec<u16>,
    /// The protocol above IP, behind extension headers.
    pub ipproto: Option<u8>,
    /// Its source.
    pub source: Option<IpAddr>,
    /// To whom.
    pub destination: Option<IpAddr>,
    /// From which port of TCP, UDP or SCTP.
    pub source_port: Option<u16>,
    /// To which port.
    pub destination_port: Option<u16>,
    /// Which part of a packet this is, if it is one.
    pub fragment: Option<Fragment>,
    /// What the header of TCP says.
    pub tcp: Option<TcpFacts>,
    /// Type and code of ICMP, or of ICMP for IPv6.
    pub icmp: Option<(u8, u8)>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fragment {
    /// What the parts have in common.
    pub id: u32,
    /// Where in the packet it belongs, in bytes.
    pub offset: u32,
    /// Whether more follow it.
    pub more: bool,
}

/// What the header of TCP says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcpFacts {
    /// The flags as they are printed, `S.` for SYN and ACK.
    pub flags: String,
    /// The sequence number.
    pub seq: u32,
    /// The sequence number expected from the other side, if the flag says that it means something.
    pub ack: Option<u32>,
    /// The window, not scaled.
    pub win: u16,
}

impl Summary {
    /// Puts a frame into words.
    #[must_use]
    pub fn of(frame: &Frame<'_>, style: Style) -> Self {
        let mut summary = Self { style, ..Self::default() };
        let view = View::new(&frame.bytes, frame.length as usize);
        if link::ethernet(view, frame.link, &mut summary) == Err(Short) {
            summary.truncated("ether");
        }
        summary
    }

    /// Adds the name of a layer, unless the link header in front of it has said it.
    fn name(&mut self, name: &str) {
        if !self.style.link_header {
            self.text.push_str(name);
        }
    }

    /// Adds words; a `String` takes all.
    fn say(&mut self, words: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(words);
    }

    /// Says that the rest of a header was not captured.
    fn truncated(&mut self, header: &str) {
        self.say(format_args!(" [|{header}]"));
    }

    /// Where the facts of this layer belong: only those of the outermost packet are kept.
    fn facts(&mut self) -> Option<&mut Facts> {
        (self.depth == 0).then_some(&mut self.facts)
    }

    /// Says what a packet holds that is a packet itself, up to a depth.
    fn inside(&mut self, describe: impl FnOnce(&mut Self)) {
        if self.depth >= MAX_DEPTH {
            self.say(format_args!("..."));
            return;
        }
        self.depth += 1;
        describe(self);
        self.depth -= 1;
    }
}

/// Says a header in its own words, and that it is cut off where it is.
fn or_truncated(
    header: &str,
    summary: &mut Summary,
    describe: impl FnOnce(&mut Summary) -> Result<(), Short>,
) {
    if describe(summary) == Err(Short) {
        summary.truncated(header);
    }
}
