//! What the relay is doing, in one word.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// What the relay is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// Not yet streaming for the first time.
    #[default]
    Starting,
    /// Reading the log and publishing.
    Streaming,
    /// Asked to stop, waiting for events on their way.
    Draining,
    /// Kafka takes nothing; the log is not read, or the stream has been let go.
    SinkBlocked,
    /// PostgreSQL is away.
    SourceReconnecting,
    /// Another relay holds the slot.
    Standby,
    /// At the end.
    Stopped,
}

/// Which of several relays of one slot this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The one that publishes.
    Active,
    /// One that waits for the slot.
    Standby,
}

impl State {
    /// All states, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Streaming,
        Self::Draining,
        Self::SinkBlocked,
        Self::SourceReconnecting,
        Self::Standby,
        Self::Stopped,
    ];

    /// Gives the word for it in metrics and answers.
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

    /// Gives the role that goes with the state; none while nobody can know.
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

    /// Gives the word for it in metrics and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
        }
    }
}

/// The state as it is now, for many readers.
#[derive(Clone, Debug, Default)]
pub struct StateCell(Arc<AtomicU8>);

impl StateCell {
    /// Reads the state.
    #[must_use]
    pub fn load(&self) -> State {
        decode(self.0.load(Relaxed))
    }

    /// Replaces the state and gives the one before.
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
