//! The command line of `serve`, validated.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Query, SHORTEST_WITH_COUNTERS, Timing, at_least_one, debug_dir, filter, interval, max_rows, ready_file,
    usage,
};
use crate::{
    cli::ServeArgs, escape::Escaped, kernel::lookup::Host, model::keys::Key, process::failure::Failure,
};

/// Where it listens unless told otherwise.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10098);
/// The labels of drops, by default.
const DEFAULT_KEYS: [Key; 3] = [Key::Class, Key::Reason, Key::Function];
/// Keys that a host has few values of.
const BOUNDED: [Key; 11] = [
    Key::Location,
    Key::Function,
    Key::Reason,
    Key::Class,
    Key::Iface,
    Key::Netns,
    Key::Protocol,
    Key::IpProto,
    Key::Cpu,
    Key::Process,
    Key::Container,
];
/// The most series: beyond it, answers are larger than what Prometheus reads by default.
const MOST_SERIES: usize = 1_000_000;
/// The longest path of a Unix socket.
const LONGEST_PATH: usize = 107;

/// What `serve` is to do.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen, unless there are sockets from the parent process.
    pub listen: Vec<Listen>,
    /// A file that says who may read what.
    pub web_config: Option<PathBuf>,
    /// How often counts are read.
    pub interval: Duration,
    /// What is counted: the labels of drops are its keys.
    pub query: Query,
    /// The most series of drops.
    pub max_series: usize,
    /// A symbol file to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
    /// Measure the probe.
    pub cost: bool,
    /// Read the kernel's own counters of losses.
    pub counters: bool,
}

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port of an address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl ServeConfig {
    /// Checks the arguments, with the names of this host.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &ServeArgs, host: &Host) -> Result<Self, Failure> {
        at_least_one("--max-series", Some(args.max_series as u64))?;
        if args.max_series > MOST_SERIES {
            return Err(usage(
                "--max-series",
                &args.max_series,
                &format!("it must be at most {MOST_SERIES}"),
            ));
        }
        let interval = interval(&args.interval)?;
        Ok(Self {
            listen: listen(&args.listen)?,
            web_config: args.web_config.clone(),
            interval,
            query: Query {
                by: by(args.by.as_deref())?,
                max_rows: max_rows(args.count.max_rows)?,
                filter: filter(args.filter.as_deref(), host)?,
                interfaces: Vec::new(),
            },
            max_series: args.max_series,
            kallsyms: args.count.symbols.kallsyms.clone(),
            debug_dir: debug_dir(args.count.symbols.debug_dir.as_ref())?,
            ready_file: ready_file(&args.run)?,
            cost: args.cost,
            counters: !args.count.no_counters && args.filter.is_none() && interval >= SHORTEST_WITH_COUNTERS,
        })
    }

    /// When counts are read.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { interval: self.interval, reports: None, duration: None, peak: None }
    }
}

fn listen(addresses: &[String]) -> Result<Vec<Listen>, Failure> {
    if addresses.is_empty() {
        return Ok(vec![Listen::Tcp(DEFAULT_ADDRESS)]);
    }
    addresses.iter().map(|text| Listen::parse(text)).collect()
}

impl Listen {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(usage("--listen", &text, "the path of the socket is missing")),
                1..=LONGEST_PATH => Ok(Self::Unix(path.into())),
                _ => Err(usage(
                    "--listen",
                    &text,
                    &format!("a socket's path has at most {LONGEST_PATH} bytes"),
                )),
            };
        }
        // `:PORT` is every address for other exporters.
        let address = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
        address.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(|_| {
            usage(
                "--listen",
                &text,
                "it must be like 127.0.0.1:10098, [::1]:10098 or unix:/run/dropwatch.sock",
            )
        })
    }

    /// The file it makes.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", Escaped::path(path)),
        }
    }
}

/// The labels, each once.
fn by(text: Option<&str>) -> Result<Vec<Key>, Failure> {
    let Some(text) = text else { return Ok(DEFAULT_KEYS.to_vec()) };
    let mut by = Vec::new();
    for word in text.split(',') {
        let key = Key::find(word.trim(), &Key::ALL).map_err(|error| usage("--by", &text, &error))?;
        if !BOUNDED.contains(&key) {
            let why = format!(
                "there is no end of values of '{0}', and each would be a series for ever: `dropwatch -b {0}` counts them",
                key.word()
            );
            return Err(usage("--by", &text, &why));
        }
        if by.contains(&key) {
            return Err(usage("--by", &text, &format!("it has '{}' twice", key.word())));
        }
        by.push(key);
    }
    Ok(by)
}
