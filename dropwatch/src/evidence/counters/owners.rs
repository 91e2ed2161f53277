//! Which process has a socket open.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use crate::evidence::budget::Budget;
use crate::model::{counter::Process, foreign::Foreign};

/// The process with the lowest number, of those named, that has each of these sockets open.
///
/// Ends when the budget is spent; what has not been found then stays unknown.
pub fn find(proc: &Path, pids: &[u32], inodes: &[u32], budget: Budget) -> HashMap<u32, Process> {
    let mut wanted: HashSet<_> = inodes.iter().copied().filter(|inode| *inode != 0).collect();
    let mut found = HashMap::new();
    for &pid in pids {
        if wanted.is_empty() || budget.is_spent() {
            break;
        }
        let directory = proc.join(pid.to_string());
        for inode in open_sockets(&directory) {
            if wanted.remove(&inode)
                && let Ok(comm) = fs::read(directory.join("comm"))
            {
                found.insert(inode, Process { pid, comm: name(&comm) });
            }
        }
    }
    found
}

/// The inode numbers of a process's sockets.
fn open_sockets(process: &Path) -> impl Iterator<Item = u32> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Without the end of the line.
fn name(comm: &[u8]) -> Foreign {
    comm.strip_suffix(b"\n").unwrap_or(comm).into()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use nix::sys::stat::fstat;

    use super::*;

    #[test]
    fn a_socket_of_our_own_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let inode = u32::try_from(fstat(&listener).expect("its inode").st_ino).expect("a socket's number");
        let find = |pids: &[u32], budget| find(Path::new("/proc"), pids, &[inode, 0], Budget::of(budget));
        let own = std::process::id();
        let found = find(&[own], Duration::MAX);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [inode]);
        assert_eq!(found[&inode].pid, own);
        let comm = fs::read("/proc/self/comm").expect("our name");
        assert_eq!(found[&inode].comm, name(&comm));
        assert!(find(&[], Duration::MAX).is_empty());
        assert!(find(&[own], Duration::ZERO).is_empty(), "there is no time");
    }
}
