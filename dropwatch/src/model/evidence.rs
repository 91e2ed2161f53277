//! What else the system shows about a drop: the object at fault, or what may be.

use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use super::words::Kind;

/// One object, as it was found after the drop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// What kind of object it is.
    pub kind: Kind,
    /// How sure it is that this object dropped the packet.
    pub certainty: Certainty,
    /// The object and what of it matters, in one line for people: `udp 0.0.0.0:5140 python3[20046]: receive buffer 15360 of
    /// 16384 bytes`. Foreign text in it is escaped already.
    pub text: String,
    /// Where it is from, as the command that shows the same: `ss -ulnpm`, `nft -a list ruleset`, `net.ipv4.ip_forward`.
    pub source: String,
    /// When it was read. It may have changed since the drop.
    #[serde(serialize_with = "time")]
    pub time: SystemTime,
    /// The same for programs, by names that are particular to the kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Evidence {
    /// The object, and how sure it is that it did this; `all` is what was found beside it.
    #[must_use]
    pub fn words(&self, all: &[Self]) -> String {
        let is_rival = |it: &&Self| it.kind == self.kind && it.certainty == Certainty::Possible;
        let certainty = match (self.certainty, all.iter().filter(is_rival).count()) {
            (Certainty::Certain, _) => String::new(),
            (Certainty::Counted, _) => ", its counter moved with the drops".to_owned(),
            // A setting has the value that it has.
            (Certainty::Possible, _) if self.kind == Kind::Sysctl => String::new(),
            (Certainty::Possible, 0 | 1) => ", can do this".to_owned(),
            (Certainty::Possible, rivals) => format!(", one of {rivals} that can do this"),
        };
        format!("{}{certainty}", self.text)
    }

    /// What has just been read.
    #[must_use]
    pub fn new(kind: Kind, certainty: Certainty, text: impl Into<String>, source: impl Into<String>) -> Self {
        let (text, source, time) = (text.into(), source.into(), SystemTime::now());
        Self { kind, certainty, text, source, time, fields: Map::new() }
    }

    /// Adds a field for programs.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Serialize) -> Self {
        // What has no place in JSON is null.
        self.fields.insert(field.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// How sure an object's part in a drop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The kernel says so: it handed over the socket, or traced the rule.
    Certain,
    /// Its own counter moved as the drops did.
    Counted,
    /// It can do this to such a packet, and there may be others.
    Possible,
}

/// As reports have it.
fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
