//! The files in `examples/`, tried with the programs that they are for: needs no privilege.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser as _;
use dropwatch::internals::{Cli, Command as OfOurs};
use dropwatch_testing::skip;
use serde::Deserialize as _;
use serde_json::{Value, json};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

fn example(path: &str) -> PathBuf {
    repository().join("examples").join(path)
}

/// What a program prints, once it has found nothing wrong; nothing if it is not here.
fn run(program: &str, arguments: &[&str], files: &[PathBuf]) -> Option<String> {
    let output = match Command::new(program).args(arguments).args(files).output() {
        Ok(output) => output,
        Err(error) => {
            skip(format!("{program}: {error}"));
            return None;
        }
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?} {files:?}: {said}");
    Some(said)
}

/// `promtool` on every file, and on what the rules must do.
#[test]
fn rules_and_alerts_do_what_they_say() {
    let Some(said) = run("promtool", &["check", "config"], &[example("prometheus/prometheus.yml")]) else {
        return;
    };
    assert!(said.contains("2 rule files found"), "{said}");
    let tests = ["fleet.yml", "new.yml"].map(|file| example("prometheus/tests").join(file));
    let said = run("promtool", &["test", "rules"], &tests).expect("it is here");
    assert_eq!(said.matches("SUCCESS").count(), tests.len(), "{said}");
}

/// The expressions of all panels and variables, with what Grafana puts in place of its own words.
fn of_dashboard() -> Vec<String> {
    let text = fs::read_to_string(example("grafana/dropwatch.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), panels.len(), "each panel has a number of its own");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("queries"));
    let words = [
        ("$__rate_interval", "1m"),
        ("$__range", "1h"),
        ("${__from:date:seconds}", "1764115200"),
        ("$job", "dropwatch"),
        ("$instance", ".*"),
    ];
    let fill =
        |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
    let expressions: Vec<_> =
        targets.map(|target| fill(target["expr"].as_str().expect("an expression"))).collect();
    assert!(expressions.len() > 10 && expressions.iter().all(|text| !text.contains('$')), "{expressions:?}");
    expressions
}

/// The queries in `docs/fleet.md`: what is indented by four; by more, a query goes on.
fn of_documentation() -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/fleet.md")).expect("the page");
    let mut queries: Vec<String> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
        match queries.last_mut().filter(|_| line.starts_with(' ')) {
            Some(query) => query.push_str(line),
            None => queries.push(line.to_owned()),
        }
    }
    assert!(queries.len() > 5, "{queries:?}");
    queries
}

/// Each is an expression, as a rule of its own shows.
#[test]
fn queries_of_the_dashboard_and_of_the_documentation_are_expressions() {
    let expressions = [of_dashboard(), of_documentation()].concat();
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(number, expr)| json!({"record": format!("checked:query:{number}"), "expr": expr}))
        .collect();
    let file = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    // JSON is YAML.
    fs::write(&file, json!({"groups": [{"name": "queries", "rules": rules}]}).to_string()).expect("written");
    let said = run("promtool", &["check", "rules"], &[file.path().to_owned()]);
    let expected = format!("{} rules found", expressions.len());
    assert!(said.is_none_or(|said| said.contains(&expected)));
}

/// By the figure that `systemd-analyze security` ends with.
#[test]
fn the_unit_is_as_closed_as_its_page_says() {
    let unit = example("systemd/dropwatch.service");
    let arguments = ["security", "--offline=yes", "--no-pager"];
    let Some(said) = run("systemd-analyze", &arguments, &[unit]) else { return };
    let (_, level) = said.rsplit_once("Overall exposure level for dropwatch.service: ").expect("a level");
    let level: f64 = level.split(' ').next().and_then(|level| level.parse().ok()).expect("a number");
    assert!(level <= 1.8, "{said}");
    let page = fs::read_to_string(example("systemd/README.md")).expect("the page");
    assert!(page.contains("says 1.8, \"OK\""), "the page has the figure");
}

/// Three, and no other word of the unit gives or takes one.
#[test]
fn the_unit_has_three_capabilities() {
    let unit = fs::read_to_string(example("systemd/dropwatch.service")).expect("the unit");
    for set in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        let lines: Vec<_> =
            unit.lines().filter_map(|line| line.strip_prefix(set)?.strip_prefix('=')).collect();
        assert_eq!(lines, ["CAP_BPF CAP_PERFMON CAP_SYSLOG"], "{set}");
    }
}

/// `systemd-analyze verify` on every unit, with a program that is there in place of ours.
#[test]
fn units_are_as_systemd_reads_them() {
    let directory = tempfile::tempdir().expect("a directory");
    for file in ["dropwatch.service", "dropwatch.socket"] {
        let unit = fs::read_to_string(example("systemd").join(file)).expect(file);
        fs::write(directory.path().join(file), unit.replace("/usr/bin/dropwatch", "/bin/true"))
            .expect("written");
    }
    let units = ["dropwatch.service", "dropwatch.socket"].map(|file| directory.path().join(file));
    let said = run("systemd-analyze", &["verify", "--man=no"], &units);
    assert!(said.as_deref().is_none_or(str::is_empty), "{said:?}");
}

/// The objects of the file for Kubernetes.
fn kubernetes() -> Vec<Value> {
    let text = fs::read_to_string(example("kubernetes/dropwatch.yaml")).expect("the objects");
    serde_norway::Deserializer::from_str(&text)
        .map(|object| Value::deserialize(object).expect("YAML"))
        .collect()
}

/// A value by its path, which must be there.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

/// What refers to each other fits together, and nothing is allowed that the page does not explain.
#[test]
fn the_daemon_set_is_consistent_and_has_the_least_privilege() {
    let objects = kubernetes();
    let [namespace, set, monitor] = &objects[..] else { panic!("{} objects", objects.len()) };
    assert_eq!(
        [namespace, set, monitor].map(|object| &object["kind"]),
        ["Namespace", "DaemonSet", "PodMonitor"]
    );
    for object in [set, monitor] {
        assert_eq!(at(object, "/metadata/namespace"), at(namespace, "/metadata/name"));
        let labels = at(set, "/spec/template/metadata/labels");
        assert_eq!(at(object, "/spec/selector/matchLabels"), labels, "it selects its own pods");
    }
    let pod = at(set, "/spec/template/spec");
    let [container] = &at(pod, "/containers").as_array().expect("containers")[..] else {
        panic!("one container")
    };
    assert_eq!(
        container["securityContext"],
        json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYSLOG"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    let names = |of: &Value, key: &str| -> BTreeSet<String> {
        let items = of.as_array().expect("a list").iter();
        items.map(|item| item[key].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&container["volumeMounts"], "name"), names(&pod["volumes"], "name"));
    assert!(
        container["volumeMounts"].as_array().expect("mounts").iter().all(|mount| mount["readOnly"] == true)
    );
    let ports = names(&container["ports"], "name");
    for port in [
        at(container, "/readinessProbe/tcpSocket/port"),
        at(container, "/livenessProbe/tcpSocket/port"),
        at(monitor, "/spec/podMetricsEndpoints/0/port"),
    ] {
        assert!(ports.contains(port.as_str().expect("a port's name")), "{port}");
    }
}

/// A job for CI with nothing filled in ends at once, and says what is to be filled in.
#[test]
fn the_placeholders_of_the_jobs_are_refused() {
    let read = |file: &str| -> Value {
        let text = fs::read_to_string(example(file)).expect(file);
        serde_norway::from_str(&text).expect("YAML")
    };
    let (github, gitlab) = (read("ci/github.yml"), read("ci/gitlab.yml"));
    let gitlab = at(&gitlab, "/lost-packets");
    for (script, variables, name) in [
        (at(&github, "/jobs/drops/steps/1/run"), at(&github, "/env"), "DROPWATCH"),
        (at(gitlab, "/before_script/0"), at(gitlab, "/variables"), "DROPWATCH_URL"),
    ] {
        // Nothing but the shell itself can run: what comes after must not be reached.
        let run = |value: &str| {
            let script = script.as_str().expect("a script");
            let output = Command::new("/bin/bash")
                .args(["-e", "-c", script])
                .env_clear()
                .env("PATH", "/nowhere")
                .env(name, value)
                .output();
            let output = output.expect("bash");
            (
                output.status.code(),
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            )
        };
        let (status, said) = run(variables[name].as_str().expect("a value"));
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&format!("{name} ")) && said.contains("placeholder"), "{said}");
        let (_, said) = run("https://packages.test/dropwatch.tar.gz");
        assert!(!said.contains("placeholder"), "{said}");
    }
}

/// The container's arguments and the unit's are a command line of ours, and the port is the one that is opened.
#[test]
fn the_command_lines_of_the_examples_are_understood() {
    let objects = kubernetes();
    let container = at(&objects[1], "/spec/template/spec/containers/0");
    let port = at(container, "/ports/0/containerPort").to_string();
    let words = container["args"].as_array().expect("arguments").iter();
    let words: Vec<_> =
        words.map(|word| word.as_str().expect("a word").replace("$(NODE_IP)", "192.0.2.1")).collect();
    let unit = fs::read_to_string(example("systemd/dropwatch.service")).expect("the unit");
    let start =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/dropwatch ")).expect("a start");
    for (words, address) in [
        (words, format!("192.0.2.1:{port}")),
        (start.split(' ').map(str::to_owned).collect(), "127.0.0.1:10098".to_owned()),
    ] {
        let line = ["dropwatch".to_owned()].into_iter().chain(words);
        let cli = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
        let Some(OfOurs::Serve(arguments)) = cli.command else { panic!("another command") };
        assert_eq!(arguments.listen, [address]);
    }
}
