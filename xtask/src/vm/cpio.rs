//! Writes an archive that the kernel unpacks as its first file system: cpio in the "newc" format.

use std::io::{self, Read, Write};

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// The size of an entry's header: the magic and thirteen fields of eight digits.
const HEADER: usize = 110;

/// An archive under construction. Directories must come before what is in them.
pub struct Archive<W> {
    out: W,
    inode: u32,
}

/// What the header of one entry says beyond its name.
struct Header {
    mode: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, &Header { mode: DIRECTORY | 0o755, size: 0, device: (0, 0) })
    }

    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.file_of_kind(name, LINK | 0o777, target.len() as u64, target.as_bytes())
    }

    pub fn character_device(&mut self, name: &str, device: (u32, u32)) -> io::Result<()> {
        self.entry(name, &Header { mode: CHARACTER_DEVICE | 0o600, size: 0, device })
    }

    /// A file of exactly `size` bytes, taken from `contents`.
    pub fn file(&mut self, name: &str, permissions: u32, size: u64, contents: impl Read) -> io::Result<()> {
        self.file_of_kind(name, REGULAR | (permissions & 0o7777), size, contents)
    }

    fn file_of_kind(&mut self, name: &str, mode: u32, size: u64, contents: impl Read) -> io::Result<()> {
        let size =
            u32::try_from(size).map_err(|_| io::Error::other(format!("{name} is larger than 4 GiB")))?;
        self.entry(name, &Header { mode, size, device: (0, 0) })?;
        let copied = io::copy(&mut contents.take(u64::from(size)), &mut self.out)?;
        if copied != u64::from(size) {
            return Err(io::Error::other(format!("{name} shrank from {size} to {copied} bytes")));
        }
        self.pad(size as usize)
    }

    /// Writes the mark that ends the archive, and returns what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", &Header { mode: 0, size: 0, device: (0, 0) })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, header: &Header) -> io::Result<()> {
        let Header { mode, size, device: (major, minor) } = header;
        self.inode += 1;
        let (inode, name_size) = (self.inode, name.len() + 1);
        // In this order: magic, inode, mode, owner, group, links, time, size, the device it is on, the device
        // it is, the name's size, a sum that is not used.
        write!(self.out, "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}", 0, 0, 1, 0)?;
        write!(self.out, "{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}{name}\0", 0, 0, 0)?;
        self.pad(HEADER + name_size)
    }

    /// Fills up to the next multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a small archive, field by field: the kernel is a strict reader and says little.
    #[test]
    fn the_format_is_newc() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, 5, &b"hello"[..]).unwrap();
        let bytes = archive.out;
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let fields: Vec<_> = (0..13).map(|field| &text[6 + 8 * field..14 + 8 * field]).collect();
        assert_eq!(&text[..6], "070701");
        assert_eq!(fields[1], "000081ed", "the mode");
        assert_eq!(fields[4], "00000001", "the number of links");
        assert_eq!(fields[6], "00000005", "the size");
        assert_eq!(fields[11], "00000005", "the name with its final zero");
        assert_eq!(&text[110..], "init\0\0hello\0\0\0");
    }

    /// Every part starts at a multiple of four, whatever the lengths of names and contents.
    #[test]
    fn entries_are_aligned() {
        let mut archive = Archive::new(Vec::new());
        for length in 1..9 {
            let name = "n".repeat(length);
            archive.file(&name, 0o644, length as u64, &b"12345678"[..length]).unwrap();
            assert_eq!(archive.out.len() % 4, 0, "{name}");
        }
        archive.directory("dir").unwrap();
        archive.link("dir/link", "target").unwrap();
        archive.character_device("dir/console", (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.windows(6).filter(|window| *window == b"070701").count(), 12);
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }

    /// A file that shrinks while it is read would shift everything after it.
    #[test]
    fn a_short_file_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("short", 0o644, 6, &b"12345"[..]).is_err());
    }
}
