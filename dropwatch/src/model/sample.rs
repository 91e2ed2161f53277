//! One drop that stands for its row: what may show its cause.

use std::{collections::HashMap, sync::Arc};

use dropwatch_common::{
    row::{RowKey, known},
    socket::LOST,
};

use super::{
    foreign::Foreign,
    keys::{Key, project},
    references::{Frames, References},
    socket::Socket,
};

/// A drop with what the kernel shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// All that rows are counted by, but for its call chain and its socket.
    pub key: RowKey,
    /// Its call chain, innermost frame first, starting at the drop; none if it could not be read.
    pub chain: Option<Frames>,
    /// Its socket.
    pub socket: Option<Socket>,
    /// The socket's own filter.
    pub filter: Option<Program>,
    /// The programs that the socket's cgroup has for what is received, as far as they were looked at.
    pub of_cgroup: Vec<Program>,
    /// Bytes from the network header.
    pub length: u32,
    /// Its mark.
    pub mark: u32,
    /// The number of the queue for transmission that it was mapped to.
    pub queue: u16,
    /// The number of the interface that its route leads to.
    pub egress: Option<u32>,
    /// Its link header.
    pub link: Vec<u8>,
    /// Its first bytes from the network header.
    pub packet: Vec<u8>,
}

/// A BPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number; none of a classic filter.
    pub id: Option<u32>,
    /// Its name, which may be empty.
    pub name: Foreign,
}

/// The samples of one interval, by what its rows say.
#[derive(Debug)]
pub struct Samples<'a> {
    counted: &'a [Key],
    /// Those keys of it that say the same in a sample as in a row.
    compared: Vec<Key>,
    by_row: HashMap<RowKey, Vec<&'a Arc<Sample>>>,
}

impl<'a> Samples<'a> {
    /// Samples for rows that are counted by these keys.
    #[must_use]
    pub fn new(samples: &'a [Arc<Sample>], counted: &'a [Key]) -> Self {
        let is_compared =
            |key: &Key| !matches!(key, Key::Stack | Key::Socket | Key::Process | Key::Container);
        let compared: Vec<_> = counted.iter().copied().filter(is_compared).collect();
        let mut by_row: HashMap<_, Vec<_>> = HashMap::new();
        for sample in samples {
            by_row.entry(project(&sample.key, &compared)).or_default().push(sample);
        }
        Self { counted, compared, by_row }
    }

    /// The first of the drops that a row counts: all that the row says holds for it.
    #[must_use]
    pub fn of(&self, row: &RowKey, references: &References) -> Option<Arc<Sample>> {
        if self.by_row.is_empty() {
            return None;
        }
        let alike = self.by_row.get(&project(row, &self.compared))?;
        let is_of_row = |sample: &&&Arc<Sample>| {
            (!self.counted.contains(&Key::Stack) || sample.is_of_chain(row, references))
                && (!self.counted.contains(&Key::Socket) || sample.is_of_socket(row, references))
        };
        alike.iter().find(is_of_row).map(|sample| Arc::clone(sample))
    }
}

impl Sample {
    fn is_of_chain(&self, row: &RowKey, references: &References) -> bool {
        let chain = references.chains.get(&row.stack).filter(|_| row.known & known::STACK != 0);
        chain.is_some() && chain == self.chain.as_ref()
    }

    fn is_of_socket(&self, row: &RowKey, references: &References) -> bool {
        match (&self.socket, references.socket(row)) {
            (None, None) => row.socket == 0 && row.socket != LOST,
            (Some(socket), Some(other)) => socket.is(other),
            _ => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use dropwatch_common::socket::{SocketKey, SocketSeen};

    use super::*;

    /// A sample of a drop, of which nothing else is known.
    pub fn sample(key: RowKey) -> Sample {
        Sample {
            key,
            chain: None,
            socket: None,
            filter: None,
            of_cgroup: Vec::new(),
            length: 0,
            mark: 0,
            queue: 0,
            egress: None,
            link: Vec::new(),
            packet: Vec::new(),
        }
    }

    fn is_of(sample: &Sample, row: &RowKey, by: &[Key], references: &References) -> bool {
        let samples = [Arc::new(sample.clone())];
        Samples::new(&samples, by).of(row, references).is_some()
    }

    fn socket(cookie: u64, inode: u64, port: u16) -> Socket {
        let key =
            SocketKey { address: 1, cookie, inode, local_port: port, family: 2, ..SocketKey::default() };
        Socket { key, seen: SocketSeen::default() }
    }

    const FLOW: RowKey =
        RowKey { location: 1, reason: 2, dport: 53, netns: 7, known: known::PORTS | known::NETNS, ..EMPTY };
    const EMPTY: RowKey = RowKey {
        location: 0,
        stack: 0,
        saddr: [0; 16],
        daddr: [0; 16],
        iface: [0; 16],
        cookie: 0,
        socket: 0,
        reason: 0,
        netns: 0,
        ifindex: 0,
        cpu: 0,
        known: 0,
        names: 0,
        protocol: 0,
        sport: 0,
        dport: 0,
        ipproto: 0,
        kind: 0,
    };

    #[test]
    fn a_sample_is_of_the_rows_that_say_nothing_else() {
        let (sample, none) = (sample(FLOW), References::default());
        let by = [Key::Location, Key::Reason, Key::Dport];
        let row = project(&FLOW, &by);
        assert!(is_of(&sample, &row, &by, &none));
        assert!(is_of(&sample, &project(&FLOW, &by[..2]), &by[..2], &none));
        assert!(!is_of(&sample, &RowKey { dport: 54, ..row }, &by, &none));
        assert!(!is_of(&sample, &RowKey { reason: 3, ..row }, &by, &none));
        assert!(!is_of(&sample, &RowKey { known: 0, dport: 0, ..row }, &by, &none), "its ports are known");
    }

    #[test]
    fn a_sample_is_of_the_row_of_its_chain_and_of_its_socket() {
        let references = References {
            chains: HashMap::from([(1, Frames::from([7, 8])), (2, Frames::from([7, 9]))]),
            sockets: HashMap::from([(1, socket(0, 5, 53)), (2, socket(0, 6, 53)), (3, socket(9, 0, 53))]),
            receivers: true,
        };
        let mut sample = sample(FLOW);
        let by = [Key::Location, Key::Stack, Key::Socket];
        let row = |stack, socket| RowKey {
            location: 1,
            stack,
            socket,
            known: if stack == 0 { 0 } else { known::STACK },
            ..RowKey::default()
        };
        assert!(!is_of(&sample, &row(1, 0), &by, &references), "its chain is not known");
        assert!(!is_of(&sample, &row(0, 0), &by, &references), "nor is that of the row");
        sample.chain = Some(Frames::from([7, 8]));
        assert!(is_of(&sample, &row(1, 0), &by, &references));
        assert!(!is_of(&sample, &row(2, 0), &by, &references), "another chain");
        assert!(!is_of(&sample, &row(1, LOST), &by, &references));
        sample.socket = Some(socket(9, 5, 53));
        assert!(is_of(&sample, &row(1, 1), &by, &references), "the same file");
        assert!(is_of(&sample, &row(1, 3), &by, &references), "the same cookie");
        assert!(!is_of(&sample, &row(1, 2), &by, &references), "another one on the same port");
        assert!(!is_of(&sample, &row(1, 0), &by, &references));
    }
}
