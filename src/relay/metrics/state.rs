//! The relay's state, as one word.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// The relay's state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// Before the first connection.
    #[default]
    Starting,
    /// Reading the source and publishing.
    Streaming,
    /// Stopping: waiting for the acknowledgement of what is in flight.
    Draining,
    /// Kafka acknowledges nothing: the source is not read, or the relay has disconnected from PostgreSQL.
    SinkBlocked,
    /// PostgreSQL is not connected.
    SourceReconnecting,
    /// Another relay holds the slot.
    Standby,
    /// Ended.
    Stopped,
}

/// The role among the relays of one slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It publishes.
    Active,
    /// It waits for the slot.
    Standby,
}

impl State {
    /// All states, in the usual order.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Streaming,
        Self::Draining,
        Self::SinkBlocked,
        Self::SourceReconnecting,
        Self::Standby,
        Self::Stopped,
    ];

    /// Gives its name in metrics and in `/status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Draining => "draining",
            Self::SinkBlocked => "sink_blocked",
            Self::SourceReconnecting => "source_reconnecting",
            Self::Standby => "standby",
            Self::Stopped => "stopped",
        }
    }

    /// Gives the role in this state; none while it is unknown.
    #[must_use]
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Streaming | Self::Draining | Self::SinkBlocked => Some(Role::Active),
            Self::Standby => Some(Role::Standby),
            Self::Starting | Self::SourceReconnecting | Self::Stopped => None,
        }
    }
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Active, Self::Standby];

    /// Gives its name in metrics and in `/status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
        }
    }
}

/// The current state, shared between threads.
#[derive(Clone, Debug, Default)]
pub struct StateCell(Arc<AtomicU8>);

impl StateCell {
    /// Reads the state.
    #[must_use]
    pub fn load(&self) -> State {
        decode(self.0.load(Relaxed))
    }

    /// Replaces the state and gives the previous one.
    pub(super) fn replace(&self, state: State) -> State {
        decode(self.0.swap(state as u8, Relaxed))
    }
}

fn decode(number: u8) -> State {
    State::ALL.into_iter().find(|state| *state as u8 == number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_the_cell() {
        let cell = StateCell::default();
        assert_eq!(cell.load(), State::Starting);
        for state in State::ALL {
            cell.replace(state);
            assert_eq!(cell.load(), state);
        }
    }
}
