//! The live page in a real browser, while packets are dropped.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use dropwatch_testing::skip;
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use serde_json::Value;

use super::check::DROPS;
use crate::{
    Test,
    support::{
        self,
        browser::{Browser, CHROMIUM},
        frames,
        inject::wire::Wire,
        net::Net,
        watch::Watch,
    },
};

/// All of them, none of which depends on the kernel: guests have no browser.
pub const TESTS: &[Test] = &[
    ("page::a_browser_shows_rows_and_hostile_names_are_text", in_a_browser),
    ("page::the_examples_use_metrics_that_are_served", metrics_of_the_examples),
];

/// What a namespace is called, and a process: markup that would act, were it markup.
const NAMESPACE: &str = "<img src=x onerror=document.title='owned'>";
const PROCESS: &str = "<img src=x id=p";
const DROPPED: u64 = 23;
/// An ethertype for experiments, which nothing receives.
const UNHANDLED: u16 = 0x88b5;

/// Where the picture for the documentation goes, if this program is to take it.
pub fn picture() -> Option<PathBuf> {
    std::env::var_os("DROPWATCH_PICTURE").map(PathBuf::from)
}

/// A port that is free.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

fn serve(address: SocketAddr, net: &Net, by: &str) -> Watch {
    let (address, filter) = (address.to_string(), format!("netns {}", net.inum()));
    Watch::start(&["serve", "--listen", &address, "-i", "200ms", "-f", &filter, "-b", by])
}

/// The body of what is served at a path.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

/// Drops datagrams in a process of this name.
fn drop_as(net: &Net, name: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join(name);
    symlink(std::env::current_exe().expect("this program"), &program).expect("another name of it");
    let status = net.run(|| Command::new(&program).env(DROPS, DROPPED.to_string()).status());
    assert!(status.expect("it starts").success());
}

fn in_a_browser() {
    if Command::new(CHROMIUM).arg("--version").output().is_err() {
        return skip("there is no chromium");
    }
    let wire = Wire::new();
    let net = &wire.b;
    let _name = net.name(NAMESPACE);
    // Packets that leave are still their socket's, and it is known which process has that.
    net.words("tc qdisc add dev lo clsact");
    let shoot = ["filter", "add", "dev", "lo", "egress", "bpf", "da", "bytecode", "1,6 0 0 2,"];
    net.command("tc", &shoot);
    let address = free();
    let by = "class,reason,function,process,netns";
    let serving = serve(address, net, by);
    let mut browser = Browser::start(1000, 700);
    browser.open(&format!("http://{address}/"));
    browser.once("document.getElementById('state').dataset.state === 'live'");
    drop_as(net, PROCESS);
    shown_as_text(&mut browser);
    explained(&mut browser);
    sorted_by_class(&mut browser, &wire);
    fits_a_phone(&mut browser);
    assert_eq!(
        browser.complaints, [""; 0],
        "neither an error of its script nor anything that its policy forbids"
    );
    forbidden(&mut browser);
    stale_and_live_again(&mut browser, serving, || serve(address, net, by));
}

/// The row has every drop, and the names are letters.
fn shown_as_text(browser: &mut Browser) {
    let row = browser.once("[...document.querySelectorAll('#lost tr')].map((row) => [row.querySelector('.names').textContent, row.lastChild.textContent])[0]");
    let names = row[0].as_str().expect("names");
    assert!(names.contains(NAMESPACE) && names.contains(PROCESS), "{names}");
    assert!(names.contains("TC_EGRESS"), "{names}");
    let total = "[...document.querySelectorAll('#lost tr')].map((row) => row.lastChild.textContent).join()";
    browser.once(&format!("{total} === '{DROPPED}' && {total}"));
    assert_eq!(
        browser.evaluate("document.images.length + document.querySelectorAll('.names bdi *, #p').length"),
        0
    );
    let others = "document.getElementById('refused').textContent";
    assert_eq!(browser.evaluate(others), "", "nothing else was dropped");
    assert_eq!(browser.evaluate("document.getElementById('total').textContent"), DROPPED.to_string());
    assert_eq!(browser.complaints, [""; 0]);
}

/// A click says what `explain` says.
fn explained(browser: &mut Browser) {
    let function = browser.evaluate("document.querySelector('#lost [title=function]').textContent");
    let name = format!("TC_EGRESS@{}", function.as_str().expect("a name"));
    let said = Command::new(support::dropwatch()).args(["explain", "-o", "json", &name]).output();
    let entry: Value = serde_json::from_slice(&said.expect("dropwatch runs").stdout).expect("an entry");
    let title = browser.evaluate("document.querySelector('#lost button span').textContent");
    assert_eq!(title, entry["title"]);
    browser.evaluate("document.querySelector('#lost button').click()");
    let meaning = browser.once("document.querySelector('#lost .detail p')?.textContent");
    assert_eq!(meaning, entry["meaning"]);
    let check = browser.evaluate("document.querySelector('#lost .detail code').nextSibling.textContent");
    assert_eq!(check, format!(": {}", entry["check"][0]["shows"].as_str().expect("text")));
    browser.evaluate("document.querySelector('#lost button').click()");
    assert_eq!(browser.evaluate("document.querySelectorAll('.detail').length"), 0);
}

/// More of what is refused and of what is harmless changes nothing of what comes first, and harmless rows are folded.
fn sorted_by_class(browser: &mut Browser, wire: &Wire) {
    const LLDP: u16 = 0x88cc;
    wire.deliver_copies(UNHANDLED, &[0; 46], 2 * usize::try_from(DROPPED).expect("a few"));
    let group = frames::frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], wire.a.hardware_address("va"), LLDP, &[0; 46]);
    wire.deliver(std::iter::repeat_n(group.as_slice(), 400));
    wire.b.words("tc qdisc del dev lo clsact");
    wire.b.drop_datagrams(300);
    let classes = "[...document.querySelectorAll('tbody')].filter((part) => part.querySelector('tr .count')) \
                   .map((part) => part.id).join()";
    browser.once(&format!("{classes} === 'lost,refused,harmless' && {classes}"));
    let lost = "[...document.querySelectorAll('#lost tr')].map((row) => Number(row.lastChild.textContent))";
    let lost =
        browser.once(&format!("{lost}.reduce((sum, drops) => sum + drops) === {} && {lost}", 3 * DROPPED));
    let lost: Vec<_> = lost.as_array().expect("rows").iter().map(Value::as_u64).collect();
    assert!(lost.len() > 1 && lost.is_sorted_by(|one, next| one >= next), "{lost:?}");
    let is_seen = "document.querySelector('#harmless tr').offsetParent !== null";
    assert_eq!(browser.evaluate(is_seen), false, "harmless rows are folded");
    let fold = "document.getElementById('unfold').textContent";
    browser.once(&format!("/^4[0-9]{{2}} harmless/.test({fold})"));
    let order =
        "['lost', 'refused', 'fold'].map((id) => document.getElementById(id).getBoundingClientRect().top)";
    let tops: Vec<_> =
        browser.evaluate(order).as_array().expect("places").iter().map(Value::as_f64).collect();
    assert!(tops.is_sorted() && tops[0] < tops[1] && tops[1] < tops[2], "{tops:?}");
    browser.evaluate("document.getElementById('unfold').click()");
    assert_eq!(browser.evaluate(is_seen), true, "a click shows them");
}

/// All of it within the width of a small phone, however long the names are, and a row's meaning as well.
fn fits_a_phone(browser: &mut Browser) {
    browser.resize(360, 700, true);
    browser.evaluate("document.querySelector('#lost button').click()");
    browser.once("document.querySelector('#lost .detail p')");
    let beyond = "[...document.querySelectorAll('body *')].filter((it) => it.getBoundingClientRect().right > 360.5) \
                  .map((it) => it.outerHTML.slice(0, 200))";
    assert_eq!(browser.evaluate(beyond), serde_json::json!([]));
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 360);
    browser.resize(1000, 700, false);
}

/// Were a name markup all the same, the policy would not let it act.
fn forbidden(browser: &mut Browser) {
    let inject = format!(
        "(() => {{ try {{ document.body.insertAdjacentHTML('beforeend', \"{NAMESPACE}\"); return 'inserted'; }} \
         catch (error) {{ return error.name; }} }})()"
    );
    assert_eq!(browser.evaluate(&inject), "TypeError");
    let foreign = "new Promise((done) => { \
                  document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective)); \
                  const made = document.createElement('img'); made.src = 'http://192.0.2.1/'; document.body.append(made); })";
    assert_eq!(browser.evaluate(foreign), "img-src");
    assert_eq!(browser.evaluate("document.title"), "dropwatch");
}

/// The page says that it is out of date, and goes on by itself with a new run, which has counted nothing.
fn stale_and_live_again(browser: &mut Browser, serving: Watch, again: impl FnOnce() -> Watch) {
    serving.signal(Signal::SIGINT);
    assert!(serving.wait().status.success());
    let text = browser.once("document.getElementById('state').dataset.state === 'stale' && document.getElementById('state').textContent");
    assert!(text.as_str().is_some_and(|text| text.starts_with("stale: the last report came")), "{text}");
    let _serving = again();
    browser.once("document.getElementById('state').dataset.state === 'live' && document.getElementById('total').textContent === '0'");
    assert_eq!(browser.evaluate("document.querySelectorAll('#lost tr').length"), 0);
}

/// A page with drops of all classes of the last minute, one of them explained.
pub fn take(picture: &Path) {
    const STEP: Duration = Duration::from_millis(200);
    const STEPS: u32 = 280;
    let net = Net::new();
    net.words("nft add table ip filter");
    net.command("nft", &["add chain ip filter input { type filter hook input priority 0 ; }"]);
    net.words("nft add rule ip filter input udp dport 53 drop");
    let address = free();
    let _serving = serve(address, &net, "class,reason,function");
    let mut browser = Browser::start(800, 640);
    browser.open(&format!("http://{address}/"));
    net.run(|| {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut slow = slow_reader();
        let send = |count: u32, port: u16| {
            // What an earlier datagram was answered is no error of this one.
            (0..count).for_each(|_| drop(sender.send_to(&[0; 400], (Ipv4Addr::LOCALHOST, port))));
        };
        for step in 0..STEPS {
            send(3 + step % 5, 9);
            send(if step % 90 > 60 { 10 + step % 7 } else { step % 3 }, 53);
            if step % 50 == 0 {
                slow = slow_reader();
            }
            send(if step % 50 < 8 { 9 } else { 0 }, slow.local_addr().expect("its address").port());
            thread::sleep(STEP);
        }
        browser.evaluate("document.querySelector('#refused button').click()");
        send(8, 9);
        send(5, 53);
        browser.once("document.querySelector('#refused .detail p') && !document.getElementById('rate-lost').textContent.startsWith('0')");
        fs::write(picture, browser.picture()).expect("the picture is written");
    });
}

/// A socket with room for a few datagrams, which is never read.
fn slow_reader() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    setsockopt(&socket, sockopt::RcvBuf, &4096).expect("its size");
    socket
}

/// Words of a text that could be metrics of this program.
fn words(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| word.starts_with("dropwatch_") || word.starts_with("process_"));
    ours.filter(|word| {
        word.ends_with("_total")
            || word.ends_with("_seconds")
            || word.contains("series")
            || word.ends_with("_info")
    })
    .collect()
}

/// Rules, alerts, the dashboard and the documentation name no metric that there is not.
fn metrics_of_the_examples() {
    let net = Net::new();
    let address = free();
    let _serving = serve(address, &net, "class,reason,function");
    net.drop_datagrams(3);
    let start = Instant::now();
    let served = loop {
        let served = get(address, "/metrics");
        if served.contains("dropwatch_drops_total{") {
            break served;
        }
        assert!(start.elapsed() < support::PATIENCE, "{served}");
        thread::sleep(Duration::from_millis(20));
    };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let files = [
        "examples/prometheus/fleet.rules.yml",
        "examples/prometheus/alerts.rules.yml",
        "examples/grafana/dropwatch.json",
        "docs/fleet.md",
    ];
    for file in files {
        let text = fs::read_to_string(repository.join(file)).expect(file);
        let used = words(&text);
        assert!(!used.is_empty(), "{file}");
        for metric in used {
            let family =
                metric.strip_suffix("_total").or_else(|| metric.strip_suffix("_info")).unwrap_or(metric);
            let is_served = served
                .lines()
                .filter_map(|line| line.strip_prefix("# TYPE "))
                .any(|line| line.split(' ').next().is_some_and(|name| name == metric || name == family));
            assert!(is_served, "{file} uses {metric}: {served}");
        }
    }
}
