//! What drivers count by names of their own, as `ethtool -S` shows it.

use std::io;

use super::numbers::Numbers;
use crate::{model::foreign::Foreign, sys::Ethtool};

/// More than any driver has.
const MOST: usize = 1 << 16;
/// `ETH_GSTRING_LEN`.
const NAME: usize = 32;
/// `ETH_SS_STATS`.
const STATISTICS: u32 = 1;
/// Commands.
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GSSET_INFO: u32 = 0x37;

/// The losses that a driver counts for an interface, by its own names.
///
/// # Errors
/// The interface has gone, or its driver counts nothing.
pub fn read(ethtool: &mut Ethtool<'_>, interface: &Foreign) -> io::Result<Numbers> {
    let count = how_many(ethtool, interface)?;
    if count == 0 {
        return Ok(Numbers::new());
    }
    let (names, values) = (names(ethtool, interface, count)?, values(ethtool, interface, count)?);
    let names = names.as_chunks::<NAME>().0.iter().map(|name| crate::evidence::netlink::text(name));
    let losses = names.zip(values).filter(|(name, _)| is_loss(name));
    // A driver may give two the same name.
    let mut numbers = Numbers::new();
    for (name, value) in losses {
        let number = numbers.entry(String::from_utf8_lossy(name).into_owned().into()).or_insert(0_u64);
        *number = number.wrapping_add(value);
    }
    Ok(numbers)
}

/// Whether a name is one of packets that were lost.
fn is_loss(name: &[u8]) -> bool {
    const LOSSES: [&str; 10] = [
        "drop",
        "discard",
        "no_buf",
        "nobuf",
        "out_of_buf",
        "no_desc",
        "nodesc",
        "rx_missed",
        "missed_err",
        "no_dma",
    ];
    /// Not packets, or not of this interface.
    const OTHERS: [&str; 3] = ["bytes", "octets", "fdir"];
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    LOSSES.iter().any(|word| name.contains(word)) && !OTHERS.iter().any(|word| name.contains(word))
}

fn how_many(ethtool: &mut Ethtool<'_>, interface: &Foreign) -> io::Result<usize> {
    // The command, a word that is not used, the requested sets as bits of two words, and the size of the one.
    let bits = (1_u64 << STATISTICS).to_ne_bytes();
    let [first, second] = [0, 4].map(|at| crate::evidence::netlink::u32_at(&bits, at).unwrap_or(0));
    let answer = ethtool.ask(interface.bytes(), &[GSSET_INFO, 0, first, second, 0])?;
    // The bit is cleared where there is no such set.
    let count = if in_order(answer[2], answer[3]) == 0 { 0 } else { answer[4] as usize };
    if count > MOST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(count) }
}

fn names(ethtool: &mut Ethtool<'_>, interface: &Foreign, count: usize) -> io::Result<Vec<u8>> {
    let answer = ethtool.ask(interface.bytes(), &[GSTRINGS, STATISTICS, as_word(count)])?;
    let found = (answer[2] as usize).min(count);
    Ok(answer[3..][..found * NAME / 4].iter().flat_map(|word| word.to_ne_bytes()).collect())
}

fn values(ethtool: &mut Ethtool<'_>, interface: &Foreign, count: usize) -> io::Result<Vec<u64>> {
    let answer = ethtool.ask(interface.bytes(), &[GSTATS, as_word(count)])?;
    let found = (answer[1] as usize).min(count);
    let words = answer[2..][..found * 2].as_chunks::<2>().0;
    Ok(words.iter().map(|&[first, second]| in_order(first, second)).collect())
}

/// A number of eight bytes that lies in two words of four.
fn in_order(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn as_word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn losses_are_recognised_by_name() {
        for name in [
            "rx_queue_0_drops",
            "rx_queue_1_xdp_drops",
            "rx_discards_phy",
            "rx_out_of_buffer",
            "rx_no_buffer_count",
        ] {
            assert!(is_loss(name.as_bytes()), "{name}");
        }
        for name in
            ["rx_queue_0_bytes", "peer_ifindex", "fdir_miss", "rx_drop_bytes", "tx_packets", "rx_cache_full"]
        {
            assert!(!is_loss(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut ethtool = Ethtool::new(socket.as_fd()).expect("room");
        assert!(read(&mut ethtool, &"no-such-device".into()).is_err());
    }
}
