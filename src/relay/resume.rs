//! Where to start: the slot, the stored position and the server's identity, weighed against each other.
//!
//! With persist-then-flush the slot is never ahead of the stored position unless somebody else moved or recreated it. So
//! one comparison tells a gap from a resume, and nothing is guessed: what does not fit is [`Lost`].

use crate::lsn::Lsn;

/// Under what a remembered position means anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The server's system identifier.
    pub system_id: String,
    /// Its timeline.
    pub timeline: u32,
}

/// What the server says now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Who it is.
    pub identity: Identity,
    /// The end of its log.
    pub wal_end: Lsn,
    /// What the slot has confirmed.
    pub slot_confirmed: Lsn,
}

/// What was stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Of which server.
    pub identity: Identity,
    /// Up to where everything was delivered.
    pub position: Lsn,
    /// The relay that stored it ended in order: it has nothing at the brokers.
    pub is_released: bool,
}

/// Where to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// At the stored position, which the slot has reached or is behind.
    Stored(Lsn),
    /// At the slot's own position: nothing is stored, or the server was promoted.
    Slot(Lsn),
}

impl Start {
    /// Gives the position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        match self {
            Self::Stored(lsn) | Self::Slot(lsn) => lsn,
        }
    }
}

/// Going on would leave a gap, or might.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Lost {
    /// The row belongs to another server.
    #[error("the stored position {position} belongs to system {stored}, this server is system {found}")]
    OtherSystem {
        /// The stored position.
        position: Lsn,
        /// The system it belongs to.
        stored: String,
        /// The system found.
        found: String,
    },
    /// Somebody else moved or recreated the slot.
    #[error("the slot stands at {slot}, {} bytes ahead of the stored position {stored}: somebody else moved or recreated it", slot.bytes_since(*stored))]
    SlotAhead {
        /// The slot's position.
        slot: Lsn,
        /// The stored position.
        stored: Lsn,
    },
    /// The server's log ends before the stored position: it was restored from a backup.
    #[error(
        "the server's log ends at {wal_end}, before the stored position {stored}: it was restored to an earlier time"
    )]
    ServerBehind {
        /// The end of the log.
        wal_end: Lsn,
        /// The stored position.
        stored: Lsn,
    },
}

/// Gives what the server may be told from the start. What this process has delivered beyond the stored position, or beyond the
/// slot's own where none is stored, must not be reported before the catalog was looked at and the position stored.
#[must_use]
pub fn reported(start: Start, stored: Option<&Stored>, slot_confirmed: Lsn) -> Lsn {
    stored.map_or(slot_confirmed, |stored| stored.position).min(start.lsn())
}

/// Weighs what is stored against what the server says.
pub fn decide(server: &Server, stored: Option<&Stored>) -> Result<Start, Lost> {
    let Some(stored) = stored else {
        return Ok(Start::Slot(server.slot_confirmed));
    };
    if stored.identity.system_id != server.identity.system_id {
        return Err(Lost::OtherSystem {
            position: stored.position,
            stored: stored.identity.system_id.clone(),
            found: server.identity.system_id.clone(),
        });
    }
    if stored.position.is_zero() {
        // For a while positions were not kept (`source.store_position`): there is nothing that the slot could be ahead of.
        return Ok(Start::Slot(server.slot_confirmed));
    }
    if server.slot_confirmed > stored.position {
        return Err(Lost::SlotAhead { slot: server.slot_confirmed, stored: stored.position });
    }
    if stored.identity.timeline != server.identity.timeline {
        // A promoted standby: its log may differ below the stored position, its slot was copied with it.
        return Ok(Start::Slot(server.slot_confirmed));
    }
    if stored.position > server.wal_end {
        return Err(Lost::ServerBehind { wal_end: server.wal_end, stored: stored.position });
    }
    Ok(Start::Stored(stored.position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn lsn(value: u64) -> Lsn {
        Lsn::from_wire(value)
    }

    fn identity(system: &str, timeline: u32) -> Identity {
        Identity { system_id: system.into(), timeline }
    }

    fn server(slot: u64, wal_end: u64) -> Server {
        Server { identity: identity("7", 1), wal_end: lsn(wal_end), slot_confirmed: lsn(slot) }
    }

    fn stored(system: &str, timeline: u32, position: u64) -> Stored {
        Stored { identity: identity(system, timeline), position: lsn(position), is_released: true }
    }

    #[test]
    fn the_start_follows_from_the_identities_and_the_three_positions() {
        let rows = [
            (server(10, 99), None, Ok(Start::Slot(lsn(10)))),
            (server(10, 99), Some(stored("7", 1, 10)), Ok(Start::Stored(lsn(10)))),
            // A9: a crash of PostgreSQL lost what the slot had confirmed.
            (server(10, 99), Some(stored("7", 1, 50)), Ok(Start::Stored(lsn(50)))),
            // A15, B2.
            (server(51, 99), Some(stored("7", 1, 50)), Err(Lost::SlotAhead { slot: lsn(51), stored: lsn(50) })),
            // Positions were not kept for a while.
            (server(51, 99), Some(stored("7", 1, 0)), Ok(Start::Slot(lsn(51)))),
            // A10.
            (
                server(10, 99),
                Some(stored("8", 1, 50)),
                Err(Lost::OtherSystem { position: lsn(50), stored: "8".into(), found: "7".into() }),
            ),
            // E17.
            (server(10, 40), Some(stored("7", 1, 50)), Err(Lost::ServerBehind { wal_end: lsn(40), stored: lsn(50) })),
            // E15: promoted, with a copied slot.
            (server(10, 99), Some(stored("7", 2, 50)), Ok(Start::Slot(lsn(10)))),
            (server(60, 99), Some(stored("7", 2, 50)), Err(Lost::SlotAhead { slot: lsn(60), stored: lsn(50) })),
        ];
        for (server, stored, expected) in rows {
            assert_eq!(decide(&server, stored.as_ref()), expected, "{server:?} {stored:?}");
        }
    }

    #[test]
    fn a15_what_is_delivered_and_not_yet_stored_is_not_reported() {
        let behind = stored("7", 1, 40);
        assert_eq!(reported(Start::Stored(lsn(50)), Some(&behind), lsn(10)), lsn(40));
        assert_eq!(reported(Start::Stored(lsn(40)), Some(&behind), lsn(10)), lsn(40));
        // A promoted standby, whose slot is behind.
        assert_eq!(reported(Start::Slot(lsn(10)), Some(&behind), lsn(10)), lsn(10));
        assert_eq!(reported(Start::Slot(lsn(10)), None, lsn(10)), lsn(10));
    }
}
