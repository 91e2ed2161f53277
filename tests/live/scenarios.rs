//! The questions that people wrote a tracing script for, each answered by two options.

use std::{thread, time::Duration};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    inject::{self, Case, Flow, Prepared},
    is_guest, kernel,
    trial::trial,
    udp_receiver,
    watch::Watch,
};

/// A question: drops that are caused, the query about them, and the expected answer.
struct Scenario {
    name: &'static str,
    /// A case of the library of drops.
    case: &'static str,
    /// The query: `{saddr}`, `{daddr}` and `{netns}` stand for those of the case.
    arguments: &'static [&'static str],
    /// Looks at the rows that came, all of which are about the case, and at the drops there must be.
    check: fn(&[Value], u64),
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_closed_udp_port_by_place_size_and_module",
        case: "udp_closed_port",
        arguments: &["-b", "location", "-f", "netns {netns}"],
        check: |rows, drops| {
            placed(rows, drops, &[udp_receiver()], "kernel");
            let (offset, size) = (&rows[0]["location"]["offset"], &rows[0]["location"]["size"]);
            assert!(offset.as_u64() > Some(0) && offset.as_u64() < size.as_u64(), "{rows:?}");
        },
    },
    Scenario {
        name: "a_closed_tcp_port_by_place_size_and_module",
        case: "tcp_closed_port",
        arguments: &["-b", "location", "-f", "netns {netns}"],
        check: |rows, drops| placed(rows, drops, &["tcp_v4_rcv"], "kernel"),
    },
    Scenario {
        name: "function_on_device_of_module",
        case: "udp_closed_port",
        arguments: &["-b", "location,iface", "-f", "netns {netns}"],
        check: |rows, drops| {
            placed(rows, drops, &[udp_receiver()], "kernel");
            assert_eq!(rows[0]["iface"]["name"], "vb", "{rows:?}");
        },
    },
    Scenario {
        name: "ospf_hellos_of_one_router_to_a_group_not_joined",
        case: "ospf_hello_to_a_group_not_joined",
        arguments: &["-b", "location,iface,daddr", "-f", "ospf and src host {saddr}"],
        check: |rows, drops| {
            placed(rows, drops, &["ip_rcv_finish_core", "ip_rcv_finish"], "kernel");
            assert_eq!(rows[0]["daddr"], "224.0.0.5", "{rows:?}");
        },
    },
    Scenario {
        name: "gre_with_its_version_set_in_the_right_gre_rcv",
        case: "gre_version",
        arguments: &["-b", "location", "-f", "gre and netns {netns}"],
        // The same function is in `ip_gre`; the one that takes packets from IP is in `gre`.
        check: |rows, drops| placed(rows, drops, &["gre_rcv"], "gre"),
    },
    Scenario {
        name: "vxlan_without_a_route_beneath",
        case: "vxlan_without_underlay_route",
        arguments: &["-b", "location,iface", "-f", "netns {netns}"],
        check: |rows, drops| {
            assert!(symbols(rows).iter().any(|symbol| symbol.starts_with("vxlan_xmit")), "{rows:?}");
            assert_eq!(sum(rows), drops, "{rows:?}");
        },
    },
    Scenario {
        name: "the_reverse_path_filter",
        case: "reverse_path_filter",
        arguments: &["-b", "reason,iface,saddr", "-f", "ip src host {saddr} and netns {netns}"],
        check: |rows, drops| {
            assert_eq!(sum(rows), drops, "{rows:?}");
            assert_eq!(rows[0]["iface"]["name"], "vb", "{rows:?}");
            let reason = kernel::reason_here("IP_RPFILTER");
            assert_eq!(rows[0]["reason"]["name"].as_str(), reason, "{rows:?}");
        },
    },
    Scenario {
        name: "ones_own_address_as_the_source",
        case: "source_is_own_address",
        arguments: &["-b", "location,saddr", "-f", "src host {saddr} and netns {netns}"],
        check: |rows, drops| placed(rows, drops, &["ip_rcv_finish_core", "ip_rcv_finish"], "kernel"),
    },
    Scenario {
        name: "a_full_table_of_connections_by_flow_and_call_chain",
        case: "conntrack_table_full",
        arguments: &["-b", "stack,iface", "-f", "dst host {daddr} and netns {netns}"],
        check: |rows, drops| {
            assert_eq!(sum(rows), drops, "{rows:?}");
            let frames = rows[0]["stack"].as_array().expect("frames");
            let functions: Vec<_> = frames.iter().filter_map(|frame| frame["symbol"].as_str()).collect();
            assert!(functions[0].starts_with("nf_hook_slow"), "{functions:?}");
            assert!(functions.iter().any(|function| function.starts_with("ip_")), "{functions:?}");
        },
    },
];

/// A test for each question.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trial = |scenario: &'static Scenario| {
        let case = inject::cases().find(|case| case.name == scenario.case).expect("a case of the library");
        trial(format!("scenarios::{}", scenario.name), case.needs, can_run, || {
            ask(scenario, case);
            Ok(())
        })
    };
    SCENARIOS.iter().map(trial).collect()
}

fn ask(scenario: &Scenario, case: &Case) {
    let Prepared { expected, act } = (case.prepare)(case.count);
    let expected = expected.expect("drops that are seen");
    let netns = expected.netns.expect("a namespace");
    let arguments: Vec<_> =
        scenario.arguments.iter().map(|argument| filled(argument, netns, expected.flow)).collect();
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-o", "json", "-i", "1h"]);
    let watch = Watch::start(&arguments);
    act();
    thread::sleep(Duration::from_millis(if is_guest() { 2000 } else { 200 }));
    watch.signal(Signal::SIGINT);
    let reports = watch.reports();
    let rows: Vec<_> = reports.rows().cloned().collect();
    assert!(!rows.is_empty(), "nothing was seen: {}", reports.stderr);
    (scenario.check)(&rows, case.count);
}

/// An argument with what it stands for.
fn filled(argument: &str, netns: u64, flow: Option<Flow>) -> String {
    let argument = argument.replace("{netns}", &netns.to_string());
    let Some(Flow { source, destination, .. }) = flow else { return argument };
    argument.replace("{saddr}", &source.to_string()).replace("{daddr}", &destination.to_string())
}

/// All drops at one of these functions of this module; where a kernel has the module built in, of the kernel.
fn placed(rows: &[Value], drops: u64, functions: &[&str], module: &str) {
    assert_eq!(sum(rows), drops, "{rows:?}");
    for (row, symbol) in rows.iter().zip(symbols(rows)) {
        assert!(functions.contains(&symbol), "{row}");
        let is_there = row["location"]["module"] == module;
        assert!(is_there || row["location"]["module"] == "kernel", "{row}");
        assert!(
            is_there || !std::path::Path::new("/sys/module").join(module).join("initstate").exists(),
            "{row}"
        );
    }
}

/// The functions' names in the source.
fn symbols(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["location"]["symbol"].as_str().unwrap_or("?")).map(base).collect()
}

fn base(symbol: &str) -> &str {
    symbol.split('.').next().unwrap_or(symbol)
}

fn sum(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["count"].as_u64().expect("a count")).sum()
}
