//! Which drops a row stands for, so that they are found among those that another probe counts or hands over.

use dropwatch_common::row::RowKey;

use super::{
    class::Class,
    keys::{Key, project},
    report::{Row, Value},
};

/// What tells a row's drops from all others.
///
/// What the kernel counts by is compared as the kernel has it. Numbers that each probe gives (sockets and call chains) mean
/// nothing to another one, and what is derived in user space is compared as it is shown.
#[derive(Clone, Debug)]
pub struct Identity {
    by: Vec<Key>,
    key: RowKey,
    class: Option<Class>,
    shown: Vec<(Key, Value)>,
}

/// Whether a key is compared as it is shown.
fn is_shown(key: Key) -> bool {
    key.is_derived() || matches!(key, Key::Socket | Key::Stack)
}

impl Identity {
    /// That of a row by these keys.
    #[must_use]
    pub fn new(by: &[Key], row: &Row) -> Self {
        let kernels: Vec<_> = by.iter().copied().filter(|&key| !is_shown(key)).collect();
        let shown = by.iter().copied().zip(&row.values).filter(|(key, _)| is_shown(*key));
        Self {
            key: project(&row.key, &kernels),
            by: kernels,
            class: row.class,
            shown: shown.map(|(key, value)| (key, value.clone())).collect(),
        }
    }

    /// The keys that are compared as they are shown: what is compared must have their values.
    pub fn shown(&self) -> impl Iterator<Item = Key> {
        self.shown.iter().map(|(key, _)| *key)
    }

    /// Whether drops with this key, this class and these values are the row's.
    pub fn is<'a>(
        &self,
        key: &RowKey,
        class: Option<Class>,
        mut value: impl FnMut(Key) -> Option<&'a Value>,
    ) -> bool {
        project(key, &self.by) == self.key
            && (self.class.is_none() || class.is_none() || self.class == class)
            && self.shown.iter().all(|(key, shown)| value(*key).is_some_and(|value| are_same(shown, value)))
    }
}

fn are_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        // Their buffers fill and empty.
        (Value::Socket(Some(one)), Value::Socket(Some(other))) => one.is(other),
        (one, other) => one.words() == other.words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        foreign::Foreign,
        interval::{Count, Interval},
        keys::counted,
        report::{Names, Report, View},
    };

    fn report(keys: &[RowKey], by: &[Key], names: &mut impl Names) -> Report {
        let counts = keys.iter().map(|key| Count { key: *key, count: 1, total: None, peak: None });
        Report::new(Interval::of(counts.collect()), by, View::default(), names)
    }

    /// Of two interfaces of one name in two namespaces, and of two addresses in one function, each row finds its own.
    #[test]
    fn a_row_finds_its_own_drops_in_a_finer_count() {
        use dropwatch_common::row::known::{IFACE, IPV4, NETNS, PORTS};
        let mut iface = [0; 16];
        iface[..4].copy_from_slice(b"eth0");
        let base =
            RowKey { reason: 3, ifindex: 2, iface, known: IFACE | NETNS | PORTS | IPV4, ..RowKey::default() };
        let all: Vec<_> = (0..16_u16)
            .map(|bits| RowKey {
                location: 0x1010 + u64::from(bits & 1) * 0x10,
                netns: 7 + u32::from(bits >> 1 & 1),
                cookie: 7 + u64::from(bits >> 1 & 1),
                dport: 53 + (bits >> 2 & 1),
                saddr: [u8::try_from(bits >> 3).expect("a bit"); 16],
                ..base
            })
            .collect();
        let fine =
            [Key::Location, Key::Reason, Key::Iface, Key::Netns, Key::Dport, Key::Saddr, Key::Function];
        let mut names = crate::fakes::Kernel::small();
        let finer = report(&all, &fine, &mut names).rows;
        assert_eq!(finer.len(), 16);
        for by in [
            &[Key::Location, Key::Reason][..],
            &[Key::Reason, Key::Iface],
            &[Key::Function, Key::Dport],
            &[Key::Netns, Key::Saddr, Key::Dport],
        ] {
            let projected: std::collections::HashSet<_> =
                all.iter().map(|key| project(key, &counted(by))).collect();
            let projected: Vec<_> = projected.into_iter().collect();
            let rows = report(&projected, by, &mut names).rows;
            let mut found = 0;
            for row in &rows {
                let identity = Identity::new(by, row);
                let value = |row: &'_ Row, key| {
                    fine.iter().position(|it| *it == key).map(|place| row.values[place].clone())
                };
                let own = finer.iter().filter(|fine| {
                    let function = value(fine, Key::Function);
                    identity.is(&fine.key, fine.class, |_| function.as_ref())
                });
                found += own.count();
            }
            assert_eq!(found, 16, "{by:?}: each drop is in one row");
        }
    }

    #[test]
    fn what_is_shown_is_compared_as_it_is_shown() {
        use crate::model::socket::{Ownership, Process};
        let owner = |comm: &str| {
            Value::Process(Ownership::Process(Process { pid: 1, comm: Foreign::from(comm), others: 0 }))
        };
        let mut row =
            report(&[RowKey::default()], &[Key::Process], &mut crate::fakes::Kernel::small()).rows.remove(0);
        row.values = vec![owner("a")];
        let identity = Identity::new(&[Key::Process], &row);
        assert_eq!(identity.shown().collect::<Vec<_>>(), [Key::Process]);
        for (value, expected) in [(Some(owner("a")), true), (Some(owner("b")), false), (None, false)] {
            assert_eq!(identity.is(&RowKey::default(), None, |_| value.as_ref()), expected);
        }
    }
}
