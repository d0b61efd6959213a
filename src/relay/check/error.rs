//! What only a check finds, and the next step. All else has the error that `run` and `setup` report.

use std::io;
use std::path::PathBuf;

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The configuration is valid, and has a weakness.
    #[error("{0}")]
    Weakness(String),
    #[error("cannot read {option} = {:?}", path.display())]
    File {
        option: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("PostgreSQL {0} is not supported")]
    Version(u32),
    #[error("all {0} walsenders of the server are in use")]
    NoFreeSender(i64),
    #[error("max_slot_wal_keep_size is -1: while the relay is down, the WAL that its slot retains can fill the disk")]
    UnlimitedWal,
    #[error("idle_replication_slot_timeout is {0}: the slot is lost if no relay uses it for so long")]
    IdleTimeout(String),
    #[error("role {role:?} is a superuser")]
    Superuser { role: String },
    #[error(
        "source.store_position is off: after a crash of PostgreSQL events may be repeated, and a slot that another \
         client moved is not noticed"
    )]
    NotStored,
    #[error("slot {slot:?} is in use by another program: process {pid}, application_name {application_name:?}")]
    Held { slot: String, pid: u32, application_name: String },
    #[error("slot {slot:?} will be lost at the next checkpoint: it retains more WAL than max_slot_wal_keep_size")]
    Unreserved { slot: String },
    #[error("table {table} has no index on unpublished rows: each poll reads the whole table")]
    NoIndex {
        table: String,
        /// The statement that creates it.
        statement: String,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Weakness(_) => Code::new(Exit::CheckFailed, 1),
            Self::UnlimitedWal => Code::new(Exit::CheckFailed, 2),
            Self::Superuser { .. } => Code::new(Exit::CheckFailed, 3),
            Self::IdleTimeout(_) => Code::new(Exit::CheckFailed, 4),
            Self::NotStored => Code::new(Exit::CheckFailed, 5),
            Self::Held { .. } => Code::new(Exit::CheckFailed, 6),
            Self::Unreserved { .. } => Code::new(Exit::CheckFailed, 7),
            Self::NoIndex { .. } => Code::new(Exit::CheckFailed, 8),
            Self::File { .. } => Code::new(Exit::Configuration, 33),
            Self::Version(_) => Code::new(Exit::Mismatch, 40),
            Self::NoFreeSender(_) => Code::new(Exit::Unavailable, 9),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Weakness(_) => return None,
            Self::File { option, .. } => format!("correct {option}, or make the file readable for this user"),
            Self::Version(_) => "upgrade PostgreSQL to version 14 or later".to_owned(),
            Self::NoFreeSender(senders) => format!(
                "run `ALTER SYSTEM SET max_wal_senders = {}` as a superuser and restart PostgreSQL",
                senders.saturating_add(10)
            ),
            Self::UnlimitedWal => {
                "run `ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'` with a size that the disk has, then `SELECT \
                 pg_reload_conf()`"
                    .to_owned()
            }
            Self::IdleTimeout(_) => {
                "run `ALTER SYSTEM SET idle_replication_slot_timeout = 0`, then `SELECT pg_reload_conf()`".to_owned()
            }
            // To take the attribute from this role could leave the server without a superuser.
            Self::Superuser { .. } => {
                "use a role of its own, as printed by `walrelay setup --role walrelay`".to_owned()
            }
            Self::NotStored => "set source.store_position = true, then run `walrelay setup --apply`".to_owned(),
            Self::Held { pid, .. } => format!(
                "set source.slot to a slot of its own, or stop that program: run `SELECT pg_terminate_backend({pid})`"
            ),
            Self::Unreserved { .. } => {
                "start `walrelay run` now, or raise max_slot_wal_keep_size and run `SELECT pg_reload_conf()`".to_owned()
            }
            Self::NoIndex { statement, .. } => format!("run `{statement}`"),
        })
    }
}
