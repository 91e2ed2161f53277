//! What the running kernel has: its functions and reasons, by their names.

use std::{collections::HashSet, fs, sync::LazyLock};

use dropwatch::internals::{Btf, btf};
use memchr::{memchr_iter, memchr2, memmem};

/// Whether the kernel proper has a function. Others are inlined, or of other kernels.
pub fn has_function(name: &str) -> bool {
    /// Read once: it is megabytes, which take an emulated machine a while.
    static FUNCTIONS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(functions);
    FUNCTIONS.contains(name.as_bytes())
}

/// The functions of the kernel and of the modules that are loaded now, without what compilers append to the parts of one.
pub fn functions() -> HashSet<Vec<u8>> {
    /// Where types and names are: behind an address of sixteen digits, and a space after each.
    const TYPE: usize = 17;
    const NAME: usize = 19;
    let kallsyms = fs::read("/proc/kallsyms").expect("/proc/kallsyms");
    let mut start = 0;
    let line = |end: usize| &kallsyms[std::mem::replace(&mut start, end + 1)..end];
    let is_function = |line: &&[u8]| matches!(line[TYPE].to_ascii_lowercase(), b't' | b'w');
    let name = |line: &[u8]| {
        let end = memchr2(b'.', b'\t', &line[NAME..]).map_or(line.len(), |length| NAME + length);
        line[NAME..end].to_vec()
    };
    memchr_iter(b'\n', &kallsyms).map(line).filter(is_function).map(name).collect()
}

/// Whether the kernel's types name the reason.
pub fn has_reason(name: &str) -> bool {
    const PREFIX: &[u8] = b"\0SKB_DROP_REASON_";
    static REASONS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(|| {
        let types = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel's type information");
        let name = |at: usize| {
            let rest = &types[at + PREFIX.len()..];
            rest[..memchr::memchr(0, rest).expect("an end")].to_vec()
        };
        memmem::find_iter(&types, PREFIX).map(name).collect()
    });
    REASONS.contains(name.as_bytes())
}

/// What a drop's reason has to be called on a kernel that may be too old to know it: before 5.17, kernels give none.
pub fn reason_here(name: &'static str) -> Option<&'static str> {
    [name, "NOT_SPECIFIED"].into_iter().find(|name| has_reason(name))
}

/// Whether the kernel is older than this one: for what neither its types nor its symbols show.
pub fn is_before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().expect("a number"), numbers.next().expect("a second one")) < (major, minor)
}

/// Whether `skb:kfree_skb` says which socket a packet was for (Linux 6.11).
pub fn tells_socket() -> bool {
    static TELLS: LazyLock<bool> = LazyLock::new(|| {
        let bytes = btf::read_vmlinux().expect("the kernel's type information");
        let types = Btf::parse(&bytes).expect("the kernel's type information");
        types.tracepoint("kfree_skb").is_some_and(|found| found.arguments > 3)
    });
    *TELLS
}
