//! What a scrape of the exporter takes at as many series as it has by default, and a thousand scrapes at once.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket},
};

use super::{process::Process, statistics::Sample, table::Figure};
use crate::command;

/// The most series by default.
const SERIES: usize = 1000;

/// Devices, on each of which a packet of each of 256 protocols is dropped: more than there may be series.
const DEVICES: usize = 4;

/// Labels that tell these drops apart.
const BY: &str = "class,reason,function,ipproto,iface";

/// Intervals in which a scrape is measured.
const ROUNDS: usize = 40;

const INTERVAL: &str = "200ms";

/// Scrapes at once.
const CROWD: usize = 1000;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Prometheus sends.
const PROMETHEUS: &str = "Accept: application/openmetrics-text;version=1.0.0\r\nAccept-Encoding: gzip\r\n";
const PLAIN: &str = "Accept: text/plain\r\n";

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("serve: {SERIES} series");
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("no port")?;
    let mut serve = Command::new(dropwatch);
    serve.args(["serve", "-l", &address.to_string(), "-i", INTERVAL, "-b", BY]).stdout(Stdio::null());
    let (process, _) = Process::start(&mut serve)?;
    thread::spawn(drop_all).join().map_err(|_| anyhow::anyhow!("the dropping thread died"))??;
    let start = Instant::now();
    let wanted = format!("\ndropwatch_series {SERIES}\n");
    while !text(scrape(address, "/metrics", PLAIN)?)?.contains(&wanted) {
        ensure!(start.elapsed() < PATIENCE, "the exporter has less than {SERIES} series");
        thread::sleep(Duration::from_millis(50));
    }
    let mut figures = alone(address)?;
    figures.extend(crowd(address, &process)?);
    Ok(figures)
}

/// Drops a packet of each protocol on its way out of each device, in a namespace of its own.
fn drop_all() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
    for device in 0..DEVICES {
        for line in [
            format!("ip link add out{device} type veth peer name in{device}"),
            format!("ip address add 192.0.2.{}/30 dev out{device}", device * 4 + 1),
            format!("ip link set in{device} up"),
            format!("ip link set out{device} up"),
            format!("ip neighbour add 192.0.2.{} lladdr 02:00:00:00:00:02 dev out{device}", device * 4 + 2),
            format!("tc qdisc add dev out{device} clsact"),
        ] {
            let mut words = line.split(' ');
            command::output(Command::new(words.next().unwrap_or_default()).args(words))?;
        }
        let device = format!("out{device}");
        let shoot = ["filter", "add", "dev", &device, "egress", "bpf", "da", "bytecode", "1,6 0 0 2,"];
        command::output(Command::new("tc").args(shoot))?;
    }
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)?;
    for device in 0..DEVICES {
        let to = [192, 0, 2, u8::try_from(device * 4 + 2)?];
        let address = SockaddrIn::from(SocketAddrV4::new(to.into(), 0));
        for protocol in 0..=u8::MAX {
            let mut packet = [0; 24];
            // Its checksum and its source are the kernel's to fill in.
            (packet[0], packet[3], packet[8], packet[9]) = (0x45, 24, 64, protocol);
            packet[16..20].copy_from_slice(&to);
            // What is dropped on its way out may be an error.
            let _ = sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty());
        }
    }
    Ok(())
}

/// One client after the other: the first of an interval, for which texts are written, and the next.
fn alone(address: SocketAddr) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (id, name, headers) in
        [("zipped", "as Prometheus has it, gzip", PROMETHEUS), ("plain", "as plain text", PLAIN)]
    {
        let (mut first, mut next, mut size) = (Vec::new(), Vec::new(), 0);
        let mut last = scrape(address, "/report", "")?;
        for _ in 0..ROUNDS {
            last = another_report(address, &last)?;
            for times in [&mut first, &mut next] {
                let start = Instant::now();
                size = scrape(address, "/metrics", headers)?.len();
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let (first, next) = (Sample::new(first), Sample::new(next));
        let figure = |kind: &str, what: &str, value, unit| {
            Figure::new(
                format!("serve.{id}.{kind}"),
                &format!("a scrape of {SERIES} series {name}{what}"),
                value,
                unit,
            )
        };
        figures.extend([
            figure("first", ", the first of an interval, median", first.median(), "ms")
                .with_spread(first.middle_half()),
            figure("first.most", ", the first of an interval, most", first.most(), "ms"),
            figure("next", ", the next one, median", next.median(), "ms").with_spread(next.middle_half()),
            figure("size", ", with headers", f64::from(u32::try_from(size)?) / 1024.0, "KiB"),
        ]);
    }
    Ok(figures)
}

/// Waits for the end of an interval: what has been scraped before is of an earlier one.
fn another_report(address: SocketAddr, last: &[u8]) -> Result<Vec<u8>> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let report = scrape(address, "/report", "")?;
        if report != last {
            return Ok(report);
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("the exporter publishes no reports")
}

/// As many clients at once: until the last of them has all of its answer.
fn crowd(address: SocketAddr, process: &Process) -> Result<[Figure; 2]> {
    const THREADS: usize = 10;
    let barrier = Barrier::new(THREADS + 1);
    let before = process.processor_time()?;
    let took = thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    barrier.wait();
                    let streams: Result<Vec<_>> =
                        (0..CROWD / THREADS).map(|_| ask(address, "/metrics", PROMETHEUS)).collect();
                    streams?.into_iter().try_for_each(|stream| answer(stream).map(drop))
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client died"))??;
        }
        anyhow::Ok(start.elapsed())
    })?;
    let each = process.processor_time()?.saturating_sub(before).as_secs_f64() * 1e3
        / f64::from(u32::try_from(CROWD)?);
    let name = |what: &str| format!("{CROWD} scrapes of {SERIES} series at once, {what}");
    Ok([
        Figure::new("serve.crowd", &name("until the last has its answer"), took.as_secs_f64() * 1e3, "ms"),
        Figure::new("serve.crowd.each", &name("processor time of the exporter for each"), each, "ms"),
    ])
}

fn scrape(address: SocketAddr, path: &str, headers: &str) -> Result<Vec<u8>> {
    answer(ask(address, path, headers)?)
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("the exporter does not listen")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("the exporter does not read")?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the exporter does not answer")?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "the exporter answers {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(answer)
}

fn text(answer: Vec<u8>) -> Result<String> {
    String::from_utf8(answer).context("plain text is text")
}
