//! The doctor: checks everything that `run` depends on, in one run, and changes nothing.
//!
//! ```text
//!   configuration   postgres, publication, slot, polling     kafka
//!        files      connection -> facts -> server (pure)     outbox_topics -> kafka -> topics (pure)
//!                              -> tables, wal  | poll
//! ```
//!
//! Each check is independent: one that needs another one which failed is skipped and names it. The errors are those of
//! `run` and `setup`; `error` has what only a check finds. Each wait has a time limit, and all together end in half a
//! minute.

mod connection;
mod error;
mod facts;
mod files;
mod kafka;
mod login;
mod outbox_topics;
mod poll;
mod report;
mod server;
mod tables;
mod topic_error;
mod topics;
mod wal;

use crate::relay::settings::Mode;
use crate::relay::settings::Settings;

pub use report::Check;
pub use report::Finding;
pub use report::Group;
pub use report::Outcome;
pub use report::Report;
pub use report::Status;

/// Checks everything. The warnings are those of the configuration.
pub async fn check(settings: &Settings, warnings: &[String]) -> Report {
    let mut groups = vec![files::check(settings, warnings)];
    let routes = settings.routes();
    let (of_postgres, topics) = match (settings.source.mode, &routes) {
        (_, Err(error)) => {
            let outbox = Check::new("outbox", "it says which rows are events", Outcome::failed(error));
            (vec![Group { name: "outbox", checks: vec![outbox] }], Vec::new())
        }
        (Mode::Wal, Ok(routes)) => Box::pin(wal::check(settings, routes)).await,
        (Mode::Poll, Ok(_)) => Box::pin(poll::check(settings)).await,
    };
    groups.extend(of_postgres);
    groups.push(kafka::check(settings, &topics).await);
    Report { groups }
}
