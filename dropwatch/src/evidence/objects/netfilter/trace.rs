//! The kernel's own trace of a packet through rules.
//!
//! A table of ours marks some packets of a flow, at the hook that drops them and before all other chains there. The table
//! belongs to the socket that made it: the kernel removes it when that is closed, however this program ends.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
    },
};

use super::{
    hook::{Family, Hook, Level, Place},
    read::SUBSYSTEM,
    rules::{self, Table, Verdict},
};
use crate::evidence::{
    netlink::{
        ended, message, messages,
        writer::{attribute, nested},
    },
    objects::Question,
};

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const TRACE: u16 = SUBSYSTEM | 0x11;
/// The group of sockets that traces are sent to, as a bit.
const TRACES: u32 = 1 << 8;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const ROOM: usize = 1 << 16;
/// No more packets of a flow are traced: each costs some microseconds.
const PER_SECOND: u64 = 10;
const AT_ONCE: u32 = 5;

/// A flow that is traced, for as long as this lives.
#[derive(Debug)]
pub struct Tracer {
    socket: OwnedFd,
    /// The name of our table.
    table: String,
    packets: Vec<Traced>,
    pub since: Instant,
}

/// The way of one packet, as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    id: u32,
    /// The length of the packet, by its own header.
    pub length: Option<u32>,
    pub table: Option<Table>,
    pub path: Vec<Vec<u8>>,
    /// How it ended, once it did.
    pub end: Option<End>,
    is_ours: bool,
}

/// What ended a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A rule that drops or rejects, by its handle.
    Rule(u64),
    Policy,
}

/// Why a flow is not traced.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("this kernel has no tables with an owner: --nft requires Linux 5.12")]
    Kernel,
    #[error("the privilege is missing: CAP_NET_ADMIN")]
    Privilege,
    #[error("{0}")]
    Other(io::Error),
}

/// Whether the kernel can do it. The table is never made: the request is not completed, and the kernel drops it.
///
/// # Errors
/// It cannot, or it refuses.
pub fn probe() -> Result<(), Refused> {
    let table = new_table(Family::Inet, "dropwatch");
    let socket = open().map_err(Refused::Other)?;
    exchange(&socket, &[table], false)
}

impl Tracer {
    /// Begins to trace packets like this one at its hook.
    ///
    /// # Errors
    /// The kernel cannot do it, or refuses.
    pub fn start(question: &Question, place: Place, number: u32) -> Result<Self, Refused> {
        let socket = open().map_err(Refused::Other)?;
        let table = format!("dropwatch-{}-{number}", std::process::id());
        exchange(&socket, &request(question, place, &table), true)?;
        Ok(Self { socket, table, packets: Vec::new(), since: Instant::now() })
    }

    /// The packets that are known to have been dropped, after waiting for the first one for so long at most.
    pub fn dropped(&mut self, wait: Duration) -> Vec<&Traced> {
        let end = Instant::now() + wait;
        loop {
            self.receive();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.packets.iter().any(Traced::is_dropped) {
                break;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout);
        }
        self.packets.iter().filter(|packet| packet.is_dropped()).collect()
    }

    /// Takes what has been sent.
    fn receive(&mut self) {
        let mut room = vec![0; ROOM];
        loop {
            match recv(self.socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for message in messages(&room[..length]) {
                        if message.message_type() == TRACE {
                            follow(&mut self.packets, message.payload(), &self.table);
                        }
                    }
                }
                // Some were lost: those that come are whole again.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Traced {
    fn is_dropped(&self) -> bool {
        self.is_ours && self.end.is_some()
    }
}

/// Adds what one message tells of a packet.
pub(super) fn follow(packets: &mut Vec<Traced>, message: &[u8], own: &str) {
    const MOST_PACKETS: usize = 64;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const TYPE: u16 = 4;
    const VERDICT: u16 = 5;
    const ID: u16 = 6;
    const NETWORK: u16 = 8;
    const POLICY: u16 = 16;
    const BY_POLICY: u32 = 1;
    const BY_RULE: u32 = 3;
    let number = |kind| rules::number(message, rules::HEADER, kind);
    let (Some(id), Some(table)) = (number(ID), rules::table(message)) else { return };
    let known = packets.iter().position(|packet| packet.id == id);
    let index = known.unwrap_or_else(|| {
        if packets.len() == MOST_PACKETS {
            packets.remove(0);
        }
        packets.push(Traced::new(id));
        packets.len() - 1
    });
    let packet = &mut packets[index];
    let is_own = table.name == own.as_bytes();
    let handle = rules::long(message, rules::HEADER, HANDLE);
    // A packet that another table of ours has marked passes this one's chain, too: to its end, which is a rule without
    // a handle.
    packet.is_ours |= is_own && number(TYPE) == Some(BY_RULE) && handle.is_some();
    let header = crate::evidence::netlink::attribute(message, rules::HEADER, NETWORK);
    packet.length = packet.length.or_else(|| header.and_then(length));
    let Some(chain) = rules::name(message, rules::HEADER, CHAIN).filter(|_| !is_own) else { return };
    packet.enter(table, chain);
    let verdict =
        crate::evidence::netlink::attribute(message, rules::HEADER, VERDICT).and_then(rules::verdict);
    match number(TYPE) {
        Some(BY_POLICY) if number(POLICY) == Some(0) => packet.end = Some(End::Policy),
        Some(BY_RULE) => match verdict {
            Some(Verdict::Drop) => packet.end = handle.map(End::Rule),
            Some(Verdict::Jump(chain)) => packet.path.push(chain),
            Some(Verdict::Goto(chain)) => {
                packet.path.pop();
                packet.path.push(chain);
            }
            _ => {}
        },
        _ => {}
    }
}

impl Traced {
    fn new(id: u32) -> Self {
        Self { id, length: None, table: None, path: Vec::new(), end: None, is_ours: false }
    }

    /// The packet is in this chain now.
    fn enter(&mut self, table: Table, chain: Vec<u8>) {
        if self.table.as_ref() != Some(&table) {
            (self.table, self.path) = (Some(table), Vec::new());
        }
        match self.path.iter().position(|before| *before == chain) {
            Some(at) => self.path.truncate(at + 1),
            // A base chain, or one that was not told of before.
            None => self.path = vec![chain],
        }
    }
}

/// The length that an IP header gives.
fn length(header: &[u8]) -> Option<u32> {
    let at =
        |offset: usize| Some(u32::from(u16::from_be_bytes([*header.get(offset)?, *header.get(offset + 1)?])));
    match header.first()? >> 4 {
        4 => at(2),
        6 => Some(at(4)? + 40),
        _ => None,
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let opened = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    bind(opened.as_raw_fd(), &NetlinkAddr::new(0, TRACES))?;
    Ok(opened)
}

/// Makes a change of the ruleset, or only has it checked.
fn exchange(socket: &OwnedFd, requests: &[Vec<u8>], is_completed: bool) -> Result<(), Refused> {
    let header = [&[0, 0][..], &(SUBSYSTEM >> 8).to_be_bytes()].concat();
    let mut batch = message(BEGIN, NLM_F_REQUEST, &header);
    batch.extend(requests.concat());
    if is_completed {
        batch.extend(message(END, NLM_F_REQUEST, &header));
    }
    let other = |error: Errno| Refused::Other(error.into());
    send(socket.as_raw_fd(), &batch, MsgFlags::empty()).map_err(other)?;
    let mut room = vec![0; ROOM];
    let mut left = requests.len();
    while left > 0 {
        let length = recv(socket.as_raw_fd(), &mut room, MsgFlags::empty()).map_err(other)?;
        for message in messages(&room[..length]).filter(|message| message.message_type() == NLMSG_ERROR) {
            ended(message.payload()).map_err(refused)?;
            left -= 1;
        }
    }
    Ok(())
}

fn refused(error: io::Error) -> Refused {
    match error.raw_os_error() {
        Some(libc::EPERM) => Refused::Privilege,
        Some(libc::EINVAL | libc::EOPNOTSUPP) => Refused::Kernel,
        _ => Refused::Other(error),
    }
}

/// The change that traces packets like this one.
fn request(question: &Question, place: Place, table: &str) -> Vec<Vec<u8>> {
    let family = match place.hook {
        Some((Level::Device, _)) => Family::Netdev,
        Some((Level::Bridge, _)) => Family::Bridge,
        Some((Level::Arp, _)) => Family::Arp,
        Some((Level::Ip, _)) | None => Family::Inet,
    };
    // Every later hook sees the mark.
    let hooks = place.hook.map_or(vec![Hook::Prerouting, Hook::Output], |(_, hook)| vec![hook]);
    let mut requests = vec![new_table(family, table)];
    for hook in hooks {
        let chain = hook.to_string();
        requests.push(new_chain(family, table, &chain, hook, question));
        requests.push(new_rule(family, table, &chain, &marking(question)));
    }
    requests
}

/// A request that is acknowledged.
fn change(kind: u16, flags: u16, family: Family, parts: &[Vec<u8>]) -> Vec<u8> {
    let header = vec![family as u8, 0, 0, 0];
    message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &[header, parts.concat()].concat())
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, format!("{text}\0").as_bytes())
}

fn be(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

/// A table that belongs to the socket that makes it.
fn new_table(family: Family, name: &str) -> Vec<u8> {
    const OWNER: u32 = 2;
    change(NEW_TABLE, CREATE, family, &[text(1, name), be(2, OWNER)])
}

/// A chain before all others of its hook.
fn new_chain(family: Family, table: &str, name: &str, hook: Hook, question: &Question) -> Vec<u8> {
    const ACCEPT: u32 = 1;
    let mut at = vec![be(1, family.number(hook).unwrap_or(0)), be(2, i32::MIN.cast_unsigned())];
    if let (Family::Netdev, Some((_, device))) = (family, &question.iface) {
        at.push(attribute(3, &[device.bytes(), b"\0"].concat()));
    }
    let parts = [text(1, table), text(3, name), nested(4, &at), be(5, ACCEPT), text(7, "filter")];
    change(NEW_CHAIN, CREATE, family, &parts)
}

fn new_rule(family: Family, table: &str, chain: &str, expressions: &[Vec<u8>]) -> Vec<u8> {
    let parts = [text(1, table), text(2, chain), nested(4, expressions)];
    change(NEW_RULE, CREATE | APPEND, family, &parts)
}

/// Marks some of the packets of a flow.
fn marking(question: &Question) -> Vec<Vec<u8>> {
    const PROTOCOL: u32 = 1;
    const TRANSPORT: u32 = 16;
    const TRACED: u32 = 12;
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];
    let mut steps = Vec::new();
    let mut require = |load: Vec<u8>, value: &[u8]| steps.extend([load, equal(value)]);
    let is_ipv4 = question.protocol == Some(0x0800);
    if let Some(protocol) = question.protocol {
        require(meta(PROTOCOL), &protocol.to_be_bytes());
    }
    for (at, address) in
        [(if is_ipv4 { 12 } else { 8 }, question.saddr), (if is_ipv4 { 16 } else { 24 }, question.daddr)]
    {
        match address {
            Some(std::net::IpAddr::V4(address)) => require(payload(NETWORK_HEADER, at, 4), &address.octets()),
            Some(std::net::IpAddr::V6(address)) => {
                require(payload(NETWORK_HEADER, at, 16), &address.octets());
            }
            None => {}
        }
    }
    if let Some(number) = question.ipproto {
        require(meta(TRANSPORT), &[number]);
        if let (true, Some(port)) = (WITH_PORTS.contains(&number), question.dport) {
            require(payload(TRANSPORT_HEADER, 2, 2), &port.to_be_bytes());
        }
    }
    let long = |kind, number: u64| attribute(kind, &number.to_be_bytes());
    steps.push(step("limit", &[long(1, PER_SECOND), long(2, 1), be(3, AT_ONCE), be(4, 0), be(5, 0)]));
    steps.push(step("immediate", &[be(1, 1), nested(2, &[attribute(1, &[1])])]));
    steps.push(step("meta", &[be(2, TRACED), be(3, 1)]));
    steps
}

fn step(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

fn meta(key: u32) -> Vec<u8> {
    step("meta", &[be(1, 1), be(2, key)])
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    step("payload", &[be(1, 1), be(2, base), be(3, offset), be(4, length)])
}

fn equal(value: &[u8]) -> Vec<u8> {
    step("cmp", &[be(1, 1), be(2, 0), nested(3, &[attribute(1, value)])])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::netlink::attribute as find;

    const OWN: &str = "dropwatch-1-1";

    fn told(id: u32, table: &str, chain: &str, more: &[Vec<u8>]) -> Vec<u8> {
        let parts = [text(1, table), text(2, chain), be(6, id)].concat();
        [&[1, 0, 0, 0][..], &parts, &more.concat()].concat()
    }

    fn by_rule(handle: u64, code: i32, to: &str) -> Vec<Vec<u8>> {
        let verdict = nested(5, &[be(1, code.cast_unsigned()), text(2, to)]);
        vec![attribute(3, &handle.to_be_bytes()), be(4, 3), verdict]
    }

    fn header(length: u16) -> Vec<u8> {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        attribute(8, &header)
    }

    fn followed(messages: &[Vec<u8>]) -> Vec<Traced> {
        let mut packets = Vec::new();
        for message in messages {
            follow(&mut packets, message, OWN);
        }
        packets
    }

    #[test]
    fn the_last_message_of_a_packet_is_its_end() {
        let mine = [by_rule(4, -1, ""), vec![header(328)]].concat();
        let packets = followed(&[
            told(7, OWN, "input", &mine),
            told(7, "filter", "input", &by_rule(20, -3, "services")),
            told(8, OWN, "input", &[be(4, 3)]),
            told(8, OWN, "input", &[be(4, 1), be(16, 1)]),
            told(8, "filter", "input", &by_rule(5, 0, "")),
            told(7, "filter", "services", &by_rule(17, -3, "media")),
            told(7, "filter", "media", &by_rule(9, 0, "")),
        ]);
        let [ours, other] = &packets[..] else { panic!("two packets: {packets:?}") };
        assert_eq!((ours.end, ours.length), (Some(End::Rule(9)), Some(328)));
        assert_eq!(ours.path, [&b"input"[..], b"services", b"media"]);
        assert!(ours.is_dropped() && !other.is_dropped(), "another tracer follows the other one");
    }

    #[test]
    fn a_policy_ends_a_packet_that_came_back_from_other_chains() {
        let packets = followed(&[
            told(7, OWN, "input", &by_rule(4, -1, "")),
            told(7, "filter", "input", &by_rule(20, -3, "services")),
            told(7, "filter", "services", &[be(4, 2)]),
            told(7, "filter", "input", &[be(4, 1), be(16, 0)]),
        ]);
        assert_eq!((packets[0].end, &packets[0].path), (Some(End::Policy), &vec![b"input".to_vec()]));
        let accepted = told(7, "filter", "input", &[be(4, 1), be(16, 1)]);
        assert_eq!(followed(&[accepted])[0].end, None);
    }

    #[test]
    fn only_the_flow_is_marked_before_all_other_chains_of_its_hook() {
        let question = Question {
            protocol: Some(0x0800),
            ipproto: Some(17),
            saddr: Some([10, 0, 0, 1].into()),
            dport: Some(6500),
            ..Question::default()
        };
        let place = Place::of(["nft_do_chain", "nf_hook_slow", "ip_local_deliver"]);
        let requests = request(&question, place, OWN);
        let [_, chain, rule] = &requests[..] else { panic!("a table, a chain and a rule") };
        let chain = rules::base_chain(&chain[16..]).expect("a chain");
        assert_eq!((chain.hook, chain.priority, chain.drops), (Hook::Input, i32::MIN, false));
        let list = find(&rule[16..], rules::HEADER, 4).expect("expressions");
        let names =
            crate::evidence::netlink::attributes(list, 0).filter_map(|(_, one)| rules::name(one, 0, 1));
        let names: Vec<_> = names.map(|name| String::from_utf8(name).expect("text")).collect();
        let flow = ["meta", "cmp", "payload", "cmp", "meta", "cmp", "payload", "cmp"];
        assert_eq!(names, [&flow[..], &["limit", "immediate", "meta"]].concat());
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5)) {
            let _ = followed(&messages);
        }
    }
}
