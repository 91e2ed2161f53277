//! Files that this process writes: never through a link, and never into a file that is there already.
//!
//! Each is made without a name, so that nothing is left of it if this process is killed, and put in its place when it is
//! whole or has begun. What stood there stays whole until then, whatever its owner, and a link is replaced and not followed.
//! A directory that others can write to is therefore safe.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsRawFd as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use caps::Capability;
use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags},
    io::Errno,
};
use tempfile::NamedTempFile;

use crate::escape::Escaped;

/// Directories of open descriptors and of devices, where only root or this process makes names: standard output or a
/// shell's `>(command)` goes by them, and what they lead to is written as it is.
const DEVICES: [&str; 3] = ["/dev", "/dev/fd", "/proc/self/fd"];

/// Why a file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// There is no such directory, or the path is one.
    NoFile,
    /// It is a symbolic link.
    Link,
    /// It is a FIFO, a socket or a device.
    Special,
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFile => "must be a file in an existing directory",
            Self::Link => "must not be a symbolic link: name the file that it leads to",
            Self::Special => "must be a regular file",
        })
    }
}

/// Whether a regular file can be put there, as far as this can be checked in advance.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &Path) -> Result<(), Unsuitable> {
    if !directory(path).is_dir() || path.file_name().is_none() {
        return Err(Unsuitable::NoFile);
    }
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    match found.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Unsuitable::NoFile),
        kind if kind.is_symlink() => Err(Unsuitable::Link),
        _ => Err(Unsuitable::Special),
    }
}

/// The same for a file that is written bit by bit, which may be a device or a descriptor of this process too.
///
/// # Errors
/// What is wrong with it.
pub fn check_stream(path: &Path) -> Result<(), Unsuitable> {
    match is_device(path) {
        true if path.exists() && !path.is_dir() => Ok(()),
        true => Err(Unsuitable::NoFile),
        false => check(path),
    }
}

/// Makes a file of its own for what follows; a device is opened as it is. Only its owner can read it.
///
/// The function writes its beginning: if that fails, what was there before is left.
///
/// # Errors
/// Those of the function and of the file system.
pub fn begin<T>(path: &Path, head: impl FnOnce(File) -> io::Result<T>) -> io::Result<T> {
    if is_device(path) && check(path).is_err() {
        // A pipe that has lost its reader is not waited for.
        let device =
            File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        rustix::fs::fcntl_setfl(&device, OFlags::empty())?;
        if device.is_terminal() {
            return Err(io::Error::other("refusing to write packets to a terminal"));
        }
        return head(device);
    }
    let new = NewFile::make(directory(path))?;
    let begun = head(new.file().try_clone()?)?;
    new.persist(path)?;
    Ok(begun)
}

/// Writes a whole file, which only its owner can read. It appears complete or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = NewFile::make(directory(path))?;
    new.file().write_all(text)?;
    new.file().sync_all()?;
    new.persist(path).map(drop)
}

/// A file that shows scripts that drops are being counted, if `--ready-file` names one. Clones are of the same file.
#[derive(Clone, Debug)]
pub struct ReadyFile {
    path: Option<PathBuf>,
    /// Device and inode number of what has been made.
    made: Arc<Mutex<Option<(u64, u64)>>>,
}

impl ReadyFile {
    /// One that is made later. What an earlier run has left is removed: it would say that this one is ready.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn prepare(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove the old {}", Escaped::path(path)));
        }
        Ok(Self { path: path.map(Path::to_owned), made: Arc::default() })
    }

    /// Says that it is ready: the file has this process's number, and everybody can read it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn announce(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let made = Self::make(path).with_context(|| format!("cannot create {}", Escaped::path(path)))?;
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
    }

    fn make(path: &Path) -> io::Result<(u64, u64)> {
        let new = NewFile::make(directory(path))?;
        writeln!(new.file(), "{}", process::id())?;
        new.file().set_permissions(Permissions::from_mode(0o644))?;
        let file = new.persist(path)?.metadata()?;
        Ok((file.dev(), file.ino()))
    }

    /// Removes the file, if it is still the one that has been made.
    pub fn remove(&self) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(path) = &self.path else { return };
        let found = path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()));
        if made.is_some() && made == found {
            // At the end of a run there is nothing left to do about a failure.
            let _ = fs::remove_file(path);
        }
    }
}

/// The capability without which a file cannot be put there or removed again, tested in a thread that has none.
#[must_use]
pub fn missing_right(path: &Path) -> Option<Capability> {
    let (directory, access) = (directory(path), Access::WRITE_OK | Access::EXEC_OK);
    if rustix::fs::accessat(CWD, directory, access, AtFlags::EACCESS).is_err() {
        return Some(Capability::CAP_DAC_OVERRIDE);
    }
    let (directory, file) = (directory.metadata().ok()?, path.symlink_metadata().ok()?);
    let user = rustix::process::geteuid().as_raw();
    let is_others = directory.mode() & 0o1000 != 0 && directory.uid() != user && file.uid() != user;
    is_others.then_some(Capability::CAP_FOWNER)
}

/// Whether this thread may look into a directory.
#[must_use]
pub fn can_be_read(directory: &Path) -> bool {
    let access = Access::READ_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, directory, access, AtFlags::EACCESS).is_ok()
}

/// A file that is not in its place yet. Only its owner can read it.
enum NewFile {
    Nameless(File),
    /// On file systems that have no nameless files.
    Named(NamedTempFile),
}

impl NewFile {
    fn make(directory: &Path) -> io::Result<Self> {
        match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from(0o600))
        {
            Ok(file) => Ok(Self::Nameless(file.into())),
            // The latter is the answer of file systems that do not know of them.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => NamedTempFile::new_in(directory).map(Self::Named),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Puts it in its place.
    fn persist(self, path: &Path) -> io::Result<File> {
        let file = match self {
            Self::Nameless(file) => file,
            Self::Named(file) => return Ok(file.persist(path)?),
        };
        let link = |at: &Path| {
            let file = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, file, CWD, at, AtFlags::SYMLINK_FOLLOW)
        };
        match link(path) {
            // Only a rename replaces a file, and it needs a name.
            Err(Errno::EXIST) => {
                let linked = tempfile::Builder::new().make_in(directory(path), |at| Ok(link(at)?))?;
                linked.persist(path)?;
            }
            linked => linked?,
        }
        Ok(file)
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_device(path: &Path) -> bool {
    path.parent().is_some_and(|parent| DEVICES.iter().any(|directory| parent == Path::new(directory)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use dropwatch_testing::skip;
    use nix::{sys::stat, unistd::mkfifo};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("a file").mode() & 0o7777
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name| directory.path().join(name);
        fs::write(path("file"), "").expect("a file");
        symlink(path("file"), path("link")).expect("a link");
        symlink(path("nothing"), path("dangling")).expect("a link");
        mkfifo(&path("fifo"), stat::Mode::S_IRWXU).expect("a FIFO");
        for check in [check, check_stream] {
            assert_eq!(check(&path("file")), Ok(()));
            assert_eq!(check(&path("new")), Ok(()));
            assert_eq!(check(&path("link")), Err(Unsuitable::Link));
            assert_eq!(check(&path("dangling")), Err(Unsuitable::Link));
            assert_eq!(check(&path("fifo")), Err(Unsuitable::Special));
            assert_eq!(check(directory.path()), Err(Unsuitable::NoFile));
            assert_eq!(check(&path("no/file")), Err(Unsuitable::NoFile));
            assert_eq!(check(Path::new("/")), Err(Unsuitable::NoFile));
            assert_eq!(check(Path::new("..")), Err(Unsuitable::NoFile));
        }
        for device in ["/dev/null", "/dev/fd/0"] {
            assert_ne!(check(Path::new(device)), Ok(()));
            assert_eq!(check_stream(Path::new(device)), Ok(()));
        }
        assert_ne!(check_stream(Path::new("/dev/fd/1234")), Ok(()), "no such descriptor");
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (victim, link) = (directory.path().join("victim"), directory.path().join("link"));
        let plant = || {
            let _ = fs::remove_file(&link);
            fs::write(&victim, "precious").expect("a file");
            symlink(&victim, &link).expect("a link");
        };
        let unharmed = |how: &str| {
            assert_eq!(fs::read(&victim).expect("the file"), b"precious", "{how}");
            assert!(link.symlink_metadata().is_ok_and(|file| file.is_file()), "{how}");
        };
        plant();
        write(&link, b"a report").expect("written");
        unharmed("write");
        assert_eq!(mode(&link), 0o600);
        plant();
        begin(&link, |mut file| file.write_all(b"packets")).expect("begun");
        unharmed("begin");
        assert_eq!(mode(&link), 0o600);
        // Planted between the check of the stale file and the announcement.
        let _ = fs::remove_file(&link);
        let ready = ReadyFile::prepare(Some(&link)).expect("nothing is there");
        plant();
        ready.announce().expect("announced");
        unharmed("announce");
        assert_eq!(mode(&link), 0o644);
    }

    #[test]
    fn a_file_stays_whole_until_the_new_one_has_begun() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("capture");
        fs::write(&path, "yesterday").expect("a file");
        begin(&path, |_| Err::<(), _>(io::Error::other("no room"))).expect_err("no room");
        assert_eq!(fs::read(&path).expect("the file"), b"yesterday");
        let mut file = begin(&path, Ok).expect("begun");
        file.write_all(b"today").expect("written");
        assert_eq!(fs::read(&path).expect("the file"), b"today");
        assert_eq!(fs::read_dir(directory.path()).expect("entries").count(), 1, "nothing is left over");
    }

    /// Whatever kills this process then.
    #[test]
    fn a_file_that_is_not_in_its_place_has_no_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("capture");
        let entries = || fs::read_dir(directory.path()).expect("entries").count();
        let new = NewFile::make(directory.path()).expect("a file");
        let NewFile::Nameless(_) = &new else { return skip("this file system has no nameless files") };
        assert_eq!(entries(), 0);
        new.persist(&path).expect("put in its place");
        assert_eq!((entries(), mode(&path)), (1, 0o600));
        NewFile::make(directory.path()).expect("a file").persist(&path).expect("replaced");
        assert_eq!(entries(), 1);
        fs::create_dir(directory.path().join("full")).expect("a directory");
        let new = NewFile::make(directory.path()).expect("a file");
        new.persist(&directory.path().join("full")).expect_err("a directory is there");
        assert_eq!(entries(), 2, "no name is left over");
    }

    #[test]
    fn files_without_nameless_ones_are_put_in_their_place_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("capture");
        for _ in 0..2 {
            let new = NewFile::Named(NamedTempFile::new_in(directory.path()).expect("a file"));
            new.persist(&path).expect("put in its place");
            assert_eq!(fs::read_dir(directory.path()).expect("entries").count(), 1);
        }
    }

    #[test]
    fn a_ready_file_is_there_while_it_is_ready() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ready");
        fs::write(&path, "stale").expect("a file");
        let ready = ReadyFile::prepare(Some(&path)).expect("removed");
        assert!(!path.exists());
        ready.announce().expect("announced");
        assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{}\n", process::id()));
        ready.clone().remove();
        assert!(!path.exists());

        // What another run has put there since is not ours.
        ready.announce().expect("announced");
        let other = ReadyFile { path: Some(path.clone()), made: Arc::default() };
        other.announce().expect("announced");
        ready.remove();
        assert!(path.exists());
    }
}
