//! `dropwatch check`: whose exit status it is, what the rules say, and what reaches the command.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Test,
    support::{self, kernel, net::Net, udp_receiver},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("check::a_rule_holds_and_breaks_by_one_drop", by_one_drop),
    ("check::a_lower_bound_holds_and_breaks_by_one_drop", expectation),
    ("check::the_commands_own_status_comes_first", own_status),
    ("check::a_command_that_cannot_run_has_a_shells_status", cannot_run),
    ("check::a_signal_reaches_the_command", forwarded_signal),
    ("check::a_daemon_is_not_waited_for", daemon),
    ("check::the_command_owns_the_standard_streams", streams),
    ("check::late_drops_are_waited_for", settle),
    ("check::a_loss_makes_a_maximum_unknown", loss),
    ("check::what_is_mistyped_is_refused_before_the_command_runs", mistyped),
    ("check::a_printed_location_can_be_pasted_into_a_rule", pasted),
    ("check::a_function_that_never_appears_makes_a_maximum_unknown", absent),
    ("check::broken_rules_are_annotations_where_github_runs_it", annotated),
    ("check::the_scope_is_said", scope),
    ("check::documents_say_what_was_found", documents),
    ("check::no_rules_report_and_succeed", no_rules),
];

/// Makes this very program cause drops where it is started, and end: what a check's command does here.
pub const DROPS: &str = "DROPWATCH_TEST_DROPS";

/// How many drops this program has been started to cause.
pub fn drops_to_cause() -> Option<u64> {
    std::env::var(DROPS).ok()?.parse().ok()
}

/// A check in a namespace of its own.
fn check(net: &Net, arguments: &[&str], command: &[&str]) -> Command {
    let mut check = Command::new(support::dropwatch());
    check.arg("check").args(arguments).arg("--").args(command);
    // Entering a namespace is up to the thread that starts it.
    let _ = net;
    check
}

fn output(net: &Net, arguments: &[&str], command: &[&str]) -> Output {
    net.run(|| check(net, arguments, command).output().expect("dropwatch runs"))
}

/// A check of a command that causes `drops` drops.
fn dropping(net: &Net, drops: u64, arguments: &[&str]) -> Output {
    let this = std::env::current_exe().expect("this program");
    let mut check = check(net, arguments, &[this.to_str().expect("text")]);
    net.run(|| check.env(DROPS, drops.to_string()).output().expect("dropwatch runs"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with this status, and says so in its last line.
fn assert_ends(output: &Output, status: i32, words: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{message}");
    let last = message.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("dropwatch check: exit status {status}: ")), "{message}");
    assert!(last.contains(words), "{message}");
}

/// The rule's words for where datagrams to a closed port are dropped, with a number.
fn here(drops: u64) -> String {
    format!("location={}:{drops}", udp_receiver())
}

fn by_one_drop() {
    let net = Net::new();
    let held = dropping(&net, 7, &["--max", &here(7)]);
    assert_ends(&held, 0, "the rule held");
    assert!(stderr(&held).contains("7 drops seen, at most 7 allowed"), "{}", stderr(&held));
    let broken = dropping(&net, 8, &["--max", &here(7)]);
    assert_ends(&broken, 4, "the rule did not hold");
    assert!(stderr(&broken).contains("FAILED  --max"), "{}", stderr(&broken));
    assert!(stderr(&broken).contains("the whole host"), "the scope is named: {}", stderr(&broken));
}

fn expectation() {
    let net = Net::new();
    assert_ends(&dropping(&net, 5, &["--expect", &here(5)]), 0, "held");
    assert_ends(&dropping(&net, 4, &["--expect", &here(5)]), 4, "did not hold");
}

fn own_status() {
    let net = Net::new();
    let failed = output(&net, &["--max", &here(0), "--expect", "1000000000"], &["sh", "-c", "exit 7"]);
    assert_ends(&failed, 7, "failed by itself");
    let killed = output(&net, &["--expect", "1000000000"], &["sh", "-c", "kill -9 $$"]);
    assert_ends(&killed, 137, "killed by signal 9");
}

fn cannot_run() {
    let net = Net::new();
    assert_ends(&output(&net, &[], &["/no/such/program"]), 127, "not found");
    let judged = output(&net, &["--max", "5", "--expect", "5"], &["/no/such/program"]);
    assert_ends(&judged, 127, "2 of 2 rules did not hold");
    let told = String::from_utf8_lossy(&judged.stderr);
    assert_eq!(told.matches("the command did not run").count(), 2, "{told}");
    // What is executable and does not say what runs it is a script of the shell's.
    let script = std::env::temp_dir().join(format!("dropwatch-script-{}", std::process::id()));
    fs::write(&script, "exit 9\n").expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    assert_ends(&output(&net, &[], &[script.to_str().expect("text")]), 9, "failed by itself");
    fs::remove_file(script).expect("the file is there");
    let file = std::env::temp_dir().join(format!("dropwatch-no-program-{}", std::process::id()));
    fs::write(&file, "no program").expect("a file");
    assert_ends(&output(&net, &[], &[file.to_str().expect("text")]), 126, "could not be executed");
    fs::remove_file(file).expect("the file is there");
}

/// A check whose command has started, which is when it has made this file.
fn started(net: &Net, arguments: &[&str], script: &str) -> (Child, PathBuf) {
    let file = std::env::temp_dir().join(format!("dropwatch-check-{}-{}", std::process::id(), net.inum()));
    let script = format!("touch {}; {script}", file.display());
    let child = net.run(|| {
        check(net, arguments, &["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dropwatch starts")
    });
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < support::PATIENCE, "the command has not started");
        thread::sleep(Duration::from_millis(5));
    }
    (child, file)
}

fn forwarded_signal() {
    let net = Net::new();
    let (child, file) = started(&net, &[], "exec sleep 100");
    thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("the signal is sent");
    let ended = child.wait_with_output().expect("dropwatch ends");
    let _ = fs::remove_file(file);
    assert_ends(&ended, 143, "killed by signal 15");
}

fn daemon() {
    let net = Net::new();
    let start = Instant::now();
    let (child, file) = started(&net, &[], "sleep 30 2>/dev/null & exit 0");
    let ended = child.wait_with_output().expect("dropwatch ends");
    let _ = fs::remove_file(file);
    assert_ends(&ended, 0, "no rules");
    assert!(start.elapsed() < Duration::from_secs(25));
}

fn streams() {
    const MUCH: usize = 5_000_000;
    let net = Net::new();
    let mut child = net.run(|| {
        check(&net, &["--max", "1000000000"], &["cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dropwatch starts")
    });
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = thread::spawn(move || stdin.write_all(&vec![b'x'; MUCH]).expect("the command reads"));
    let ended = child.wait_with_output().expect("dropwatch ends");
    writer.join().expect("the writer");
    assert_ends(&ended, 0, "the rule held");
    assert_eq!(ended.stdout, vec![b'x'; MUCH], "standard output is the command's alone");
}

fn settle() {
    let net = Net::new();
    let (child, file) = started(&net, &["--expect", &here(9), "--settle", "5s"], "exit 0");
    thread::sleep(Duration::from_secs(1));
    net.drop_datagrams(9);
    let ended = child.wait_with_output().expect("dropwatch ends");
    let _ = fs::remove_file(file);
    assert_ends(&ended, 0, "the rule held");
}

fn loss() {
    // Whichever drop comes first has the only row; those of the other location are lost.
    let net = Net::new();
    let (child, file) = started(&net, &["--max-rows", "1", "--max", "1000000000"], "sleep 3");
    net.drop_datagrams(3);
    net.run(|| assert!(std::net::TcpStream::connect(("127.0.0.1", 9)).is_err()));
    let ended = child.wait_with_output().expect("dropwatch ends");
    let _ = fs::remove_file(file);
    assert_ends(&ended, 4, "did not hold");
    assert!(stderr(&ended).contains("UNKNOWN --max"), "{}", stderr(&ended));
}

fn mistyped() {
    let net = Net::new();
    let file = std::env::temp_dir().join(format!("dropwatch-mistyped-{}", std::process::id()));
    let here = udp_receiver();
    let [mistyped, beyond, elsewhere] = [
        format!("location={here}x:0"),
        format!("location={here}+0xfffff:1"),
        format!("location={here}[no_module],location=ip_rcv:0"),
    ];
    let meant = format!("'{here}'");
    let mut wrong = vec![
        (vec!["--max", "reson=NO_SOCKET:0"], "did you mean 'reason'"),
        (vec!["--max", "reason=NO_SOCKET"], "a number of drops"),
        (vec!["--expect", "many"], "'many' is not a number"),
        (vec!["--report", "/tmp/report.txt"], ".xml"),
        (vec!["--report", "/no/such/directory/r.xml"], "--report"),
        (vec!["--settle", "soon"], "--settle"),
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["--max", "dport=53,dport=9:0"], "no drop has both 'dport=53' and 'dport=9'"),
        (vec!["--max", "sport=53,ipproto=icmp:0"], "no packet has both"),
        (vec!["--max", "saddr=10.0.0.1,daddr=::1:0"], "no packet has both"),
        (vec!["--max", &mistyped], &meant),
        (vec!["--expect", &beyond], "beyond its end"),
        (vec!["--max", &elsewhere], "no drop has both"),
        (vec!["--max", "location=0x10:0"], "no function at 0x10"),
        (vec!["--max", "cpu=65535:0"], "no CPU 65535"),
        (vec!["--max", "dport=9:3", "--expect", "dport=9:4"], "'--max dport=9:3' allows fewer"),
    ];
    // What a kernel without reasons says of any of them.
    let has_reasons = kernel::has_reason("NO_SOCKET");
    wrong.push((
        vec!["--max", "reason=NO_SOKET:0"],
        if has_reasons { "did you mean 'NO_SOCKET'" } else { "gives no reasons" },
    ));
    if has_reasons {
        wrong.push((vec!["--max", "reason=NETFILTER_DROP,reason=NO_SOCKET:0"], "no drop has both"));
        wrong.push((vec!["--max", "reason=60000:0"], "no reason '60000'"));
    }
    if !kernel::is_before(6, 2) {
        wrong.push((vec!["--max", "reason=CONSUMED:0"], "is not a drop"));
    }
    for (arguments, words) in wrong {
        let output = output(&net, &arguments, &["touch", file.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert!(!file.exists(), "{arguments:?}: the command ran");
    }
}

/// A place as each format prints it.
fn pasted() {
    let net = Net::new();
    let file = std::env::temp_dir().join(format!("dropwatch-pasted-{}.json", std::process::id()));
    assert_ends(&dropping(&net, 3, &["--report", file.to_str().expect("text")]), 0, "no rules");
    let document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("the document")).expect("JSON");
    fs::remove_file(file).expect("the document is there");
    let mut rows = document["rows"].as_array().expect("rows").iter();
    let location = &rows.find(|row| row["location"]["symbol"] == udp_receiver()).expect("a row")["location"];
    let number = |name: &str| location[name].as_u64().expect("a number");
    let text = |name: &str| location[name].as_str().expect("text");
    let printed =
        format!("{}+{:#x}/{:#x} [{}]", text("symbol"), number("offset"), number("size"), text("module"));
    for place in [printed.as_str(), text("address")] {
        assert_ends(&dropping(&net, 3, &["--max", &format!("location={place}:3")]), 0, "held");
        assert_ends(&dropping(&net, 3, &["--max", &format!("location={place}:2")]), 4, "did not hold");
    }
}

fn absent() {
    let net = Net::new();
    let rule = ["--max", "location=no_such_rcv[no_such_module]:0"];
    let ended = dropping(&net, 3, &rule);
    assert_ends(&ended, 4, "did not hold");
    assert!(
        stderr(&ended).contains("UNKNOWN --max location=no_such_rcv[no_such_module]:0"),
        "{}",
        stderr(&ended)
    );
    assert!(stderr(&ended).contains("no_such_rcv[no_such_module] was never there"), "{}", stderr(&ended));
    let filtered = dropping(&net, 3, &["-f", "location no_such_rcv", "--max", "0"]);
    assert_ends(&filtered, 4, "did not hold");
    assert!(stderr(&filtered).contains("warning: there is no function no_such_rcv"), "{}", stderr(&filtered));
    assert!(stderr(&filtered).contains("UNKNOWN --max 0"), "{}", stderr(&filtered));
}

fn annotated() {
    let net = Net::new();
    let this = std::env::current_exe().expect("this program");
    let run = |value: &str| {
        let mut check =
            check(&net, &["--max", &here(1), "--expect", &here(1)], &[this.to_str().expect("text")]);
        check.env(DROPS, "2").env("GITHUB_ACTIONS", value);
        net.run(|| check.output().expect("dropwatch runs"))
    };
    let annotations = |output: &Output| {
        let said = stderr(output);
        said.lines().filter(|line| line.starts_with("::")).map(str::to_owned).collect::<Vec<_>>()
    };
    let broken =
        format!("::error title=dropwatch::FAILED  --max {}: 2 drops seen, at most 1 allowed", here(1));
    assert_eq!(annotations(&run("true")), [broken]);
    assert!(annotations(&run("")).is_empty());
}

fn scope() {
    let net = Net::new();
    let ended = dropping(&net, 3, &["-f", "netns self", "--max", "3", "--expect", "3"]);
    assert_ends(&ended, 0, "held");
    assert!(stderr(&ended).contains("drops seen in netns self while the command ran"), "{}", stderr(&ended));
}

fn documents() {
    let net = Net::new();
    let file = |ending| std::env::temp_dir().join(format!("dropwatch-check-{}.{ending}", std::process::id()));
    let (json, xml) = (file("json"), file("xml"));
    let rules = ["--max", &here(2), "--report"].map(str::to_owned);
    for document in [&json, &xml] {
        let arguments: Vec<_> = rules.iter().map(String::as_str).chain(document.to_str()).collect();
        assert_ends(&dropping(&net, 3, &arguments), 4, "did not hold");
    }
    let document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&json).expect("the document")).expect("JSON");
    assert_eq!(document["status"], 4);
    assert_eq!(document["rules"][0]["verdict"], "broke");
    assert_eq!(document["rules"][0]["drops"], 3);
    let document = fs::read_to_string(&xml).expect("the document");
    assert!(document.contains("<testsuite ") && document.contains("failures=\"1\""), "{document}");
    assert!(document.contains("3 drops seen, at most 2 allowed"), "{document}");
    for file in [json, xml] {
        fs::remove_file(file).expect("the document is there");
    }
}

fn no_rules() {
    let net = Net::new();
    let ended = dropping(&net, 11, &[]);
    assert_ends(&ended, 0, "there were no rules");
    assert!(stderr(&ended).contains(&format!("{}+", udp_receiver())), "{}", stderr(&ended));
}
