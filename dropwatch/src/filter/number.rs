//! Numbers, addresses and ports, as libpcap writes them.

use std::net::Ipv6Addr;

use super::tree::Net;

/// Why a host's name is refused.
const NUMERIC: &str = "names of hosts are not looked up, write its number";

/// A number: decimal, hexadecimal after `0x`, octal after `0`.
///
/// # Errors
/// What it is not.
pub fn number(text: &str) -> Result<u32, String> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("'{text}' is not a number"));
    }
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(match radix {
            8 => format!("'{text}' is not a number: after a leading 0 its digits are octal"),
            _ => format!("'{text}' is not a number"),
        });
    }
    u32::from_str_radix(digits, radix).map_err(|_| format!("{text} is more than {}", u32::MAX))
}

/// A number of a protocol above IP.
///
/// # Errors
/// What it is not.
pub fn octet(text: &str) -> Result<u8, String> {
    u8::try_from(number(text)?).map_err(|_| format!("{text} is no protocol: their numbers end at 255"))
}

/// A port.
///
/// # Errors
/// What it is not.
pub fn port(text: &str) -> Result<u16, String> {
    if text.contains('-') && range(text).is_ok() {
        return Err(format!("'{text}' is not a port: write 'portrange {text}'"));
    }
    u16::try_from(number(text)?).map_err(|_| format!("{text} is no port: they end at 65535"))
}

/// Ports from one to another, in either order; or just one.
///
/// # Errors
/// What it is not.
pub fn range(text: &str) -> Result<(u16, u16), String> {
    let Some((one, other)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok((port, port));
    };
    let decimal = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    match (decimal(one), decimal(other)) {
        (Some(one), Some(other)) => Ok((u16::min(one, other), u16::max(one, other))),
        _ => Err(format!("'{text}' is not a range of ports like 8000-8080, up to 65535")),
    }
}

/// What an address was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// One number.
    Number(u32),
    /// Two to four numbers with dots between: the leading bits of an address, and how many.
    Dotted(u32, u32),
    /// IPv6.
    V6(Ipv6Addr),
}

impl Address {
    /// Reads an address, or a short one.
    ///
    /// # Errors
    /// What it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return v6(text).map(Self::V6);
        }
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(format!("'{text}' is not an address: {NUMERIC}"));
        }
        if text.contains('.') { dotted(text) } else { number(text).map(Self::Number) }
    }

    /// The hosts that are meant without a mask: `host 10.1` is a network's name, and `host 10` is 0.0.0.10.
    #[must_use]
    pub fn host(self) -> Net {
        match self {
            Self::Number(address) => Net::v4(address, u32::MAX),
            Self::Dotted(address, bits) => Net::v4(address, mask(bits)),
            Self::V6(address) => Net::v6(address, 128),
        }
    }

    /// The network that is meant without a mask: `net 10` is 10.0.0.0/8.
    #[must_use]
    pub fn net(self) -> Net {
        let Self::Number(number) = self else { return self.host() };
        // As libpcap: bytes move up until the first is not zero; zero itself stays an address.
        let shift = if number == 0 { 0 } else { number.leading_zeros() / 8 * 8 };
        Net::v4(number << shift, u32::MAX << shift)
    }

    /// The network with so many leading bits.
    ///
    /// # Errors
    /// The bits are too many, or the address has others.
    pub fn with_prefix(self, bits: u32) -> Result<Net, String> {
        let most = if matches!(self, Self::V6(_)) { 128 } else { 32 };
        if bits > most {
            return Err(format!("/{bits} is too long: an address has {most} bits"));
        }
        let (net, exact) = match self {
            Self::V6(address) => (Net::v6(address, bits), Net::v6(address, 128)),
            Self::Number(_) | Self::Dotted(..) => {
                let address = self.leading();
                (Net::v4(address, mask(bits)), Net::v4(address, u32::MAX))
            }
        };
        if net.address == exact.address {
            return Ok(net);
        }
        Err(format!("the address has bits beyond /{bits}: write '{}'", net.to_string().replace("net ", "")))
    }

    /// The network under a mask.
    ///
    /// # Errors
    /// No mask goes with IPv6, and the address may have no bits outside it.
    pub fn with_mask(self, other: Self) -> Result<Net, String> {
        if [self, other].iter().any(|address| matches!(address, Self::V6(_))) {
            return Err("a mask is for IPv4: write the length of the prefix, like 2001:db8::/32".to_owned());
        }
        let (address, mask) = (self.leading(), other.leading());
        match address & !mask {
            0 => Ok(Net::v4(address, mask)),
            _ => Err("the address has bits outside the mask".to_owned()),
        }
    }

    /// A short address with its missing bytes behind it; a number alone is the first byte.
    fn leading(self) -> u32 {
        match self {
            Self::Number(number) => number << if number == 0 { 0 } else { number.leading_zeros() / 8 * 8 },
            Self::Dotted(address, _) => address,
            Self::V6(_) => 0,
        }
    }
}

/// A hardware address: six bytes with `:`, `-` or `.` between, or three pairs of them with `.` between, or none.
///
/// # Errors
/// What it is not.
pub fn hardware(text: &str) -> Result<[u8; 6], String> {
    let groups: Vec<_> = text.split([':', '-', '.']).collect();
    let separators: Vec<_> = text.matches([':', '-', '.']).collect();
    let is_one_kind = separators.iter().all(|separator| *separator == separators[0]);
    let digits = match groups.len() {
        1 if text.len() == 12 => text.to_owned(),
        3 if separators[0] == "." && groups.iter().all(|group| group.len() == 4) => groups.concat(),
        6 if is_one_kind && groups.iter().all(|group| (1..=2).contains(&group.len())) => {
            let padded = groups.iter().map(|group| if group.len() == 1 { ["0", group] } else { ["", group] });
            padded.flatten().collect()
        }
        _ => String::new(),
    };
    let is_hex = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = is_hex.then(|| u64::from_str_radix(&digits, 16).ok()).flatten();
    let [_, _, address @ ..] = number
        .ok_or_else(|| format!("'{text}' is not a hardware address like 02:00:00:00:00:01"))?
        .to_be_bytes();
    Ok(address)
}

/// Leading bits as a mask.
fn mask(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0)
}

fn v6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| {
        let groups: Vec<_> = text.split(':').collect();
        if groups.len() == 6 && groups.iter().all(|group| (1..=2).contains(&group.len())) {
            return format!("'{text}' is a hardware address: write 'ether host {text}'");
        }
        format!("'{text}' is not an IPv6 address")
    })
}

/// Each part is decimal, whatever it begins with.
fn dotted(text: &str) -> Result<Address, String> {
    let invalid = || format!("'{text}' is not an IPv4 address");
    let mut address = 0;
    let mut bits = 0;
    for part in text.split('.') {
        let digits = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
        let octet = digits.then(|| part.parse::<u8>().ok()).flatten().ok_or_else(invalid)?;
        if bits == 32 {
            return Err(invalid());
        }
        bits += 8;
        address |= u32::from(octet) << (32 - bits);
    }
    Ok(Address::Dotted(address, bits))
}
