//! The thread that reads the table, and reads it again when modules or trampolines change.
//!
//! The kernel announces modules on a netlink socket. Where that cannot be opened, the owner checks before each
//! use instead, and the thread compares `/proc/modules`.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::{Shared, Status};
use crate::{kernel::kallsyms::Index, process::privileges, sys::trim_memory};

/// A burst of announcements is over when none arrives for this many milliseconds. The kernel announces a module
/// that is leaving before it takes it off its list, and one that is coming before it frees its init section.
const QUIET: u8 = 50;

/// A burst is cut off after this long.
const MAX_BURST: Duration = Duration::from_millis(500);

/// The multicast group the kernel itself announces to; the other one is udev's.
const KERNEL_GROUP: u32 = 1;

/// Where the kernel describes itself.
#[derive(Debug)]
pub(super) struct Files {
    /// None where only the coming and going of modules is of interest.
    pub(super) kallsyms: Option<PathBuf>,
    pub(super) modules: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { kallsyms: Some("/proc/kallsyms".into()), modules: "/proc/modules".into() }
    }
}

impl Files {
    /// Without the symbols, which many may not read and which are megabytes.
    pub(super) fn of_modules() -> Self {
        Self { kallsyms: None, ..Self::default() }
    }
}

/// What announces code that comes and goes without a module.
pub trait CodeWatch: Send + fmt::Debug {
    /// What can be read when there are announcements.
    fn sources(&self) -> Vec<BorrowedFd<'_>>;

    /// Takes all announcements: whether the table must be read again.
    fn take(&mut self) -> bool;
}

/// The owner's end of the thread: dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Wake(PipeWriter);

impl Wake {
    /// Has the thread compare the modules now, if nothing announces them.
    pub(super) fn check_modules(&self, shared: &Shared) {
        let mut state = shared.lock();
        // A load under way is waited for as it is: more requests than one at a time could fill the pipe.
        if state.must_ask && !state.is_loading {
            state.is_loading = (&self.0).write_all(b"?").is_ok();
        }
    }
}

/// A socket that receives the kernel's announcements of devices, drivers and modules.
pub(super) fn open_uevents() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(socket)
}

/// Says that modules are not announced.
pub(super) fn warn(error: Errno) {
    log::info!("cannot receive kernel events ({error}): comparing /proc/modules at every report instead");
}

/// Starts the thread. Without one (no pipe, no thread to be had) the table is read here and never again.
pub(super) fn spawn(
    shared: Arc<Shared>,
    files: Files,
    uevents: Option<OwnedFd>,
    code: Option<Box<dyn CodeWatch>>,
) -> Option<Wake> {
    shared.lock().must_ask = uevents.is_none();
    let mut worker = Worker { shared, files, uevents, code, modules: None };
    let (wake, writer) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(error) => {
            log::warn!("symbols of modules loaded from now on will be unknown: {error}");
            worker.load();
            return None;
        }
    };
    let shared = Arc::clone(&worker.shared);
    match thread::Builder::new().name("kallsyms".into()).spawn(move || worker.run(wake)) {
        Ok(_detached) => Some(Wake(writer)),
        Err(error) => {
            let table = shared.lock().table.next_unread(&format!("cannot start a thread: {error}"));
            shared.finish(Some(table));
            None
        }
    }
}

/// Why the thread woke up.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A module or a trampoline came or went, or announcements were lost.
    Changed,
    /// The owner checks whether one did.
    Asked,
    /// Something else was announced.
    Other,
    /// There is no owner any more.
    Dropped,
}

struct Worker {
    shared: Arc<Shared>,
    files: Files,
    uevents: Option<OwnedFd>,
    code: Option<Box<dyn CodeWatch>>,
    /// The modules as of the last load; only known if they must be compared.
    modules: Option<Vec<[String; 2]>>,
}

impl Drop for Worker {
    /// A thread that has died is not waited for.
    fn drop(&mut self) {
        self.shared.finish(None);
    }
}

impl Worker {
    fn run(mut self, mut wake: PipeReader) {
        privileges::give_up_in_thread();
        self.load();
        loop {
            match self.next_event(&mut wake) {
                Event::Dropped => return,
                Event::Other => {}
                Event::Changed => {
                    self.shared.lock().is_loading = true;
                    self.sit_out_burst();
                    self.load();
                }
                Event::Asked if self.modules == Some(loaded_modules(&self.files)) => self.shared.finish(None),
                Event::Asked => self.load(),
            }
        }
    }

    /// Reads the table and publishes it.
    fn load(&mut self) {
        // First the modules: one that is loaded in between is then found to be new.
        self.modules = self.uevents.is_none().then(|| loaded_modules(&self.files));
        let begin = Instant::now();
        let last = Arc::clone(&self.shared.lock().table);
        let Some(path) = &self.files.kallsyms else {
            log::debug!("the modules have changed, or are known for the first time");
            return self.shared.finish(Some(last.next_without_symbols()));
        };
        let index = File::open(path).and_then(|file| Index::read(BufReader::with_capacity(64 << 10, file)));
        let table = match index {
            Ok(index) => last.next(index),
            Err(error) => last.next_unread(&format!("cannot read {}: {error}", path.display())),
        };
        log::debug!("{} functions read in {:?}", table.index().len(), begin.elapsed());
        if table.status() != &Status::Ready {
            log::debug!("{}", table.status());
        }
        self.shared.finish(Some(table));
        // What reading it took is not needed any more.
        trim_memory();
    }

    /// Sleeps until there is something to do.
    fn next_event(&mut self, wake: &mut PipeReader) -> Event {
        let descriptors = [Some(wake.as_fd()), self.uevents.as_ref().map(OwnedFd::as_fd)];
        let code = self.code.iter().flat_map(|code| code.sources());
        let descriptors = descriptors.into_iter().flatten().chain(code);
        let mut sources: Vec<_> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR | Errno::EAGAIN) => return Event::Other,
            Err(_) => return Event::Dropped,
        }
        let is_awake = sources[0].any().unwrap_or(true);
        drop(sources);
        if is_awake {
            return match wake.read(&mut [0]) {
                Ok(1..) => Event::Asked,
                _ => Event::Dropped,
            };
        }
        // Neither is skipped for the other: what is not taken wakes this thread again.
        let is_code = self.code.as_mut().is_some_and(|code| code.take());
        match self.receive() {
            Event::Other if is_code => Event::Changed,
            event => event,
        }
    }

    /// Receives one announcement. If the socket fails, modules are compared instead.
    fn receive(&mut self) -> Event {
        let Some(socket) = &self.uevents else { return Event::Other };
        let mut message = [0; 64];
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(length @ 1..) if !is_of_module(&message[..length]) => Event::Other,
            Ok(1..) | Err(Errno::ENOBUFS) => Event::Changed,
            Err(Errno::EINTR | Errno::EAGAIN) => Event::Other,
            failed => {
                warn(failed.err().unwrap_or(Errno::ENOTCONN));
                self.uevents = None;
                self.shared.lock().must_ask = true;
                Event::Changed
            }
        }
    }

    /// Takes announcements until there are no more for a while: loading one module often loads several.
    fn sit_out_burst(&mut self) {
        let begin = Instant::now();
        while begin.elapsed() < MAX_BURST
            && let Some(socket) = &self.uevents
        {
            match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], QUIET) {
                Ok(0) => return,
                Ok(_) => drop(self.receive()),
                Err(_) => {}
            }
        }
    }
}

/// Whether an announcement (`ACTION@PATH`, then NUL and variables) is of a module that came or went.
fn is_of_module(message: &[u8]) -> bool {
    [b"add@/module/".as_slice(), b"remove@/module/"].iter().any(|prefix| message.starts_with(prefix))
}

/// The names and addresses of `/proc/modules`, without what changes while a module stays. None where there
/// are no modules.
fn loaded_modules(files: &Files) -> Vec<[String; 2]> {
    let text = fs::read_to_string(&files.modules).unwrap_or_default();
    let lines = text.lines().map(|line| {
        let mut fields = line.split_ascii_whitespace();
        [fields.next(), fields.nth(4)].map(|field| field.unwrap_or_default().to_owned())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use dropwatch_testing::skip;
    use tempfile::TempDir;

    use super::super::{Symbols, Table};
    use super::*;

    const CORE: &str = "ffffffff81000000 T tcp_v4_rcv\nffffffff810008d0 T _etext\n";
    const GRE: &str = "ffffffffc0200000 t gre_rcv\t[gre]\n";
    const GRE_ADDRESS: u64 = 0xffff_ffff_c020_0004;
    const LONG: Duration = Duration::from_secs(20);

    /// A kernel in a directory.
    struct Kernel(TempDir);

    impl Kernel {
        fn new() -> Self {
            let kernel = Self(tempfile::tempdir().unwrap());
            kernel.set("", "");
            kernel
        }

        fn files(&self) -> Files {
            Files { kallsyms: Some(self.kallsyms()), modules: self.0.path().join("modules") }
        }

        fn kallsyms(&self) -> PathBuf {
            self.0.path().join("kallsyms")
        }

        fn set(&self, symbols: &str, modules: &str) {
            fs::write(self.kallsyms(), CORE.to_owned() + symbols).unwrap();
            fs::write(self.files().modules, modules).unwrap();
        }
    }

    fn has_gre(table: &Table) -> bool {
        table.locate(GRE_ADDRESS).symbol.is_some()
    }

    /// Waits for what the thread does in its own time.
    fn eventually(what: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < LONG {
            if what() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn modules_are_followed_without_symbols() {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        kernel.set(GRE, "");
        let symbols = Symbols::watch(Files { kallsyms: None, ..kernel.files() }, Some(there.into()), None);
        let table = symbols.table();
        assert_eq!((table.generation(), table.index().len(), has_gre(&table)), (1, 0, false));
        let mut follower = symbols.follower(&table).unwrap();
        here.send(b"add@/module/gre\0ACTION=add\0").unwrap();
        assert_eq!(follower.next_table().map(|table| table.generation()), Some(2));
        let end = follower.ender();
        let waiting = thread::spawn(move || follower.next_table().is_none());
        end();
        assert!(waiting.join().unwrap(), "nothing is waited for after the end");
    }

    /// Announces whatever is written to the other end.
    #[derive(Debug)]
    struct Announced(UnixDatagram);

    impl CodeWatch for Announced {
        fn sources(&self) -> Vec<BorrowedFd<'_>> {
            vec![self.0.as_fd()]
        }

        fn take(&mut self) -> bool {
            self.0.set_nonblocking(true).unwrap();
            let mut byte = [0];
            let mut is_trampoline = false;
            while self.0.recv(&mut byte).is_ok() {
                is_trampoline |= byte == *b"t";
            }
            is_trampoline
        }
    }

    #[test]
    fn a_trampoline_that_is_announced_is_read() {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let (_uevents, no_uevents) = UnixDatagram::pair().unwrap();
        let symbols =
            Symbols::watch(kernel.files(), Some(no_uevents.into()), Some(Box::new(Announced(there))));
        assert_eq!(symbols.table().generation(), 1);
        here.send(b"p").unwrap();
        kernel.set("ffffffffc0200000 t bpf_trampoline_1\t[bpf]\n", "");
        here.send(b"t").unwrap();
        assert!(eventually(|| symbols.table().locate(GRE_ADDRESS).symbol.is_some()));
        assert_eq!(symbols.table().generation(), 2);
    }

    #[test]
    fn a_module_that_is_announced_is_read() {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let symbols = Symbols::watch(kernel.files(), Some(there.into()), None);
        assert_eq!(symbols.table().generation(), 1);
        assert_eq!(symbols.table().status(), &Status::Ready);

        kernel.set(GRE, "");
        here.send(b"add@/module/gre\0ACTION=add\0").unwrap();
        assert!(eventually(|| has_gre(&symbols.table())));

        kernel.set("", "");
        here.send(b"remove@/module/gre\0ACTION=remove\0").unwrap();
        assert!(eventually(|| symbols.table().generation() == 3));
        assert!(has_gre(&symbols.table()));
    }

    /// How many loads there have been when the thread has taken so many of an announcement and ended.
    fn loads_after(announcement: &[u8], times: usize) -> u64 {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let queue = there.try_clone().unwrap();
        // Before the thread starts: none of them comes late.
        for _ in 0..times {
            here.send(announcement).unwrap();
        }
        let symbols = Symbols::watch(kernel.files(), Some(there.into()), None);
        let is_empty = || {
            let mut sources = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
            poll(&mut sources, PollTimeout::ZERO).unwrap() == 0
        };
        assert!(eventually(is_empty), "all are taken");
        let shared = Arc::clone(&symbols.shared);
        drop(symbols);
        assert!(eventually(|| Arc::strong_count(&shared) == 1), "the thread ends");
        shared.lock().table.generation()
    }

    #[test]
    fn what_is_not_a_module_is_no_load() {
        assert_eq!(loads_after(b"add@/devices/virtual/net/eth0\0ACTION=add\0", 1), 1);
    }

    #[test]
    fn a_burst_is_one_load() {
        assert_eq!(loads_after(b"add@/module/gre\0ACTION=add\0", 5), 2);
    }

    #[test]
    fn a_report_waits_for_the_table_that_is_being_read() {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let symbols = Symbols::watch(kernel.files(), Some(there.into()), None);
        assert_eq!(symbols.table().generation(), 1);
        kernel.set(GRE, "");
        here.send(b"add@/module/gre\0ACTION=add\0").unwrap();
        assert!(eventually(|| symbols.shared.lock().is_loading));
        assert!(has_gre(&symbols.table()));
    }

    #[test]
    fn a_dead_thread_is_not_waited_for() {
        let shared = Arc::new(Shared::new(Arc::default(), true));
        let files = Kernel::new().files();
        drop(Worker { shared: Arc::clone(&shared), files, uevents: None, code: None, modules: None });
        assert_eq!(Symbols { shared, wake: None }.table().status(), &Status::Pending);
    }

    #[test]
    fn without_announcements_modules_are_compared() {
        let kernel = Kernel::new();
        let symbols = Symbols::watch(kernel.files(), None, None);
        assert_eq!(symbols.table().generation(), 1);
        assert_eq!(symbols.table().generation(), 1);

        kernel.set(GRE, "gre 16384 0 - Live 0xffffffffc0200000\n");
        assert!(has_gre(&symbols.table()));
        // More users of a module are no new module.
        kernel.set(GRE, "gre 16384 2 - Live 0xffffffffc0200000\n");
        assert_eq!(symbols.table().generation(), 2);
    }

    #[test]
    fn a_socket_that_fails_is_given_up() {
        let (kernel, (here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let symbols = Symbols::watch(kernel.files(), Some(there.into()), None);
        // An empty message is the end of a stream.
        here.send(b"").unwrap();
        assert!(eventually(|| symbols.shared.lock().must_ask));
        assert!(eventually(|| symbols.table().generation() == 2));
        kernel.set(GRE, "gre 16384 0 - Live 0xffffffffc0200000\n");
        assert!(has_gre(&symbols.table()));
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let (kernel, (_here, there)) = (Kernel::new(), UnixDatagram::pair().unwrap());
        let symbols = Symbols::watch(kernel.files(), Some(there.into()), None);
        let shared = Arc::downgrade(&symbols.shared);
        drop(symbols);
        assert!(eventually(|| shared.upgrade().is_none()));
    }

    #[test]
    fn a_table_that_cannot_be_read_says_so() {
        let files = Files { kallsyms: Some("/nonexistent".into()), modules: "/nonexistent".into() };
        let symbols = Symbols::watch(files, None, None);
        let table = symbols.table();
        assert!(
            table.status().to_string().starts_with(
                "locations have no names: cannot read /nonexistent: No such file or directory (os error 2)"
            ),
            "{}",
            table.status()
        );
    }

    /// The real socket, where a sandbox allows it.
    #[test]
    fn kernel_events_can_be_received() {
        let Ok(socket) = open_uevents() else { return skip("no socket for the kernel's events") };
        let received = recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT);
        assert!(matches!(received, Err(Errno::EAGAIN) | Ok(1..)), "{received:?}");
    }
}
