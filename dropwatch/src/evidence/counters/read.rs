//! The kernel's counters of one network namespace, through a process that is in it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::LazyLock,
};

use super::{
    catalogue::{COUNTERS, Source},
    numbers::Numbers,
    parse,
};

/// Most files are shorter.
const ROOM: usize = 1 << 13;

/// Files of a namespace, in the directory that shows what it has.
#[derive(Debug)]
pub struct Files<'a> {
    directory: &'a Path,
    /// What was read last: there are many files, and the room for one is room for the next.
    text: String,
}

impl<'a> Files<'a> {
    /// Those in a directory.
    pub fn of(directory: &'a Path) -> Self {
        Self { directory, text: String::with_capacity(ROOM) }
    }

    /// Reads the losses in a file.
    ///
    /// # Errors
    /// The process has gone, or must not be looked into. A file that this kernel does not have is an empty one.
    pub fn losses(&mut self, source: Source) -> io::Result<Numbers> {
        Ok(numbers(source, self.read(source)?))
    }

    /// What each netlink socket of the namespace lost.
    ///
    /// # Errors
    /// As those of [`Self::losses`].
    pub fn netlink_sockets(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(parse::netlink_drops(self.read(Source::Netlink)?).collect())
    }

    fn read(&mut self, source: Source) -> io::Result<&str> {
        self.text.clear();
        let Some(name) = source.file() else { return Ok(&self.text) };
        let opened = File::open(self.directory.join(name));
        match opened.and_then(|mut file| file.read_to_string(&mut self.text)) {
            // Without IPsec or IPv6 there is no such file; a directory without any is that of a process that has gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.join("dev").exists() => {}
            read => drop(read?),
        }
        Ok(&self.text)
    }
}

/// The losses in a file's text.
fn numbers(source: Source, text: &str) -> Numbers {
    match source {
        Source::Netstat | Source::Snmp => losses(source, parse::tables(text)),
        Source::Snmp6 | Source::Xfrm => losses(source, parse::pairs(text)),
        Source::Softnet => {
            let parse::Softnet { dropped, flow_limited, squeezed } = parse::softnet(text);
            [
                ("SoftnetDropped".into(), dropped),
                ("SoftnetFlowLimited".into(), flow_limited),
                ("SoftnetSqueezed".into(), squeezed),
            ]
            .into()
        }
        Source::Netlink | Source::PacketSockets | Source::Link => Numbers::new(),
    }
}

/// The names in the catalogue by source, with those of the causes.
static NAMES: LazyLock<HashMap<Source, HashSet<&'static str>>> = LazyLock::new(|| {
    let mut names: HashMap<_, HashSet<_>> = HashMap::new();
    for counter in COUNTERS {
        let of_source = names.entry(counter.source).or_default();
        of_source.insert(counter.name);
        of_source.extend(counter.causes.iter().map(|cause| cause.name));
    }
    names
});

/// The numbers that are in the catalogue, with its names.
fn losses<'a>(source: Source, read: impl Iterator<Item = (&'a str, &'a str, u64)>) -> Numbers {
    let Some(names) = NAMES.get(&source) else { return Numbers::new() };
    let mut whole = String::new();
    let known = |(prefix, name, number): (&str, &str, u64)| {
        whole.clear();
        whole.push_str(prefix);
        whole.push_str(name);
        Some(((*names.get(whole.as_str())?).into(), number))
    };
    read.filter_map(known).collect()
}
