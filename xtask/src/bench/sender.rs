//! Drops on demand: a private network namespace in which every datagram is dropped on its way out.

use std::{
    cell::Cell,
    fs,
    io::IoSlice,
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
    time::{ClockId, clock_gettime},
    unistd::{Pid, gettid},
};

use super::ring::Ring;
use crate::command;

/// Datagrams in one system call.
const BATCH: usize = 64;

/// Drops that are timed together: enough that the clock does not matter, and so few (a quarter of a millisecond) that
/// many slices are over before anything disturbs them.
pub const SLICE: usize = 4 * BATCH;

/// Where the datagrams would go: an address for documentation, to the discard port.
const DESTINATION: &str = "192.0.2.2:9";

/// What makes the namespace, but for the filter. A pair of devices is used because kernels without dummy devices
/// have it, too; nothing arrives at its other end.
const SET_UP: [&str; 6] = [
    "ip link add out type veth peer name in",
    "ip address add 192.0.2.1/24 dev out",
    "ip link set in up",
    "ip link set out up",
    "ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev out",
    "tc qdisc add dev out clsact",
];

/// A classifier of one instruction: return 2, `TC_ACT_SHOT`, for all that leaves the device. tc reads decimal only.
const FILTER: [&str; 9] = ["filter", "add", "dev", "out", "egress", "bpf", "da", "bytecode", "1,6 0 0 2,"];

/// Destination ports of one source port in [`Sender::spread`].
const PORTS: usize = 50_000;

/// What a frame has around a datagram's payload: the headers of Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;

/// The least frame that has a payload.
const SMALLEST_FRAME: usize = HEADERS + 1;

enum Request {
    /// So many times [`SLICE`] packets, timed; what they leave there is taken out after each slice, untimed.
    Slices(usize, Option<Ring>),
    /// So many packets, evenly over a second.
    Paced(u32),
    /// So many packets, no two of which have the same ports.
    Spread(usize),
}

/// A thread in a namespace of its own, on one processor; both end when this is dropped.
pub struct Sender {
    counts: Option<SyncSender<Request>>,
    times: Receiver<Result<Vec<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    pub fn start() -> Result<Self> {
        Self::start_with(SMALLEST_FRAME)
    }

    /// One whose frames have so many bytes.
    pub fn start_with(frame: usize) -> Result<Self> {
        Self::serving(move || Source::new(frame))
    }

    /// One that sends to so many ports in turn, at most [`PORTS`].
    pub fn start_rotating(ports: usize) -> Result<Self> {
        Self::serving(move || Source::rotating(ports))
    }

    fn serving(source: impl FnOnce() -> Result<Source> + Send + 'static) -> Result<Self> {
        let (counts, requests) = sync_channel(1);
        let (answers, times) = sync_channel(1);
        let thread =
            thread::Builder::new().name("sender".into()).spawn(move || serve(source, &requests, &answers));
        let thread = thread.context("cannot start a thread")?;
        let sender = Self { counts: Some(counts), times, thread: Some(thread) };
        // A namespace that cannot be made is known before anything is measured.
        sender.drop_packets(1)?;
        Ok(sender)
    }

    /// Drops exactly so many times [`SLICE`] packets, and returns the processor time of each slice.
    pub fn drop_packets(&self, slices: usize) -> Result<Vec<Duration>> {
        self.ask(Request::Slices(slices, None))
    }

    /// The same while each of them leaves a record there.
    pub fn drop_recorded(&self, slices: usize, ring: Ring) -> Result<Vec<Duration>> {
        self.ask(Request::Slices(slices, Some(ring)))
    }

    /// Drops exactly so many packets, evenly over a second, and returns how long that really took.
    pub fn drop_paced(&self, count: u32) -> Result<Duration> {
        Ok(self.ask(Request::Paced(count))?.iter().sum())
    }

    /// Drops one packet for each of so many pairs of ports.
    pub fn spread(&self, pairs: usize) -> Result<()> {
        self.ask(Request::Spread(pairs)).map(drop)
    }

    fn ask(&self, request: Request) -> Result<Vec<Duration>> {
        let asked = self.counts.as_ref().is_some_and(|counts| counts.send(request).is_ok());
        let answer = self.times.recv();
        ensure!(asked || answer.is_ok(), "the sending thread ended");
        answer.context("the sending thread ended")?
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.counts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread: creates the namespace, then causes the requested drops.
fn serve(
    source: impl FnOnce() -> Result<Source>,
    requests: &Receiver<Request>,
    answers: &SyncSender<Result<Vec<Duration>>>,
) {
    let source = match set_up().and_then(|()| source()) {
        Ok(source) => source,
        Err(error) => {
            let _ = answers.send(Err(error.context("cannot make a namespace whose packets are dropped")));
            return;
        }
    };
    for request in requests {
        let answer = match request {
            Request::Slices(slices, ring) => timed(&source, slices, ring.as_ref()),
            Request::Paced(count) => paced(&source, count).map(|took| vec![took]),
            Request::Spread(pairs) => spread(pairs).map(|()| Vec::new()),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn set_up() -> Result<()> {
    namespace()?;
    pin().context("cannot stay on one processor")?;
    take_precedence();
    Ok(())
}

/// Moves this thread to a network namespace from which nothing gets out.
pub fn namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
    // Its neighbour discovery would be dropped as well, and counted. It may be absent altogether.
    let _ = fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    for line in SET_UP {
        let mut words = line.split(' ');
        let mut program = Command::new(words.next().unwrap_or_default());
        command::output(program.args(words))?;
    }
    command::output(Command::new("tc").args(FILTER)).map(drop)
}

/// Keeps this thread on the last processor it may use: the first one has the machine's interrupts.
fn pin() -> Result<()> {
    pin_to(*processors()?.last().context("no processor is allowed")?)
}

/// Those that this thread may use.
pub fn processors() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

/// Keeps this thread on one processor.
pub fn pin_to(processor: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Keeps other tasks from interrupting a slice, because they would leave cold caches behind. Best effort.
fn take_precedence() {
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--reset-on-fork", "--pid", "1"]).arg(gettid().to_string());
    if let Err(error) = command::output(&mut chrt) {
        eprintln!("cost: more noise than need be, the sending thread has no precedence: {error:#}");
    }
}

/// Sends, and has the kernel confirm that each datagram was dropped.
fn timed(source: &Source, slices: usize, ring: Option<&Ring>) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(slices);
    confirmed(slices * SLICE, || {
        for _ in 0..slices {
            let start = processor_time()?;
            source.send(SLICE)?;
            times.push(processor_time()?.saturating_sub(start));
            let records = ring.map_or(SLICE, Ring::empty);
            ensure!(records >= SLICE, "{SLICE} packets were dropped but only {records} recorded");
        }
        Ok(())
    })?;
    Ok(times)
}

/// Sends a batch whenever it is time for one; what is late is made up for.
fn paced(source: &Source, count: u32) -> Result<Duration> {
    let mut took = Duration::ZERO;
    let packets = usize::try_from(count)?;
    confirmed(packets, || {
        let start = Instant::now();
        for first in (0..packets).step_by(BATCH) {
            let due = Duration::from_nanos(first as u64 * 1_000_000_000 / u64::from(count));
            thread::sleep(due.saturating_sub(start.elapsed()));
            source.send(BATCH.min(packets - first))?;
        }
        took = start.elapsed();
        Ok(())
    })?;
    Ok(took)
}

/// Has the kernel confirm that as many packets were dropped as were sent.
fn confirmed(count: usize, send: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = dropped()?;
    send()?;
    let dropped = dropped()? - before;
    ensure!(dropped == count as u64, "{count} datagrams were sent but {dropped} packets dropped");
    Ok(())
}

/// Processor time of this thread: the kernel works for it until the packet is dropped, and what others do on the
/// processor meanwhile does not count.
pub fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("no processor time")?.into())
}

/// A socket, what it sends, and where to: to each in turn.
pub struct Source {
    socket: UdpSocket,
    payload: Vec<u8>,
    to: Vec<Option<SockaddrIn>>,
    next: Cell<usize>,
}

impl Source {
    /// One whose frames have so many bytes.
    fn new(frame: usize) -> Result<Self> {
        let to: SocketAddrV4 = DESTINATION.parse().context("no address")?;
        Self::to(vec![Some(SockaddrIn::from(to)); BATCH], frame)
    }

    /// One whose frames go to so many ports in turn.
    fn rotating(count: usize) -> Result<Self> {
        Self::to(ports(count)?, SMALLEST_FRAME)
    }

    fn to(to: Vec<Option<SockaddrIn>>, frame: usize) -> Result<Self> {
        let payload = vec![b'x'; frame.saturating_sub(HEADERS)];
        let socket = UdpSocket::bind("192.0.2.1:0").context("no socket")?;
        Ok(Self { socket, payload, to, next: Cell::new(0) })
    }

    /// One of the smallest frames.
    pub fn small() -> Result<Self> {
        Self::new(SMALLEST_FRAME)
    }

    pub fn send(&self, count: usize) -> Result<()> {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut left = count;
        while left > 0 {
            let rest = &self.to[self.next.get()..];
            let sent = send_batch(
                &self.socket,
                &self.payload,
                &mut headers,
                &rest[..rest.len().min(left).min(BATCH)],
            )?;
            self.next.set((self.next.get() + sent) % self.to.len());
            left -= sent;
        }
        Ok(())
    }
}

/// Sends a datagram to each of these, at most [`BATCH`], and returns how many of them were sent.
fn send_batch(
    socket: &UdpSocket,
    payload: &[u8],
    headers: &mut MultiHeaders<SockaddrIn>,
    to: &[Option<SockaddrIn>],
) -> Result<usize> {
    let payloads = [[IoSlice::new(payload)]; BATCH];
    let sent = sendmmsg(socket.as_raw_fd(), headers, &payloads[..to.len()], to, [], MsgFlags::empty());
    Ok(sent.context("cannot send")?.count())
}

/// From as many sockets as necessary; the kernel's counter confirms that each datagram was dropped.
fn spread(pairs: usize) -> Result<()> {
    confirmed(pairs, || {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        for first in (0..pairs).step_by(PORTS) {
            // The same source port each time: a new one would be another key.
            let socket = UdpSocket::bind(("192.0.2.1", u16::try_from(20_000 + first / PORTS)?))
                .context("no socket")?;
            for batch in ports(PORTS.min(pairs - first))?.chunks(BATCH) {
                let sent = send_batch(&socket, b"x", &mut headers, batch)?;
                ensure!(sent == batch.len(), "only {sent} of {} datagrams were sent", batch.len());
            }
        }
        Ok(())
    })
}

/// So many ports of the destination.
fn ports(count: usize) -> Result<Vec<Option<SockaddrIn>>> {
    let to: SocketAddrV4 = DESTINATION.parse().context("no address")?;
    let to = |port| Some(SockaddrIn::from(SocketAddrV4::new(*to.ip(), port)));
    Ok((1..=u16::try_from(count)?).map(to).collect())
}

/// What the classifier has dropped so far, as the kernel counts it.
pub fn dropped() -> Result<u64> {
    let mut tc = Command::new("tc");
    let text = command::output(tc.args(["-statistics", "-json", "qdisc", "show", "dev", "out"]))?;
    let qdiscs: serde_json::Value = serde_json::from_str(&text).context("tc printed no JSON")?;
    let clsact = qdiscs.as_array().and_then(|all| all.iter().find(|qdisc| qdisc["kind"] == "clsact"));
    clsact.and_then(|qdisc| qdisc["drops"].as_u64()).context("tc reports no drops")
}
