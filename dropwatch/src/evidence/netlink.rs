//! Dumps that the kernel makes over netlink, of the namespace that the socket was opened in.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use netlink_packet_core::{
    Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NlasIterator,
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use super::budget::Budget;
use crate::sys;

/// The kernel fills no more of it at a time.
const ROOM: usize = 1 << 15;
/// How often a dump is made that something interrupted.
const TRIES: usize = 3;

thread_local! {
    /// Where a thread receives answers: it reads many lists, and clearing the room for each costs more than most of them.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; ROOM]);
}

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// A socket in the namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel refuses, as it does what it is built without.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?))
    }

    /// The same for `IPsec`.
    ///
    /// # Errors
    /// The kernel is built without it.
    pub fn open_xfrm() -> io::Result<Self> {
        sys::xfrm_socket().map(Self)
    }

    /// The answers to a request for a list, each with its type; none if the kernel does not have such a list.
    ///
    /// # Errors
    /// The list changed whenever it was read, or there is no memory: nothing may be concluded from what is not in it.
    pub fn dump(&self, kind: u16, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.dump_within(kind, request, Budget::of(Duration::MAX))
    }

    /// The same, unless that uses more of the processors than there is left; the socket is of no use then.
    ///
    /// # Errors
    /// Those of [`Self::dump`], and [`io::ErrorKind::TimedOut`].
    pub fn dump_within(&self, kind: u16, request: &[u8], budget: Budget) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..TRIES {
            match self.dump_once(kind, request, budget) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if is_unknown(&error) => return Ok(Vec::new()),
                dumped => return dumped,
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// The answer to a request for one thing.
    ///
    /// # Errors
    /// The kernel's answer is an error, which may be what it has to say: that there is no route, or no such neighbour.
    pub fn ask(&self, kind: u16, request: &[u8]) -> io::Result<Vec<u8>> {
        send(self.0.as_raw_fd(), &message(kind, NLM_F_REQUEST, request), MsgFlags::empty())?;
        self.receive(|received| {
            let answer = messages(received).next().ok_or(io::ErrorKind::InvalidData)?;
            if answer.message_type() == NLMSG_ERROR {
                return ended(answer.payload()).map(|()| Vec::new());
            }
            Ok(answer.payload().to_vec())
        })?
    }

    /// What `read` makes of the next bytes that the kernel sends.
    fn receive<T>(&self, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        RECEIVED.with_borrow_mut(|room| {
            let length = recv(self.0.as_raw_fd(), room, MsgFlags::empty())?;
            Ok(read(&room[..length]))
        })
    }

    /// Makes the kernel apply the conditions in a request for a list, or refuse them; before Linux 4.20 it lists everything.
    pub fn strictly(&self) -> &Self {
        sys::netlink_is_strict(self.0.as_fd());
        self
    }

    fn dump_once(&self, kind: u16, request: &[u8], budget: Budget) -> io::Result<Vec<Vec<u8>>> {
        let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, request);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut is_whole = true;
        let mut take_in = |received: &[u8]| {
            for message in messages(received) {
                is_whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE if is_whole => return Some(ended(message.payload())),
                    NLMSG_DONE => return Some(Err(Errno::EINTR.into())),
                    NLMSG_ERROR => return Some(ended(message.payload())),
                    _ => answers.push(message.payload().to_vec()),
                }
            }
            None
        };
        loop {
            if let Some(ended) = self.receive(&mut take_in)? {
                return ended.map(|()| answers);
            }
            if budget.is_spent() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// For the requests to devices by `ioctl`, for which any socket does.
impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this kernel does not support the request, or refuses it.
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [
        libc::ENOENT,
        libc::EOPNOTSUPP,
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::EINVAL,
        libc::EPERM,
        libc::EACCES,
    ];
    error.raw_os_error().is_some_and(|number| unknown.contains(&number))
}

/// A request.
pub fn message(kind: u16, flags: u16, request: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let mut message = vec![0; header.buffer_len()];
    message.extend_from_slice(request);
    header.length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    (header.message_type, header.flags) = (kind, flags);
    header.emit(&mut message[..]);
    message
}

/// The messages of one answer, up to one that is broken.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// How a list ended: zero, or an error's number below zero.
pub fn ended(payload: &[u8]) -> io::Result<()> {
    match u32_at(payload, 0).map_or(0, u32::cast_signed) {
        0.. => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
    }
}

/// Puts an attribute behind a request.
pub fn put(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// The attributes behind a header, up to one that is broken.
pub fn attributes(message: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let bytes = message.get(header..).unwrap_or_default();
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let length = usize::from(attribute.length());
        (attribute.kind(), attribute.into_inner().get(4..length).unwrap_or_default())
    })
}

/// The first attribute of a type.
pub fn attribute(message: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    attributes(message, header).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Text up to its zero.
pub fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The number in some bytes of a message, in the machine's order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The same of eight bytes.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Attributes as messages have them.
pub mod writer {
    /// An attribute.
    pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// An attribute that consists of others.
    pub fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        const NESTED: u16 = 1 << 15;
        attribute(kind | NESTED, &parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_own_loopback_is_in_the_list_of_links() {
        const GETLINK: u16 = 18;
        const NAME: u16 = 3;
        let netlink = Netlink::open(SockProtocol::NetlinkRoute).expect("a socket");
        let links = netlink.dump(GETLINK, &[0; 16]).expect("a list");
        let names: Vec<_> = links.iter().filter_map(|link| attribute(link, 16, NAME)).map(text).collect();
        assert!(names.contains(&&b"lo"[..]), "{names:?}");
    }

    #[test]
    fn one_link_is_found_by_its_name_and_another_is_not_there() {
        const GETLINK: u16 = 18;
        const NAME: u16 = 3;
        let netlink = Netlink::open(SockProtocol::NetlinkRoute).expect("a socket");
        let ask = |name: &[u8]| {
            let mut request = vec![0; 16];
            put(&mut request, NAME, name);
            netlink.ask(GETLINK, &request)
        };
        let link = ask(b"lo\0").expect("the loopback");
        assert_eq!(attribute(&link, 16, NAME).map(text), Some(&b"lo"[..]));
        assert_eq!(ask(b"none\0").expect_err("no link").raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_list_that_the_kernel_does_not_have_is_empty() {
        let netlink = Netlink::open(SockProtocol::NetlinkRoute).expect("a socket");
        assert!(netlink.dump(9999, &[0; 16]).expect("no list").is_empty());
    }

    #[test]
    fn a_list_ends_with_an_error_or_without() {
        assert!(ended(&[]).is_ok() && ended(&0_i32.to_ne_bytes()).is_ok());
        let error = ended(&(-libc::ENOMEM).to_ne_bytes()).expect_err("an error");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert!(ended(&i32::MIN.to_ne_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..300_usize) {
            let _ = (messages(&bytes).count(), attributes(&bytes, at).count(), ended(&bytes));
            let _ = (u32_at(&bytes, at), u64_at(&bytes, at), text(&bytes));
        }
    }
}
