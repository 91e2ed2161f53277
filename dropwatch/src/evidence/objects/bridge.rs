//! The port of a bridge.

use super::{
    Question,
    device::{Device, Port, hardware},
    route_netlink,
};
use crate::{
    evidence::{
        netlink::{Netlink, put, u32_at},
        places::Inside,
    },
    model::evidence::{Certainty, Evidence, Kind},
};

/// `RTM_GETNEIGH`, which finds hosts behind ports, too.
const GET_NEIGHBOUR: u16 = 30;
/// `struct ndmsg`.
const HEADER: usize = 12;
const INDEX: usize = 4;
/// Attributes, `NDA_…`.
const LLADDR: u16 = 2;
const MASTER: u16 = 9;
const FORWARDING: u8 = 3;
const STATES: [&str; 5] = ["disabled", "listening", "learning", "forwarding", "blocking"];

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    look(question, inside).into_iter().collect()
}

fn look(question: &Question, inside: Inside<'_>) -> Option<Evidence> {
    let netlink = route_netlink(inside)?;
    let device = Device::get(&netlink, question.iface.as_ref()?.0).ok()?;
    let devices = Device::all(&netlink).ok()?;
    let bridge = if device.is("bridge") { device.index } else { device.master? };
    let bridge = devices.iter().find(|device| device.index == bridge && device.is("bridge"))?;
    let scene = Scene { bridge, from: (device.index != bridge.index).then_some(&device), devices: &devices };
    if let Some(found) = scene.from.and_then(|from| refused_on_arrival(from, bridge)) {
        return Some(found);
    }
    let to = question.link.first_chunk::<6>();
    let known = to.filter(|to| to[0] & 1 == 0).and_then(|to| scene.port_of(&netlink, *to));
    match (known, to) {
        (Some(port), Some(to)) => scene.refused_by(port, *to),
        (_, to) => scene.nobody_takes(to.copied()),
    }
}

fn evidence(bridge: &Device, text: String) -> Evidence {
    let source = format!("bridge -d link show; bridge fdb show br {}", bridge.name);
    Evidence::new(Kind::Bridge, Certainty::Certain, text, source).with("bridge", &bridge.name)
}

fn tell(found: Evidence, port: &Device, of: Port) -> Evidence {
    found.with("port", &port.name).with("state", state(of)).with("isolated", of.is_isolated)
}

fn state(port: Port) -> &'static str {
    STATES.get(usize::from(port.state)).copied().unwrap_or("in an unknown state")
}

/// That the port a frame came by accepts none.
fn refused_on_arrival(from: &Device, bridge: &Device) -> Option<Evidence> {
    let port = from.port?;
    let why = if port.state == FORWARDING {
        if !port.is_locked {
            return None;
        }
        "locked"
    } else {
        state(port)
    };
    let text = format!("{}, a port of {}, is {why} now", from.name, bridge.name);
    Some(tell(evidence(bridge, text), from, port))
}

/// A bridge, its ports, and by which of them the frame came.
struct Scene<'a> {
    bridge: &'a Device,
    from: Option<&'a Device>,
    devices: &'a [Device],
}

impl<'a> Scene<'a> {
    /// The port behind which a host is known to be.
    fn port_of(&self, netlink: &Netlink, to: [u8; 6]) -> Option<&'a Device> {
        let mut request = vec![0; HEADER];
        request[0] = u8::try_from(libc::AF_BRIDGE).unwrap_or_default();
        put(&mut request, LLADDR, &to);
        put(&mut request, MASTER, &self.bridge.index.to_ne_bytes());
        let answer = netlink.ask(GET_NEIGHBOUR, &request).ok()?;
        let index = u32_at(&answer, INDEX)?;
        self.devices.iter().find(|device| device.index == index)
    }

    /// Why a port does not take the frame, if it does not.
    fn obstacle(&self, port: &Device, of: Port) -> Option<&'static str> {
        let from = self.from.and_then(|from| from.port);
        let is_same = self.from.is_some_and(|from| from.index == port.index);
        Some(match of {
            _ if !port.is_up() => "down",
            _ if !port.has_carrier() => "without carrier",
            _ if of.state != FORWARDING => state(of),
            _ if is_same && !of.is_hairpin => "where it came from",
            _ if of.is_isolated && from.is_some_and(|from| from.is_isolated) => "isolated",
            _ => return None,
        })
    }

    /// That the port to a known host does not take the frame.
    fn refused_by(&self, port: &Device, to: [u8; 6]) -> Option<Evidence> {
        let of = port.port?;
        let why = self.obstacle(port, of)?;
        let why = match self.from {
            Some(from) if why == "isolated" => format!("isolated now, as is {}", from.name),
            _ => format!("{why} now"),
        };
        let text = format!(
            "{} is behind {}, a port of {}, which is {why}",
            hardware(&to),
            port.name,
            self.bridge.name
        );
        Some(tell(evidence(self.bridge, text), port, of).with("to", hardware(&to)))
    }

    /// That no port takes a frame that goes to all of them.
    fn nobody_takes(&self, to: Option<[u8; 6]>) -> Option<Evidence> {
        let ports = self.devices.iter().filter(|device| device.master == Some(self.bridge.index));
        let ports: Vec<_> = ports.filter_map(|device| Some((device, device.port?))).collect();
        let others: Vec<_> =
            ports.iter().filter(|(port, _)| self.from.is_none_or(|from| from.index != port.index)).collect();
        let floods = to.map(|to| if to == [0xff; 6] { 2 } else { usize::from(to[0] & 1) });
        let mut reasons = Vec::new();
        for (port, of) in &others {
            let does_not_flood = floods.is_some_and(|kind| !of.floods[kind]).then_some("without flooding");
            // One that would take it: then it is something else.
            let why = self.obstacle(port, *of).or(does_not_flood)?;
            reasons.push(format!("{} is {why}", port.name));
        }
        let ports = if self.from.is_some() { "other port" } else { "port" };
        let text = if reasons.is_empty() {
            format!("{} has no {ports} now", self.bridge.name)
        } else {
            format!("no {ports} of {} takes it now: {}", self.bridge.name, reasons.join(", "))
        };
        let text = match self.from.and_then(|from| Some((from, from.port?))) {
            Some((from, port)) if port.is_isolated => format!("{text} ({} is isolated)", from.name),
            _ => text,
        };
        let names: Vec<_> = others.iter().map(|(port, _)| &port.name).collect();
        Some(evidence(self.bridge, text).with("port", self.from.map(|from| &from.name)).with("ports", names))
    }
}
