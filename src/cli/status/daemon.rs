//! What a running relay answers at `/status`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::http;

/// Hundreds of topics with the longest names fit.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The part of `/status` that is printed. What an older relay does not have is absent.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) state: String,
    pub(super) state_since: Option<String>,
    pub(super) ready: bool,
    pub(super) role: Option<String>,
    pub(super) since_tick_seconds: Option<f64>,
    pub(super) slot: Option<String>,
    pub(super) connected: Connected,
    pub(super) confirmed_lsn: Option<String>,
    pub(super) server_wal_end_lsn: Option<String>,
    pub(super) position_wait_seconds: Option<f64>,
    pub(super) lag: Lag,
    pub(super) unpublished: Option<u64>,
    pub(super) in_flight: InFlight,
    pub(super) last_delivery: Option<String>,
    pub(super) published: BTreeMap<String, Published>,
    pub(super) last_error: Option<LastError>,
    pub(super) slot_view: Option<SlotView>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Connected {
    pub(super) postgres: bool,
    pub(super) kafka: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Lag {
    pub(super) deliver_bytes: Option<u64>,
    pub(super) deliver_seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct InFlight {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Published {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct LastError {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) help: Option<String>,
    pub(super) at: Option<String>,
}

/// The slot: `/status` has it, and so has what is read from PostgreSQL.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SlotView {
    pub(super) active: bool,
    pub(super) active_pid: Option<i32>,
    pub(super) holder: Option<String>,
    pub(super) confirmed_flush_lsn: Option<String>,
    pub(super) retained_wal_bytes: u64,
    pub(super) safe_wal_bytes: Option<i64>,
    pub(super) wal_status: Option<String>,
    pub(super) invalidation_reason: Option<String>,
    pub(super) retained_wal_growth_bytes_per_second: Option<f64>,
    pub(super) seconds_to_invalidation: Option<f64>,
}

/// Asks the relay that listens on `address`. Gives its answer as it is, too; or why there is none.
pub(super) fn ask(address: SocketAddr) -> Result<(Daemon, Value), String> {
    let (status, body) = http::get(http::reachable(address), "/status", MAX_ANSWER_BYTES).map_err(no_answer)?;
    let answer = serde_json::from_str::<Value>(&body).ok();
    match answer.and_then(|answer| Some((Daemon::deserialize(&answer).ok()?, answer))) {
        Some(answered) if status == 200 => Ok(answered),
        Some(_) | None => Err(format!("HTTP {status}, which is no answer of walrelay")),
    }
}

fn no_answer(error: io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return format!("no answer within {} s", http::TIMEOUT.as_secs());
    }
    error.to_string()
}
