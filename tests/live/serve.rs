//! `serve`: what Prometheus itself reads of it, and clients that mean it harm.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::names::Wire;
use crate::support::{
    PATIENCE,
    inject::needs::{self, Need},
    net::{CLOSED, Net, flood_all},
    trial::trial,
    udp_receiver,
    watch::Watch,
};

/// Those with needs.
pub fn trials(can_run: bool) -> Vec<Trial> {
    type Body = fn();
    let tests: [(&str, &[Need], Body); 7] = [
        (
            "serve::prometheus_reads_every_drop_of_three_namespaces",
            &[needs::PROMETHEUS, needs::OPENSSL],
            prometheus,
        ),
        ("serve::a_thousand_clients_and_slow_ones_cost_no_drop_of_a_flood", &[], crowd),
        ("serve::its_end_is_one_for_its_clients_too", &[], end),
        ("serve::a_loopback_address_is_read_by_its_own_host_alone", &[], by_name),
        ("serve::certificates_are_renewed_while_it_runs", &[needs::OPENSSL], renewed),
        ("serve::a_renamed_interface_makes_no_counter_go_down", &[], renamed),
        ("serve::systemd_passes_a_socket_and_hears_of_it", &[needs::SOCKET_ACTIVATION], activated),
    ];
    let trials = tests.into_iter().map(|(name, needs, body)| {
        trial(name.to_owned(), needs, can_run, move || {
            body();
            Ok(())
        })
    });
    trials.collect()
}

/// A running `dropwatch serve`, and where it listens.
struct Exporter {
    watch: Watch,
    address: String,
}

impl Exporter {
    /// Serves the drops of namespaces.
    fn start(nets: &[&Net], more: &[&str]) -> Self {
        let filter: Vec<_> = nets.iter().map(|net| format!("netns {}", net.inum())).collect();
        let common = ["serve", "-l", "127.0.0.1:0", "-i", "100ms", "-f", &filter.join(" or ")];
        let watch = Watch::start(&[&common, more].concat());
        let mut address = None;
        wait_for("it says where it serves", || {
            let said = watch.said();
            let place = said.lines().find_map(|line| line.strip_prefix("Serving at "));
            address = place.map(str::to_owned);
            address.is_some()
        });
        Self { watch, address: address.expect("an address") }
    }

    /// Waits until a metric has this value, which it must not go beyond.
    fn await_value(&self, sample: &str, expected: u64) {
        wait_for(sample, || {
            let found = self.value(sample);
            assert!(found <= Some(expected), "{sample} is {found:?}, not {expected}");
            found == Some(expected)
        });
    }

    fn value(&self, sample: &str) -> Option<u64> {
        value(&get(&self.address, "/metrics"), sample)
    }
}

/// The value of a sample in a text.
fn value(text: &str, sample: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not so: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn get(address: &str, path: &str) -> String {
    get_by_name(address, address, path)
}

/// The same by another name of the host.
fn get_by_name(address: &str, name: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Every drop of this test.
fn refused() -> &'static str {
    "dropwatch_class_drops_total{class=\"refused\"}"
}

/// A process that ends with the test at the latest.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus with a configuration.
struct Prometheus {
    _child: Running,
    address: String,
}

impl Prometheus {
    fn start(directory: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let address = free.to_string();
        let at = |name: &str| directory.join(name).display().to_string();
        let child = Command::new("prometheus")
            .args([
                format!("--config.file={}", at("prometheus.yml")),
                format!("--storage.tsdb.path={}", at("data")),
                format!("--web.listen-address={address}"),
            ])
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).expect("a log"))
            .spawn()
            .expect("prometheus starts");
        let prometheus = Self { _child: Running(child), address };
        wait_for("prometheus answers", || TcpStream::connect(&prometheus.address).is_ok());
        wait_for("prometheus is ready", || get(&prometheus.address, "/-/ready").starts_with("HTTP/1.1 200"));
        prometheus
    }

    /// What its API answers.
    fn api(&self, path: &str) -> Value {
        let answer = get(&self.address, path);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let body = if head.contains("chunked") { unchunked(body) } else { body.to_owned() };
        let json: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].clone()
    }

    /// A query at a moment, or now.
    fn query(&self, query: &str, time: Option<f64>) -> Value {
        let encoded: String =
            query.bytes().flat_map(|byte| format!("%{byte:02x}").into_bytes()).map(char::from).collect();
        let time = time.map(|time| format!("&time={time}")).unwrap_or_default();
        self.api(&format!("/api/v1/query?query={encoded}{time}"))["result"].clone()
    }

    /// The one value of a query.
    fn number(&self, query: &str, time: Option<f64>) -> Option<f64> {
        let result = self.query(query, time);
        result[0]["value"][1].as_str().map(|text| text.parse().expect("a number"))
    }
}

/// The text of an answer in chunks.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        text.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    text
}

/// A certificate for 127.0.0.1, `NAME.pem`, and its key, `NAME.key`; signed by another one or by itself.
fn certificate(directory: &Path, name: &str, authority: Option<&str>) {
    let at = |name: &str, kind: &str| directory.join(format!("{name}.{kind}")).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-days", "2", "-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-keyout", &at(name, "key"), "-out", &at(name, "pem")]);
    if let Some(authority) = authority {
        openssl.args(["-CA", &at(authority, "pem"), "-CAkey", &at(authority, "key")]);
        openssl.args(["-addext", "basicConstraints=CA:FALSE"]);
    }
    let output = openssl.output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate, what clients' certificates must be signed with, and one user, whose password is `password`.
fn web_config(directory: &Path) -> String {
    certificate(directory, "server", None);
    certificate(directory, "authority", None);
    certificate(directory, "client", Some("authority"));
    // Of `password`, from bcrypt's own tests.
    let hash = "$2a$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
    let text = format!(
        "tls_server_config: {{cert_file: server.pem, key_file: server.key, min_version: TLS13, \
         client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.pem}}\n\
         basic_auth_users: {{prometheus: {hash}}}\n"
    );
    let file = directory.join("web.yml");
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}

/// Two hosts in the clear; a third with TLS, once as it must be, once each with a wrong password, without a certificate, and
/// in the clear; and a fourth by the name that the rules of the examples expect.
fn configure(directory: &Path, exporters: &[Exporter; 4]) {
    let [one, two, three, four] = exporters.each_ref().map(|exporter| &exporter.address);
    let secure = |name: &str, password: &str, certificate: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  tls_config: {{ca_file: server.pem{certificate}}}\n  \
             basic_auth: {{username: prometheus, password: {password}}}\n  \
             static_configs: [{{targets: ['{three}']}}]\n"
        )
    };
    let ours = ", cert_file: client.pem, key_file: client.key";
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: [rules.yml, fleet.rules.yml, alerts.rules.yml]\nscrape_configs:\n\
         - job_name: plain\n  static_configs: [{{targets: ['{one}', '{two}']}}]\n\
         - job_name: clear\n  static_configs: [{{targets: ['{three}']}}]\n\
         - job_name: dropwatch\n  static_configs: [{{targets: ['{four}']}}]\n{}{}{}",
        secure("secure", "password", ours),
        secure("wrong", "passwords", ours),
        secure("nameless", "password", "")
    );
    fs::write(directory.join("prometheus.yml"), text).expect("a file");
    let rule = "groups: [{name: test, rules: [{alert: Drops, expr: 'sum(increase(dropwatch_class_drops_total[1m])) > 60'}]}]";
    fs::write(directory.join("rules.yml"), rule).expect("a file");
    let examples =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join("examples/prometheus");
    for file in ["fleet.rules.yml", "alerts.rules.yml"] {
        fs::copy(examples.join(file), directory.join(file)).expect("a file of the examples");
    }
}

/// A drop for which there is no room is an alert of the examples, all of whose rules can be evaluated.
fn alerted_by_the_examples(prometheus: &Prometheus, net: &Net) {
    let seen = "dropwatch_lost_total{job='dropwatch',cause='map_full'}";
    wait_for("the fourth is read", || prometheus.number(seen, None) == Some(0.0));
    net.drop_datagrams(3);
    // Another place.
    net.run(|| TcpStream::connect(("127.0.0.1", CLOSED)).expect_err("there is no listener"));
    let fired = "ALERTS{alertname='DropsNotCounted',alertstate='firing',job='dropwatch',cause='map_full'}";
    wait_for(fired, || prometheus.number(fired, None) == Some(1.0));
    wait_for("all rules have been evaluated", || {
        let groups = prometheus.api("/api/v1/rules");
        let rules: Vec<_> = groups["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("rules"))
            .collect();
        assert!(rules.len() > 10 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:#?}");
        rules.iter().all(|rule| rule["health"] == "ok")
    });
}

fn prometheus() {
    const DROPS: [u64; 3] = [11, 22, 33];
    let directory = TempDir::new().expect("a directory");
    let config = web_config(directory.path());
    let nets = [Net::new(), Net::new(), Net::new()];
    let full = Net::new();
    let exporters = [
        Exporter::start(&[&nets[0]], &[]),
        Exporter::start(&[&nets[1]], &["--max-series", "1"]),
        Exporter::start(&[&nets[2]], &["--web-config", &config]),
        Exporter::start(&[&full], &["--max-rows", "1"]),
    ];
    configure(directory.path(), &exporters);
    let prometheus = Prometheus::start(directory.path());
    let is_read = "count(dropwatch_class_drops_total{class='refused',job=~'plain|secure'})";
    wait_for("all three are read", || prometheus.number(is_read, None) == Some(3.0));
    for (net, drops) in nets.iter().zip(DROPS) {
        net.drop_datagrams(drops);
    }
    let all: u64 = DROPS.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "there are few of them")]
    let all = all as f64;
    for metric in ["dropwatch_drops_total", "dropwatch_class_drops_total"] {
        let query = format!("sum({metric}{{job=~'plain|secure'}})");
        wait_for(&query, || {
            let found = prometheus.number(&query, None);
            assert!(found <= Some(all), "{query} is {found:?}");
            found == Some(all)
        });
    }
    // `increase` extrapolates to the moment of the query, so each is asked for at that of its last sample.
    let last =
        prometheus.query("timestamp(dropwatch_class_drops_total{class='refused',job=~'plain|secure'})", None);
    let mut increased = HashMap::new();
    for sample in last.as_array().expect("samples") {
        let instance = sample["metric"]["instance"].as_str().expect("an instance");
        let time = sample["value"][1].as_str().and_then(|time| time.parse().ok());
        let query = format!("sum(increase(dropwatch_class_drops_total{{instance='{instance}'}}[1h]))");
        increased.insert(instance.to_owned(), prometheus.number(&query, time));
    }
    // The fourth has no part in it.
    let expected = exporters.iter().zip(DROPS);
    #[expect(clippy::cast_precision_loss, reason = "there are few of them")]
    let expected = expected.map(|(exporter, drops)| (exporter.address.clone(), Some(drops as f64))).collect();
    assert_eq!(increased, expected);
    let other = "dropwatch_drops_total{class='other',reason='other',function='other',module='other'}";
    assert_eq!(prometheus.number(other, None), Some(22.0), "the second host has room for one series");
    wait_for("the alert", || {
        prometheus.number("ALERTS{alertname='Drops',alertstate='firing'}", None) == Some(1.0)
    });
    let targets = prometheus.api("/api/v1/targets");
    let error_of = |job: &str| {
        let targets = targets["activeTargets"].as_array().expect("targets");
        let found = targets.iter().find(|target| target["labels"]["job"] == job).expect("a target");
        found["lastError"].as_str().expect("a text").to_owned()
    };
    assert_eq!(error_of("plain"), "");
    assert_eq!(error_of("secure"), "");
    assert!(error_of("wrong").contains("401"), "{}", error_of("wrong"));
    assert_ne!(error_of("clear"), "", "it is not served without TLS");
    assert!(error_of("nameless").contains("certificate required"), "{}", error_of("nameless"));
    alerted_by_the_examples(&prometheus, &full);
    check_metrics(&exporters[0]);
}

/// `promtool` finds nothing to complain about.
fn check_metrics(exporter: &Exporter) {
    let answer = get(&exporter.address, "/metrics");
    let (_, text) = answer.split_once("\r\n\r\n").expect("a body");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn crowd() {
    const EACH: usize = 300_000;
    let nets = [Net::new(), Net::new()];
    let exporter = Exporter::start(&[&nets[0], &nets[1]], &[]);
    let overflows = overflows();
    let connect = || TcpStream::connect(&exporter.address).expect("a connection");
    // They begin a request and never end it, or never read what they requested.
    let slow: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = connect();
            let text = if number % 2 == 0 {
                "GET /metrics HTTP/1.1\r\nHost: "
            } else {
                "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
            };
            stream.write_all(text.as_bytes()).expect("sent");
            stream
        })
        .collect();
    let hostile = [
        "GET / HTTP/1.1\r\nA: ",
        "\0\u{1}\u{2}",
        "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    ];
    for start in hostile {
        let mut stream = connect();
        // What it does not accept, it does not read to the end.
        let _ = stream.write_all(format!("{start}{}", "a".repeat(100_000)).as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    let (dropped, scrapes) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood_all(&nets, EACH));
        let clients: Vec<_> =
            (0..10).map(|_| scope.spawn(|| scrape_at_once(&exporter.address, 100))).collect();
        let scrapes: usize = clients.into_iter().map(|client| client.join().expect("scrapes")).sum();
        (flood.join().expect("a flood"), scrapes)
    });
    assert_eq!(scrapes, 1000);
    assert_eq!(self::overflows(), overflows, "each had a place in the queue");
    assert!(dropped > EACH as u64, "{dropped} datagrams got there");
    exporter.await_value(refused(), dropped);
    let text = get(&exporter.address, "/metrics");
    for cause in ["map_full", "update_failed", "recursion_missed", "undecided"] {
        assert_eq!(
            value(&text, &format!("dropwatch_lost_total{{cause=\"{cause}\"}}")).unwrap_or(0),
            0,
            "{cause}"
        );
    }
    let row = format!(
        "dropwatch_drops_total{{class=\"refused\",reason=\"NO_SOCKET\",function=\"{}\",module=\"kernel\"}}",
        udp_receiver()
    );
    assert_eq!(value(&text, &row), Some(dropped));
    drop(slow);
}

/// Connections of this host that found a full queue, as the kernel counts them.
fn overflows() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").expect("the kernel's counters");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ListenOverflows");
    found.and_then(|(_, value)| value.parse().ok()).expect("a counter")
}

/// So many scrapes of one process at once: how many were answered in full.
fn scrape_at_once(address: &str, count: usize) -> usize {
    let connections: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n")
                .expect("sent");
            stream
        })
        .collect();
    let answers = connections.into_iter().map(|mut stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    answers.filter(|answer| answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n")).count()
}

fn end() {
    let net = Net::new();
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("socket");
    let place = format!("unix:{}", socket.display());
    let exporter = Exporter::start(&[&net], &["-l", &place]);
    assert!(socket.exists());
    let mut idle = TcpStream::connect(&exporter.address).expect("a connection");
    let mut kept = TcpStream::connect(&exporter.address).expect("a connection");
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert!(kept.read(&mut [0; 4096]).expect("an answer") > 0);
    exporter.watch.signal(Signal::SIGTERM);
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"");
    let ended = exporter.watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(idle.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(!socket.exists(), "its file is removed");
}

fn activated() {
    let net = Net::new();
    let directory = TempDir::new().expect("a directory");
    let (socket, notify) = (directory.path().join("socket"), directory.path().join("notify"));
    let heard = std::os::unix::net::UnixDatagram::bind(&notify).expect("a socket");
    heard.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let filter = format!("netns {}", net.inum());
    let child = Command::new("systemd-socket-activate")
        .arg("-l")
        .arg(&socket)
        .arg("-E")
        .arg(format!("NOTIFY_SOCKET={}", notify.display()))
        .args(["-E", "WATCHDOG_USEC=300000"])
        .arg(crate::support::dropwatch())
        .args(["serve", "-i", "100ms", "-f", &filter])
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate starts");
    let mut child = Running(child);
    wait_for("a socket", || socket.exists());
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let message = || {
        let mut buffer = [0; 256];
        let length = heard.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(message(), "READY=1");
    assert_eq!(message(), "WATCHDOG=1");
    assert_eq!(message(), "WATCHDOG=1");
    crate::support::watch::send(&child.0, Signal::SIGTERM);
    while message() != "STOPPING=1" {}
    assert!(child.0.wait().expect("its status").success());
}

/// A web site can let its name point to a loopback address, and to no other that is its reader's alone.
fn by_name() {
    let net = Net::new();
    let exporter = Exporter::start(&[&net], &["-l", "0.0.0.0:0"]);
    let said = exporter.watch.said();
    let public =
        said.lines().filter_map(|line| line.strip_prefix("Serving at ")).nth(1).expect("a second place");
    let port = public.strip_prefix("0.0.0.0:").expect("every address");
    let status = |answer: String| answer.split(' ').nth(1).map(str::to_owned).expect("a status");
    let (loopback, public_address) = (&exporter.address, format!("127.0.0.1:{port}"));
    for (address, name, expected) in [
        (loopback, "evil.example", "403"),
        (loopback, "localhost", "200"),
        (loopback, &**loopback, "200"),
        (&public_address, "db1.example", "200"),
    ] {
        assert_eq!(status(get_by_name(address, name, "/healthz")), expected, "{name} at {address}");
    }
    let warned = "everything can be read by all hosts that reach ";
    assert_eq!(said.matches(warned).count(), 1, "{said}");
    assert!(said.contains(&format!("{warned}{public}")), "{said}");
}

/// The subject of the certificate that is served.
fn subject(address: &str) -> String {
    let mut openssl = Command::new("openssl");
    let output =
        openssl.args(["s_client", "-connect", address]).stdin(Stdio::null()).output().expect("openssl runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let subject = said.lines().find_map(|line| line.strip_prefix("subject=")).expect("a certificate");
    subject.replace(' ', "")
}

fn renewed() {
    let net = Net::new();
    let directory = TempDir::new().expect("a directory");
    let at = |file: &str| directory.path().join(file);
    certificate(directory.path(), "server", None);
    fs::write(at("web.yml"), "tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
        .expect("a file");
    let config = at("web.yml").display().to_string();
    let exporter = Exporter::start(&[&net], &["--web-config", &config, "-l", "0.0.0.0:0"]);
    assert!(
        exporter.watch.has_said("everything can be read by all hosts that reach 0.0.0.0:"),
        "anyone has TLS"
    );
    assert_eq!(subject(&exporter.address), "CN=server");
    certificate(directory.path(), "renewed", None);
    for kind in ["key", "pem"] {
        fs::rename(at(&format!("renewed.{kind}")), at(&format!("server.{kind}"))).expect("another name");
    }
    wait_for("the new certificate", || subject(&exporter.address) == "CN=renewed");
    fs::write(at("server.pem"), "no certificate").expect("a file");
    wait_for("a warning", || {
        assert_eq!(subject(&exporter.address), "CN=renewed");
        let said = exporter.watch.said();
        said.lines().any(|line| line.contains("stays in force") && line.contains("server.pem"))
    });
    assert_eq!(subject(&exporter.address), "CN=renewed");
}

/// All counters of drops, by their labels.
fn counters(text: &str) -> BTreeMap<&str, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| line.rsplit_once(' ')).filter(|(name, _)| name.contains("_total"));
    samples.filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

fn renamed() {
    let wire = Wire::new();
    let exporter = Exporter::start(&[&wire.b], &["-b", "reason,function,iface"]);
    let drops = |text: &str, iface: &str| -> u64 {
        let label = format!(",iface=\"{iface}\"}}");
        let is_of = |name: &str| name.starts_with("dropwatch_drops_total{") && name.ends_with(&label);
        counters(text).iter().filter(|(name, _)| is_of(name)).map(|(_, count)| count).sum()
    };
    let scrape = || get(&exporter.address, "/metrics");
    wire.drop(7);
    wait_for("drops by the old name", || drops(&scrape(), "vb") == 7);
    let before = scrape();
    wire.rename("vb", "r1");
    wire.drop(11);
    wait_for("drops by the new name", || drops(&scrape(), "r1") == 11);
    let after = scrape();
    assert_eq!(drops(&after, "vb"), 7);
    let after = counters(&after);
    for (name, count) in counters(&before) {
        assert!(
            after.get(name).is_some_and(|now| *now >= count),
            "{name} was {count}: {:?}",
            after.get(name)
        );
    }
}
