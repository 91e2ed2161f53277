//! Functions and places in them, as people write them.

use std::fmt;

use crate::model::location::Location;

/// `SYMBOL`, `SYMBOL[MODULE]`, `SYMBOL+0xOFF` or both: every address in the function, or the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolSpec {
    /// The function's name.
    pub symbol: String,
    /// Bytes from its start.
    pub offset: Option<u64>,
    /// The function's size, as a printed location has it.
    pub size: Option<u64>,
    /// The module it is in.
    pub module: Option<String>,
}

impl SymbolSpec {
    /// Whether a function is meant: also by what it is called in the source, which a compiler that splits or clones
    /// a function adds to (`ip_rcv_finish_core.constprop.0`).
    #[must_use]
    pub fn names(&self, function: &str) -> bool {
        function == self.symbol || function.split('.').next() == Some(&self.symbol)
    }

    /// Whether a function of a module is meant: by its name, and by the module's if there is one.
    #[must_use]
    pub fn means(&self, function: &str, module: &str) -> bool {
        self.names(function) && self.module.as_ref().is_none_or(|wanted| wanted == module)
    }

    /// Whether one address can be in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let agree = |one: Option<u64>, other: Option<u64>| one.is_none() || other.is_none() || one == other;
        (self.names(&other.symbol) || other.names(&self.symbol))
            && (self.module.is_none() || other.module.is_none() || self.module == other.module)
            && agree(self.offset, other.offset)
            && agree(self.size, other.size)
    }

    /// Reads `SYMBOL`, `SYMBOL[MODULE]`, `SYMBOL+0xOFF` or `SYMBOL+0xOFF/0xSIZE [MODULE]`.
    ///
    /// # Errors
    /// What it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, module) = match text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
            Some((rest, module)) => (rest.trim_end(), Some(module.to_owned())),
            None => (text, None),
        };
        let (symbol, offset, size) = match rest.split_once('+') {
            Some((symbol, bytes)) => {
                let (offset, size) = match bytes.split_once('/') {
                    Some((offset, size)) => (offset, Some(hex(size, "a size")?)),
                    None => (bytes, None),
                };
                (symbol, Some(hex(offset, "an offset")?), size)
            }
            None => (rest, None, None),
        };
        if symbol.is_empty() || symbol.contains(|c: char| c.is_whitespace() || "/[]".contains(c)) {
            return Err(format!("'{text}' is not SYMBOL, SYMBOL[MODULE] or SYMBOL+0xOFF"));
        }
        if let (Some(offset), Some(size)) = (offset, size)
            && offset > size
        {
            return Err(format!(
                "'{text}' is beyond the end of the function: {offset:#x} of {size:#x} bytes"
            ));
        }
        Ok(Self { symbol: symbol.to_owned(), offset, size, module })
    }
}

fn hex(text: &str, what: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").ok_or_else(|| format!("'{text}' is not {what} like 0x1f"))?;
    u64::from_str_radix(digits, 16).map_err(|_| format!("'{text}' is not {what}"))
}

impl fmt::Display for SymbolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.symbol)?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        if let Some(size) = self.size {
            write!(f, "/{size:#x}")?;
        }
        self.module.iter().try_for_each(|module| write!(f, "[{module}]"))
    }
}

/// A place in the kernel's code, as rules name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodePlace {
    /// By name.
    Named(SymbolSpec),
    /// By address, as `classic` and JSON print it.
    Address(u64),
}

impl CodePlace {
    /// Reads an address, or what [`SymbolSpec::parse`] reads.
    ///
    /// # Errors
    /// What it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        // No function's name begins with a digit.
        if text.starts_with("0x") {
            Ok(Self::Address(hex(text, "an address")?))
        } else {
            SymbolSpec::parse(text).map(Self::Named)
        }
    }

    /// Whether a location is there; unknown if the location has no name.
    #[must_use]
    pub fn contains(&self, location: &Location) -> Option<bool> {
        match self {
            Self::Address(address) => Some(*address == location.address),
            Self::Named(place) => location.symbol.as_ref().map(|symbol| {
                place.means(&symbol.name.text(), &symbol.module.text())
                    && place.offset.is_none_or(|offset| offset == symbol.offset)
                    && place.size.is_none_or(|size| symbol.size.is_none_or(|found| found == size))
            }),
        }
    }

    /// Whether one address can be in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Named(one), Self::Named(other)) => one.overlaps(other),
            // Only the kernel's symbols show that.
            _ => true,
        }
    }
}

impl fmt::Display for CodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(place) => place.fmt(f),
            Self::Address(address) => write!(f, "{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::model::location::Symbol;

    fn location(name: &str, offset: u64, size: Option<u64>, module: &str) -> Location {
        let symbol = Symbol { name: name.into(), offset, size, module: module.into() };
        Location { address: 0xffff_ffff_8100_0000 + offset, symbol: Some(symbol) }
    }

    proptest! {
        /// What is printed can be pasted back.
        #[test]
        fn a_printed_location_is_that_place(
            name in "[a-z_][a-zA-Z0-9_.]{0,20}",
            offset in 0_u64..0x1000,
            size in proptest::option::of(0x1000_u64..0x2000),
            module in "(kernel|[a-z_]{1,9})",
        ) {
            let here = location(&name, offset, size, &module);
            let place = CodePlace::parse(&here.to_string()).expect("a place");
            prop_assert_eq!(place.contains(&here), Some(true));
            let there = location(&name, offset + 1, size, &module);
            prop_assert_eq!(place.contains(&there), Some(false));
            let nameless = Location { symbol: None, ..here.clone() };
            prop_assert_eq!(place.contains(&nameless), None);
            let address = CodePlace::parse(&nameless.to_string()).expect("an address");
            prop_assert_eq!(address.contains(&here), Some(true));
            prop_assert_eq!(address.contains(&there), Some(false));
            prop_assert_eq!(CodePlace::parse(&place.to_string()), Ok(place));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = CodePlace::parse(&text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in
            ["", "+0x1", "f+12", "f+0x12/", "f+0x12/34", "f/0x10", "f+0x20/0x10", "0xg", "0x", "a b", "[m]"]
        {
            assert!(CodePlace::parse(text).is_err(), "{text}");
        }
    }
}
