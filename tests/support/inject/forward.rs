//! What a router does not pass on.

use super::{Case, ELSEWHERE, Expected, Prepared, STRANGER, wire::Wire};
use crate::support::frames::Packet;

pub const CASES: &[Case] = &[
    Case::new("time_to_live_ends", 79, time_to_live),
    Case::new("forwarding_is_off", 83, forwarding_off),
    Case::new("no_route", 89, no_route),
    Case::new("blackhole_route", 97, blackhole),
    Case::new("unreachable_route", 101, unreachable),
    Case::new("prohibited_route", 103, prohibited),
    Case::new("too_big_to_forward", 107, too_big),
];

/// Neither fragment nor offset, but an order.
const DO_NOT_FRAGMENT: u16 = 0x4000;
const NO_WAY: &[&str] = &["ip_error"];
const ON_THE_WAY: &[&str] = &["ip_forward"];

fn passing() -> Packet {
    Packet::udp(STRANGER, ELSEWHERE, 9)
}

/// A wire to a router with this route, if any.
fn router(route: &str) -> Wire {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ip_forward", "1");
    if !route.is_empty() {
        wire.b.ip(&format!("route add {route}"));
    }
    wire
}

fn time_to_live(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ip_forward", "1");
    let behind = wire.way_out();
    wire.b.ip(&format!("route add {ELSEWHERE} via 10.97.0.1"));
    let packet = Packet { hops: 1, ..passing() };
    wire.packets(&packet, Expected::new(count, "IP_INHDR", ON_THE_WAY)).keeping(behind)
}

fn forwarding_off(count: u64) -> Prepared {
    Wire::new().packets(&passing(), Expected::new(count, "IP_INADDRERRORS", NO_WAY))
}

fn no_route(count: u64) -> Prepared {
    router("").packets(&passing(), Expected::new(count, "IP_INNOROUTES", NO_WAY))
}

fn blackhole(count: u64) -> Prepared {
    router("blackhole 10.88.0.0/16").packets(&passing(), Expected::new(count, "NOT_SPECIFIED", NO_WAY))
}

fn unreachable(count: u64) -> Prepared {
    router("unreachable 10.88.0.0/16").packets(&passing(), Expected::new(count, "NOT_SPECIFIED", NO_WAY))
}

fn prohibited(count: u64) -> Prepared {
    router("prohibit 10.88.0.0/16").packets(&passing(), Expected::new(count, "NOT_SPECIFIED", NO_WAY))
}

fn too_big(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ip_forward", "1");
    let behind = wire.way_out();
    wire.b.ip("link set vc mtu 600");
    wire.b.ip(&format!("route add {ELSEWHERE} via 10.97.0.1"));
    let packet = Packet::udp_with(STRANGER, ELSEWHERE, 9, &[0; 1000]);
    let packet = Packet { fragment: DO_NOT_FRAGMENT, ..packet };
    wire.packets(&packet, Expected::new(count, "PKT_TOO_BIG", ON_THE_WAY)).keeping(behind)
}
