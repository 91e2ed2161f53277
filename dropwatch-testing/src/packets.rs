//! Packets of all kinds, the broken ones included, from a seed: what a filter is tried on.
//!
//! Addresses, ports and protocols come from small pools, which expressions draw from as well: otherwise hardly
//! anything would ever match.

/// A generator of numbers that says the same again for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number (splitmix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("a count");
        usize::try_from(self.number() % end).expect("less than a count")
    }

    /// Something that happens in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Addresses in packets and expressions.
pub const ADDRESSES: [[u8; 4]; 6] =
    [[10, 0, 0, 1], [10, 1, 2, 3], [10, 1, 2, 4], [192, 168, 2, 120], [0, 0, 0, 10], [255, 255, 255, 255]];

/// The same for IPv6: they differ in each word.
pub const ADDRESSES_V6: [[u16; 8]; 6] = [
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
    [0x2001, 0xdb8, 0, 0, 1, 0, 0, 1],
    [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1],
    [0xfe80, 0, 0, 0, 0x1234, 0x5678, 0x9abc, 0xdef0],
    [0, 0, 0, 0, 0, 0, 0, 1],
];

/// Ports.
pub const PORTS: [u16; 7] = [22, 53, 80, 443, 8000, 8100, 65535];

/// Protocols above IP, those with ports more often than others.
pub const PROTOCOLS: [u8; 18] = [1, 2, 6, 6, 6, 17, 17, 17, 132, 132, 47, 50, 51, 58, 89, 103, 112, 33];

/// Hardware addresses that frames go to; they come from the last one.
pub const HARDWARE: [[u8; 6]; 5] = [
    [2, 0, 0, 0, 0, 1],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [1, 0, 0x5e, 0, 0, 1],
    [0x33, 0x33, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
];

/// Ethertypes that are not looked into.
pub const OTHER_ETHERTYPES: [u16; 4] = [0x88cc, 0x8847, 0x6003, 0x9000];

/// Extension headers of IPv6, and one that is not followed.
const EXTENSIONS: [u8; 7] = [0, 43, 44, 44, 51, 60, 135];

/// A packet from its network header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What the frame says it is.
    pub ethertype: u16,
    /// The packet.
    pub bytes: Vec<u8>,
}

impl Sample {
    /// Any packet: healthy, odd, cut or garbage.
    pub fn any(random: &mut Random) -> Self {
        let (ethertype, mut bytes) = match random.below(20) {
            0..9 => (0x0800, ipv4(random)),
            9..17 => (0x86dd, ipv6(random)),
            17 => (random.pick(&[0x0806, 0x0806, 0x8035]), arp(random)),
            18 => (random.pick(&OTHER_ETHERTYPES), ipv4(random)),
            _ => {
                let length = random.below(80);
                (random.pick(&[0x0800, 0x86dd, 0x0806, 0x8035, 0x88cc]), random.bytes(length))
            }
        };
        if random.chance(30) {
            // Most often inside the headers, where it matters.
            let end = if random.chance(80) { bytes.len().min(64) } else { bytes.len() };
            bytes.truncate(random.below(end + 1));
        }
        Self { ethertype, bytes }
    }

    /// The packet as an Ethernet frame to that address.
    pub fn frame(&self, to: [u8; 6]) -> Vec<u8> {
        let mut frame = to.to_vec();
        frame.extend(HARDWARE[4]);
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(&self.bytes);
        frame
    }
}

fn protocol(random: &mut Random) -> u8 {
    if random.chance(95) { random.pick(&PROTOCOLS) } else { random.byte() }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let mut payload = random.pick(&PORTS).to_be_bytes().to_vec();
    payload.extend(random.pick(&PORTS).to_be_bytes());
    let more = random.below(40);
    payload.extend(random.bytes(more));
    payload
}

fn ipv4(random: &mut Random) -> Vec<u8> {
    let words = match random.below(10) {
        0..6 => 5,
        6..9 => 6 + random.below(10),
        _ => random.below(5),
    };
    let version = if random.chance(97) { 4 } else { random.byte() >> 4 };
    let fragment: u16 = match random.below(8) {
        0 => 0x2000,
        1 => 0x2000 | 0xb9,
        2 => 370,
        3 => 0x4000,
        4 => 0x1fff,
        _ => 0,
    };
    let mut bytes = vec![version << 4 | u8::try_from(words).expect("few words"), 0, 0, 60, 0x12, 0x34];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol(random), 0, 0]);
    bytes.extend(random.pick(&ADDRESSES));
    bytes.extend(random.pick(&ADDRESSES));
    if random.chance(90) {
        let options = (words * 4).saturating_sub(20);
        bytes.extend(random.bytes(options));
    }
    bytes.extend(payload(random));
    bytes
}

fn ipv6(random: &mut Random) -> Vec<u8> {
    let version = if random.chance(97) { 0x60 } else { random.byte() };
    let mut bytes = vec![version, 0, 0, 0, 0, 20];
    let extensions = match random.below(10) {
        0..6 => 0,
        6..9 => 1 + random.below(3),
        _ => 1 + random.below(10),
    };
    let mut chain: Vec<u8> = (0..extensions).map(|_| random.pick(&EXTENSIONS)).collect();
    chain.push(protocol(random));
    bytes.extend([chain[0], 64]);
    for _ in 0..2 {
        bytes.extend(random.pick(&ADDRESSES_V6).iter().flat_map(|word| word.to_be_bytes()));
    }
    for pair in chain.windows(2) {
        bytes.extend(extension(random, pair[0], pair[1]));
    }
    bytes.extend(payload(random));
    bytes
}

/// An extension header of a kind, and the next header that it names.
fn extension(random: &mut Random, kind: u8, next: u8) -> Vec<u8> {
    let units = u8::try_from(random.below(3)).expect("few");
    let mut header = vec![next];
    match kind {
        44 => {
            let offset = random.pick(&[0_u16, 0, 0, 1, 0xb9 << 3, 0xb9 << 3 | 1, 0x6]);
            header.push(random.byte());
            header.extend(offset.to_be_bytes());
            header.extend(random.bytes(4));
        }
        51 => {
            header.push(units + 1);
            header.extend(random.bytes(usize::from(units + 3) * 4 - 2));
        }
        _ => {
            header.push(units);
            header.extend(random.bytes(usize::from(units + 1) * 8 - 2));
        }
    }
    header
}

fn arp(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend(random.pick(&ADDRESSES));
    bytes.extend([0; 6]);
    bytes.extend(random.pick(&ADDRESSES));
    bytes
}
