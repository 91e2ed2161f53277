//! The probe that hands over a few drops of each kind, beside the one that counts them all.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, RingBuf};
use dropwatch_common::{
    chain::FRAMES,
    event::TraceOffsets,
    names,
    probe::{gather, keys},
    sample::{CAPTURED, ProgramSeen, Sample as Record, SampleOffsets},
    socket::SocketOffsets,
};

use crate::{
    kernel::btf::{Btf, KernelBtf},
    model::{
        foreign::Foreign,
        keys::Key,
        references::trimmed,
        sample::{Program, Sample},
        socket::Socket,
    },
    probe::{
        kfree_skb::{
            count::Probe,
            refusal::explain,
            typed::{KernelFilter, interface_names, room, tell_names, typed_loader},
        },
        loader::Arguments,
        offsets::{Missing, sample_offsets, socket_offsets, trace_offsets},
        open_sockets::SocketLister,
        source::AttachError,
        types::KernelTypes,
    },
    sys,
};

/// Room for some hundred samples: more than are taken of all kinds in an interval on a busy host.
const RING_SIZE: u32 = 1 << 19;

/// The most samples of a location and a reason in an interval, where rows stand for no more than these.
const FEW: u32 = 4;
/// The same where rows stand for more, or it is decided later which are counted: there should be one of each.
const MANY: u32 = 64;

/// What every sample is described by.
const KEYS: u32 = keys::LOCATION
    | keys::REASON
    | keys::IFACE
    | keys::NETNS
    | keys::PROTOCOL
    | keys::IPPROTO
    | keys::SADDR
    | keys::DADDR
    | keys::SPORT
    | keys::DPORT
    | keys::CPU
    | keys::KIND;

/// And what is gathered for that.
const GATHER: u32 =
    gather::IFACE | gather::IFACE_NAME | gather::NETNS | gather::PROTOCOL | gather::HEADERS | gather::LENGTH;

/// A probe that hands over samples until its end.
pub struct Sampler {
    ring: RingBuf<MapData>,
    interval: Array<MapData, u32>,
    number: u32,
    /// Who has sockets open.
    lister: SocketLister,
    /// What keeps the program attached.
    _link: OwnedFd,
}

impl Sampler {
    /// Loads and attaches, with the filter of the probe that counts.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(probe: &Probe, kernel: &KernelBtf) -> Result<Self, AttachError> {
        Self::load(probe, kernel)
            .map_err(|error| explain(error, &format!("a ring buffer of {RING_SIZE} bytes")))
    }

    fn load(probe: &Probe, kernel: &KernelBtf) -> Result<Self> {
        let types = KernelTypes::read(kernel, "evidence", offsets)?;
        let config = probe.config();
        let filter = config.filter.as_ref();
        let names = interface_names(filter, &config.interfaces);
        let (mut keys, mut gathered) = (KEYS, GATHER | filter.map_or(0, KernelFilter::gathered));
        if !config.interfaces.is_empty() {
            (keys, gathered) = (keys | keys::IFACE_NAMES, gathered | gather::IFACE_NAMES);
        }
        // Some of them may turn out to be of drops that do not match.
        let is_open = filter.is_some_and(|filter| filter.deciding.contains(&Key::Socket));
        let mut object = typed_loader(&types, filter, gathered)?
            .constant(names::TRACE_OFFSETS, types.more.0)
            .constant(names::SOCKET_OFFSETS, types.more.1)
            .constant(names::SAMPLE_OFFSETS, types.more.2)
            .constant(names::KEYS, keys)
            .constant(names::SAMPLE_QUOTA, if config.counts_kinds() && !is_open { FEW } else { MANY })
            .constant(names::SNAPLEN, u32::try_from(CAPTURED)?)
            .constant(names::RING_SIZE, u64::from(RING_SIZE))
            .max_entries(names::RING, RING_SIZE)
            .max_entries(names::INTERFACES, room(&names));
        for (name, map) in probe.maps_to_share() {
            object = object.share(name, Arc::clone(map));
        }
        let mut loaded =
            object.load(names::SAMPLE_DROP, Arguments::Typed(types.layout.tracepoint.type_id))?;
        tell_names(&mut loaded, &names)?;
        let lister = SocketLister::load(kernel.get()?, types.more.1)?;
        Ok(Self {
            ring: RingBuf::try_from(loaded.take(names::RING)?)?,
            interval: Array::try_from(loaded.take(names::SAMPLE_INTERVAL)?)?,
            number: 0,
            lister,
            _link: loaded.attach()?,
        })
    }

    /// Lists the sockets that processes have open.
    #[must_use]
    pub fn lister(&self) -> SocketLister {
        self.lister.clone()
    }

    /// Readable when there are samples.
    #[must_use]
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// The samples there are.
    pub fn take(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        while let Some(record) = self.ring.next() {
            let records = sys::values_of::<Record>(&record);
            samples.extend(records.first().map(named));
        }
        samples
    }

    /// Has as many taken again of each kind.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin_interval(&mut self) -> Result<()> {
        self.number = self.number.wrapping_add(1);
        self.interval.set(0, self.number, 0).context("cannot ask the probe for samples")
    }
}

/// Where everything is that samples need.
fn offsets(btf: &Btf<'_>) -> Result<(TraceOffsets, SocketOffsets, SampleOffsets), Missing> {
    Ok((trace_offsets(btf)?, socket_offsets(btf)?, sample_offsets(btf)?))
}

/// What a record says.
fn named(record: &Record) -> Sample {
    let Record { key, socket, filter, of_cgroup, length, mark, egress, queue, .. } = *record;
    let frames = &record.chain[..(record.frames as usize).min(FRAMES)];
    let captured = &record.bytes[..(record.captured as usize).min(CAPTURED)];
    let (link, packet) =
        captured.split_at_checked(record.link_length as usize).unwrap_or((captured, Default::default()));
    Sample {
        key,
        chain: (!frames.is_empty()).then(|| trimmed(frames, key.location).into()),
        socket: (socket.key.address != 0).then_some(Socket { key: socket.key, seen: socket.seen }),
        filter: program(filter),
        of_cgroup: of_cgroup.into_iter().map_while(program).collect(),
        length,
        mark,
        queue,
        egress: (egress != 0).then_some(egress),
        link: link.to_vec(),
        packet: packet.to_vec(),
    }
}

fn program(seen: ProgramSeen) -> Option<Program> {
    let end = seen.name.iter().position(|&byte| byte == 0).unwrap_or(seen.name.len());
    let name = Foreign::from(&seen.name[..end]);
    (seen.id != 0).then(|| Program { id: (seen.id != ProgramSeen::UNNAMED).then_some(seen.id), name })
}
