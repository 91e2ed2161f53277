//! The hook that a packet was dropped at, from the functions that led there.

use std::fmt;

/// A family of tables, by its number in netlink messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Inet = 1,
    Ip = 2,
    Arp = 3,
    Netdev = 5,
    Bridge = 7,
    Ip6 = 10,
}

impl Family {
    /// The family with this number.
    pub fn of(number: u8) -> Option<Self> {
        let all = [Self::Inet, Self::Ip, Self::Arp, Self::Netdev, Self::Bridge, Self::Ip6];
        all.into_iter().find(|family| *family as u8 == number)
    }

    /// Its name in `nft`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }

    /// The hook of its chains with this number.
    pub fn hook(self, number: u32) -> Option<Hook> {
        self.hooks().get(usize::try_from(number).ok()?).copied()
    }

    /// The number of a hook of its chains.
    pub fn number(self, hook: Hook) -> Option<u32> {
        self.hooks().iter().position(|known| *known == hook)?.try_into().ok()
    }

    fn hooks(self) -> &'static [Hook] {
        use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        match self {
            Self::Inet => &[Prerouting, Input, Forward, Output, Postrouting, Ingress],
            Self::Ip | Self::Ip6 | Self::Bridge => &[Prerouting, Input, Forward, Output, Postrouting],
            Self::Arp => &[Input, Output, Forward],
            Self::Netdev => &[Ingress, Egress],
        }
    }
}

/// A place in a packet's way through the host where rules decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        })
    }
}

/// Which level of the network the hook belongs to: each has chains of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Device,
    Bridge,
    Arp,
    Ip,
}

/// What the call chain tells about where rules were asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The hook and its level.
    pub hook: Option<(Level, Hook)>,
    /// The family of the tables whose chain ended the packet's way.
    pub family: Option<Family>,
}

impl Place {
    /// From the functions that led to the drop, innermost first; what they do not tell is unknown.
    pub fn of<'a>(functions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut place = Self::default();
        for function in functions {
            // What compilers add to the names of parts and clones.
            let function = function.split('.').next().unwrap_or(function);
            place.family = place.family.or_else(|| family(function));
            place.hook = hook(function);
            if place.hook.is_some() {
                break;
            }
        }
        // A chain of the family `inet` at a device is run like those of the family `netdev`.
        if place.hook.is_some_and(|(level, _)| level == Level::Device) {
            place.family = None;
        }
        place
    }

    /// Whether a chain of this family at this hook can have run here.
    pub fn may_be(self, family: Family, hook: Hook, is_ip: Option<Family>) -> bool {
        let level = match (family, hook) {
            (Family::Netdev, _) | (_, Hook::Ingress | Hook::Egress) => Level::Device,
            (Family::Bridge, _) => Level::Bridge,
            (Family::Arp, _) => Level::Arp,
            _ => Level::Ip,
        };
        let is_here = self.hook.is_none_or(|here| here == (level, hook));
        let is_family = self.family.is_none_or(|here| here == family);
        let is_of_packet = !matches!(family, Family::Ip | Family::Ip6) || is_ip.is_none_or(|ip| ip == family);
        is_here && is_family && is_of_packet
    }
}

/// The family whose chains a function runs.
fn family(function: &str) -> Option<Family> {
    Some(match function {
        "nft_do_chain_ipv4" => Family::Ip,
        "nft_do_chain_ipv6" => Family::Ip6,
        "nft_do_chain_inet" => Family::Inet,
        "nft_do_chain_arp" => Family::Arp,
        "nft_do_chain_bridge" => Family::Bridge,
        _ => return None,
    })
}

/// The hook that a function of the network core asks.
fn hook(function: &str) -> Option<(Level, Hook)> {
    use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
    let ip = |hook| Some((Level::Ip, hook));
    let bridge = |hook| Some((Level::Bridge, hook));
    match function {
        "ip_rcv"
        | "ip_list_rcv"
        | "ip_sublist_rcv"
        | "ipv6_rcv"
        | "ip6_rcv"
        | "ipv6_list_rcv"
        | "ip6_sublist_rcv"
        | "br_nf_pre_routing"
        | "br_nf_pre_routing_ipv6" => ip(Prerouting),
        "ip_local_deliver" | "ip6_input" | "ip6_mc_input" => ip(Input),
        "ip_forward" | "ip6_forward" | "ip_mr_forward" | "ip6_mr_forward" | "br_nf_forward_ip"
        | "br_nf_forward" => ip(Forward),
        "__ip_local_out" | "ip_local_out" | "__ip6_local_out" | "ip6_local_out" | "ip6_xmit"
        | "raw_sendmsg" | "raw_send_hdrinc" | "rawv6_sendmsg" | "rawv6_send_hdrinc" | "ndisc_send_skb"
        | "mld_sendpack" | "igmp6_send" | "xfrm_output_resume" => ip(Output),
        "ip_output" | "ip_mc_output" | "ip6_output" | "ip6_mc_output" | "br_nf_post_routing" => {
            ip(Postrouting)
        }
        "br_handle_frame" | "nf_hook_bridge_pre" => bridge(Prerouting),
        "br_pass_frame_up" => bridge(Input),
        "__br_forward" => bridge(Forward),
        "br_forward_finish" => bridge(Postrouting),
        "arp_rcv" => Some((Level::Arp, Input)),
        "arp_xmit" => Some((Level::Arp, Output)),
        "nf_ingress" | "nf_hook_ingress" | "__netif_receive_skb_core" => Some((Level::Device, Ingress)),
        "nf_hook_egress"
        | "nf_hook_direct_egress"
        | "__dev_queue_xmit"
        | "dev_queue_xmit"
        | "__dev_direct_xmit" => Some((Level::Device, Egress)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook_of(chain: &str) -> Option<(Level, Hook)> {
        Place::of(chain.split(' ')).hook
    }

    #[test]
    fn the_first_function_that_asks_a_hook_tells_which() {
        let ip = |hook| Some((Level::Ip, hook));
        let input = "nft_do_chain nft_do_chain_inet nf_hook_slow ip_local_deliver ip_rcv __netif_receive_skb";
        assert_eq!(hook_of(input), ip(Hook::Input));
        assert_eq!(hook_of("nf_hook_slow ip_forward ip_rcv process_backlog"), ip(Hook::Forward));
        assert_eq!(hook_of("nf_hook_slow ip_rcv __netif_receive_skb_one_core"), ip(Hook::Prerouting));
        assert_eq!(hook_of("nf_hook_slow __ip_local_out ip_send_skb udp_send_skb.isra.0"), ip(Hook::Output));
        assert_eq!(hook_of("nf_hook_slow ip_output ip_send_skb __ip_local_out"), ip(Hook::Postrouting));
        assert_eq!(
            hook_of("nft_do_chain nft_do_chain_netdev nf_hook_slow __netif_receive_skb_core.constprop.0"),
            Some((Level::Device, Hook::Ingress))
        );
        assert_eq!(
            hook_of("nft_do_chain nft_do_chain_bridge br_handle_frame"),
            Some((Level::Bridge, Hook::Prerouting))
        );
        assert_eq!(hook_of("nf_hook_slow nf_reinject"), None);
    }

    #[test]
    fn the_family_is_that_of_the_function_that_runs_chains() {
        let family = |chain: &str| Place::of(chain.split(' ')).family;
        assert_eq!(family("nft_do_chain nft_do_chain_inet nf_hook_slow ip_forward"), Some(Family::Inet));
        assert_eq!(family("nft_do_chain nft_do_chain_ipv6 nf_hook_slow ip6_input"), Some(Family::Ip6));
        assert_eq!(family("nf_hook_slow ip_forward"), None);
    }

    #[test]
    fn only_chains_of_the_packets_way_may_be_it() {
        let place = Place::of(["nf_hook_slow", "ip_local_deliver"]);
        assert!(place.may_be(Family::Inet, Hook::Input, Some(Family::Ip)));
        assert!(place.may_be(Family::Ip, Hook::Input, Some(Family::Ip)));
        assert!(!place.may_be(Family::Ip6, Hook::Input, Some(Family::Ip)));
        assert!(!place.may_be(Family::Inet, Hook::Forward, Some(Family::Ip)));
        assert!(!place.may_be(Family::Bridge, Hook::Input, Some(Family::Ip)));
        let exact = Place::of(["nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "ip_local_deliver"]);
        assert!(!exact.may_be(Family::Ip, Hook::Input, Some(Family::Ip)));
        assert!(Place::default().may_be(Family::Ip6, Hook::Output, None));
        let device =
            Place::of(["nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "__netif_receive_skb_core"]);
        assert!(device.may_be(Family::Netdev, Hook::Ingress, Some(Family::Ip)));
        assert!(device.may_be(Family::Inet, Hook::Ingress, Some(Family::Ip)));
    }

    #[test]
    fn numbers_of_hooks_are_those_of_the_family() {
        assert_eq!(Family::Inet.hook(1), Some(Hook::Input));
        assert_eq!(Family::Inet.hook(5), Some(Hook::Ingress));
        assert_eq!(Family::Netdev.hook(0), Some(Hook::Ingress));
        assert_eq!(Family::Arp.hook(1), Some(Hook::Output));
        assert_eq!(Family::Ip.hook(9), None);
        assert_eq!(Family::of(10).map(Family::name), Some("ip6"));
    }
}
