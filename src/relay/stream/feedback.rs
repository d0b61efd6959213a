//! What to report to PostgreSQL, and when: the position, the interval, and when to disconnect.
//!
//! A status update is sent at least every interval, whatever the WAL or Kafka do. A position is reported only after it
//! is stored (**persist, then flush**), so the slot is never ahead of the row. A server in fast shutdown requests
//! replies without pause; replies are limited while the position does not advance. Everything is decided here, from a
//! clock that is passed in; the loop acts.

use std::time::Duration;
use std::time::Instant;

use crate::lsn::Lsn;
use crate::relay::ledger::Confirmed;

/// The maximum interval of status updates.
const MAX_STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum interval of requested replies while the position does not advance.
const REPLY_PAUSE: Duration = Duration::from_millis(100);
/// The minimum interval of stored positions under load.
const PERSIST_PAUSE: Duration = Duration::from_secs(1);
/// The minimum interval of stored positions on an idle outbox.
const IDLE_PERSIST_PAUSE: Duration = Duration::from_secs(10);

/// A stall is logged after this time, long before the relay disconnects.
const STALL_WARNING_AFTER: Duration = Duration::from_secs(10);

/// So many reply requests while the position does not advance mean that the server is in shutdown and waits for the
/// relay.
const STORM: u32 = 20;
/// The time in which they come: a healthy server requests one reply per half of its timeout.
const STORM_WITHIN: Duration = Duration::from_secs(10);

/// A confirmed position that is stored, and so may be reported. Only [`Feedback`] can make one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reportable(Confirmed);

impl Reportable {
    /// Gives the position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0.lsn()
    }
}

/// A position to store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Persist {
    /// The position.
    pub confirmed: Confirmed,
    /// It covers only other tables' writes: skip it if nobody else has written.
    pub is_idle: bool,
    /// It is the last one of an orderly stop.
    pub is_last: bool,
}

/// The limits of the feedback.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The walsender's timeout.
    pub wal_sender_timeout: Duration,
    /// The timeout without a message from the server; 0 means none.
    pub max_silence: Duration,
    /// The time without an acknowledgement after which the relay disconnects.
    pub disconnect_on_stall_after: Duration,
}

/// The state of both sides.
#[derive(Debug)]
pub struct Feedback {
    pace: Pace,
    confirmed: Confirmed,
    persisted: Option<Reportable>,
    /// The position that is stored as the last one of an orderly stop.
    released: Option<Confirmed>,
    /// The position of the last status update.
    reported: Option<Reportable>,
    delivered_records: u64,
    delivered_at_persist: u64,
    persisting: Option<Persist>,
    persist_asked_at: Option<Instant>,
    status_at: Instant,
    reply_due: bool,
    received_at: Instant,
    has_received: bool,
    progress_at: Instant,
    asked_since: Instant,
    asked_times: u32,
}

impl Feedback {
    /// Starts a connection at a position that is already stored.
    #[must_use]
    pub const fn new(pace: Pace, start: Confirmed, now: Instant) -> Self {
        Self {
            pace,
            confirmed: start,
            persisted: None,
            released: None,
            reported: None,
            delivered_records: 0,
            delivered_at_persist: 0,
            persisting: None,
            persist_asked_at: None,
            status_at: now,
            reply_due: true,
            received_at: now,
            has_received: true,
            progress_at: now,
            asked_since: now,
            asked_times: 0,
        }
    }

    /// Records the ledger's confirmed position, the number of acknowledged records, and whether some are in flight.
    pub fn settled(&mut self, confirmed: Confirmed, delivered_records: u64, is_in_flight: bool, now: Instant) {
        self.confirmed = self.confirmed.max(confirmed);
        if delivered_records != self.delivered_records || !is_in_flight {
            self.progress_at = now;
        }
        self.delivered_records = delivered_records;
    }

    /// Records that bytes were received.
    pub const fn received(&mut self, now: Instant) {
        self.received_at = now;
        self.has_received = true;
    }

    /// Records that nothing is read now, so that the timeout does not run.
    pub const fn not_listening(&mut self, now: Instant) {
        self.received_at = now;
    }

    /// Records that the server requests a reply.
    pub fn asked(&mut self, now: Instant) {
        self.reply_due = true;
        if self.asked_times == 0 || now.duration_since(self.asked_since) > STORM_WITHIN {
            self.asked_since = now;
            self.asked_times = 0;
        }
        self.asked_times += 1;
    }

    /// Records that this position is stored or, where positions are not stored, that the catalog was checked after it.
    pub fn persisted(&mut self, confirmed: Confirmed) {
        self.persisted = self.persisted.max(Some(Reportable(confirmed)));
        // A later position may have been requested since.
        self.persisting = self.persisting.filter(|asked| asked.confirmed > confirmed);
    }

    /// Records that the last requested position was skipped.
    pub const fn skipped(&mut self) {
        self.persisting = None;
    }

    /// Gives the position to store now, if one is due.
    pub fn to_persist(&mut self, now: Instant) -> Option<Persist> {
        if now < self.persist_due()? {
            return None;
        }
        let persist = Persist { confirmed: self.confirmed, is_idle: self.is_idle(), is_last: false };
        self.persisting = Some(persist);
        self.persist_asked_at = Some(now);
        self.delivered_at_persist = self.delivered_records;
        Some(persist)
    }

    /// Gives the last position to store in an orderly stop, unless it is stored or requested already. It may still
    /// advance: after a late acknowledgement it is requested again.
    pub fn to_persist_last(&mut self) -> Option<Persist> {
        let last = Persist { confirmed: self.confirmed, is_idle: false, is_last: true };
        if self.is_released() || self.persisting == Some(last) {
            return None;
        }
        self.persisting = Some(last);
        Some(last)
    }

    /// Records that this position is stored as the last one of an orderly stop.
    pub fn released(&mut self, confirmed: Confirmed) {
        self.released = self.released.max(Some(confirmed));
    }

    /// Says whether the position is stored as the last one.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.released >= Some(self.confirmed)
    }

    /// Says whether the position is stored.
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        self.persisted >= Some(Reportable(self.confirmed))
    }

    /// Gives the position that may be reported: the stored one.
    #[must_use]
    pub const fn reportable(&self) -> Option<Reportable> {
        self.persisted
    }

    /// Says whether a status update is due, and whether it requests a reply.
    pub fn to_report(&mut self, now: Instant) -> Option<bool> {
        if now < self.report_due() {
            return None;
        }
        // Nothing since the last status: a reply shows that the server is alive, and advances an idle position.
        let wants_answer = !self.has_received;
        self.status_at = now;
        self.reply_due = false;
        self.has_received = false;
        if self.reportable() > self.reported {
            self.reported = self.reportable();
            self.asked_times = 0;
        }
        Some(wants_answer)
    }

    /// Gives the time of the next status update or stored position.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.persist_due().map_or(self.report_due(), |persist| self.report_due().min(persist))
    }

    /// Gives the time of the next status update.
    #[must_use]
    pub fn report_due(&self) -> Instant {
        let interval = match self.pace.wal_sender_timeout {
            Duration::ZERO => MAX_STATUS_INTERVAL,
            timeout => MAX_STATUS_INTERVAL.min(timeout / 3),
        };
        let has_moved = self.reportable() > self.reported;
        match (self.reply_due, has_moved) {
            (true, true) => self.status_at,
            (true, false) => self.status_at + REPLY_PAUSE.min(interval),
            // No reply requested, but the position advanced: soon, without a status per transaction.
            (false, true) => self.status_at + REPLY_PAUSE.min(interval),
            (false, false) => self.status_at + interval,
        }
    }

    /// Says whether the connection has timed out. A busy walsender may read a status update only after half of its own
    /// timeout.
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        !self.pace.max_silence.is_zero() && now.duration_since(self.received_at) > self.pace.max_silence
    }

    /// Says whether a stall should be logged: records are in flight, and none was acknowledged for a while.
    #[must_use]
    pub fn is_slow(&self, now: Instant) -> bool {
        now.duration_since(self.progress_at) > STALL_WARNING_AFTER
    }

    /// Says whether the relay must disconnect: no record was acknowledged for too long.
    #[must_use]
    pub fn is_stalled(&self, now: Instant) -> bool {
        now.duration_since(self.progress_at) > self.pace.disconnect_on_stall_after
    }

    /// Says whether the server requests replies in a row for a position that does not advance: it is shutting down.
    #[must_use]
    pub const fn is_storm(&self) -> bool {
        self.asked_times >= STORM
    }

    fn is_idle(&self) -> bool {
        self.delivered_records == self.delivered_at_persist
    }

    fn persist_due(&self) -> Option<Instant> {
        if self.persisting.is_some() || self.is_persisted() {
            return None;
        }
        let pause = if self.is_idle() { IDLE_PERSIST_PAUSE } else { PERSIST_PAUSE };
        Some(self.persist_asked_at.map_or(self.status_at, |asked| asked + pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ledger::Ledger;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(position: u64) -> Confirmed {
        Ledger::new(Lsn::from_wire(position)).settle()
    }

    fn feedback(now: Instant) -> Feedback {
        let pace =
            Pace { wal_sender_timeout: 60 * SECOND, max_silence: 60 * SECOND, disconnect_on_stall_after: 30 * SECOND };
        Feedback::new(pace, at(1), now)
    }

    #[test]
    fn a_position_is_reported_only_after_it_is_stored() {
        let now = Instant::now();
        let mut feedback = feedback(now);
        feedback.settled(at(50), 3, false, now);
        assert_eq!(feedback.reportable(), None);
        let persist = feedback.to_persist(now).unwrap();
        assert_eq!(persist, Persist { confirmed: at(50), is_idle: false, is_last: false });
        feedback.settled(at(70), 4, false, now);
        assert_eq!(feedback.reportable(), None, "a requested position is not stored");
        feedback.persisted(at(50));
        assert_eq!(feedback.reportable(), Some(Reportable(at(50))));
        assert_eq!(feedback.to_persist(now), None, "at most one a second");
        assert_eq!(feedback.to_persist(now + SECOND).unwrap().confirmed, at(70));
    }

    #[test]
    fn a15_an_acknowledgement_in_the_middle_of_a_stop_is_stored_before_it_is_reported() {
        let now = Instant::now();
        let mut feedback = feedback(now);
        let last = |position| Some(Persist { confirmed: at(position), is_idle: false, is_last: true });
        feedback.settled(at(50), 3, false, now);
        assert_eq!(feedback.to_persist_last(), last(50));
        assert_eq!(feedback.to_persist_last(), None, "requested once");
        feedback.settled(at(70), 4, false, now);
        assert_eq!(feedback.to_persist_last(), last(70), "a later position is requested again");
        feedback.persisted(at(50));
        assert_eq!((feedback.reportable(), feedback.is_persisted()), (Some(Reportable(at(50))), false));
        assert_eq!(feedback.to_persist_last(), None, "still requested");
        feedback.persisted(at(70));
        assert_eq!((feedback.reportable(), feedback.is_persisted()), (Some(Reportable(at(70))), true));
        // A position requested before the stop may be skipped.
        feedback.settled(at(90), 4, false, now);
        assert_eq!(feedback.to_persist_last(), last(90));
        feedback.skipped();
        assert_eq!(feedback.to_persist_last(), last(90));
    }

    #[test]
    fn a12_on_an_idle_outbox_the_position_is_stored_every_ten_seconds_at_most() {
        let now = Instant::now();
        let mut feedback = feedback(now);
        feedback.settled(at(50), 0, false, now);
        assert!(feedback.to_persist(now).unwrap().is_idle);
        feedback.persisted(at(50));
        feedback.settled(at(60), 0, false, now + SECOND);
        assert_eq!(feedback.to_persist(now + 9 * SECOND), None);
        assert!(feedback.to_persist(now + 10 * SECOND).unwrap().is_idle);
        feedback.skipped();
        assert_eq!(feedback.to_persist(now + 11 * SECOND), None);
    }

    #[test]
    fn a_status_is_sent_every_second() {
        let now = Instant::now();
        let mut feedback = feedback(now);
        assert_eq!(feedback.to_report(now + REPLY_PAUSE), Some(false));
        assert_eq!(feedback.to_report(now + SECOND), None);
        assert_eq!(
            feedback.to_report(now + SECOND + REPLY_PAUSE),
            Some(true),
            "without a message a reply is requested"
        );
    }

    #[test]
    fn e4_replies_are_limited_while_the_position_does_not_advance() {
        let start = Instant::now();
        let mut feedback = feedback(start);
        feedback.to_report(start + REPLY_PAUSE);
        let mut answers = 0;
        for millisecond in 0..1_000 {
            let now = start + REPLY_PAUSE + Duration::from_millis(millisecond);
            feedback.asked(now);
            feedback.received(start);
            answers += u32::from(feedback.to_report(now).is_some());
        }
        assert!((9..=10).contains(&answers), "{answers} answers in a second");
        assert!(feedback.is_storm(), "and the server is in shutdown");
        feedback.asked(start + 2 * SECOND);
        feedback.settled(at(99), 1, false, start + 2 * SECOND);
        feedback.persisted(at(99));
        assert!(feedback.to_report(start + REPLY_PAUSE + SECOND).is_some(), "at once when the position advanced");
    }

    #[test]
    fn f1_a_stall_is_time_without_an_acknowledgement_while_records_are_in_flight() {
        let start = Instant::now();
        let mut feedback = feedback(start);
        feedback.settled(at(1), 0, false, start + 100 * SECOND);
        assert!(!feedback.is_stalled(start + 101 * SECOND), "nothing is in flight");
        feedback.settled(at(1), 0, true, start + 120 * SECOND);
        assert!(feedback.is_slow(start + 120 * SECOND) && !feedback.is_stalled(start + 120 * SECOND));
        assert!(feedback.is_stalled(start + 131 * SECOND));
        feedback.settled(at(1), 1, true, start + 131 * SECOND);
        assert!(!feedback.is_stalled(start + 132 * SECOND) && !feedback.is_slow(start + 132 * SECOND));
    }

    #[test]
    fn e7_a_connection_times_out_after_the_walsenders_timeout() {
        let start = Instant::now();
        let mut feedback = feedback(start);
        assert!(!feedback.is_silent(start + 59 * SECOND));
        assert!(feedback.is_silent(start + 61 * SECOND));
        feedback.not_listening(start + 60 * SECOND);
        assert!(!feedback.is_silent(start + 61 * SECOND), "not while nothing is read");
    }
}
