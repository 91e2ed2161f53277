//! Sockets to listen at: of our own, or from the parent process.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use nix::sys::{
    socket::{Backlog, listen},
    stat::{Mode, umask},
};

use super::connection::Stream;
use crate::{cli::config::Listen, escape::Escaped, process::failure::Refusal};

/// The permissions of a socket's file that others lack: everything but for its owner and group.
const OTHERS: Mode = Mode::S_IRWXO;

/// Sockets that clients can connect to; files of them are removed in the end.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<(Listening, String)>,
    files: SocketFiles,
}

/// Files of sockets. Clones are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct SocketFiles(Vec<PathBuf>);

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket in the event loop.
pub enum Socket {
    /// For clients of the network.
    Tcp(tokio::net::TcpListener),
    /// For clients of this host.
    Unix(tokio::net::UnixListener),
}

impl Listeners {
    /// The sockets of the parent process, if it passes any on; else new ones at these places.
    ///
    /// # Errors
    /// The place, and why nothing can listen there.
    pub fn open(places: &[Listen]) -> Result<Self, Refusal> {
        let inherited = inherited().map_err(|error| {
            Refusal::new(format!(
                "a socket of LISTEN_FDS cannot be used: {error}; each must be a stream that listens"
            ))
        })?;
        if !inherited.is_empty() {
            return Ok(Self { sockets: inherited, files: SocketFiles::default() });
        }
        let mut listeners = Self { sockets: Vec::new(), files: SocketFiles::default() };
        for place in places {
            let socket = listeners.bind(place).map_err(|error| refused(place, &error))?;
            listeners.sockets.push(socket);
        }
        Ok(listeners)
    }

    /// Opens one. As many clients may wait there as the host allows: with 128, a burst of them would wait for seconds, until
    /// their systems connect again.
    fn bind(&mut self, place: &Listen) -> io::Result<(Listening, String)> {
        match place {
            Listen::Tcp(address) => {
                let socket = TcpListener::bind(address)?;
                listen(&socket, Backlog::MAXALLOWABLE)?;
                let address = socket.local_addr()?;
                Ok((Listening::Tcp(socket), address.to_string()))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let mask = umask(OTHERS);
                let socket = UnixListener::bind(path);
                umask(mask);
                let socket = socket?;
                self.files.0.push(path.clone());
                Ok((Listening::Unix(socket), place.to_string()))
            }
        }
    }

    /// Where clients connect to, in words.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(_, place)| &**place)
    }

    /// Those that other hosts can reach.
    pub fn public_places(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().filter(|(socket, _)| socket.is_public()).map(|(_, place)| &**place)
    }

    /// Their files.
    pub fn files(&self) -> SocketFiles {
        self.files.clone()
    }

    /// The sockets in this event loop.
    pub fn sockets(&self) -> Result<Vec<Socket>> {
        let sockets = self.sockets.iter().map(|(socket, place)| {
            let socket = match socket {
                Listening::Tcp(socket) => socket.try_clone().and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    tokio::net::TcpListener::from_std(socket).map(Socket::Tcp)
                }),
                Listening::Unix(socket) => socket.try_clone().and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    tokio::net::UnixListener::from_std(socket).map(Socket::Unix)
                }),
            };
            socket.with_context(|| format!("cannot listen at {place}"))
        });
        sockets.collect()
    }
}

impl Listening {
    /// Where nothing is known, it is.
    fn is_public(&self) -> bool {
        match self {
            Self::Tcp(socket) => !socket.local_addr().is_ok_and(|address| is_loopback(&address)),
            Self::Unix(_) => false,
        }
    }

    /// A socket of the parent process, in words.
    fn passed(self, index: usize) -> (Self, String) {
        let address = match &self {
            Self::Tcp(socket) => socket.local_addr().ok().map(|address| format!(" ({address})")),
            Self::Unix(_) => None,
        };
        (self, format!("socket {index} of the parent process{}", address.unwrap_or_default()))
    }
}

impl SocketFiles {
    /// Removes them.
    pub fn remove(&self) {
        for path in &self.0 {
            // At the end of a run there is nothing left to do about a failure.
            let _ = fs::remove_file(path);
        }
    }
}

impl Socket {
    /// Whether only this host reaches it, at an address that every host has.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.local_addr().is_ok_and(|address| is_loopback(&address)),
            Self::Unix(_) => false,
        }
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                // Answers are written whole; without it, the end of one may wait for the client.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(socket) => Ok(Box::new(socket.accept().await?.0)),
        }
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What the parent process passes on.
fn inherited() -> io::Result<Vec<(Listening, String)>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = match passed.take_tcp_listener(index) {
            Ok(socket) => socket.map(Listening::Tcp),
            Err(_) => passed.take_unix_listener(index)?.map(Listening::Unix),
        };
        sockets.extend(socket.map(|socket| socket.passed(index)));
    }
    Ok(sockets)
}

/// Removes the socket of a process that has ended.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn refused(place: &Listen, error: &io::Error) -> Refusal {
    let place = match place {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => Escaped::path(path).to_string(),
    };
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": something listens there already (`ss -lpn` shows what); choose another --listen"
        }
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 require CAP_NET_BIND_SERVICE, and files a directory that can be written"
        }
        io::ErrorKind::AddrNotAvailable => ": no interface of this host has the address",
        _ => "",
    };
    Refusal::new(format!("cannot listen at {place}: {error}{cure}"))
}
