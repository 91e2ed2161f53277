//! Addresses by name, for the kernel that is running, while modules come and go.
//!
//! [`Symbols`] owns the newest [`Table`] and keeps it up to date in the background; a report takes a table and
//! waits while one is being read. [`Table::locate`] turns an address into a [`Location`].

mod watch;

pub use watch::CodeWatch;

use std::fmt;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::kernel::functions;
use crate::kernel::kallsyms::saved::Saved;
use crate::kernel::kallsyms::{Index, ModuleRange, State};
use crate::model::{
    location::{Location, Symbol},
    symbol_spec::SymbolSpec,
};

/// The most functions of unloaded modules that are kept, about a megabyte. The latest unloaded module is kept
/// whatever its size.
const MAX_UNLOADED_FUNCTIONS: usize = 32_768;

/// Where symbols are read from.
#[derive(Debug, Clone)]
pub enum KallsymsSource {
    /// `/proc/kallsyms`, read again whenever modules change.
    Running,
    /// A file, once.
    Saved(Saved),
    /// No symbols, for reports that name no functions; but a new, empty table whenever modules change.
    Modules,
    /// No symbols, and nothing to wait for.
    Nothing,
}

/// The symbol table of the running kernel, kept up to date by a thread of its own.
///
/// The thread sleeps until the kernel announces that a module came or went. It ends when this is dropped, and
/// does not keep the process alive.
#[derive(Clone, Debug)]
pub struct Symbols {
    shared: Arc<Shared>,
    /// Wakes the thread; closing it ends the thread. `None` if the table never changes.
    wake: Option<Arc<watch::Wake>>,
}

impl Symbols {
    /// Begins to load the table and returns at once: loading takes the kernel some 50 ms.
    #[must_use]
    pub fn start(source: KallsymsSource) -> Self {
        Self::watching(source, None)
    }

    /// The same, with what announces code that comes and goes without a module.
    #[must_use]
    pub fn watching(source: KallsymsSource, code: Option<Box<dyn CodeWatch>>) -> Self {
        match source {
            KallsymsSource::Nothing => {
                Self { shared: Arc::new(Shared::new(Arc::default(), false)), wake: None }
            }
            KallsymsSource::Running => Self::watch_kernel(watch::Files::default(), code),
            KallsymsSource::Modules => Self::watch_kernel(watch::Files::of_modules(), None),
            KallsymsSource::Saved(saved) => {
                let table = Table { index: Arc::new(saved.index), status: Status::Ready, ..Table::default() };
                let shared = Arc::new(Shared::new(Arc::new(table), false));
                Self { shared, wake: None }
            }
        }
    }

    fn watch_kernel(files: watch::Files, code: Option<Box<dyn CodeWatch>>) -> Self {
        Self::watch(files, watch::open_uevents().inspect_err(|&error| watch::warn(error)).ok(), code)
    }

    fn watch(
        files: watch::Files,
        uevents: Option<std::os::fd::OwnedFd>,
        code: Option<Box<dyn CodeWatch>>,
    ) -> Self {
        let shared = Arc::new(Shared::new(Arc::default(), true));
        let wake = watch::spawn(Arc::clone(&shared), files, uevents, code).map(Arc::new);
        Self { shared, wake }
    }

    /// Waits for the tables after `table`; none if it never changes.
    #[must_use]
    pub fn follower(&self, table: &Table) -> Option<Follower> {
        self.wake.as_ref()?;
        let is_ended = Arc::default();
        Some(Follower { shared: Arc::clone(&self.shared), generation: table.generation, is_ended })
    }

    /// The newest table, once none is being read. It may be empty (see [`Table::status`]) or miss a module that
    /// was loaded this instant.
    ///
    /// There is no limit, even on a machine without an idle CPU: only printing waits here, never counting.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        if let Some(wake) = &self.wake {
            wake.check_modules(&self.shared);
        }
        let state = self.shared.lock();
        let is_loading = |state: &mut Published| state.is_loading;
        let state = self.shared.loaded.wait_while(state, is_loading).unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.table)
    }
}

/// Waits for new tables.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    generation: u64,
    is_ended: Arc<AtomicBool>,
}

impl Follower {
    /// The next table that is read; none once it has been ended.
    pub fn next_table(&mut self) -> Option<Arc<Table>> {
        let state = self.shared.lock();
        let is_ended = || self.is_ended.load(Ordering::Relaxed);
        let is_known = |state: &mut Published| state.table.generation == self.generation && !is_ended();
        let state = self.shared.loaded.wait_while(state, is_known).unwrap_or_else(PoisonError::into_inner);
        self.generation = state.table.generation;
        (!is_ended()).then(|| Arc::clone(&state.table))
    }

    /// What ends it, from another thread.
    pub fn ender(&self) -> impl FnOnce() + Send + 'static {
        let (shared, is_ended) = (Arc::clone(&self.shared), Arc::clone(&self.is_ended));
        move || {
            // Under the lock, so that it is not missed between the look and the wait.
            let _state = shared.lock();
            is_ended.store(true, Ordering::Relaxed);
            shared.loaded.notify_all();
        }
    }
}

/// What the owner and the thread share.
#[derive(Debug)]
struct Shared {
    state: Mutex<Published>,
    /// Notified when `is_loading` becomes false.
    loaded: Condvar,
}

#[derive(Debug)]
struct Published {
    table: Arc<Table>,
    is_loading: bool,
    /// No socket announces modules: compare before every use.
    must_ask: bool,
}

impl Shared {
    fn new(table: Arc<Table>, is_loading: bool) -> Self {
        let state = Published { table, is_loading, must_ask: false };
        Self { state: Mutex::new(state), loaded: Condvar::new() }
    }

    /// No code panics while it holds the lock, and the table in it is whole at all times.
    fn lock(&self) -> MutexGuard<'_, Published> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a load, with a new table or the old one.
    fn finish(&self, table: Option<Table>) {
        let mut state = self.lock();
        if let Some(table) = table {
            state.table = Arc::new(table);
        }
        state.is_loading = false;
        self.loaded.notify_all();
    }
}

/// Whether a table can name addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// It has not been read yet.
    #[default]
    Pending,
    /// It can.
    Ready,
    /// The kernel hides addresses from this process.
    Hidden,
    /// It has no symbols, or could not be read; says why.
    Unavailable(Arc<str>),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("the kernel's symbols are still being read"),
            Self::Ready => f.write_str("the kernel's symbols are known"),
            Self::Hidden => f.write_str(
                "the kernel hides its addresses, so locations have no names: run with CAP_SYSLOG and set \
                 kernel.kptr_restrict to 0 or 1, or give a System.map with --kallsyms",
            ),
            Self::Unavailable(why) => {
                write!(f, "locations have no names: {why}; give a System.map with --kallsyms")
            }
        }
    }
}

/// The functions of the kernel and its modules at one time, and of modules unloaded before.
#[derive(Debug, Clone, Default)]
pub struct Table {
    index: Arc<Index>,
    /// The latest unloaded last.
    unloaded_modules: Vec<UnloadedModule>,
    status: Status,
    generation: u64,
}

/// A module that is no longer loaded, but whose drops may not have been reported yet.
#[derive(Debug, Clone)]
struct UnloadedModule {
    range: ModuleRange,
    index: Arc<Index>,
}

impl Table {
    /// Whether this table can name addresses, and if not, why.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Grows with every table that is read: locations of another generation may have other names now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The symbols of what is loaded, for searching by name.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whether a function is loaded, or is of a module that was.
    #[must_use]
    pub fn has_seen(&self, function: &SymbolSpec) -> bool {
        let unloaded = self.unloaded_modules.iter().map(|module| &module.index);
        unloaded.chain([&self.index]).any(|index| functions::has(function, index))
    }

    /// What is at `address`. It is looked up as it is: the location of a drop is the address after a call,
    /// or, for frees that are deferred, a function's own address, and the kernel's `%pS` names both alike.
    #[must_use]
    pub fn locate(&self, address: u64) -> Location {
        let unloaded =
            || self.unloaded_modules.iter().rev().find_map(|unloaded| unloaded.index.lookup(address));
        let symbol = self.index.lookup(address).or_else(unloaded).map(|symbol| Symbol {
            name: symbol.name.into(),
            offset: address - symbol.start,
            size: symbol.size,
            module: Arc::clone(symbol.module).into(),
        });
        Location { address, symbol }
    }

    /// The table after this one, when the kernel has `index`. A module that is in this one and gone from that
    /// stays known, until other code is loaded where it was.
    fn next(&self, index: Index) -> Self {
        if index.state() != State::Visible && self.status == Status::Ready {
            // Addresses are hidden since, from everyone or because privileges were dropped.
            return self.next_unread("the kernel's symbol table is hidden");
        }
        let unloaded = self.index.modules().into_iter().filter(ModuleRange::is_loadable);
        let unloaded = unloaded.filter(|range| !index.starts_in(&range.addresses));
        let unloaded_modules = self
            .unloaded_modules
            .iter()
            .filter(|unloaded| !index.starts_in(&unloaded.range.addresses))
            .cloned();
        let unloaded_modules = unloaded_modules.chain(unloaded.map(|range| {
            let index = Arc::new(self.index.part(&range.addresses));
            UnloadedModule { range, index }
        }));
        let status = match index.state() {
            State::Visible => Status::Ready,
            State::Hidden => Status::Hidden,
            State::Empty => Status::Unavailable("the kernel's symbol table is empty".into()),
        };
        Self {
            unloaded_modules: latest(unloaded_modules.collect()),
            index: Arc::new(index),
            status,
            generation: self.generation + 1,
        }
    }

    /// The table after this one, where nothing is read.
    fn next_without_symbols(&self) -> Self {
        Self { generation: self.generation + 1, ..self.clone() }
    }

    /// The table after this one, when the kernel's could not be read: what is known stays known.
    fn next_unread(&self, why: &str) -> Self {
        let status = match self.status {
            Status::Ready => Status::Ready,
            _ => Status::Unavailable(why.into()),
        };
        Self { status, generation: self.generation + 1, ..self.clone() }
    }
}

/// The last of `unloaded_modules` that have [`MAX_UNLOADED_FUNCTIONS`] together, and at least one.
fn latest(mut unloaded_modules: Vec<UnloadedModule>) -> Vec<UnloadedModule> {
    let mut functions = 0;
    let kept = unloaded_modules.iter().rev().take_while(|unloaded| {
        let is_first = functions == 0;
        functions += unloaded.index.len();
        is_first || functions <= MAX_UNLOADED_FUNCTIONS
    });
    let dropped = unloaded_modules.len() - kept.count();
    unloaded_modules.drain(..dropped);
    unloaded_modules
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "ffffffff81000000 T tcp_v4_rcv\nffffffff810008d0 T _etext\n";
    const GRE: &str = "ffffffffc0200000 t gre_rcv\t[gre]\nffffffffc0200080 t gre_exit\t[gre]\n";

    fn table(text: &str) -> Table {
        Table::default().next(Index::read(text.as_bytes()).unwrap())
    }

    fn then(table: &Table, text: &str) -> Table {
        table.next(Index::read(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_location_reads_as_the_kernel_writes_it() {
        let table = table(&(CORE.to_owned() + GRE));
        let show = |address| table.locate(address).to_string();
        assert_eq!(show(0xffff_ffff_8100_00aa), "tcp_v4_rcv+0xaa/0x8d0 [kernel]");
        assert_eq!(show(0xffff_ffff_c020_0080), "gre_exit+0x0 [gre]");
        assert_eq!(show(0xffff_ffff_8100_08d0), "0xffffffff810008d0");
        assert_eq!(show(0x1234), "0x0000000000001234");
    }

    #[test]
    fn an_unloaded_module_is_still_named() {
        let loaded = table(&(CORE.to_owned() + GRE));
        let unloaded = then(&loaded, CORE);
        assert_eq!(unloaded.locate(0xffff_ffff_c020_0010), loaded.locate(0xffff_ffff_c020_0010));
        assert_eq!(unloaded.locate(0xffff_ffff_c020_1080).symbol, None);
        let has_seen = |function| unloaded.has_seen(&SymbolSpec::parse(function).unwrap());
        assert!(has_seen("gre_rcv[gre]") && has_seen("tcp_v4_rcv") && !has_seen("gre_rcv[ip_gre]"));
        assert!(unloaded.generation() > loaded.generation());

        let much_later = then(&then(&unloaded, CORE), CORE);
        assert_eq!(much_later.locate(0xffff_ffff_c020_0010), loaded.locate(0xffff_ffff_c020_0010));
    }

    #[test]
    fn a_module_loaded_elsewhere_is_named_in_both_places() {
        let elsewhere = GRE.replace("ffffffffc02", "ffffffffc03");
        let table = then(&table(&(CORE.to_owned() + GRE)), &(CORE.to_owned() + &elsewhere));
        assert_eq!(table.locate(0xffff_ffff_c020_0010).to_string(), "gre_rcv+0x10/0x80 [gre]");
        assert_eq!(table.locate(0xffff_ffff_c030_0010).to_string(), "gre_rcv+0x10/0x80 [gre]");
        assert_eq!(table.unloaded_modules.len(), 1);
    }

    #[test]
    fn a_module_loaded_over_an_unloaded_one_replaces_it() {
        let other = "ffffffffc0200040 t other\t[other]\n";
        let loaded = table(&(CORE.to_owned() + GRE));
        let at_once = then(&loaded, &(CORE.to_owned() + other));
        let later = then(&then(&loaded, CORE), &(CORE.to_owned() + other));
        for table in [at_once, later] {
            assert_eq!(table.locate(0xffff_ffff_c020_0010).symbol, None);
            assert_eq!(table.locate(0xffff_ffff_c020_0050).to_string(), "other+0x10 [other]");
            assert_eq!(table.unloaded_modules.len(), 0);
        }
    }

    #[test]
    fn only_modules_stay_known_when_they_are_unloaded() {
        let text = CORE.to_owned()
            + "ffffffffc0200000 t bpf_prog_0123456789abcdef\t[bpf]\n\
               ffffffffc0300000 t ftrace_trampoline\t[__builtin__ftrace]\n";
        let table = then(&table(&text), "ffffffff82000000 T _stext\n");
        assert_eq!(table.unloaded_modules.len(), 0);
        assert_eq!(table.locate(0xffff_ffff_8100_00aa).symbol, None);
    }

    #[test]
    fn unloaded_modules_are_bounded() {
        let big = |n: u64| -> String {
            let start = 0xffff_ffff_c000_0000 + (n << 24);
            let line = |f: u64| format!("{:x} t f{f}\t[big{n}]\n", start + f * 16);
            (0..20_000).map(line).collect::<Vec<_>>().concat()
        };
        let mut table = table(&big(0));
        for n in 1..4 {
            table = then(&table, &big(n));
            assert_eq!(table.unloaded_modules.len(), 1);
            assert_eq!(&*table.unloaded_modules[0].range.name, format!("big{}", n - 1));
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_again_stays() {
        let table = table(CORE).next_unread("no");
        assert_eq!(table.status(), &Status::Ready);
        assert!(table.locate(0xffff_ffff_8100_0000).symbol.is_some());
        let never = Table::default().next_unread("cannot read /proc/kallsyms");
        assert_eq!(never.status(), &Status::Unavailable("cannot read /proc/kallsyms".into()));
    }

    #[test]
    fn a_table_that_is_hidden_later_stays() {
        let hidden = "0000000000000000 T tcp_v4_rcv\n0000000000000000 t gre_rcv\t[gre]\n";
        assert_eq!(table(hidden).status(), &Status::Hidden);
        let table = then(&table(&(CORE.to_owned() + GRE)), hidden);
        assert_eq!(table.status(), &Status::Ready);
        assert_eq!(table.locate(0xffff_ffff_8100_00aa).to_string(), "tcp_v4_rcv+0xaa/0x8d0 [kernel]");
    }

    #[test]
    fn a_saved_table_is_there_at_once() {
        let index = Index::read(CORE.as_bytes()).unwrap();
        let saved = Saved { index, slide: 0, warnings: Vec::new() };
        let table = Symbols::start(KallsymsSource::Saved(saved)).table();
        assert_eq!(table.status(), &Status::Ready);
        assert_eq!(table.locate(0xffff_ffff_8100_0001).to_string(), "tcp_v4_rcv+0x1/0x8d0 [kernel]");
    }
}
