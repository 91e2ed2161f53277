//! The object at fault among what looks alike: queues, programs, routes, settings, neighbours, interfaces.
//!
//! What is staged are the cases of the library of drops, some with a decoy; all of a test in one run, which says of each
//! namespace what it found there.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::{
    inject::{
        self, Case, Expected, Prepared, decoys,
        needs::{self, Need},
    },
    is_guest, kernel,
    net::Name,
    trial::trial,
    watch::Stream,
};

/// A test, what it needs, and its scenes.
type Test = (&'static str, &'static [Need], fn() -> Vec<Scene>);

const TESTS: &[Test] = &[
    ("routes_settings_interfaces_and_neighbours_are_named", &[], of_every_machine),
    ("of_two_trees_of_queues_the_leaf_that_dropped_is_named", &[needs::TBF], queues),
    ("of_two_xdp_programs_the_one_on_the_interface_is_named", &[needs::XDP], programs),
    ("a_program_of_traffic_control_is_named", &[needs::TC_BPF], filters),
    ("a_program_of_a_cgroup_is_named", &[needs::CGROUP], cgroups),
    ("the_reader_of_a_tap_device_is_named", &[needs::TUN], taps),
    ("the_port_of_a_bridge_is_named", &[needs::BRIDGE], bridges),
    ("the_policy_without_a_state_is_named", &[needs::XFRM], policies),
    ("networks_of_a_vxlan_are_named", &[needs::VXLAN], networks),
    ("the_full_table_of_connections_and_no_rule_is_named", &[needs::NFT, needs::CONNTRACK], connections),
];

/// A trial for each.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trials = TESTS.iter().map(|&(name, needs, scenes)| {
        trial(format!("evidence::{name}"), needs, can_run, move || {
            look_at(&scenes());
            Ok(())
        })
    });
    trials.collect()
}

/// Drops, and what must be found of them.
struct Scene {
    prepared: Prepared,
    findings: Vec<Finding>,
    /// Of these kinds, none is at fault.
    innocent: Vec<&'static str>,
    /// Whether it can be told without the reason.
    is_told: bool,
}

/// An object.
#[derive(Debug)]
struct Finding {
    kind: &'static str,
    certainty: &'static str,
    says: Vec<String>,
}

impl Finding {
    fn new(kind: &'static str, certainty: &'static str, says: &[&str]) -> Self {
        Self { kind, certainty, says: says.iter().map(|&word| word.to_owned()).collect() }
    }

    fn is(&self, evidence: &Value) -> bool {
        let text = evidence["text"].as_str().expect("a text");
        evidence["kind"] == self.kind
            && evidence["certainty"] == self.certainty
            && self.says.iter().all(|word| text.contains(word))
    }
}

impl Scene {
    fn new(prepared: Prepared) -> Self {
        let reason = prepared.expected.as_ref().expect("drops").reason;
        let is_told = reason == "NOT_SPECIFIED" || kernel::has_reason(reason);
        Self { prepared, findings: Vec::new(), innocent: Vec::new(), is_told }
    }

    /// A case of the library.
    fn of(name: &str) -> Self {
        let case: &Case = inject::cases().find(|case| case.name == name).expect("a case of the library");
        Self::new((case.prepare)(case.count))
    }

    /// One whose function is enough.
    fn of_function(self) -> Self {
        Self { is_told: true, ..self }
    }

    fn finds(mut self, kind: &'static str, certainty: &'static str, says: &[&str]) -> Self {
        self.findings.push(Finding::new(kind, certainty, says));
        self
    }

    fn blames_no(mut self, kind: &'static str) -> Self {
        self.innocent.push(kind);
        self
    }

    fn expected(&self) -> &Expected {
        self.prepared.expected.as_ref().expect("drops")
    }

    fn netns(&self) -> u64 {
        self.expected().netns.expect("a namespace")
    }

    /// Each object is found, and no other one of its kind is said to be at fault. A kernel without the reason may not tell
    /// the object, but tells no other.
    fn check(&self, found: &[Value]) {
        let listed = || found.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        for finding in self.findings.iter().filter(|_| self.is_told) {
            let is_found = found.iter().any(|evidence| finding.is(evidence));
            assert!(is_found, "no {} that says {:?} in:\n{}", finding.kind, finding.says, listed());
        }
        let kinds = self.findings.iter().map(|finding| finding.kind);
        let kinds: HashSet<_> = kinds.chain(self.innocent.iter().copied()).collect();
        let is_sure = |evidence: &&Value| {
            kinds.contains(evidence["kind"].as_str().expect("a kind")) && evidence["certainty"] != "possible"
        };
        for sure in found.iter().filter(is_sure) {
            let is_expected = self.findings.iter().any(|finding| finding.is(sure));
            assert!(is_expected, "{sure} is none of {:?}", self.findings);
        }
    }
}

/// Causes the drops of each scene, and looks at what is found of them.
fn look_at(scenes: &[Scene]) {
    // Nobody lives there: without a name, it cannot be entered.
    let names: Vec<_> = scenes.iter().map(|scene| format!("dropwatch-{}", scene.netns())).collect();
    let _names: Vec<_> =
        scenes.iter().zip(&names).map(|(scene, name)| Name::of_inode(scene.netns(), name)).collect();
    let filter: Vec<_> = scenes.iter().map(|scene| format!("netns {}", scene.netns())).collect();
    let filter = filter.join(" or ");
    let interval = if is_guest() { "500ms" } else { "60ms" };
    let keys = "location,reason,iface,netns,daddr";
    let stream = Stream::start(&["--explain", "-i", interval, "-b", keys, "-f", &filter, "--no-counters"]);
    for scene in scenes {
        scene.check(&found(&stream, scene));
    }
    stream.stop();
}

/// The evidence in all rows that the drops of a scene caused.
fn found(stream: &Stream, scene: &Scene) -> Vec<Value> {
    stream.catch_up();
    (scene.prepared.act)();
    let expected = scene.expected();
    let deadline = Instant::now() + Duration::from_secs(if is_guest() { 20 } else { 5 });
    let (mut found, mut count) = (Vec::new(), 0);
    while count < expected.count {
        assert!(Instant::now() < deadline, "{count} of {expected:?}: {found:?}");
        for row in stream.next_report()["rows"].as_array().expect("rows") {
            if row["netns"]["inum"] == scene.netns() && is_of(row, expected) {
                count += row["count"].as_u64().expect("a count");
                found.extend(row["evidence"].as_array().cloned().unwrap_or_default());
            }
        }
    }
    assert_eq!(count, expected.count, "{found:?}");
    found
}

/// Whether a row is of the drops that are expected, and not of what else happens in the namespace.
fn is_of(row: &Value, expected: &Expected) -> bool {
    let symbol = row["location"]["symbol"].as_str().and_then(|symbol| symbol.split('.').next());
    expected.locations.iter().any(|&location| symbol == Some(location))
        && expected.iface.is_none_or(|iface| row["iface"]["name"] == iface)
}

fn of_every_machine() -> Vec<Scene> {
    [routes(), refusals(), links()].into_iter().flatten().collect()
}

fn routes() -> Vec<Scene> {
    let answers = |what| format!("{what} in table main answers for 10.88.0.1 now");
    vec![
        Scene::new(decoys::blackhole()).finds("route", "certain", &[&answers("blackhole 10.88.0.0/16")]),
        Scene::of("unreachable_route").finds("route", "certain", &[&answers("unreachable 10.88.0.0/16")]),
        Scene::of("prohibited_route").finds("route", "certain", &[&answers("prohibit 10.88.0.0/16")]),
        Scene::of("no_route").of_function().finds("route", "certain", &["no route to 10.88.0.1 now"]),
        Scene::of("too_big_to_forward").of_function().finds(
            "route",
            "certain",
            &["10.88.0.1 is routed by vc to 10.97.0.1 now", "is 600 bytes, the packet has 1028"],
        ),
    ]
}

fn refusals() -> Vec<Scene> {
    let filters = "net.ipv4.conf.vb.rp_filter = 1 and net.ipv4.conf.all.rp_filter = 1 now";
    let back = "10.98.0.7 is routed by other (10.98.0.0/24) now, not by vb";
    let own = "10.99.0.2, the packet's source, is this host's own address on vb now";
    vec![
        Scene::of("forwarding_is_off").finds("sysctl", "certain", &["net.ipv4.ip_forward = 0 now"]).finds(
            "sysctl",
            "certain",
            &["net.ipv4.conf.vb.forwarding = 0 now"],
        ),
        Scene::of("reverse_path_filter").finds("sysctl", "certain", &[filters]).finds(
            "route",
            "certain",
            &[back],
        ),
        Scene::of("ospf_hello_to_a_group_not_joined").finds(
            "route",
            "certain",
            &["vb has not joined 224.0.0.5 now"],
        ),
        Scene::of("source_is_own_address")
            .finds("sysctl", "certain", &["net.ipv4.conf.vb.accept_local = 0"])
            .finds("route", "certain", &[own]),
    ]
}

fn links() -> Vec<Scene> {
    let mtu = "vb in another namespace, the peer of va, has an MTU of 600 bytes now; the packet has 1028";
    let down = "va is up, but its peer vb in another namespace is down now";
    vec![
        Scene::of("larger_than_the_peer_takes").finds("link", "certain", &[mtu]),
        Scene::of("neighbour_never_answers").finds(
            "neighbour",
            "certain",
            &["10.99.0.77 on vb is ", " now: it has not answered ARP"],
        ),
        Scene::of("another_hosts_frame").finds(
            "link",
            "certain",
            &[
                "10.99.0.2 is an address of this host now, but the frame is for 02:11:22:33:44:55, and vb has ",
                " for 10.99.0.2 is stale",
            ],
        ),
        Scene::new(decoys::peer_down()).finds("link", "certain", &[down]),
    ]
}

fn queues() -> Vec<Scene> {
    let leaf = "vb: pfifo 2: (in 1:1) dropped ";
    vec![Scene::new(decoys::queues()).of_function().finds("qdisc", "counted", &[leaf, "at most 5"])]
}

fn programs() -> Vec<Scene> {
    let (prepared, id) = decoys::programs();
    let program = format!("XDP program {id} ");
    vec![Scene::new(prepared).finds(
        "program",
        "certain",
        &[&program, "is attached to vb now, in generic mode"],
    )]
}

fn filters() -> Vec<Scene> {
    let decides =
        |side| format!("a classic BPF program decides in filter bpf pref 49152 handle 0x1 on vb {side} now");
    vec![
        Scene::of("tc_ingress").finds("program", "certain", &[&decides("ingress")]),
        Scene::of("tc_egress").finds("program", "certain", &[&decides("egress")]),
    ]
}

fn cgroups() -> Vec<Scene> {
    let group = format!("/dropwatch-{} for egress now", std::process::id());
    vec![Scene::of("cgroup_egress").finds("program", "certain", &["cgroup program ", &group])]
}

fn taps() -> Vec<Scene> {
    let reader = format!("[{}] does not read fast enough", std::process::id());
    vec![Scene::of("tap_queue_full").finds("link", "certain", &["tap keeps at most 5 packets", &reader])]
}

fn bridges() -> Vec<Scene> {
    vec![
        Scene::of("bridge_port_blocked").of_function().finds(
            "bridge",
            "certain",
            // Listening, and learning half a minute later, which an emulated machine may take.
            &["vb, a port of br0, is l", "ning now"],
        ),
        Scene::new(decoys::isolated()).of_function().finds(
            "bridge",
            "certain",
            &[
                "no other port of br0 takes it now: ",
                "near is isolated",
                "far is isolated",
                "(vb is isolated)",
            ],
        ),
    ]
}

fn policies() -> Vec<Scene> {
    let policy = "policy out for 10.99.0.2/32 > 10.99.0.1/32 requires esp transport";
    let scene = Scene::new(decoys::no_state());
    let scene = scene.finds("xfrm", "counted", &["XfrmOutNoStates counted "]);
    vec![scene.finds("xfrm", "certain", &[policy, "and no state (SA) fits that now"])]
}

fn networks() -> Vec<Scene> {
    let says = "the packet is of VNI 8; configured here now: vx (7)";
    vec![Scene::of("vxlan_unknown_network").finds("link", "certain", &[says])]
}

fn connections() -> Vec<Scene> {
    let full = "the table of connections is full: 3 of 3";
    let scene = Scene::of("conntrack_table_full").blames_no("netfilter");
    vec![scene.finds("conntrack", "possible", &[full])]
}
