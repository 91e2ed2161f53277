//! One look at all that a namespace counts.

use std::{collections::HashMap, fs, os::fd::AsFd as _, path::Path};

use nix::sys::socket::SockProtocol;

use super::{
    catalogue::Source,
    ethtool,
    links::{self, Link},
    numbers::{Delta, Numbers, Subject},
    read::Files,
    sockets::{self, Listening, Lossy},
};
use crate::{
    evidence::{
        budget::Budget,
        netlink::Netlink,
        places::Inside,
        qdiscs::{self, Hidden},
    },
    sys::Ethtool,
};

/// The counter of connection requests that listening sockets lost.
pub const LISTEN_DROPS: &str = "TcpExtListenDrops";

/// What a look at a namespace found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The numbers of each subject that could be read.
    pub numbers: HashMap<Subject, Numbers>,
    /// The numbers of the host, if they were read.
    pub host: Option<Numbers>,
    /// The interfaces.
    pub links: Vec<Link>,
    /// The listening sockets, if any of them lost something since the last look.
    pub listeners: Vec<Listening>,
    /// Whether the namespace was entered: otherwise there is nothing of interfaces and packet sockets.
    pub is_entered: bool,
    /// Whether its netlink sockets were read.
    pub has_netlink_sockets: bool,
}

impl Found {
    /// What its interfaces have counted in all.
    pub fn traffic(&self) -> Traffic {
        self.links.iter().map(|link| (link.index, link.sum)).collect()
    }

    /// One that has lost nothing is not kept: it counts from zero.
    fn keep(&mut self, subject: Subject, socket: Lossy) {
        if socket.drops > 0 {
            self.numbers.insert(subject, one(socket.drops.into()));
        }
    }
}

/// What interfaces have counted in all, each by its number.
pub type Traffic = Vec<(u32, u64)>;

/// What a look came to.
#[derive(Debug)]
pub enum Looked {
    /// All was read.
    Whole(Found),
    /// No packet has passed since the last look, and no more was read.
    Idle,
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What was found the last time.
    pub before: Option<&'a HashMap<Subject, Numbers>>,
    /// Whether nothing has been read of any namespace: then everything is read that may be compared later.
    pub is_first: bool,
    /// Whether the numbers of the host are read too.
    pub with_host: bool,
    /// Whether the netlink sockets are read too: for each namespace, the kernel goes through those of all.
    pub with_netlink_sockets: bool,
    /// The traffic at the last look, if it is enough to see that there was none since.
    pub unless: Option<&'a Traffic>,
    /// When it is spent, statistics of drivers are left out.
    pub budget: Budget,
}

impl Look<'_> {
    /// Looks at a namespace; none if it cannot be read whole.
    pub fn at(&self, inside: Inside<'_>) -> Option<Looked> {
        let mut found = Found { is_entered: inside.is_entered, ..Found::default() };
        let open = || Netlink::open(SockProtocol::NetlinkRoute).ok();
        let netlink = if inside.is_entered { Some(open()?) } else { None };
        if let Some(netlink) = &netlink {
            found.links = links::read(netlink).ok()?;
            if self.unless.is_some_and(|before| *before == found.traffic()) {
                return Some(Looked::Idle);
            }
        }
        self.files(inside.directory, &mut found)?;
        if let Some(netlink) = &netlink {
            self.interfaces(netlink, &mut found)?;
            self.sockets(inside.directory, &mut found)?;
        }
        Some(Looked::Whole(found))
    }

    fn files(&self, directory: &Path, found: &mut Found) -> Option<()> {
        let (mut files, mut own) = (Files::of(directory), Numbers::new());
        for source in Source::OF_NAMESPACE {
            own.extend(files.losses(source).ok()?);
        }
        found.numbers.insert(Subject::Namespace, own);
        if self.with_netlink_sockets {
            let lossy = files.netlink_sockets().ok()?.into_iter().filter(|(_, drops)| *drops > 0);
            found.numbers.extend(lossy.map(|(socket, drops)| (Subject::NetlinkSocket(socket), one(drops))));
            found.has_netlink_sockets = true;
        }
        if self.with_host {
            found.host = Some(files.losses(Source::Softnet).ok()?);
        }
        Some(())
    }

    fn interfaces(&self, netlink: &Netlink, found: &mut Found) -> Option<()> {
        let mut ethtool = Ethtool::new(netlink.as_fd()).ok()?;
        for link in &found.links {
            let name = || (link.index, link.name.clone());
            let (index, of) = name();
            found.numbers.insert(Subject::Interface(index, of), link.numbers.clone());
            let (index, of) = name();
            let driver = Subject::Driver(index, of);
            let wanted = self.is_first || link.is_card() || link.has_xdp;
            if wanted && !self.counts_nothing(&driver) && !self.budget.is_spent() {
                // Most have no such numbers.
                found.numbers.insert(driver, ethtool::read(&mut ethtool, &link.name).unwrap_or_default());
            }
        }
        for dropped in qdiscs::read(netlink, Hidden::LeftOut).ok()? {
            if dropped.drops > 0 {
                let subject = Subject::Qdisc(dropped.index, dropped.qdisc);
                found.numbers.insert(subject, one(dropped.drops.into()));
            }
        }
        Some(())
    }

    /// Whether a driver has been found to count no losses.
    fn counts_nothing(&self, driver: &Subject) -> bool {
        self.before.and_then(|before| before.get(driver)).is_some_and(Numbers::is_empty)
    }

    fn sockets(&self, directory: &Path, found: &mut Found) -> Option<()> {
        let has_packet_sockets =
            fs::read_to_string(directory.join("packet")).is_ok_and(|text| text.lines().count() > 1);
        let lost = self.delta(found).of(LISTEN_DROPS);
        if !has_packet_sockets && lost == 0 && !self.is_first {
            return Some(());
        }
        let diag = Netlink::open(SockProtocol::NetlinkSockDiag).ok()?;
        if has_packet_sockets {
            for socket in sockets::packet(&diag).ok()? {
                found.keep(Subject::PacketSocket(socket.id), socket);
            }
        }
        if lost > 0 || self.is_first {
            let listeners = sockets::listening(&diag).ok()?;
            for listener in &listeners {
                found.keep(Subject::Listener(listener.socket.id), listener.socket);
            }
            found.listeners = listeners;
        }
        Some(())
    }

    /// What the namespace as a whole counted since the last look.
    fn delta<'b>(&'b self, found: &'b Found) -> Delta<'b> {
        Delta::new(
            self.before.and_then(|before| before.get(&Subject::Namespace)),
            &found.numbers[&Subject::Namespace],
        )
    }
}

/// The only number of a subject.
fn one(number: u64) -> Numbers {
    [(ONLY.into(), number)].into()
}

/// The name of a subject's only number.
pub const ONLY: &str = "drops";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn where_no_packet_has_passed_no_more_is_read() {
        let inside = Inside { directory: Path::new("/proc/thread-self/net"), is_entered: true };
        let budget = Budget::of(Duration::MAX);
        let look = |unless: Option<&Traffic>| {
            let of = Look {
                before: None,
                is_first: true,
                with_host: false,
                with_netlink_sockets: true,
                unless,
                budget,
            };
            of.at(inside).expect("the own namespace")
        };
        let traffic = || match look(None) {
            Looked::Whole(found) => found.traffic(),
            Looked::Idle => panic!("there is nothing to compare with"),
        };
        let other = traffic().iter().map(|&(index, sum)| (index, sum.wrapping_sub(1))).collect();
        assert!(matches!(look(Some(&other)), Looked::Whole(_)));
        // Others use this namespace.
        assert!((0..1000).any(|_| matches!(look(Some(&traffic())), Looked::Idle)));
    }
}
