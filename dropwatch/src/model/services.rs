//! Services: names of ports.

use std::sync::LazyLock;

use dropwatch_common::packet::transport;

/// The services that are known where the system has no file of them.
const COMMON: &str = "
ftp-data 20/tcp
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp mail
domain 53/tcp
domain 53/udp
bootps 67/udp
bootpc 68/udp
tftp 69/udp
http 80/tcp www
kerberos 88/tcp
kerberos 88/udp
pop3 110/tcp
sunrpc 111/tcp portmapper
sunrpc 111/udp portmapper
ntp 123/udp
imap2 143/tcp imap
snmp 161/tcp
snmp 161/udp
snmp-trap 162/tcp snmptrap
snmp-trap 162/udp snmptrap
bgp 179/tcp
ldap 389/tcp
ldap 389/udp
https 443/tcp
https 443/udp
microsoft-ds 445/tcp
microsoft-ds 445/udp
isakmp 500/udp
syslog 514/udp
ldaps 636/tcp
ldaps 636/udp
imaps 993/tcp
pop3s 995/tcp
radius 1812/tcp
radius 1812/udp
nfs 2049/tcp
nfs 2049/udp
mysql 3306/tcp
postgresql 5432/tcp
";

/// The services of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services(Vec<Service>);

/// A port by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    name: String,
    port: u16,
    is_udp: bool,
}

impl Services {
    /// Those that are known everywhere.
    #[must_use]
    pub fn common() -> &'static Self {
        static SERVICES: LazyLock<Services> = LazyLock::new(|| Services::parse(COMMON));
        &SERVICES
    }

    /// Reads what `/etc/services` is written in: `NAME PORT/PROTOCOL ALIAS…`, `#` starts a comment. What is neither
    /// TCP nor UDP is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().flat_map(services).collect())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|service| &*service.name)
    }

    /// The port of a name, and the bits of [`transport`] that it belongs to, among those that are meant. As in
    /// libpcap a name of one transport means that one alone.
    ///
    /// # Errors
    /// It is a name of another transport.
    #[must_use]
    pub fn port(&self, name: &str, transports: u8) -> Option<Result<(u16, u8), String>> {
        let find = |is_udp| {
            let mut services = self.0.iter();
            services.find(|service| service.is_udp == is_udp && service.name == name).map(|found| found.port)
        };
        let of_one = |port, transport, other| match transports {
            transport::ANY => Ok((port, transport)),
            transports if transports == transport => Ok((port, transport)),
            _ => Err(format!("'{name}' is a port of {other} alone")),
        };
        Some(match (find(false), find(true)) {
            (Some(tcp), Some(udp)) if tcp == udp => Ok((tcp, transports)),
            (Some(_), Some(udp)) if transports == transport::UDP => Ok((udp, transports)),
            (Some(tcp), _) => of_one(tcp, transport::TCP, "TCP"),
            (None, Some(udp)) => of_one(udp, transport::UDP, "UDP"),
            (None, None) => return None,
        })
    }
}

/// The names on a line.
fn services(line: &str) -> Vec<Service> {
    let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
    let (Some(name), Some(port)) = (words.next(), words.next()) else { return Vec::new() };
    let Some((port, protocol)) = port.split_once('/') else { return Vec::new() };
    let is_udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return Vec::new(),
    };
    let Ok(port) = port.parse() else { return Vec::new() };
    [name].into_iter().chain(words).map(|name| Service { name: name.to_owned(), port, is_udp }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_one_transport_means_that_one() {
        let text = "http\t80/tcp www # the web\n\ndomain 53/tcp\ndomain 53/udp\nntp 123/udp\nx 1/sctp\n";
        let services = Services::parse(text);
        let port = |name, transports| services.port(name, transports);
        assert_eq!(port("http", transport::ANY), Some(Ok((80, transport::TCP))));
        assert_eq!(port("www", transport::TCP), Some(Ok((80, transport::TCP))));
        assert_eq!(port("domain", transport::ANY), Some(Ok((53, transport::ANY))));
        assert_eq!(port("domain", transport::SCTP), Some(Ok((53, transport::SCTP))));
        assert_eq!(port("ntp", transport::ANY), Some(Ok((123, transport::UDP))));
        assert!(matches!(port("http", transport::UDP), Some(Err(problem)) if problem.contains("TCP alone")));
        assert_eq!(port("x", transport::ANY), None);
        assert_eq!(port("the", transport::ANY), None);
    }

    /// As libpcap: the port of TCP, unless UDP is meant.
    #[test]
    fn a_name_of_two_ports_means_that_of_tcp() {
        let services = Services::parse("exec 512/tcp\nexec 513/udp\n");
        assert_eq!(services.port("exec", transport::ANY), Some(Ok((512, transport::TCP))));
        assert_eq!(services.port("exec", transport::UDP), Some(Ok((513, transport::UDP))));
    }

    #[test]
    fn the_common_ones_are_all_read() {
        assert_eq!(Services::common().0.len(), COMMON.trim().lines().count() + 7);
    }
}
