//! Drops as a capture file that Wireshark and tcpdump read: [pcapng], Ethernet throughout.
//!
//! Blocks are put together in memory and written whole. When a write fails in the middle of one (the disk is full),
//! the file is cut back to the last whole block: everything before the failure stays readable.
//!
//! [pcapng]: https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcapng.html

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    time::UNIX_EPOCH,
};

use super::{
    dropped_packet::{DroppedPacket, Owner},
    frame::Link,
};
use crate::model::{foreign::Foreign, report::Value};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Marks the byte order of the file, which is this machine's.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// Options, by the block they belong to.
const END: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_OS: u16 = 3;
const SECTION_PROGRAM: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_TSRESOL: u16 = 9;
/// Times are in units of 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// The longest comment: an option's length has two bytes.
const MAX_COMMENT: usize = 60_000;
/// The most interfaces that a section describes: interfaces and namespaces come and go while a capture is made, and a
/// new section begins with none. Readers keep them in memory, too.
const MAX_INTERFACES: usize = 4096;
/// So many bytes are written at once under load.
const BUFFER: usize = 1 << 16;

/// Where a capture goes to.
pub trait Sink: Write {
    /// Cuts off what was written beyond the first `length` bytes, if this can be done.
    fn truncate(&mut self, length: u64);
}

impl Sink for File {
    fn truncate(&mut self, length: u64) {
        // A pipe or a device keeps what it was given.
        if self.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let _ = self.set_len(length);
        }
    }
}

impl Sink for Box<dyn Sink + Send> {
    fn truncate(&mut self, length: u64) {
        (**self).truncate(length);
    }
}

impl Sink for io::Stdout {
    fn truncate(&mut self, _length: u64) {}
}

/// A capture that is being written.
pub struct Capture<S: Sink> {
    sink: S,
    snaplen: u32,
    interfaces: HashMap<Interface, u32>,
    /// Whole blocks that wait to be written.
    buffer: Vec<u8>,
    /// The bytes that the sink has taken.
    written: u64,
}

/// What a packet was on, as far as the kernel knew: a namespace, and in it a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Interface {
    netns: String,
    index: Option<u32>,
    name: Option<Foreign>,
}

impl<S: Sink> Capture<S> {
    /// Begins a capture of packets of which up to `snaplen` bytes are kept; the header is written at once.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn new(sink: S, snaplen: u32) -> io::Result<Self> {
        let mut capture = Self { sink, snaplen, interfaces: HashMap::new(), buffer: Vec::new(), written: 0 };
        capture.section();
        capture.flush()?;
        Ok(capture)
    }

    /// Adds a drop.
    ///
    /// # Errors
    /// Those of the sink; all packets before the failure are kept.
    pub fn write(&mut self, drop: &DroppedPacket<'_>) -> io::Result<()> {
        let interface = self.interface(drop);
        let frame = drop.frame.snapped(self.snaplen);
        let nanos = drop.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut block = Block::new(&mut self.buffer, ENHANCED_PACKET);
        block.u32(interface);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        block.u32((nanos >> 32) as u32);
        block.u32((nanos & 0xffff_ffff) as u32);
        block.u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        block.u32(drop.frame.length);
        block.padded(frame);
        block.option(COMMENT, comment(drop).as_bytes());
        block.end();
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Ends the capture: one without packets describes an interface all the same, without which tools take it for
    /// damaged.
    ///
    /// # Errors
    /// Those of the sink; all packets before the failure are kept.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.interfaces.is_empty() {
            self.describe(Interface { netns: "-".to_owned(), index: None, name: None });
        }
        self.flush()
    }

    /// Writes what has been added.
    ///
    /// # Errors
    /// Those of the sink; all packets before the failure are kept.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut taken = 0;
        let result = self.write_buffer(&mut taken);
        if result.is_err() {
            self.written += whole_blocks(&self.buffer[..taken]) as u64;
            self.sink.truncate(self.written);
        } else {
            self.written += taken as u64;
        }
        self.buffer.clear();
        result
    }

    /// Writes the buffer, counting the bytes that the sink takes.
    fn write_buffer(&mut self, taken: &mut usize) -> io::Result<()> {
        while *taken < self.buffer.len() {
            match self.sink.write(&self.buffer[*taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(some) => *taken += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sink.flush()
    }

    fn section(&mut self) {
        let mut block = Block::new(&mut self.buffer, SECTION);
        block.u32(BYTE_ORDER);
        block.u16(1);
        block.u16(0);
        // The section's length is not known: it goes to the next one, or to the end of the file.
        block.padded(&u64::MAX.to_ne_bytes());
        if let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
            block.option(SECTION_OS, format!("Linux {}", release.trim()).as_bytes());
        }
        block.option(SECTION_PROGRAM, concat!("dropwatch ", env!("CARGO_PKG_VERSION")).as_bytes());
        block.end();
    }

    /// The number of the drop's interface, which is described when it is first seen.
    fn interface(&mut self, drop: &DroppedPacket<'_>) -> u32 {
        let interface =
            Interface { netns: drop.netns.words(), index: drop.event.ifindex(), name: drop.event.iface() };
        if let Some(number) = self.interfaces.get(&interface) {
            return *number;
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            self.interfaces.clear();
            self.section();
        }
        self.describe(interface)
    }

    fn describe(&mut self, interface: Interface) -> u32 {
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let mut block = Block::new(&mut self.buffer, INTERFACE);
        block.u16(LINKTYPE_ETHERNET);
        block.u16(0);
        block.u32(self.snaplen);
        block.option(INTERFACE_NAME, interface.name().as_bytes());
        block.option(INTERFACE_DESCRIPTION, interface.description().as_bytes());
        block.option(INTERFACE_TSRESOL, &[NANOSECONDS]);
        block.end();
        self.interfaces.insert(interface, number);
        number
    }
}

impl Interface {
    fn name(&self) -> String {
        match (&self.name, self.index) {
            (Some(name), _) => name.to_string(),
            (None, Some(index)) => format!("#{index}"),
            (None, None) => "unknown".to_owned(),
        }
    }

    fn description(&self) -> String {
        let index = self.index.map_or("-".to_owned(), |index| index.to_string());
        format!("netns {}, index {index}", self.netns)
    }
}

/// Why and where, what is not the packet's own, whose it was, and the call chain.
fn comment(drop: &DroppedPacket<'_>) -> String {
    let mut comment = format!("{} at {}", drop.reason.words(), drop.location.words());
    match drop.frame.link {
        Link::Own => {}
        Link::MadeUp => comment.push_str("; the packet has no link header: this one is made up"),
        Link::Replaced(kind) => {
            comment.push_str("; this link header is made up, in place of one of device type ");
            comment.push_str(&kind.to_string());
        }
    }
    for (name, value) in drop.owner.iter().flat_map(Owner::parts) {
        comment.extend(["; ", name, " ", &value.words()]);
    }
    if let Some(Value::Stack(Some(frames))) = &drop.stack {
        for frame in frames {
            comment.push('\n');
            comment.push_str(&frame.to_string());
        }
    }
    let mut end = comment.len().min(MAX_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    comment.truncate(end);
    comment
}

/// How many of these bytes are blocks without their last one, if that is cut off.
fn whole_blocks(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(length) = bytes.get(whole + 4..).and_then(<[u8]>::first_chunk) {
        let end = whole + u32::from_ne_bytes(*length) as usize;
        if end > bytes.len() {
            break;
        }
        whole = end;
    }
    whole
}

/// A block that is being put together at the end of a buffer.
struct Block<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    has_options: bool,
}

impl<'a> Block<'a> {
    fn new(buffer: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = buffer.len();
        let mut block = Self { buffer, start, has_options: false };
        block.u32(kind);
        // The length, which is known at the end.
        block.u32(0);
        block
    }

    fn u16(&mut self, number: u16) {
        self.buffer.extend(number.to_ne_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.buffer.extend(number.to_ne_bytes());
    }

    /// Bytes, and zeros up to the next word.
    fn padded(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let padded = (self.buffer.len() - self.start).next_multiple_of(4);
        self.buffer.resize(self.start + padded, 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.has_options = true;
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.padded(&value[..value.len().min(usize::from(u16::MAX))]);
    }

    fn end(mut self) {
        if self.has_options {
            self.u16(END);
            self.u16(0);
        }
        let length = u32::try_from(self.buffer.len() - self.start + 4).unwrap_or(u32::MAX);
        self.u32(length);
        self.buffer[self.start + 4..self.start + 8].copy_from_slice(&length.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
