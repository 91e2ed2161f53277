//! Every place that frees packets in a distribution's kernel and modules, against `addr2line -i`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use super::{DebugFiles, SourceLines, is_wrapper};
use crate::model::location::{Location, Symbol};

const SLIDE: u64 = 0x1e00_0000;
const MODULE: u64 = 0xffff_ffff_c020_0000;
/// Those with the most such places, and tunnels.
const MODULES: [&str; 6] = ["bridge", "gre", "ip_gre", "nf_conntrack", "openvswitch", "vxlan"];
/// What reports a drop as that of its caller.
const FREEING: [&str; 9] = [
    "__kfree_skb",
    "dev_kfree_skb_any_reason",
    "dev_kfree_skb_irq_reason",
    "kfree_skb",
    "kfree_skb_list_reason",
    "kfree_skb_reason",
    "sk_skb_reason_drop",
    "skb_queue_purge_reason",
    "tcp_drop_reason",
];

/// A call that frees a packet.
#[derive(Debug)]
struct Site {
    section: String,
    function: String,
    start: u64,
    /// Where the next function starts, if that is known.
    end: Option<u64>,
    call: u64,
}

impl Site {
    /// The call returns to the byte after its five.
    fn location(&self, slide: u64, module: &str) -> Location {
        let address = self.call + 5;
        let symbol = Symbol {
            name: self.function.as_str().into(),
            offset: address - self.start,
            size: self.end.map(|end| end - self.start),
            module: module.into(),
        };
        Location { address: address + slide, symbol: Some(symbol) }
    }
}

fn output(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output().expect(program);
    assert!(output.status.success(), "{program} {}: {output:?}", file.display());
    String::from_utf8(output.stdout).expect("text")
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn sites(file: &Path) -> Vec<Site> {
    let listing = output("objdump", &["-dr", "--no-show-raw-insn"], file);
    let (mut sites, mut section) = (Vec::<Site>::new(), "");
    let (mut function, mut call, mut open) = (("", 0), None, 0);
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix("Disassembly of section ") {
            section = name.trim_end_matches(':');
            (call, open) = (None, sites.len());
        } else if let Some((start, name)) = line.split_once(" <").filter(|_| line.ends_with(">:")) {
            function = (name.trim_end_matches(">:"), hex(start).expect("an address"));
            sites[open..].iter_mut().for_each(|site| site.end = Some(function.1));
            (call, open) = (None, sites.len());
        } else if let Some((address, rest)) = line.trim_start().split_once(':') {
            let (name, is_relocation) = match rest.trim_start().split_once([' ', '\t']) {
                Some(("R_X86_64_PLT32" | "R_X86_64_PC32", name)) => (name.trim_end_matches("-0x4"), true),
                Some(("call", to)) => {
                    call = hex(address);
                    (to.split_once('<').map_or("", |(_, name)| name.trim_end_matches('>')), false)
                }
                _ => {
                    call = None;
                    continue;
                }
            };
            if let Some(call) = call.filter(|_| FREEING.contains(&name.trim())) {
                let (section, (name, start)) = (section.to_owned(), function);
                sites.push(Site { section, function: name.to_owned(), start, end: None, call });
            }
            call = call.filter(|_| !is_relocation);
        }
    }
    sites
}

/// File and line of each address: the innermost frame that is neither in a header nor a wrapper.
fn lines_of(file: &Path, section: Option<&str>, addresses: &[u64]) -> Vec<String> {
    let mut command = Command::new("addr2line");
    command.args(["-a", "-i", "-f", "-e"]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.args(section.map(|section| ["-j", section]).iter().flatten());
    let mut child = command.spawn().expect("addr2line");
    let mut stdin = child.stdin.take().expect("a pipe");
    let wanted = addresses.to_vec();
    let writer = thread::spawn(move || wanted.iter().try_for_each(|address| writeln!(stdin, "{address:#x}")));
    let output = child.wait_with_output().expect("addr2line");
    writer.join().expect("a thread").expect("a pipe");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut found = Vec::new();
    for group in text.split("\n0x") {
        let lines: Vec<_> = group.lines().skip(1).collect();
        let frames: Vec<_> = lines.chunks_exact(2).map(|frame| (frame[0], place(frame[1]))).collect();
        let own = frames.iter().find(|(name, place)| !is_in_header(place) && !is_wrapper(name));
        let own = own.or_else(|| frames.iter().find(|(name, _)| !is_wrapper(name))).or(frames.first());
        found.push(own.expect("a frame").1.to_owned());
    }
    assert_eq!(found.len(), addresses.len(), "{}", file.display());
    found
}

fn place(line: &str) -> &str {
    line.split(" (").next().unwrap_or(line)
}

fn is_in_header(place: &str) -> bool {
    place.rsplit_once(':').is_some_and(|(file, _)| has_extension(file, "h"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// How many sites agree, of how many; those that do not are printed.
fn agreed(lines: &mut SourceLines, sites: &[Site], expected: &[String], slide: u64, module: &str) -> usize {
    let agrees = |(site, expected): &(&Site, &String)| {
        let line = lines.line(&site.location(slide, module));
        let line = line.map_or_else(|| "none".to_owned(), |line| line.to_string());
        let is_same = expected.ends_with(&line);
        if !is_same {
            eprintln!(
                "{module} {}+{:#x}: {line}, addr2line: {expected}",
                site.function,
                site.call - site.start
            );
        }
        is_same
    };
    sites.iter().zip(expected).filter(agrees).count()
}

fn copy_section(file: &Path, section: &str, to: &Path) {
    fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
    let dump = format!("{section}={}", to.display());
    let status = Command::new("objcopy").arg("--dump-section").arg(dump).arg(file).arg("/dev/null").status();
    assert!(status.expect("objcopy").success());
}

/// A system that runs the kernel of an unpacked package, as far as files are looked for in it.
struct Package {
    root: TempDir,
    debug: PathBuf,
    release: String,
    /// Its modules, below their directory.
    modules: Vec<String>,
}

impl Package {
    fn open() -> Self {
        let package = env::var_os("DROPWATCH_DEBUG_PACKAGE").expect("where a package is unpacked");
        let debug = Path::new(&package).join("usr/lib/debug").canonicalize().expect("an unpacked package");
        let releases = fs::read_dir(debug.join("lib/modules")).expect("modules");
        let release = releases.map(|entry| entry.expect("an entry").file_name()).next().expect("a release");
        let release = release.into_string().expect("a name");
        let directory = debug.join("lib/modules").join(&release);
        let files = output("find", &[], &directory);
        let inside = files.lines().filter_map(|path| Path::new(path).strip_prefix(&directory).ok()?.to_str());
        let modules = inside.filter(|path| has_extension(path, "ko")).map(str::to_owned).collect();

        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("usr/lib")).expect("a directory");
        symlink(&debug, root.path().join("usr/lib/debug")).expect("a link");
        let package = Self { root, debug, release, modules };
        copy_section(&package.vmlinux(), ".notes", &package.root.path().join("sys/kernel/notes"));
        let list = package.root.path().join(format!("lib/modules/{}/modules.dep", package.release));
        fs::create_dir_all(list.parent().expect("a directory")).expect("a directory");
        fs::write(list, package.modules.join(":\n") + ":\n").expect("a list");
        package
    }

    fn vmlinux(&self) -> PathBuf {
        self.debug.join(format!("boot/vmlinux-{}", self.release))
    }

    /// The file of a module, which is loaded from now on.
    fn load(&self, module: &str) -> PathBuf {
        let mut fitting = self.modules.iter().filter(|file| file.ends_with(&format!("/{module}.ko")));
        let inside = fitting.next().expect(module);
        let file = self.debug.join("lib/modules").join(&self.release).join(inside);
        let notes = self.root.path().join(format!("sys/module/{module}/notes/.note.gnu.build-id"));
        copy_section(&file, ".note.gnu.build-id", &notes);
        file
    }

    fn lines(&self) -> SourceLines {
        let map = self.debug.join(format!("boot/System.map-{}", self.release));
        let map = fs::read_to_string(map).expect("a map");
        let stext = map.lines().find_map(|line| line.strip_suffix(" T _stext")).and_then(hex);
        let files = DebugFiles::in_root(self.root.path(), &self.release);
        SourceLines::open(files, stext.expect("_stext") + SLIDE).expect("the kernel's file")
    }
}

#[test]
fn every_place_that_frees_packets_has_the_line_of_addr2line() {
    let package = Package::open();
    let mut lines = package.lines();
    let mut counts = BTreeMap::new();
    let kernel = sites(&package.vmlinux());
    let calls: Vec<_> = kernel.iter().map(|site| site.call).collect();
    let expected = lines_of(&package.vmlinux(), None, &calls);
    let is_core = |place: &&String| place.contains("/net/") && !place.contains("/drivers/net/");
    let core = expected.iter().filter(is_core).count();
    counts.insert("kernel", (agreed(&mut lines, &kernel, &expected, SLIDE, "kernel"), kernel.len()));
    for module in MODULES {
        let file = package.load(module);
        let sites = sites(&file);
        assert!(!sites.is_empty(), "{module}");
        let line = |site: &Site| lines_of(&file, Some(&site.section), &[site.call]).remove(0);
        let expected: Vec<_> = sites.iter().map(line).collect();
        counts.insert(module, (agreed(&mut lines, &sites, &expected, MODULE, module), sites.len()));
    }
    eprintln!("{}: {counts:?} agree, {core} of the kernel's in net/", package.release);
    assert!(core > 500 && counts.values().all(|(agreed, of)| agreed == of), "{counts:?}");
}
