//! The labels of a row of a report.

use std::{borrow::Cow, fmt::Write as _};

use crate::model::{
    keys::Key,
    report::{Iface, Netns, Value},
    socket::Ownership,
};

/// What there is in place of a value that is not known.
const UNKNOWN: &str = "-";
/// The value of every label of the series that counts what has no room.
pub const OTHER: &str = "other";

/// Pairs of names and values as both formats have them between braces: `class="lost",reason="NO_SOCKET"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(String);

impl Labels {
    /// These pairs; a label without a value is the same as none.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.add(name, &value);
        }
        labels
    }

    /// Those of a row with these keys.
    pub fn of_row(by: &[Key], values: &[Value]) -> Self {
        let mut labels = Self::default();
        for (key, value) in by.iter().zip(values) {
            labels.add(key.word(), &text(value));
            if let Value::Function(function) = value {
                let module = function.as_ref().map(|function| function.module.to_string());
                labels.add("module", module.as_deref().unwrap_or(UNKNOWN));
            }
        }
        labels
    }

    /// Those of what has no room, beside rows with these keys.
    pub fn of_others(by: &[Key]) -> Self {
        let mut labels = Self::default();
        for key in by {
            labels.add(key.word(), OTHER);
            if *key == Key::Function {
                labels.add("module", OTHER);
            }
        }
        if !by.contains(&Key::Reason) {
            labels.add(Key::Reason.word(), OTHER);
        }
        labels
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }

    /// As both formats have them.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A value as a label: what is the same for all processes of a program and in all lives of a module.
fn text(value: &Value) -> Cow<'static, str> {
    let text = match value {
        Value::Function(function) => function.as_ref().map(|function| function.symbol.to_string()),
        Value::Process(Ownership::Process(process)) => Some(process.comm.to_string()),
        Value::Netns(netns) => netns.as_ref().map(self::netns),
        Value::Iface(iface) => iface.as_ref().map(self::iface),
        value => Some(value.words()),
    };
    text.map_or(Cow::Borrowed(UNKNOWN), Cow::Owned)
}

/// A namespace by its name, else by its number.
pub fn netns(netns: &Netns) -> String {
    netns.name.as_ref().map_or_else(|| netns.namespace.inum.to_string(), ToString::to_string)
}

/// An interface by its name, else by its number.
pub fn iface(iface: &Iface) -> String {
    iface.name.as_ref().map_or_else(|| format!("#{}", iface.index), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{foreign::Foreign, report::Function};

    #[test]
    fn foreign_text_cannot_end_a_value() {
        let hostile = Foreign::from("a\"} 1\nb{c=\"\\\u{1b}[2J");
        let function = Function { symbol: hostile, module: "kernel".into() };
        let labels = Labels::of_row(&[Key::Function], &[Value::Function(Some(function))]);
        assert_eq!(labels.text(), r#"function="a\"} 1\\x0ab{c=\"\\\\\\x1b[2J",module="kernel""#);
    }

    #[test]
    fn what_is_not_known_says_so_and_what_has_no_room_is_none_of_the_rows() {
        let by = [Key::Reason, Key::Function];
        let unknown = Labels::of_row(&by, &[Value::Reason(None), Value::Function(None)]);
        assert_eq!(unknown.text(), r#"reason="-",function="-",module="-""#);
        assert_eq!(Labels::of_others(&by).text(), r#"reason="other",function="other",module="other""#);
        assert_eq!(Labels::of_others(&[Key::Cpu]).text(), r#"cpu="other",reason="other""#);
    }
}
