//! Decides where to start, from the slot, the stored position and the server's identity.
//!
//! With persist-then-flush the slot is never ahead of the stored position unless another client moved or recreated it.
//! So one comparison distinguishes a gap from a resume; anything inconsistent is [`Lost`].

use crate::lsn::Lsn;

/// The server and timeline for which a position is valid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The server's system identifier.
    pub system_id: String,
    pub timeline: u32,
}

/// The server's current state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Who it is.
    pub identity: Identity,
    /// The end of its WAL.
    pub wal_end: Lsn,
    /// The slot's confirmed position.
    pub slot_confirmed: Lsn,
    /// The slot was synchronized from the primary before this server was promoted (a failover slot).
    pub is_slot_synced: bool,
    /// The end of the stored position's timeline, if this server is on a later one.
    pub left_timeline_at: Option<Lsn>,
}

/// The stored row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its server.
    pub identity: Identity,
    /// The position up to which every event is acknowledged.
    pub position: Lsn,
    /// The relay that stored it stopped in order: it has no request in flight.
    pub is_released: bool,
}

impl Stored {
    /// Checks that the row belongs to this system: its position means nothing on another one.
    pub fn is_of(&self, system_id: &str) -> Result<(), Lost> {
        if self.identity.system_id == system_id {
            return Ok(());
        }
        Err(Lost::OtherSystem {
            position: self.position,
            stored: self.identity.system_id.clone(),
            found: system_id.to_owned(),
        })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// At the stored position, which the slot is at or behind.
    Stored(Lsn),
    /// At the slot's position: nothing is stored, or the server was promoted.
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

/// Events may be missing if the relay starts.
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
    /// Another client moved or recreated the slot.
    #[error("the slot is at {slot}, {} bytes ahead of the stored position {stored}: another client moved or recreated \
             it", slot.bytes_since(*stored))]
    SlotAhead {
        /// The slot's position.
        slot: Lsn,
        /// The stored position.
        stored: Lsn,
    },
    /// The server's WAL ends before the stored position: it was restored from a backup.
    #[error(
        "the server's WAL ends at {wal_end}, before the stored position {stored}: it was restored to an earlier time"
    )]
    ServerBehind {
        /// The end of the WAL.
        wal_end: Lsn,
        /// The stored position.
        stored: Lsn,
    },
}

/// Gives the position to report from the start. Acknowledged events after the stored position, or after the slot's if
/// none is stored, must not be reported before the catalog is checked and the position stored.
#[must_use]
pub fn reported(start: Start, stored: Option<&Stored>, slot_confirmed: Lsn) -> Lsn {
    match start {
        Start::Slot(position) => position,
        Start::Stored(position) => stored.map_or(slot_confirmed, |stored| stored.position).min(position),
    }
}

/// Finds the end of a timeline in the history file of a later one: a line per earlier timeline, with its number and the
/// position where the next one started (TIMELINE_HISTORY).
#[must_use]
pub fn timeline_end(history: &str, timeline: u32) -> Option<Lsn> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let is_it = words.next()?.parse() == Ok(timeline);
        words.next().filter(|_| is_it)?.parse().ok()
    };
    history.lines().find_map(of_line)
}

/// Compares the stored row with the server's state.
pub fn decide(server: &Server, stored: Option<&Stored>) -> Result<Start, Lost> {
    let Some(stored) = stored else {
        return Ok(Start::Slot(server.slot_confirmed));
    };
    stored.is_of(&server.identity.system_id)?;
    if stored.position.is_zero() {
        // Positions were not stored for a while (`source.store_position`): there is nothing to compare.
        return Ok(Start::Slot(server.slot_confirmed));
    }
    if server.slot_confirmed > stored.position && !is_row_behind_its_slot(server, stored) {
        return Err(Lost::SlotAhead { slot: server.slot_confirmed, stored: stored.position });
    }
    if stored.identity.timeline != server.identity.timeline {
        // A promoted standby: its WAL may differ before the stored position, and its slot was copied with it.
        return Ok(Start::Slot(server.slot_confirmed));
    }
    if stored.position > server.wal_end {
        return Err(Lost::ServerBehind { wal_end: server.wal_end, stored: stored.position });
    }
    Ok(Start::Stored(stored.position))
}

/// Says whether a failover lost the last writes of the row but not the slot's position: a standby receives WAL, with
/// the row, and slots separately. Nothing is missing then, because of four facts. The slot was synchronized, so it is
/// where the primary's was, which confirmed only stored positions, and so acknowledged events. It is before the end of
/// the old timeline, so nobody has moved it on this server. The row belongs to that timeline. And the row says that a
/// relay was running: meanwhile nobody else can move its slot; after an orderly stop somebody could have.
fn is_row_behind_its_slot(server: &Server, stored: &Stored) -> bool {
    stored.identity.timeline != server.identity.timeline
        && server.is_slot_synced
        && server.left_timeline_at.is_some_and(|end| server.slot_confirmed <= end)
        && !stored.is_released
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
        Server {
            identity: identity("7", 1),
            wal_end: lsn(wal_end),
            slot_confirmed: lsn(slot),
            is_slot_synced: false,
            left_timeline_at: None,
        }
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
            // Positions were not stored for a while.
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
    fn e15_a_row_lost_in_a_failover_is_no_gap_and_any_other_move_of_the_slot_is() {
        let promoted = Server { is_slot_synced: true, left_timeline_at: Some(lsn(60)), ..server(60, 99) };
        let at_work = Stored { is_released: false, ..stored("7", 2, 50) };
        assert_eq!(decide(&promoted, Some(&at_work)), Ok(Start::Slot(lsn(60))));
        assert_eq!(reported(Start::Slot(lsn(60)), Some(&at_work), lsn(60)), lsn(60));
        let ahead = Err(Lost::SlotAhead { slot: lsn(60), stored: lsn(50) });
        let rows = [
            // Moved on the promoted server; a slot of its own; a relay that had ended; the same timeline.
            (Server { left_timeline_at: Some(lsn(59)), ..promoted.clone() }, at_work.clone()),
            (Server { left_timeline_at: None, ..promoted.clone() }, at_work.clone()),
            (Server { is_slot_synced: false, ..promoted.clone() }, at_work.clone()),
            (promoted.clone(), Stored { is_released: true, ..at_work.clone() }),
            (promoted, Stored { is_released: false, ..stored("7", 1, 50) }),
        ];
        for (server, stored) in rows {
            assert_eq!(decide(&server, Some(&stored)), ahead, "{server:?} {stored:?}");
        }
    }

    #[test]
    fn the_end_of_a_timeline_is_read_from_the_history_of_a_later_one() {
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t1/A0\tbefore 2000-01-01\n";
        let ends = [1, 2, 3].map(|timeline| timeline_end(history, timeline));
        assert_eq!(ends, [Some(lsn(0x300_0148)), Some(lsn(0x1_0000_00A0)), None]);
        assert_eq!(timeline_end("1\tno position\n# 1 0/1\n", 1), None);
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
