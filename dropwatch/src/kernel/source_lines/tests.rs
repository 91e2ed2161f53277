//! Against small kernels and modules that gcc and binutils build: they alone say where a call is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dropwatch_testing::skip;
use proptest::prelude::*;

use super::{
    DebugFiles, SourceLines,
    files::{build_id_of, hex},
    module,
};
use crate::model::location::{Location, Symbol};

const RELEASE: &str = "6.1.0-test";
const SLIDE: u64 = 0x1e00_0000;
const KERNEL_ID: &str = "0123456789abcdef0123456789abcdef01234567";
const MODULE_ID: &str = "89abcdef0123456789abcdef0123456789abcdef";

const HEADER: &str = "\
int sk_skb_reason_drop(void *skb);
static inline __attribute__((always_inline)) void kfree_skb(void *skb)
{
    sk_skb_reason_drop(skb);
}
";

/// Each function frees once, in the line of its own name in a comment.
const CORE: &str = "\
#include \"skbuff.h\"
int sink;
void _stext(void) { sink = 1; }
__attribute__((noipa)) int sk_skb_reason_drop(void *skb) { sink = 2; return sink; }
static inline __attribute__((always_inline)) void tcp_drop(void *skb)
{
    kfree_skb(skb);
}
static inline __attribute__((always_inline)) void route(void *skb)
{
    sink = 3;
    kfree_skb(skb); /* ip_route */
}
int ip_plain(void *skb)
{
    sk_skb_reason_drop(skb); /* ip_plain */
    return 1;
}
int ip_header(void *skb)
{
    kfree_skb(skb); /* ip_header */
    return 1;
}
int ip_wrapper(void *skb)
{
    sink = 4;
    tcp_drop(skb); /* ip_wrapper */
    return 1;
}
int ip_route(void *skb)
{
    route(skb);
    return 1;
}
";

const MAIN: &str = "\
int sk_skb_reason_drop(void *skb);
extern int sink;
void start_kernel(void) { sink = 5; }
";

/// Xen's note has the type of a build id, and stands in front of it.
const NOTES: &str = "\
.section .note.Xen, \"a\"
.long 4, 8, 3
.asciz \"Xen\"
.quad 0xffffffff80000000
";

const SCRIPT: &str = "\
SECTIONS {
    . = 0xffffffff81000000;
    .text : { *(.text .text.*) }
    .notes : { *(.note.Xen) *(.note.gnu.build-id) }
    .data : { *(.data .bss .rodata) }
    /DISCARD/ : { *(.note.gnu.property) *(.comment) }
}
";

/// Functions of two sections, which both start at address zero.
const MODULE: &str = "\
#include \"skbuff.h\"
__attribute__((section(\".init.text\"))) int gre_init(void *skb)
{
    kfree_skb(skb); /* gre_init */
    return 1;
}
static __attribute__((noinline)) int same(void *skb)
{
    kfree_skb(skb); /* same */
    return 1;
}
int gre_rcv(void *skb)
{
    kfree_skb(skb); /* gre_rcv */
    return same(skb);
}
";

/// A function of the same name as one of the other file, and much longer.
const MODULE_MORE: &str = "\
#include \"skbuff.h\"
volatile int counter;
static __attribute__((noinline)) int same(void *skb)
{
    counter = 1; counter = 2; counter = 3; counter = 4; counter = 5; counter = 6; counter = 7; counter = 8;
    counter = 1; counter = 2; counter = 3; counter = 4; counter = 5; counter = 6; counter = 7; counter = 8;
    kfree_skb(skb); /* long same */
    return 2;
}
int gre_other(void *skb)
{
    return same(skb) + 1;
}
";

/// A system with a kernel and a module, each built with debug information and running.
struct System {
    directory: tempfile::TempDir,
}

impl System {
    /// None without the tools.
    fn new() -> Option<Self> {
        let tools = ["addr2line", "gcc", "ld", "nm", "objcopy", "objdump"];
        let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
        if !tools.iter().all(is_there) {
            return None;
        }
        let system = Self { directory: tempfile::tempdir().unwrap() };
        system.build_kernel();
        system.build_module();
        Some(system)
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn build_kernel(&self) {
        self.write("tree/net/ipv4/skbuff.h", HEADER);
        self.write("tree/net/ipv4/ip_input.c", CORE);
        self.write("tree/init/main.c", MAIN);
        self.write("tree/notes.s", NOTES);
        self.write("tree/vmlinux.lds", SCRIPT);
        let root = self.root().display().to_string();
        run(&format!(
            "gcc -g -O1 -fno-pic -fno-pie -fcf-protection=none -c -o {root}/core.o {root}/tree/net/ipv4/ip_input.c"
        ));
        run(&format!("gcc -g -O1 -fno-pic -fno-pie -c -o {root}/main.o {root}/tree/init/main.c"));
        run(&format!("gcc -c -o {root}/notes.o {root}/tree/notes.s"));
        run(&format!(
            "ld -static --build-id=0x{KERNEL_ID} -T {root}/tree/vmlinux.lds -e _stext -o {root}/vmlinux \
             {root}/core.o {root}/main.o {root}/notes.o"
        ));
        self.copy_section("vmlinux", ".notes", "sys/kernel/notes");
    }

    fn build_module(&self) {
        self.write("tree/net/ipv4/gre.c", MODULE);
        self.write("tree/net/ipv4/more.c", MODULE_MORE);
        let root = self.root().display().to_string();
        for name in ["gre", "more"] {
            run(&format!(
                "gcc -g -O1 -fno-pic -fno-pie -fcf-protection=none -c -o {root}/{name}.o {root}/tree/net/ipv4/{name}.c"
            ));
        }
        run(&format!("ld -r --build-id=0x{MODULE_ID} -o {root}/gre-mod.ko {root}/gre.o {root}/more.o"));
        self.copy_section("gre-mod.ko", ".note.gnu.build-id", "sys/module/gre_mod/notes/.note.gnu.build-id");
        self.write(
            &format!("lib/modules/{RELEASE}/modules.dep"),
            "kernel/net/x.ko.xz:\nkernel/net/ipv4/gre-mod.ko.xz: kernel/net/x.ko.xz\n",
        );
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a file that was built where it is looked for.
    fn install(&self, file: &str, path: &str) -> PathBuf {
        let to = self.root().join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(self.root().join(file), &to).unwrap();
        to
    }

    fn copy_section(&self, file: &str, section: &str, to: &str) {
        let to = self.root().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let file = self.root().join(file);
        let (file, to) = (file.display(), to.display());
        run(&format!("objcopy --dump-section {section}={to} {file} /dev/null"));
    }

    /// Start and size of the functions of this name, by start.
    fn functions(&self, file: &str, name: &str) -> Vec<(u64, u64)> {
        let table = run(&format!("nm -nS {}", self.root().join(file).display()));
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let words = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let sized = words.filter(|words| words.len() == 4 && words[3] == name);
        sized.map(|words| (hex(words[0]), hex(words[1]))).collect()
    }

    /// Where the call that frees returns to in a function, as bytes from its start: what comes after the call.
    fn return_offset(&self, file: &str, section: &str, (start, size): (u64, u64)) -> u64 {
        let listing = run(&format!(
            "objdump -dr --no-show-raw-insn -j {section} --start-address={start:#x} --stop-address={:#x} {}",
            start + size,
            self.root().join(file).display()
        ));
        let mut lines = listing.lines();
        let is_call =
            |line: &str| line.split_whitespace().nth(1).is_some_and(|word| word == "call" || word == "bl");
        lines.find(|line| is_call(line)).unwrap();
        let after = lines.find(|line| line.contains(":\t") && !line.contains("R_")).unwrap();
        let address = u64::from_str_radix(after.trim().split(':').next().unwrap(), 16).unwrap();
        address - start
    }

    fn stext(&self) -> u64 {
        self.functions("vmlinux", "_stext")[0].0 + SLIDE
    }

    fn lines(&self) -> Option<SourceLines> {
        SourceLines::open(DebugFiles::in_root(self.root(), RELEASE), self.stext())
    }

    /// The location of the drop in a function of the kernel.
    fn kernel_drop(&self, name: &str) -> Location {
        let function = self.functions("vmlinux", name)[0];
        let offset = self.return_offset("vmlinux", ".text", function);
        location(function.0 + SLIDE + offset, name, offset, function.1, "kernel")
    }

    /// The location of the drop in a function of the module, which is loaded anywhere.
    fn module_drop(&self, name: &str, section: &str, which: usize) -> Location {
        let function = self.functions("gre-mod.ko", name)[which];
        let offset = self.return_offset("gre-mod.ko", section, function);
        let padded = function.1.next_multiple_of(16);
        location(0xffff_ffff_c020_0000 + function.0 + offset, name, offset, padded, "gre_mod")
    }
}

/// Runs a tool, to what it prints.
fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn location(address: u64, name: &str, offset: u64, size: u64, module: &str) -> Location {
    let symbol = Symbol { name: name.into(), offset, size: Some(size), module: module.into() };
    Location { address, symbol: Some(symbol) }
}

/// `FILE:LINE` of what is marked with a comment.
fn marked(file: &str, text: &str, comment: &str) -> String {
    let comment = format!("/* {comment} */");
    let line = text.lines().position(|line| line.contains(&comment)).unwrap() + 1;
    format!("{file}:{line}")
}

fn shown(lines: &mut SourceLines, location: &Location) -> String {
    lines.line(location).map_or_else(|| "-".to_owned(), |line| line.to_string())
}

/// The lines of all drops of the kernel are those of their calls.
fn check_kernel(system: &System) {
    let mut lines = system.lines().expect("the file is found");
    for name in ["ip_plain", "ip_header", "ip_wrapper", "ip_route"] {
        let expected = marked("net/ipv4/ip_input.c", CORE, name);
        assert_eq!(shown(&mut lines, &system.kernel_drop(name)), expected);
    }
}

/// The lines of all drops of the module, too.
fn check_module(system: &System) {
    let mut lines = system.lines().expect("the file is found");
    for (name, section, which, file, text, comment) in [
        ("gre_rcv", ".text", 0, "net/ipv4/gre.c", MODULE, "gre_rcv"),
        ("gre_init", ".init.text", 0, "net/ipv4/gre.c", MODULE, "gre_init"),
        ("same", ".text", 0, "net/ipv4/gre.c", MODULE, "same"),
        ("same", ".text", 1, "net/ipv4/more.c", MODULE_MORE, "long same"),
    ] {
        let location = system.module_drop(name, section, which);
        assert_eq!(shown(&mut lines, &location), marked(file, text, comment), "{location}");
    }
}

/// Xen's note is of the same type, and comes first.
#[test]
fn a_build_id_is_the_note_that_is_named_gnu() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    let notes = fs::read(system.root().join("sys/kernel/notes")).unwrap();
    assert_eq!(&notes[8..16], b"\x03\0\0\0Xen\0", "the kernel's first note is Xen's");
    let files = DebugFiles::in_root(system.root(), RELEASE);
    assert_eq!(hex(&files.kernel_build_id().unwrap()), KERNEL_ID);
    assert_eq!(hex(&files.module_build_id(&"gre_mod".into()).unwrap()), MODULE_ID);
    assert_eq!(hex(&build_id_of(&system.root().join("vmlinux")).unwrap()), KERNEL_ID);
    assert_eq!(hex(&build_id_of(&system.root().join("gre-mod.ko")).unwrap()), MODULE_ID);
    assert_eq!(files.module_build_id(&"../../kernel".into()), None);
}

#[test]
fn a_drop_in_the_kernel_has_the_line_of_its_call() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    system.install("vmlinux", &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
    check_kernel(&system);
    let mut lines = system.lines().unwrap();
    assert_eq!(shown(&mut lines, &Location { address: 0x1234, symbol: None }), "-");
    // What is not the address after a call is looked up as it is.
    let mut start = system.kernel_drop("ip_plain");
    start.symbol.as_mut().unwrap().offset = 0;
    let vmlinux = system.root().join("vmlinux");
    let oracle = run(&format!("addr2line -e {} {:#x}", vmlinux.display(), start.address - SLIDE));
    let found = shown(&mut lines, &start);
    assert!(oracle.trim().ends_with(&found), "{oracle}");
    assert_ne!(found, marked("net/ipv4/ip_input.c", CORE, "ip_plain"));
}

/// As packages of debug information have it, and as compilers write it with an option.
#[test]
fn separate_and_compressed_debug_information_is_read() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    let root = system.root().display().to_string();
    for option in ["--only-keep-debug", "--compress-debug-sections=zlib"] {
        let kernel = system.install("vmlinux", &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
        run(&format!("objcopy {option} {root}/vmlinux {}", kernel.display()));
        check_kernel(&system);
        let path = format!("usr/lib/debug/lib/modules/{RELEASE}/kernel/net/ipv4/gre-mod.ko");
        let module = system.install("gre-mod.ko", &path);
        run(&format!("objcopy {option} {root}/gre-mod.ko {}", module.display()));
        check_module(&system);
    }
}

#[test]
fn a_drop_in_a_module_has_the_line_of_its_call() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    system.install("vmlinux", &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
    let location = system.module_drop("gre_rcv", ".text", 0);
    assert_eq!(shown(&mut system.lines().unwrap(), &location), "-", "no file has it");
    system.install("gre-mod.ko", &format!("usr/lib/debug/.build-id/89/{}.debug", &MODULE_ID[2..]));
    check_module(&system);

    let mut lines = system.lines().unwrap();
    let mut beyond = location.clone();
    beyond.symbol.as_mut().unwrap().offset = 0x1000;
    assert_eq!(shown(&mut lines, &beyond), "-", "the function ends before");
    let mut same = system.module_drop("same", ".text", 0);
    same.symbol.as_mut().unwrap().size = None;
    assert_eq!(shown(&mut lines, &same), "-", "two functions have that name");
    // Loaded again from another file.
    system.write("sys/module/gre_mod/notes/.note.gnu.build-id", "\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0abcd");
    assert_eq!(shown(&mut lines, &location), "-", "it is another module now");
}

#[test]
fn files_are_found_where_distributions_put_them() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    let (first, rest) = KERNEL_ID.split_at(2);
    for path in [
        format!("usr/lib/debug/boot/vmlinux-{RELEASE}"),
        format!("usr/lib/debug/boot/vmlinux-{RELEASE}.debug"),
        format!("usr/lib/debug/lib/modules/{RELEASE}/vmlinux"),
        format!("usr/lib/debug/lib/modules/{RELEASE}/vmlinux.debug"),
        format!("usr/lib/debug/usr/lib/modules/{RELEASE}/vmlinux"),
        format!("usr/lib/debug/usr/lib/modules/{RELEASE}/vmlinux.debug"),
        format!("usr/lib/debug/.build-id/{first}/{rest}.debug"),
        format!("root/.cache/debuginfod_client/{KERNEL_ID}/debuginfo"),
        format!("lib/modules/{RELEASE}/build/vmlinux"),
        format!("usr/lib/modules/{RELEASE}/build/vmlinux"),
        format!("boot/vmlinux-{RELEASE}"),
    ] {
        assert!(system.lines().is_none(), "nothing is there yet");
        let installed = system.install("vmlinux", &path);
        assert!(system.lines().is_some(), "{path}");
        fs::remove_file(installed).unwrap();
    }
    system.install("vmlinux", &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
    for path in [
        format!("usr/lib/debug/lib/modules/{RELEASE}/kernel/net/ipv4/gre-mod.ko"),
        format!("usr/lib/debug/lib/modules/{RELEASE}/kernel/net/ipv4/gre-mod.ko.debug"),
        format!("usr/lib/debug/usr/lib/modules/{RELEASE}/kernel/net/ipv4/gre-mod.ko.debug"),
        format!("usr/lib/debug/.build-id/89/{}.debug", &MODULE_ID[2..]),
        format!("root/.cache/debuginfod_client/{MODULE_ID}/debuginfo"),
        format!("lib/modules/{RELEASE}/kernel/net/ipv4/gre-mod.ko"),
    ] {
        let installed = system.install("gre-mod.ko", &path);
        let mut lines = system.lines().unwrap();
        let location = system.module_drop("gre_rcv", ".text", 0);
        assert_eq!(shown(&mut lines, &location), marked("net/ipv4/gre.c", MODULE, "gre_rcv"), "{path}");
        fs::remove_file(installed).unwrap();
    }
}

#[test]
fn another_kernels_file_is_not_used() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    let path = format!("usr/lib/debug/boot/vmlinux-{RELEASE}");
    system.install("gre-mod.ko", &path);
    assert!(system.lines().is_none(), "it has another build id");
    system.write(&path, "no ELF file");
    assert!(system.lines().is_none());
    system.install("vmlinux", &path);
    assert!(system.lines().is_some());
    fs::remove_file(system.root().join("sys/kernel/notes")).unwrap();
    assert!(system.lines().is_none(), "what runs is not known, so nothing fits it");
}

#[test]
fn the_package_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = DebugFiles::in_root(directory.path(), RELEASE);
    let cure = |os_release: &str| {
        fs::create_dir_all(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/os-release"), os_release).unwrap();
        files.cure()
    };
    assert_eq!(cure("NAME=x\nID=debian\n"), "`apt install linux-image-6.1.0-test-dbg` brings it");
    assert_eq!(
        cure("ID=ubuntu\nID_LIKE=debian\n"),
        "`apt install linux-image-6.1.0-test-dbgsym` (from Ubuntu's archive of debug symbols) brings it"
    );
    assert_eq!(cure("ID=\"fedora\"\n"), "`dnf debuginfo-install kernel-core-6.1.0-test` brings it");
    assert_eq!(
        cure("ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\n"),
        "`dnf debuginfo-install kernel-core-6.1.0-test` brings it"
    );
    assert_eq!(cure("ID=arch\n"), "the distribution's package of debug information brings it");
    fs::create_dir_all(directory.path().join("sys/kernel")).unwrap();
    fs::write(directory.path().join("sys/kernel/notes"), b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd\0\0")
        .unwrap();
    assert_eq!(
        cure("ID=arch\n"),
        "`debuginfod-find debuginfo abcd` brings it where the distribution has a debuginfod"
    );
}

/// A file that is damaged is refused or has fewer lines, and never ends the program.
#[test]
fn a_damaged_module_is_no_panic() {
    let Some(system) = System::new() else { return skip("no gcc and binutils") };
    let whole = fs::read(system.root().join("gre-mod.ko")).unwrap();
    let damage = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..40);
    proptest!(|(damage in damage, length in 0..=whole.len())| {
        let mut file = whole.clone();
        for (at, byte) in damage {
            file[at] = byte;
        }
        let _ = module::lay_out(&file);
        file.truncate(length);
        let _ = module::lay_out(&file);
    });
}
