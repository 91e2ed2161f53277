//! Names of interfaces.

use dropwatch_common::chain::LongName;

/// How many bytes the kernel takes in a name, an alternative one included.
pub const MOST_BYTES: usize = size_of::<LongName>() - 1;

/// Refuses what no interface can be called.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str) -> Result<(), String> {
    match name.len() {
        1..=MOST_BYTES => Ok(()),
        _ => Err(format!("'{name}' is no interface: a name has 1 to {MOST_BYTES} bytes")),
    }
}

/// A name as the kernel keeps it.
#[must_use]
pub fn padded<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}
