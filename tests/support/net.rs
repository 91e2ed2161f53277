//! Private network namespaces, and traffic in them that is dropped.

use std::{
    fs::{self, File},
    io::{IoSlice, Write as _},
    net::{SocketAddr, UdpSocket},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    mount::{MntFlags, MsFlags, mount, umount2},
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
};

use super::{is_guest, pin};

/// A port without a listener: the discard port of a namespace in which nothing runs.
pub const CLOSED: u16 = 9;

/// A network namespace with its loopback up; it goes when this is dropped.
pub struct Net {
    namespace: File,
}

impl Net {
    /// A new, empty namespace.
    pub fn new() -> Self {
        let namespace = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the namespace's file")
        });
        let net = Self { namespace: namespace.join().expect("the thread that makes a namespace") };
        net.ip("link set lo up");
        net
    }

    /// A new namespace without IPv6, whose chatter on every new device would be dropped.
    pub fn quiet() -> Self {
        let net = Self::new();
        for scope in ["all", "default"] {
            let name = format!("net/ipv6/conf/{scope}/disable_ipv6");
            if Path::new("/proc/sys").join(&name).exists() {
                net.sysctl(&name, "1");
            }
        }
        net
    }

    /// Gives it a name, as `ip netns` does, until that is dropped.
    pub fn name(&self, name: &str) -> Name {
        Name::of(&self.namespace, name)
    }

    /// Its inode number, which is its name in reports.
    pub fn inum(&self) -> u64 {
        self.namespace.metadata().expect("the namespace's file").ino()
    }

    /// Runs `work` in a thread that is in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command in the namespace; it has to succeed. What it prints comes back.
    pub fn command(&self, program: &str, arguments: &[&str]) -> String {
        self.try_command(program, arguments)
            .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
    }

    /// Runs a command in the namespace; what it prints, or what is wrong.
    pub fn try_command(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(|| Command::new(program).args(arguments).output());
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command by its words, none of which has a blank in it.
    pub fn words(&self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        self.command(words[0], &words[1..])
    }

    /// `ip` with the words of `line`.
    pub fn ip(&self, line: &str) {
        self.words(&format!("ip {line}"));
    }

    /// A neighbour with a static address.
    pub fn neighbour(&self, neighbour: &str, address: [u8; 6], device: &str) {
        let address = address.map(|byte| format!("{byte:02x}")).join(":");
        self.ip(&format!("neigh replace {neighbour} lladdr {address} dev {device} nud permanent"));
    }

    /// Whether a device can send.
    pub fn is_up(&self, device: &str) -> bool {
        self.interface(device, |interface| interface.flags.contains(InterfaceFlags::IFF_RUNNING))
    }

    /// What the namespace says of a device.
    fn interface<T: Send>(&self, device: &str, of: fn(&InterfaceAddress) -> T) -> T {
        let is_it = |interface: &InterfaceAddress| {
            let link = interface.address.as_ref().and_then(|address| address.as_link_addr());
            interface.interface_name == device && link.is_some()
        };
        self.run(|| {
            let mut interfaces = getifaddrs().expect("the namespace's devices");
            of(&interfaces.find(is_it).unwrap_or_else(|| panic!("no {device}")))
        })
    }

    /// Sets a sysctl of the namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{name}"), value)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Joins the namespace to `other` by a pair of devices with an address each.
    pub fn join(&self, device: &str, address: &str, other: &Net, other_device: &str, other_address: &str) {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), other.namespace.as_raw_fd());
        let pair = format!("link add {device} type veth peer name {other_device} netns {namespace}\n");
        let set_up = |device, address| format!("addr add {address} dev {device}\nlink set {device} up\n");
        self.batch(&(pair + &set_up(device, address)));
        other.batch(&set_up(other_device, other_address));
    }

    /// `ip` with the words of each line: one process, which takes longest to start.
    fn batch(&self, lines: &str) {
        let output = self.run(|| {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut ip = ip.spawn().expect("ip starts");
            ip.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads");
            ip.wait_with_output().expect("ip ends")
        });
        assert!(output.status.success(), "{lines}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The hardware address of a device.
    pub fn hardware_address(&self, device: &str) -> [u8; 6] {
        let address = |interface: &InterfaceAddress| interface.address?.as_link_addr()?.addr();
        self.interface(device, address).expect("an address")
    }

    /// Sends `count` datagrams of one byte, one a system call, to a closed port of the namespace, and waits until they
    /// are dropped: a busy machine may do that later.
    pub fn drop_datagrams(&self, count: u64) {
        self.drop_all(count, || drop_datagrams_here(count));
    }

    /// The same from one processor, by which they are dropped.
    pub fn drop_datagrams_on(&self, processor: usize, count: u64) {
        self.drop_all(count, || {
            pin(processor);
            drop_datagrams_here(count);
        });
    }

    fn drop_all(&self, count: u64, send: impl FnOnce() + Send) {
        let all = self.no_ports() + count;
        self.run(send);
        let start = Instant::now();
        while self.no_ports() < all {
            assert!(start.elapsed() < super::PATIENCE, "datagrams are lost on their way");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends `count` datagrams to a closed port as fast as this CPU can; how many found no socket, by the kernel's own
    /// count, once no more are under way: a busy machine delivers the last ones late, and loses some on their way.
    pub fn flood(&self, count: usize) -> u64 {
        let before = self.no_ports();
        self.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let SocketAddr::V4(to) = SocketAddr::from(([127, 0, 0, 1], CLOSED)) else { unreachable!() };
            let to = [Some(SockaddrIn::from(to)); BATCH];
            let payload = [IoSlice::new(b"x")];
            let payloads = [payload; BATCH];
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
            let mut left = count;
            while left > 0 {
                let some = left.min(BATCH);
                let sent = sendmmsg(
                    socket.as_raw_fd(),
                    &mut headers,
                    &payloads[..some],
                    &to[..some],
                    [],
                    MsgFlags::empty(),
                );
                left -= sent.map_or(0, Iterator::count);
            }
        });
        self.settled(before + count as u64) - before
    }

    /// The datagrams that found no socket, once these are `all`, or for a while no more have come.
    fn settled(&self, all: u64) -> u64 {
        let still = Duration::from_millis(if is_guest() { 1000 } else { 200 });
        let (mut last, mut since) = (self.no_ports(), Instant::now());
        while last < all && since.elapsed() < still {
            thread::sleep(Duration::from_millis(1));
            let now = self.no_ports();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// Datagrams that found no socket, as the kernel itself counts them for the namespace.
    pub fn no_ports(&self) -> u64 {
        self.counter("snmp", "Udp", "NoPorts")
    }

    /// A counter of the namespace in one of the files in `/proc/net`.
    pub fn counter(&self, file: &str, group: &str, counter: &str) -> u64 {
        let text = self.run(|| fs::read_to_string(format!("/proc/thread-self/net/{file}"))).expect(file);
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let column = names.split(' ').position(|name| name == counter).expect(counter);
        values.split(' ').nth(column).and_then(|value| value.parse().ok()).expect("a number")
    }
}

impl Net {
    /// A counter of `/proc/net/xfrm_stat`.
    pub fn xfrm(&self, counter: &str) -> u64 {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/xfrm_stat")).expect("xfrm_stat");
        let value = text.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse().ok());
        value.expect(counter)
    }
}

/// A name of a namespace, which ends when this is dropped.
pub struct Name(PathBuf);

impl Name {
    fn of(namespace: &File, name: &str) -> Self {
        fs::create_dir_all("/run/netns").expect("a directory for names");
        let path = Path::new("/run/netns").join(name);
        // It is there when an earlier run was killed.
        drop(Self(path.clone()));
        File::create(&path).expect("a place for the name");
        let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a name");
        Self(path)
    }

    /// Names a namespace that this process has open, by its inode number.
    pub fn of_inode(inum: u64, name: &str) -> Self {
        let files = fs::read_dir("/proc/self/fd").expect("the open files").flatten();

        let is_namespace =
            |path: &Path| fs::read_link(path).is_ok_and(|to| to.starts_with(format!("net:[{inum}]")));
        let mut paths = files.map(|file| file.path()).filter(|path| is_namespace(path));
        let namespace = paths.find_map(|path| File::open(path).ok());
        Self::of(&namespace.expect("an open namespace"), name)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.0);
    }
}

/// Floods all of them at once, each with as many: how many datagrams found no socket, as [`Net::flood`] has it.
pub fn flood_all(nets: &[Net], each: usize) -> u64 {
    thread::scope(|scope| {
        let floods: Vec<_> = nets.iter().map(|net| scope.spawn(move || net.flood(each))).collect();
        floods.into_iter().map(|flood| flood.join().expect("a flood")).sum()
    })
}

/// Sends `count` datagrams to a closed port of the namespace this thread is in.
pub fn drop_datagrams_here(count: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..count {
        // The answer to an earlier one, "connection refused", is not an error of this one.
        while socket.send_to(b"x", ("127.0.0.1", CLOSED)).is_err() {}
    }
}

/// Datagrams in one system call.
const BATCH: usize = 64;
