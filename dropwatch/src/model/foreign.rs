//! Text from outside: names as the kernel has them, byte by byte.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use crate::escape::{self, Escaped};

/// Foreign text. Displayed, it is [`Escaped`]: there is no other way to print it. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Foreign(Arc<[u8]>);

impl Foreign {
    /// Its bytes, to compare or to keep; not to print.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Escaped, and without blanks: a word of a line.
    #[must_use]
    pub fn word(&self) -> String {
        escape::word(&self.to_string()).into_owned()
    }

    /// As text, to compare; what is not UTF-8 is lost.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped::new(self.bytes()).fmt(f)
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// As it is, for a format that escapes by itself; escaped where it is not UTF-8.
impl Serialize for Foreign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.bytes()) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_str(self),
        }
    }
}

impl PartialEq<str> for Foreign {
    fn eq(&self, other: &str) -> bool {
        self.bytes() == other.as_bytes()
    }
}

impl From<&[u8]> for Foreign {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<&OsStr> for Foreign {
    fn from(text: &OsStr) -> Self {
        text.as_bytes().into()
    }
}

impl From<Vec<u8>> for Foreign {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Foreign {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<OsString> for Foreign {
    fn from(text: OsString) -> Self {
        text.into_vec().into()
    }
}

impl From<Arc<str>> for Foreign {
    fn from(text: Arc<str>) -> Self {
        Self(text.into())
    }
}
