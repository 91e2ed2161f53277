//! Which functions are followed: what roots call, and what these call, as far as a depth and a number.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
};

use dropwatch_common::dig::cookie;

use super::scan::{self, Leads, Machine};
use crate::{escape::Escaped, model::foreign::Foreign};

/// The most functions that are followed.
pub const MOST_FUNCTIONS: usize = 500;

/// The most functions that are followed with those that a pointer may lead to.
pub const MOST_WITH_POINTERS: usize = 4000;

/// How many jumps may lead from a function to one that frees packets.
const MOST_JUMPS: usize = 3;

/// A function of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first byte.
    pub start: u64,
    /// As the kernel calls it, `.constprop.0` included.
    pub name: Foreign,
    /// Its module, `kernel` for the kernel proper.
    pub module: Foreign,
}

impl Function {
    /// As the source calls it, to be printed.
    #[must_use]
    pub fn source_name(&self) -> String {
        let name = self.name.text();
        // What the compiler has added begins with a point.
        Escaped::new(name.split('.').next().unwrap_or(&name)).to_string()
    }

    /// Whether the compiler made it from a function of the source, whose types need not be its own.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.name.bytes().contains(&b'.')
    }
}

/// The text of the running kernel.
pub trait Code {
    /// The function that starts at an address.
    fn starting_at(&self, address: u64) -> Option<Function>;
    /// Its text; of one in two parts, each with its start. Empty if it cannot be read.
    fn text(&mut self, function: &Function) -> Vec<(u64, Vec<u8>)>;
    /// Whether it is known to return nothing.
    fn returns_nothing(&mut self, function: &Function) -> bool;
}

/// What shall be followed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Functions on the way of a packet, innermost first: the roots are among them.
    pub candidates: Vec<Function>,
    /// How many of them are roots.
    pub most_roots: usize,
    /// Starts of functions that the packet was in when it was dropped.
    pub way: HashSet<u64>,
    /// Functions below these of which is known that pointers lead to them.
    pub below: Vec<Function>,
    /// How many functions are followed without those that pointers may lead to.
    pub most: usize,
    /// In how many steps what is followed is called from one of these.
    pub depth: usize,
    /// Functions that pointers may lead to.
    pub others: Vec<Function>,
}

/// What is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The functions: roots, what is known to be below them, what these call by how far it is from them, and others.
    pub functions: Vec<Function>,
    /// How many of them are roots.
    pub roots: usize,
    /// Whether what each of the functions calls is among them too, as far as its text tells.
    reach: Vec<Reach>,
    /// How many functions found no room.
    pub left_out: usize,
    /// Roots that cannot be followed: they free packets, or the kernel does not report calls of them.
    pub unfit: Vec<Function>,
}

/// Functions that have been read, by their starts: where they lead to, and whether the kernel reports calls of them.
#[derive(Debug, Default)]
pub struct Read(HashMap<u64, (Leads, bool)>);

/// How far the calls of a function are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its own alone.
    Itself,
    /// Those that it makes, but it has pointers to functions too.
    Named,
    /// All that it makes.
    Whole,
}

impl Plan {
    /// What is called from roots. These are the first of the candidates that can be followed.
    pub fn new(machine: Machine, wanted: &Wanted, code: &mut impl Code, read: &mut Read) -> Self {
        let mut scanner = Scanner::new(Self::default(), machine, code, read);
        scanner.way.clone_from(&wanted.way);
        scanner.start(wanted);
        scanner.descend(0..scanner.plan.functions.len(), wanted.depth, wanted.most);
        scanner.add_others(&wanted.others, MOST_WITH_POINTERS);
        if !wanted.others.is_empty() {
            // Nothing is called then that is not followed.
            let named = scanner.plan.reach.iter_mut().filter(|reach| **reach == Reach::Named);
            named.for_each(|reach| *reach = Reach::Whole);
        }
        scanner.plan
    }

    /// The same with what one of its functions calls, and these call, up to so many more; what is there keeps its number.
    #[must_use]
    pub fn deepened(
        self,
        (machine, function): (Machine, &Function),
        (depth, more): (usize, usize),
        code: &mut impl Code,
        read: &mut Read,
    ) -> Self {
        let Some(place) = self.place(function.start) else { return self };
        let most = self.functions.len() + more;
        let mut scanner = Scanner::new(self, machine, code, read);
        scanner.descend(place..place + 1, depth, most);
        scanner.plan
    }

    /// The same with up to so many more functions to which the pointers of one lead; what is there keeps its number.
    #[must_use]
    pub fn joined(
        self,
        (machine, function): (Machine, &Function),
        (others, more): (&[Function], usize),
        code: &mut impl Code,
        read: &mut Read,
    ) -> Self {
        let Some(place) = self.place(function.start) else { return self };
        let most = self.functions.len() + more;
        let mut scanner = Scanner::new(self, machine, code, read);
        if scanner.add_others(others, most) {
            scanner.plan.reach[place] = Reach::Whole;
        }
        scanner.plan
    }

    fn place(&self, start: u64) -> Option<usize> {
        self.functions.iter().position(|function| function.start == start)
    }

    /// How far the calls of a function are followed.
    #[must_use]
    pub fn reach(&self, start: u64) -> Option<Reach> {
        self.reach.get(self.place(start)?).copied()
    }

    /// What is attached to each function: `argument` is the packet's place among its arguments, from 1.
    pub fn cookies(&self, argument: impl Fn(&Function) -> Option<u8>) -> Vec<(u64, u64)> {
        let cookie = |(number, function): (u64, &Function)| {
            let argument = u64::from(argument(function).unwrap_or(0)) << cookie::ARGUMENT_SHIFT;
            let root = if number < self.roots as u64 { cookie::ROOT } else { 0 };
            (function.start, number & cookie::FUNCTION | argument | root)
        };
        (0..).zip(&self.functions).map(cookie).collect()
    }
}

/// A function whose calls are looked at.
struct Open {
    function: Function,
    /// In how many steps it is called from where this began.
    distance: usize,
    /// What calls it, of what is followed.
    caller: usize,
    /// Its own place, if it has one.
    place: Option<usize>,
}

impl Open {
    fn called(function: &Function, distance: usize, caller: usize) -> Self {
        Self { function: function.clone(), distance, caller, place: None }
    }
}

struct Scanner<'a, C> {
    machine: Machine,
    code: &'a mut C,
    read: &'a mut Read,
    seen: HashSet<u64>,
    /// Starts of functions that the packet was in when it was dropped, and of what they call: of that, what ends with a jump
    /// into the next function is in no call chain.
    way: HashSet<u64>,
    beside_way: HashSet<u64>,
    plan: Plan,
}

impl<'a, C: Code> Scanner<'a, C> {
    /// One that goes on with a plan.
    fn new(plan: Plan, machine: Machine, code: &'a mut C, read: &'a mut Read) -> Self {
        let seen = plan.functions.iter().map(|function| function.start).collect();
        Self { machine, code, read, seen, way: HashSet::new(), beside_way: HashSet::new(), plan }
    }

    /// Takes what is followed without being called by something that is.
    fn start(&mut self, wanted: &Wanted) {
        for candidate in &wanted.candidates {
            if self.plan.roots == wanted.most_roots {
                break;
            }
            if !self.seen.insert(candidate.start) {
                continue;
            }
            if self.can_be_followed(candidate) {
                self.add(candidate.clone(), Reach::Itself);
                self.plan.roots += 1;
            } else {
                self.plan.unfit.push(candidate.clone());
            }
        }
        for function in &wanted.below {
            if self.seen.insert(function.start) && self.can_be_followed(function) {
                self.add(function.clone(), Reach::Itself);
            }
        }
    }

    fn add(&mut self, function: Function, reach: Reach) -> usize {
        self.plan.functions.push(function);
        self.plan.reach.push(reach);
        self.plan.functions.len() - 1
    }

    /// Takes what is called by some of what is followed.
    fn descend(&mut self, start: Range<usize>, depth: usize, most: usize) {
        let known =
            |place| Open { place: Some(place), ..Open::called(&self.plan.functions[place], 0, place) };
        let mut open: VecDeque<_> = start.map(known).collect();
        let mut left = HashSet::new();
        while let Some(Open { function, distance, caller, place }) = open.pop_front() {
            let place = match place {
                None if !self.can_be_followed(&function) => None,
                None if self.plan.functions.len() >= most => {
                    left.insert(function.start);
                    self.plan.reach[caller] = Reach::Itself;
                    continue;
                }
                None => Some(self.add(function.clone(), Reach::Itself)),
                known => known,
            };
            if distance == depth || distance > 0 && self.passes_nothing_on(&function) {
                continue;
            }
            let (leads, _) = self.read(&function);
            if let Some(place) = place {
                self.plan.reach[place] = if leads.has_pointers { Reach::Named } else { Reach::Whole };
            }
            let calls = leads.calls.iter().chain(&leads.jumps);
            if self.way.contains(&function.start) {
                self.beside_way.extend(calls.clone());
            }
            for address in calls {
                let called = self.code.starting_at(*address);
                let called =
                    called.filter(|called| !is_aside(&called.name.text()) && self.seen.insert(called.start));
                open.extend(
                    called.map(|called| Open::called(&called, distance + 1, place.unwrap_or(caller))),
                );
            }
        }
        self.plan.left_out = left.len();
        self.say_what_is_left(&left);
    }

    /// Whether what a function calls cannot refuse the packet: it returns nothing, and the packet cannot have been dropped in
    /// it. The function itself is followed, since what it calls may be followed for others. Where it is not known what the
    /// packet was in, as below a pointer, any function may pass something on.
    fn passes_nothing_on(&mut self, function: &Function) -> bool {
        let is_on_way = [&self.way, &self.beside_way].iter().any(|starts| starts.contains(&function.start));
        !self.way.is_empty() && !is_on_way && self.code.returns_nothing(function)
    }

    /// What calls a function that found no room is not followed as a whole, whichever else calls that one.
    fn say_what_is_left(&mut self, left: &HashSet<u64>) {
        if left.is_empty() {
            return;
        }
        for (function, reach) in self.plan.functions.iter().zip(&mut self.plan.reach) {
            let calls =
                self.read.0.get(&function.start).map(|(leads, _)| leads.calls.iter().chain(&leads.jumps));
            if calls.is_some_and(|mut calls| calls.any(|call| left.contains(call))) {
                *reach = Reach::Itself;
            }
        }
    }

    /// Takes functions that pointers may lead to. Whether all found room.
    fn add_others(&mut self, others: &[Function], most: usize) -> bool {
        for function in others {
            if is_aside(&function.name.text()) || !self.seen.insert(function.start) {
                continue;
            }
            if self.can_be_followed(function) {
                if self.plan.functions.len() >= most {
                    return false;
                }
                self.add(function.clone(), Reach::Itself);
            }
        }
        true
    }

    fn can_be_followed(&mut self, function: &Function) -> bool {
        self.read(function).1 && !self.frees(function, MOST_JUMPS)
    }

    /// Where a function leads to, and whether the kernel reports calls of it.
    fn read(&mut self, function: &Function) -> (Leads, bool) {
        if let Some(known) = self.read.0.get(&function.start) {
            return known.clone();
        }
        let parts = self.code.text(function);
        let is_start = |address| self.code.starting_at(address).is_some();
        let mut all = Leads::default();
        for (start, text) in &parts {
            let Leads { calls, jumps, has_pointers } = scan::leads(self.machine, text, *start, is_start);
            all.has_pointers |= has_pointers || calls.iter().chain(&jumps).any(|to| self.is_thunk(*to));
            all.calls.extend(calls);
            all.jumps.extend(jumps);
        }
        // A tracer that has it already is called at its start.
        let is_other = |address| {
            let called = self.code.starting_at(address);
            called.is_some_and(|called| !called.name.text().contains("ftrace"))
        };
        let is_traceable = parts.first().is_some_and(|(start, text)| {
            *start == function.start && scan::is_traceable(self.machine, text, *start, is_other)
        });
        self.read.0.insert(function.start, (all.clone(), is_traceable));
        (all, is_traceable)
    }

    /// Whether this is a thunk for calls through pointers: `__x86_indirect_thunk_rax`, which has several names.
    fn is_thunk(&self, address: u64) -> bool {
        let called = self.code.starting_at(address);
        called.is_some_and(|called| called.name.text().contains("x86_indirect"))
    }

    /// Whether a function frees packets so that its own return is the place of the drop: a probe there would hide it from
    /// every tracer of this host.
    fn frees(&mut self, function: &Function, jumps: usize) -> bool {
        if frees(&function.name.text()) {
            return true;
        }
        if jumps == 0 {
            return false;
        }
        let (leads, _) = self.read(function);
        leads.jumps.iter().any(|&address| {
            let next = self.code.starting_at(address);
            next.is_some_and(|next| self.frees(&next, jumps - 1))
        })
    }
}

/// Whether a function frees packets, or ends with freeing them.
fn frees(name: &str) -> bool {
    const PARTS: [&str; 10] = [
        "kfree_skb",
        "consume_skb",
        "skb_reason_drop",
        "skb_drop",
        "skb_release",
        "skb_free",
        "skb_queue_purge",
        "skb_rbtree_purge",
        "tcp_drop",
        "free_skb",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

/// Whether a function has nothing to do with what becomes of a packet: locks, memory, time, printing.
fn is_aside(name: &str) -> bool {
    const STARTS: [&str; 64] = [
        "__alloc",
        "__bitmap",
        "__cond_resched",
        "__fentry",
        "__free_pages",
        "__get_free",
        "__init_wait",
        "__kmalloc",
        "__kmem_cache",
        "__list_",
        "__local_bh",
        "__mod_timer",
        "__mutex",
        "__page",
        "__printk",
        "__rcu",
        "__slab",
        "__stack_chk",
        "__sw_hweight",
        "__trace",
        "__traceiter",
        "__ubsan",
        "__wake",
        "__warn",
        "__x86_",
        "_find_",
        "_printk",
        "_raw_",
        "alloc_pages",
        "bpf_trace",
        "call_rcu",
        "ftrace",
        "debug",
        "del_timer",
        "down_",
        "dump_",
        "finish_wait",
        "fortify",
        "get_random",
        "irq",
        "jiffies",
        "kasan",
        "kfree",
        "kmalloc",
        "kmem",
        "krealloc",
        "ktime",
        "kvfree",
        "kvmalloc",
        "local_bh",
        "lock_",
        "mem_cgroup",
        "memcpy",
        "memset",
        "mod_timer",
        "mutex",
        "perf_",
        "preempt",
        "printk",
        "queue_work",
        "rcu_",
        "refcount",
        "schedule",
        "up_",
    ];
    let start = name.trim_start_matches("__pfx_");
    STARTS.iter().any(|prefix| start.starts_with(prefix))
        || ["x86_indirect", "ratelimit", "_lock_irq", "csum_partial", "trampoline", "panic", "wake_up"]
            .iter()
            .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel in which each function starts with room for a tracer, unless it is called `notrace`.
    struct Kernel(Vec<(&'static str, Vec<(u8, &'static str)>)>);

    const CALL: u8 = 0xe8;
    const JUMP: u8 = 0xe9;

    impl Kernel {
        fn address(&self, name: &str) -> u64 {
            0x1000 + 0x100 * self.0.iter().position(|(known, _)| *known == name).expect(name) as u64
        }

        fn function(&self, name: &str) -> Function {
            self.starting_at(self.address(name)).expect("a function")
        }

        fn plan(&mut self, roots: &[&str], depth: usize) -> Plan {
            let roots: Vec<_> = roots.iter().map(|name| self.function(name)).collect();
            let wanted =
                Wanted { candidates: roots, most_roots: 3, most: MOST_FUNCTIONS, depth, ..Wanted::default() };
            Plan::new(Machine::X86, &wanted, self, &mut Read::default())
        }
    }

    impl Code for Kernel {
        fn starting_at(&self, address: u64) -> Option<Function> {
            let number = usize::try_from(address.checked_sub(0x1000)? / 0x100).ok()?;
            let (name, _) = self.0.get(number).filter(|_| address.is_multiple_of(0x100))?;
            Some(Function { start: address, name: (*name).into(), module: "kernel".into() })
        }

        fn text(&mut self, function: &Function) -> Vec<(u64, Vec<u8>)> {
            let (name, branches) = &self.0[usize::try_from((function.start - 0x1000) / 0x100).unwrap()];
            let mut text = if *name == "notrace" { vec![0x90] } else { vec![0x0f, 0x1f, 0x44, 0, 0] };
            for (kind, to) in branches {
                let behind = function.start + text.len() as u64 + 5;
                let distance = i32::try_from(self.address(to).cast_signed() - behind.cast_signed()).unwrap();
                text.push(*kind);
                text.extend(distance.to_le_bytes());
            }
            vec![(function.start, text)]
        }

        fn returns_nothing(&mut self, function: &Function) -> bool {
            function.name.text().starts_with("void_")
        }
    }

    fn names(functions: &[Function]) -> Vec<String> {
        functions.iter().map(|function| function.name.to_string()).collect()
    }

    fn kernel() -> Kernel {
        Kernel(vec![
            ("ip_rcv", vec![(CALL, "ip_rcv_core"), (CALL, "finish.constprop.0"), (CALL, "drops")]),
            ("ip_rcv_core", vec![(CALL, "_raw_spin_lock"), (CALL, "sk_skb_reason_drop")]),
            ("finish.constprop.0", vec![(CALL, "route"), (CALL, "notrace"), (CALL, "sk_skb_reason_drop")]),
            ("route", vec![(CALL, "lookup"), (JUMP, "tail")]),
            ("lookup", vec![(CALL, "finish.constprop.0")]),
            ("tail", vec![]),
            ("drops", vec![(JUMP, "drops_too"), (CALL, "lookup")]),
            ("drops_too", vec![(JUMP, "sk_skb_reason_drop")]),
            ("sk_skb_reason_drop", vec![]),
            ("notrace", vec![(CALL, "behind")]),
            ("behind", vec![]),
            ("_raw_spin_lock", vec![]),
        ])
    }

    #[test]
    fn what_roots_call_is_followed_as_far_as_the_depth() {
        let plan = kernel().plan(&["finish.constprop.0", "ip_rcv"], 1);
        assert_eq!(names(&plan.functions), ["finish.constprop.0", "ip_rcv", "route", "ip_rcv_core"]);
        assert_eq!((plan.roots, plan.left_out), (2, 0));
        let plan = kernel().plan(&["finish.constprop.0", "ip_rcv"], 3);
        let deeper = ["finish.constprop.0", "ip_rcv", "route", "ip_rcv_core", "lookup", "tail", "behind"];
        let mut found = names(&plan.functions);
        found.sort_unstable();
        let mut deeper = deeper.map(str::to_owned);
        deeper.sort_unstable();
        assert_eq!(found, deeper);
    }

    /// Neither what frees packets, nor what ends with a jump there: the place of the drop is where these return to.
    #[test]
    fn nothing_that_frees_packets_is_followed() {
        for root in ["sk_skb_reason_drop", "drops", "drops_too"] {
            let plan = kernel().plan(&[root], 0);
            assert_eq!(names(&plan.functions), [""; 0]);
            assert_eq!(names(&plan.unfit), [root]);
        }
        for name in ["kfree_skb_list_reason", "__kfree_skb", "dev_kfree_skb_any_reason", "napi_consume_skb"] {
            assert!(frees(name), "{name}");
        }
        assert!(!frees("ip_rcv") && !frees("skb_clone"));
    }

    #[test]
    fn functions_that_pointers_lead_to_are_followed_once() {
        let mut kernel = Kernel(vec![
            ("slow", vec![(CALL, "__pi___x86_indirect_thunk_rax"), (CALL, "sk_skb_reason_drop")]),
            ("__pi___x86_indirect_thunk_rax", vec![]),
            ("hook", vec![(CALL, "lookup")]),
            ("lookup", vec![]),
            ("other_hook", vec![]),
            ("kfree_skb", vec![]),
        ]);
        kernel.0.push(("sk_skb_reason_drop", vec![]));
        let function = |name| kernel.function(name);
        let mut wanted = Wanted {
            candidates: vec![function("slow")],
            most_roots: 3,
            most: MOST_FUNCTIONS,
            depth: 2,
            ..Wanted::default()
        };
        let others = ["slow", "hook", "other_hook", "kfree_skb"].map(function).to_vec();
        let (slow, hook) = (function("slow").start, function("hook"));
        let plan = |wanted: &Wanted, kernel: &mut Kernel| {
            Plan::new(Machine::X86, wanted, kernel, &mut Read::default())
        };
        let direct = plan(&wanted, &mut kernel);
        assert_eq!((direct.functions.len(), direct.reach(slow)), (1, Some(Reach::Named)));
        assert_eq!(direct.reach(hook.start), None);
        wanted.others = others;
        let wide = plan(&wanted, &mut kernel);
        assert_eq!(names(&wide.functions), ["slow", "hook", "other_hook"]);
        assert_eq!((wide.reach(slow), wide.reach(hook.start)), (Some(Reach::Whole), Some(Reach::Itself)));
        wanted.below = vec![hook.clone()];
        let deep = plan(&wanted, &mut kernel);
        assert_eq!(names(&deep.functions), ["slow", "hook", "lookup", "other_hook"]);
        assert_eq!((deep.roots, deep.reach(hook.start)), (1, Some(Reach::Whole)));
        let (slow, hooks) =
            (kernel.function("slow"), ["hook", "other_hook"].map(|name| kernel.function(name)));
        let mut join = |plan: Plan, more| {
            plan.joined((Machine::X86, &slow), (&hooks, more), &mut kernel, &mut Read::default())
        };
        let joined = join(direct, 1);
        assert_eq!(
            (names(&joined.functions), joined.reach(slow.start)),
            (names(&wide.functions[..2]), Some(Reach::Named))
        );
        let joined = join(joined, 1);
        assert_eq!((joined.functions, joined.reach.first()), (wide.functions, Some(&Reach::Whole)));
    }

    /// Nothing that these call can refuse a packet, unless it was dropped in them.
    #[test]
    fn what_functions_call_that_return_nothing_is_not_followed() {
        let mut kernel = Kernel(vec![
            ("void_root", vec![(CALL, "void_send"), (CALL, "route")]),
            ("void_send", vec![(CALL, "output"), (CALL, "route")]),
            ("route", vec![(CALL, "lookup")]),
            ("output", vec![]),
            ("lookup", vec![]),
        ]);
        let candidates = vec![kernel.function("void_root")];
        let mut wanted =
            Wanted { candidates, most_roots: 3, most: MOST_FUNCTIONS, depth: 5, ..Wanted::default() };
        let plan = |wanted: &Wanted, kernel: &mut Kernel| {
            names(&Plan::new(Machine::X86, wanted, kernel, &mut Read::default()).functions)
        };
        let first = ["void_root", "void_send", "route"];
        wanted.way.insert(kernel.address("route"));
        assert_eq!(plan(&wanted, &mut kernel), [&first[..], &["lookup"]].concat());
        // It may have ended with a jump to the function that drops.
        for on_way in [Some("void_send"), Some("void_root"), None] {
            wanted.way = on_way.map(|name| kernel.address(name)).into_iter().collect();
            assert_eq!(
                plan(&wanted, &mut kernel),
                [&first[..], &["output", "lookup"]].concat(),
                "{on_way:?}"
            );
        }
    }

    /// Who calls a function that found no room is not followed as a whole; with more room what is there keeps its number.
    #[test]
    fn what_finds_no_room_is_followed_later() {
        let mut kernel = kernel();
        let candidates = vec![kernel.function("finish.constprop.0"), kernel.function("ip_rcv")];
        let wanted = Wanted { candidates, most_roots: 3, most: 4, depth: 3, ..Wanted::default() };
        let mut read = Read::default();
        let plan = Plan::new(Machine::X86, &wanted, &mut kernel, &mut read);
        let first = ["finish.constprop.0", "ip_rcv", "route", "ip_rcv_core"];
        assert_eq!(names(&plan.functions), first);
        let reach = |plan: &Plan, name: &str, kernel: &Kernel| plan.reach(kernel.address(name));
        assert_eq!(reach(&plan, "route", &kernel), Some(Reach::Itself));
        assert_eq!(reach(&plan, "ip_rcv_core", &kernel), Some(Reach::Whole));
        let route = kernel.function("route");
        let deeper = plan.clone().deepened((Machine::X86, &route), (1, 1), &mut kernel, &mut read);
        assert_eq!(names(&deeper.functions), [&first[..], &["lookup"]].concat());
        assert_eq!(reach(&deeper, "route", &kernel), Some(Reach::Itself));
        let deepest = deeper.deepened((Machine::X86, &route), (1, 9), &mut kernel, &mut read);
        assert_eq!(names(&deepest.functions), [&first[..], &["lookup", "tail"]].concat());
        assert_eq!((reach(&deepest, "route", &kernel), deepest.roots), (Some(Reach::Whole), 2));
    }

    #[test]
    fn a_cookie_has_number_argument_and_root() {
        let plan = kernel().plan(&["finish.constprop.0", "ip_rcv"], 1);
        let second = |function: &Function| (function.name == *"ip_rcv").then_some(2);
        let cookies: Vec<_> = plan.cookies(second).into_iter().map(|(_, cookie)| cookie).collect();
        assert_eq!(cookies, [0x0100_0000, 0x0102_0001, 2, 3]);
    }

    #[test]
    fn names_are_those_of_the_source() {
        let kernel = kernel();
        let function = kernel.function("finish.constprop.0");
        assert_eq!(function.source_name(), "finish");
        assert!(function.is_changed() && !kernel.function("route").is_changed());
    }
}
