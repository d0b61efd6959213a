//! What the server's settings mean for the relay.

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::settings::Settings;
use crate::relay::setup;
use crate::relay::stream::synchronous;

use super::error::Error;
use super::report::Check;
use super::report::Needed;
use super::report::Outcome;

/// The oldest version that is supported.
const OLDEST: u32 = 140_000;

/// What one query reads.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    /// As `server_version_num`.
    pub(super) version: u32,
    /// The server, for a message.
    pub(super) host: String,
    pub(super) is_in_recovery: bool,
    pub(super) role: String,
    pub(super) is_superuser: bool,
    pub(super) wal_level: String,
    pub(super) slots: Share,
    /// The slot of the configuration exists, and a process uses it.
    pub(super) has_slot: bool,
    pub(super) is_slot_active: bool,
    pub(super) senders: Share,
    pub(super) max_slot_wal_keep_size: String,
    pub(super) synchronous_names: String,
    /// `0` if the server has no such setting.
    pub(super) idle_slot_timeout: String,
}

/// How much of something limited is in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) used: i64,
    pub(super) limit: i64,
}

impl Share {
    const fn is_used_up(self) -> bool {
        self.used >= self.limit
    }
}

impl ServerFacts {
    /// Says whether a replication connection can be made.
    pub(super) const fn has_free_sender(&self) -> bool {
        !self.senders.is_used_up()
    }
}

type Decide = fn(&ServerFacts, &Settings) -> Outcome;

/// Both sources.
const EVERY: [(&str, &str, Decide); 2] = [
    ("version", "older servers lack what the relay asks for", version),
    ("primary", "slot, rows and stored position are the primary's", primary),
];

/// The source that reads the WAL.
const WAL: [(&str, &str, Decide); 7] = [
    ("role", "a role that can do less limits the damage of a leaked password", role),
    ("wal_level", "other levels do not contain the rows", wal_level),
    ("replication_slots", "the relay has one slot", slots),
    ("wal_senders", "each replication connection is one walsender", senders),
    ("retained_wal", "the slot retains WAL until Kafka has acknowledged the events in it", retained_wal),
    ("idle_slots", "the relay disconnects from its slot while Kafka is down", idle_slots),
    ("synchronous_standbys", "commits would wait for Kafka", synchronous_standbys),
];

/// Checks what both sources need.
pub(super) fn checks(facts: Needed<&ServerFacts>, settings: &Settings) -> Vec<Check> {
    run(&EVERY, facts, settings)
}

/// Checks what only the source needs that reads the WAL.
pub(super) fn wal_checks(facts: Needed<&ServerFacts>, settings: &Settings) -> Vec<Check> {
    run(&WAL, facts, settings)
}

fn run(
    checks: &[(&'static str, &'static str, Decide)],
    facts: Needed<&ServerFacts>,
    settings: &Settings,
) -> Vec<Check> {
    let check = |(name, why, decide): &(&'static str, &'static str, Decide)| {
        Check::new(name, why, Outcome::with(facts, |facts| decide(facts, settings)))
    };
    checks.iter().map(check).collect()
}

fn version(facts: &ServerFacts, _: &Settings) -> Outcome {
    let major = facts.version / 10_000;
    if facts.version < OLDEST {
        return Outcome::failed(&Error::Version(major));
    }
    Outcome::Passed(format!("PostgreSQL {major}.{}", facts.version % 10_000))
}

fn primary(facts: &ServerFacts, _: &Settings) -> Outcome {
    if facts.is_in_recovery {
        let source = postgres::Error::ReadOnly { host: facts.host.clone() };
        return Outcome::failed(&RelayError::Postgres { action: "read the state of the server", source });
    }
    Outcome::Passed(String::new())
}

fn role(facts: &ServerFacts, _: &Settings) -> Outcome {
    if facts.is_superuser {
        return Outcome::warned(&Error::Superuser { role: facts.role.clone() });
    }
    Outcome::Passed(format!("{} is no superuser", facts.role))
}

fn wal_level(facts: &ServerFacts, _: &Settings) -> Outcome {
    if facts.wal_level != "logical" {
        return Outcome::failed(&setup::Error::WalLevel(facts.wal_level.clone()));
    }
    Outcome::Passed(facts.wal_level.clone())
}

fn slots(facts: &ServerFacts, _: &Settings) -> Outcome {
    let Share { used, limit } = facts.slots;
    if facts.slots.is_used_up() && !facts.has_slot {
        return Outcome::failed(&setup::Error::NoFreeSlot { purpose: "create the slot", slots: limit });
    }
    Outcome::Passed(format!("{used} of {limit} in use"))
}

/// A running relay has one already.
fn senders(facts: &ServerFacts, _: &Settings) -> Outcome {
    let Share { used, limit } = facts.senders;
    if facts.senders.is_used_up() && !facts.is_slot_active {
        return Outcome::failed(&Error::NoFreeSender(limit));
    }
    Outcome::Passed(format!("{used} of {limit} in use"))
}

fn retained_wal(facts: &ServerFacts, _: &Settings) -> Outcome {
    if facts.max_slot_wal_keep_size == "-1" {
        return Outcome::warned(&Error::UnlimitedWal);
    }
    Outcome::Passed(format!("at most {}", facts.max_slot_wal_keep_size))
}

fn idle_slots(facts: &ServerFacts, _: &Settings) -> Outcome {
    if facts.idle_slot_timeout != "0" {
        return Outcome::warned(&Error::IdleTimeout(facts.idle_slot_timeout.clone()));
    }
    Outcome::Passed("kept without a time limit".to_owned())
}

fn synchronous_standbys(facts: &ServerFacts, settings: &Settings) -> Outcome {
    if synchronous::includes(&facts.synchronous_names, &settings.relay.name) {
        return Outcome::failed(&RelayError::Synchronous { names: facts.synchronous_names.clone() });
    }
    Outcome::Passed("the relay is none".to_owned())
}
