//! Random expressions, in our words and in libpcap's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::packets::{ADDRESSES, ADDRESSES_V6, HARDWARE, OTHER_ETHERTYPES, PORTS, PROTOCOLS, Random};

/// The length of an Ethernet header, which libpcap counts and we do not.
const ETHERNET: u32 = 14;
/// The length of a tag, for which the same holds.
const TAG: u32 = 4;

/// An expression twice.
#[derive(Clone, Debug, Default)]
pub struct Expression {
    pub ours: String,
    pub libpcap: String,
}

impl Expression {
    fn push(&mut self, both: &str) {
        self.ours.push_str(both);
        self.libpcap.push_str(both);
    }
}

/// What a value without words before it would be; libpcap refuses one after a protocol's bare name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Host4,
    /// Also with a mask or a prefix.
    Net4,
    Host6,
    Net6,
    /// An address of any kind and version.
    Any,
    Port,
    PortRange,
    Protocol,
    Ethertype,
}

pub struct Generator<'a> {
    random: &'a mut Random,
    out: Expression,
    /// Whether it is about packets inside a tag.
    is_tagged: bool,
}

impl<'a> Generator<'a> {
    fn new(random: &'a mut Random) -> Self {
        Self { random, out: Expression::default(), is_tagged: false }
    }
}

/// Any expression of up to about ten terms.
pub fn any(random: &mut Random) -> Expression {
    let mut generator = Generator::new(random);
    generator.expression(None, 0);
    generator.out
}

/// A comparison of numbers that most packets can answer, with `or` something else.
pub fn relation(random: &mut Random) -> Expression {
    let mut generator = Generator::new(random);
    generator.relation(2);
    if generator.random.chance(40) {
        generator.join();
        generator.relation(1);
    }
    generator.out
}

/// An expression about what is inside a tag, or about the tag.
pub fn tagged(random: &mut Random) -> Expression {
    let mut generator = Generator { is_tagged: true, ..Generator::new(random) };
    let words =
        generator.random.pick(&["vlan", "vlan", "not vlan", "vlan 5", "vlan 10", "vlan 0xa", "vlan 4095"]);
    generator.out.push(words);
    if words != "not vlan" {
        generator.out.push(" and (");
        generator.expression(None, 1);
        generator.out.push(")");
    }
    generator.out
}

impl Generator<'_> {
    /// Terms with `and` and `or` between; what a value after them is.
    fn expression(&mut self, before: Option<Value>, depth: usize) -> Option<Value> {
        let mut value = self.unary(before, depth);
        let more = self.random.pick(&[0, 0, 1, 1, 1, 2, 2, 3]);
        for _ in 0..more {
            self.join();
            value = self.unary(value, depth);
        }
        value
    }

    fn join(&mut self) {
        let join = self.random.pick(&[" and ", " or ", " && ", " || ", "&&", "||", "\tand\n", " or  "]);
        self.out.push(join);
    }

    fn not(&mut self) {
        let not = self.random.pick(&["not ", "! ", "!"]);
        self.out.push(not);
    }

    fn unary(&mut self, before: Option<Value>, depth: usize) -> Option<Value> {
        match self.random.below(20) {
            0..3 => {
                self.not();
                self.unary(before, depth)
            }
            3..6 if depth < 3 => {
                self.out.push("(");
                self.expression(None, depth + 1);
                self.out.push(")");
                before
            }
            6..11 => {
                let Some(value) = before else { return self.term(before) };
                self.bare(value, depth);
                before
            }
            _ => self.term(before),
        }
    }

    /// A value without its words, or several in parentheses.
    fn bare(&mut self, value: Value, depth: usize) {
        match self.random.below(8) {
            0 => {
                self.not();
                self.bare(value, depth);
            }
            1 if depth < 3 => {
                // libpcap takes no parenthesis as the first of these.
                self.out.push("(");
                self.value(value);
                self.join();
                self.bare(value, depth + 1);
                self.out.push(")");
            }
            _ => self.value(value),
        }
    }

    fn term(&mut self, before: Option<Value>) -> Option<Value> {
        match self.random.below(13) {
            10 => self.hardware(),
            11..13 => {
                self.relation(2);
                None
            }
            0..3 => self.word(before),
            3 => self.length(),
            4 => Some(self.protocol()),
            5..8 => Some(self.address()),
            _ => Some(self.port()),
        }
    }

    fn word(&mut self, before: Option<Value>) -> Option<Value> {
        // After `ip6 proto` these are values, to libpcap and to us.
        if before != Some(Value::Protocol) && self.random.chance(10) {
            let (ours, libpcap) = self.random.pick(&[("gre", "ip proto 47"), ("ospf", "ip proto 89")]);
            self.out.ours.push_str(ours);
            self.out.libpcap.push_str(libpcap);
            return None;
        }
        let word = self.random.pick(&[
            "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp",
            "carp", "ah", "esp", "tcp", "udp", "ip", "ip6",
        ]);
        self.out.push(word);
        None
    }

    fn length(&mut self) -> Option<Value> {
        let word = self.random.pick(&["less ", "greater "]);
        let length = u32::try_from(self.random.below(100)).expect("small");
        self.out.push(word);
        self.out.ours.push_str(&length.to_string());
        self.out.libpcap.push_str(&(length + self.overhead()).to_string());
        None
    }

    /// What libpcap's lengths have more than ours.
    fn overhead(&self) -> u32 {
        if self.is_tagged { ETHERNET + TAG } else { ETHERNET }
    }

    /// What the Ethernet header says, and groups of other addresses.
    fn hardware(&mut self) -> Option<Value> {
        if self.random.chance(50) {
            let words = self.random.pick(&[
                "broadcast",
                "multicast",
                "ether broadcast",
                "link multicast",
                "ip multicast",
                "ip6 multicast",
            ]);
            self.out.push(words);
            return None;
        }
        let direction = self.direction();
        let kind = if direction.is_empty() || self.random.chance(70) { "host " } else { "" };
        let bytes = self.random.pick(&HARDWARE);
        let whole = bytes.map(|byte| format!("{byte:02x}"));
        let address = match self.random.below(4) {
            0 => bytes.map(|byte| format!("{byte:x}")).join("-"),
            1 => whole.chunks(2).map(<[String]>::concat).collect::<Vec<_>>().join("."),
            2 => whole.concat().to_uppercase(),
            _ => whole.join(":"),
        };
        self.out.push(&format!("ether {direction}{kind}{address}"));
        // A value after it would be one more hardware address.
        None
    }

    fn relation(&mut self, depth: usize) {
        self.number(depth);
        let comparison = self.random.pick(&[" = ", "==", " != ", "<", "> ", " <= ", " >="]);
        self.out.push(comparison);
        if self.random.chance(60) {
            self.constant();
        } else {
            self.number(depth.saturating_sub(1));
        }
    }

    /// A number of a packet, or calculated from some.
    fn number(&mut self, depth: usize) {
        match self.random.below(10) {
            0 => self.constant(),
            1 => {
                let overhead = self.overhead();
                self.out.ours.push_str("len");
                self.out.libpcap.push_str("(len - ");
                self.out.libpcap.push_str(&overhead.to_string());
                self.out.libpcap.push(')');
            }
            2 if depth > 0 => {
                self.out.push("-");
                self.number(depth - 1);
            }
            3 if depth > 0 => {
                self.out.push("(");
                // libpcap has no parentheses around a number alone.
                self.calculation(depth - 1);
                self.out.push(")");
            }
            4..7 if depth > 0 => self.calculation(depth - 1),
            _ => self.access(depth),
        }
    }

    fn calculation(&mut self, depth: usize) {
        self.number(depth);
        let sign = self.random.pick(&["+", " - ", "*", " / ", "%", "&", " | ", "^", "<<", " >> "]);
        self.out.push(sign);
        if sign.contains(['/', '%', '<', '>']) && self.random.chance(70) {
            // Neither zero nor more than 31 may stand there.
            let number = self.random.pick(&["1", "2", "3", "8", "0x1f"]);
            self.out.push(number);
        } else if sign.contains(['/', '%', '<', '>']) {
            // libpcap takes an index that it reads there for the divisor, or for how far to shift.
            let access = self.random.pick(&["ip[9]", "tcp[13]", "udp[5]", "arp[7:1]", "ip[1 : 2]"]);
            self.out.push(access);
        } else {
            self.number(depth);
        }
    }

    fn constant(&mut self) {
        let number = self.random.pick(&[
            "0",
            "1",
            "2",
            "4",
            "0x10",
            "17",
            "20",
            "64",
            "80",
            "0xff",
            "010",
            "tcp-syn",
            "icmp-echo",
            "0x0a000001",
            "4294967295",
            "icmp6-echo",
            "1000",
        ]);
        self.out.push(number);
    }

    fn access(&mut self, depth: usize) {
        let all = [
            "ip", "ip", "ip6", "ip6", "tcp", "udp", "icmp", "icmp6", "arp", "rarp", "igmp", "sctp", "pim",
            "vrrp", "ether", "link",
        ];
        // Behind a tag libpcap counts from another byte.
        let headers = if self.is_tagged { &all[..14] } else { &all[..] };
        let header = self.random.pick(headers);
        self.out.push(header);
        self.out.push("[");
        match self.random.below(6) {
            0 if depth > 0 => self.calculation(depth - 1),
            1 => {
                let name = self.random.pick(&["icmptype", "tcpflags", "icmp6code"]);
                self.out.push(name);
            }
            _ => {
                let index = self.random.below(44).to_string();
                self.out.push(&index);
            }
        }
        let size = self.random.pick(&["]", "]", ":1]", ":2]", " : 2 ]", ":4]"]);
        self.out.push(size);
    }

    fn head(&mut self, words: &str, value: Value) -> Value {
        self.out.push(words);
        self.out.push(" ");
        self.bare(value, 2);
        value
    }

    fn protocol(&mut self) -> Value {
        let (words, value) = self.random.pick(&[
            ("ip proto", Value::Protocol),
            ("ip6 proto", Value::Protocol),
            ("proto", Value::Protocol),
            ("ether proto", Value::Ethertype),
        ]);
        self.head(words, value)
    }

    fn direction(&mut self) -> &'static str {
        self.random.pick(&[
            "",
            "",
            "src ",
            "dst ",
            "src or dst ",
            "dst or src ",
            "src and dst ",
            "dst and src ",
        ])
    }

    fn address(&mut self) -> Value {
        let direction = self.direction();
        let (protocol, kind, value) = self.random.pick(&[
            ("", "host", Value::Any),
            ("", "host", Value::Host4),
            ("", "host", Value::Host6),
            ("", "net", Value::Net4),
            ("", "net", Value::Net6),
            ("ip ", "host", Value::Host4),
            ("ip ", "net", Value::Net4),
            ("ip6 ", "host", Value::Host6),
            ("ip6 ", "net", Value::Net6),
            ("arp ", "host", Value::Host4),
            ("rarp ", "net", Value::Net4),
        ]);
        // Without `host` there must be a direction.
        let kind = if kind == "host" && !direction.is_empty() && self.random.chance(30) { "" } else { kind };
        self.head(format!("{protocol}{direction}{kind}").trim_end(), value)
    }

    fn port(&mut self) -> Value {
        let direction = self.direction();
        let protocol = self.random.pick(&["", "", "tcp ", "udp ", "sctp "]);
        let (kind, value) = self.random.pick(&[
            ("port", Value::Port),
            ("port", Value::Port),
            ("portrange", Value::PortRange),
        ]);
        if value == Value::Port && self.random.chance(20) {
            let service = self.service(protocol);
            self.out.push(&format!("{protocol}{direction}{kind} {service}"));
            return value;
        }
        self.head(&format!("{protocol}{direction}{kind}"), value)
    }

    fn value(&mut self, value: Value) {
        let text = match value {
            Value::Any if self.random.chance(50) => self.host4(),
            Value::Any | Value::Host6 => self.host6(),
            Value::Host4 => self.host4(),
            Value::Net4 => self.net4(),
            Value::Net6 => self.net6(),
            Value::Port => self.number_of_port(),
            Value::PortRange => self.range(),
            Value::Protocol => self.number_of_protocol(),
            Value::Ethertype => self.ethertype(),
        };
        self.out.push(&text);
    }

    fn host4(&mut self) -> String {
        let [a, b, c, d] = self.random.pick(&ADDRESSES);
        match self.random.below(10) {
            0 => format!("{a}.{b}"),
            1 => format!("{a}.{b}.{c}"),
            2 => "10".to_owned(),
            3 => format!("0x{:x}", u32::from_be_bytes([a, b, c, d])),
            // Twelve digits would be a hardware address to libpcap.
            4 => format!("{:014o}", u32::from_be_bytes([a, b, c, d])),
            5 => format!("0{a:02}.0{b:02}.{c}.00{d}"),
            _ => Ipv4Addr::new(a, b, c, d).to_string(),
        }
    }

    fn net4(&mut self) -> String {
        let [a, b, c, d] = self.random.pick(&ADDRESSES);
        let address = u32::from_be_bytes([a, b, c, d]);
        match self.random.below(8) {
            0 => format!("{a}"),
            1 => format!("{a}.{b}"),
            2 => format!("{a}.{b}.{c}"),
            3 => {
                let mask =
                    self.random.pick(&[0xff00_0000, 0xffff_0000, 0xffff_ff00, 0x0000_00ff, 0xff00_00ff, 0]);
                format!("{} mask {}", Ipv4Addr::from(address & mask), Ipv4Addr::from(mask))
            }
            4 => format!("{a}.{b}/{}", self.random.pick(&["16", "0x10", "24", "020"])),
            5 => format!("{a}.{b} mask 255.255"),
            _ => {
                let bits = u32::try_from(self.random.below(33)).expect("small");
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                let slash = self.random.pick(&["/", " / ", "/ "]);
                format!("{}{slash}{bits}", Ipv4Addr::from(address & mask))
            }
        }
    }

    fn host6(&mut self) -> String {
        let address = Ipv6Addr::from(self.random.pick(&ADDRESSES_V6));
        match self.random.below(6) {
            0 => {
                let groups: Vec<_> = address.segments().iter().map(|group| format!("{group:X}")).collect();
                groups.join(":")
            }
            1 => format!("{address}/128"),
            _ => address.to_string(),
        }
    }

    fn net6(&mut self) -> String {
        let address = u128::from(Ipv6Addr::from(self.random.pick(&ADDRESSES_V6)));
        let bits = self.random.pick(&[0, 1, 3, 16, 31, 32, 33, 48, 64, 65, 96, 127, 128]);
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        format!("{}/{bits}", Ipv6Addr::from(address & mask))
    }

    fn number_of_port(&mut self) -> String {
        let port = self.random.pick(&PORTS);
        match self.random.below(6) {
            0 => format!("{port:#x}"),
            1 => format!("0{port:o}"),
            _ => port.to_string(),
        }
    }

    /// A service of that transport, by a name that every system has.
    fn service(&mut self, protocol: &str) -> &'static str {
        match protocol {
            "udp " => self.random.pick(&["domain", "ntp"]),
            "tcp " => self.random.pick(&["domain", "http", "ssh"]),
            _ => "domain",
        }
    }

    fn range(&mut self) -> String {
        match self.random.below(6) {
            0 => self.random.pick(&PORTS).to_string(),
            _ => format!("{}-{}", self.random.pick(&PORTS), self.random.pick(&PORTS)),
        }
    }

    /// To libpcap a name behind a backslash goes on to a blank.
    fn number_of_protocol(&mut self) -> String {
        match self.random.below(6) {
            0 => self
                .random
                .pick(&["\\udp ", "\\tcp ", "\\icmp ", "ospf", "gre", "\\sctp ", "ipv6-icmp"])
                .to_owned(),
            1 => "44".to_owned(),
            2 => "0x11".to_owned(),
            _ => self.random.pick(&PROTOCOLS).to_string(),
        }
    }

    fn ethertype(&mut self) -> String {
        match self.random.below(4) {
            0 => self.random.pick(&["\\ip ", "\\ip6 ", "\\arp ", "\\rarp "]).to_owned(),
            1 => format!("{:#x}", self.random.pick(&OTHER_ETHERTYPES)),
            _ => self.random.pick(&["0x800", "0x86dd", "2054", "0x8035", "65535"]).to_owned(),
        }
    }
}
