//! Records on their way from the ring buffer to the printer.

use crate::probe::clock::Clock;

/// So many bytes make a batch, and a record more.
const FULL: usize = 1 << 18;

/// Records that were read together, and the clock as it was then.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The time of day, for what happened a moment ago.
    pub clock: Clock,
    /// Each with its length in front.
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, bytes: Vec::new() }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend_from_slice(&record[..length as usize]);
    }

    /// Whether it is large enough to be sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The records, as they came.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk()?;
            let (record, after) = after.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            rest = after;
            Some(record)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_went_in() {
        let mut batch = Batch::new(Clock::now());
        assert!(batch.is_empty());
        let records = [&b"one"[..], b"", b"three"];
        for record in records {
            batch.push(record);
        }
        assert_eq!(batch.records().collect::<Vec<_>>(), records);
        assert!(!batch.is_empty() && !batch.is_full());
        batch.push(&vec![0; FULL]);
        assert!(batch.is_full());
    }
}
