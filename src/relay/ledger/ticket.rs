//! The opaque value of a record in librdkafka: one machine word, no allocation.

/// The entry of a record, the index of its topic, and its share of the in-flight limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    index: u32,
    topic: u16,
    units: u32,
}

/// The in-flight limit is counted in units of this many bytes, so that a ticket fits into a word.
const UNIT: usize = 64;
pub(super) const INDEX_BITS: u32 = 20;
const TOPIC_BITS: u32 = 16;
const MAX_UNITS: usize = (1 << (usize::BITS - INDEX_BITS - TOPIC_BITS)) - 1;

const _: () = assert!(usize::BITS == 64, "a ticket needs a 64-bit word");

#[expect(clippy::cast_possible_truncation, reason = "every field is masked to its width")]
impl Ticket {
    pub(super) fn new(index: usize, topic: u16, bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(MAX_UNITS);
        Self { index: index as u32, topic, units: units as u32 }
    }

    /// Packs the ticket into a word.
    #[must_use]
    pub const fn to_word(self) -> usize {
        (self.units as usize) << (INDEX_BITS + TOPIC_BITS) | (self.topic as usize) << INDEX_BITS | self.index as usize
    }

    /// Unpacks the ticket from its word.
    #[must_use]
    pub const fn from_word(word: usize) -> Self {
        Self {
            index: (word & ((1 << INDEX_BITS) - 1)) as u32,
            topic: (word >> INDEX_BITS) as u16,
            units: (word >> (INDEX_BITS + TOPIC_BITS)) as u32,
        }
    }

    /// Gives the index of the record's topic.
    #[must_use]
    pub const fn topic(self) -> u16 {
        self.topic
    }

    /// Gives the bytes that the record counts in the in-flight limit.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.units as u64 * UNIT as u64
    }

    pub(super) const fn index(self) -> usize {
        self.index as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_packing_into_a_word() {
        for (index, topic, bytes) in [(0, 0, 0), (65_535, 65_535, 1), (7, 200, 1 << 20), (1, 2, usize::MAX)] {
            let ticket = Ticket::new(index, topic, bytes);
            assert_eq!(Ticket::from_word(ticket.to_word()), ticket);
            assert!(ticket.bytes() >= bytes as u64 || bytes > MAX_UNITS * UNIT);
        }
    }
}
