//! What travels with a record through the producer: one machine word, no allocation.

/// The entry a record belongs to, the index of its topic, and how much of the budget it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    place: u32,
    topic: u16,
    units: u32,
}

/// The budget is counted in units of this many bytes, so that a ticket fits into a word.
const UNIT: usize = 64;
const PLACE_BITS: u32 = 20;
const TOPIC_BITS: u32 = 16;
const MAX_UNITS: usize = (1 << (usize::BITS - PLACE_BITS - TOPIC_BITS)) - 1;

const _: () = assert!(usize::BITS == 64, "a ticket needs a 64-bit word");
const _: () = assert!(super::CAPACITY <= 1 << PLACE_BITS, "every place of the ring fits into a ticket");

#[expect(clippy::cast_possible_truncation, reason = "every field is masked to its width")]
impl Ticket {
    pub(super) fn new(place: usize, topic: u16, bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(MAX_UNITS);
        Self { place: place as u32, topic, units: units as u32 }
    }

    /// Packs the ticket into a word.
    #[must_use]
    pub const fn to_word(self) -> usize {
        (self.units as usize) << (PLACE_BITS + TOPIC_BITS) | (self.topic as usize) << PLACE_BITS | self.place as usize
    }

    /// Unpacks the ticket from its word.
    #[must_use]
    pub const fn from_word(word: usize) -> Self {
        Self {
            place: (word & ((1 << PLACE_BITS) - 1)) as u32,
            topic: (word >> PLACE_BITS) as u16,
            units: (word >> (PLACE_BITS + TOPIC_BITS)) as u32,
        }
    }

    /// Gives the index of the record's topic.
    #[must_use]
    pub const fn topic(self) -> u16 {
        self.topic
    }

    /// Gives the bytes the record takes of the budget.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.units as u64 * UNIT as u64
    }

    pub(super) const fn place(self) -> usize {
        self.place as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_its_way_through_a_word() {
        for (place, topic, bytes) in [(0, 0, 0), (65_535, 65_535, 1), (7, 200, 1 << 20), (1, 2, usize::MAX)] {
            let ticket = Ticket::new(place, topic, bytes);
            assert_eq!(Ticket::from_word(ticket.to_word()), ticket);
            assert!(ticket.bytes() >= bytes as u64 || bytes > MAX_UNITS * UNIT);
        }
    }
}
