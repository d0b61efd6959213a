//! When to tell PostgreSQL what: which position, how often, and when to let go.
//!
//! A status update leaves at least every interval, whatever the log or Kafka do. A position is reported only after it has
//! been stored (**persist, then flush**), so the slot is never ahead of the row. A server in fast shutdown asks without
//! pause; answers are limited while the position stands still. All of it is decided here from a clock that is passed in;
//! the loop acts.

use std::time::Duration;
use std::time::Instant;

use crate::lsn::Lsn;
use crate::relay::ledger::Confirmed;

/// A status leaves at least this often.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// While the position stands still, requested answers are at least this far apart.
const REPLY_PAUSE: Duration = Duration::from_millis(100);
/// Under load the position is stored at most this often.
const PERSIST_PAUSE: Duration = Duration::from_secs(1);
/// On an idle outbox the position is stored at most this often.
const IDLE_PERSIST_PAUSE: Duration = Duration::from_secs(10);

/// Kafka takes nothing for so long: that is told, long before PostgreSQL is let go for it.
const BLOCKED_AFTER: Duration = Duration::from_secs(10);

/// So many requests for an answer, while the position stands still, are a server that waits for us to shut down.
const STORM: u32 = 20;
/// They come this fast: a healthy server asks once in half its timeout.
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

/// What is to be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Persist {
    /// The position.
    pub confirmed: Confirmed,
    /// No event stands behind it, only other tables' writes: pass over it if nobody else has written.
    pub is_idle: bool,
    /// It is the last one of a relay that ends in order.
    pub is_last: bool,
}

/// How feedback is paced.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The walsender's own limit for silence.
    pub wal_sender_timeout: Duration,
    /// How long the server may say nothing; not at all limited if 0.
    pub silence_max: Duration,
    /// How long Kafka may make no progress.
    pub stall_release_after: Duration,
}

/// What is known of both sides, and when.
#[derive(Debug)]
pub struct Feedback {
    pace: Pace,
    confirmed: Confirmed,
    persisted: Option<Reportable>,
    /// The position that is stored as the last one.
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

    /// Notes what the ledger confirms, how many records have arrived in all, and whether some are on the way.
    pub fn settled(&mut self, confirmed: Confirmed, delivered_records: u64, is_waiting: bool, now: Instant) {
        self.confirmed = self.confirmed.max(confirmed);
        if delivered_records != self.delivered_records || !is_waiting {
            self.progress_at = now;
        }
        self.delivered_records = delivered_records;
    }

    /// Notes that bytes came from the server.
    pub const fn received(&mut self, now: Instant) {
        self.received_at = now;
        self.has_received = true;
    }

    /// Notes that nothing is read now: what is not read cannot be silent.
    pub const fn not_listening(&mut self, now: Instant) {
        self.received_at = now;
    }

    /// Notes that the server wants a status update.
    pub fn asked(&mut self, now: Instant) {
        self.reply_due = true;
        if self.asked_times == 0 || now.duration_since(self.asked_since) > STORM_WITHIN {
            self.asked_since = now;
            self.asked_times = 0;
        }
        self.asked_times += 1;
    }

    /// Notes that this position is stored or, where positions are not stored, covered by a look at the catalog.
    pub fn persisted(&mut self, confirmed: Confirmed) {
        self.persisted = self.persisted.max(Some(Reportable(confirmed)));
        // A later position may have been asked for since.
        self.persisting = self.persisting.filter(|asked| asked.confirmed > confirmed);
    }

    /// Notes that the last position asked for was passed over.
    pub const fn passed_over(&mut self) {
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

    /// Gives the last position to store before an orderly end, unless it is stored as the last one or asked for already. It may still move:
    /// an acknowledgement that comes while one is being stored asks for the next.
    pub fn to_persist_last(&mut self) -> Option<Persist> {
        let last = Persist { confirmed: self.confirmed, is_idle: false, is_last: true };
        if self.is_released() || self.persisting == Some(last) {
            return None;
        }
        self.persisting = Some(last);
        Some(last)
    }

    /// Notes that this position is stored as the last one of a relay that ends in order.
    pub fn released(&mut self, confirmed: Confirmed) {
        self.released = self.released.max(Some(confirmed));
    }

    /// Says whether the last position is stored as the last one.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.released >= Some(self.confirmed)
    }

    /// Says whether the last position is stored.
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        self.persisted >= Some(Reportable(self.confirmed))
    }

    /// Gives the position that may be reported.
    #[must_use]
    pub const fn reportable(&self) -> Option<Reportable> {
        self.persisted
    }

    /// Says whether a status update leaves now, and whether it asks the server to answer.
    pub fn to_report(&mut self, now: Instant) -> Option<bool> {
        if now < self.report_due() {
            return None;
        }
        // Silence since the last status: an answer shows that the server is there, and moves an idle position.
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

    /// Gives the moment at which something is due if nothing else happens, while positions are stored as they come.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.persist_due().map_or(self.report_due(), |persist| self.report_due().min(persist))
    }

    /// Gives the moment at which a status update is due.
    #[must_use]
    pub fn report_due(&self) -> Instant {
        let interval = match self.pace.wal_sender_timeout {
            Duration::ZERO => STATUS_INTERVAL_MAX,
            timeout => STATUS_INTERVAL_MAX.min(timeout / 3),
        };
        let has_moved = self.reportable() > self.reported;
        match (self.reply_due, has_moved) {
            (true, true) => self.status_at,
            (true, false) => self.status_at + REPLY_PAUSE.min(interval),
            // Nobody asked, but the position moved: soon, without a status for every transaction.
            (false, true) => self.status_at + REPLY_PAUSE.min(interval),
            (false, false) => self.status_at + interval,
        }
    }

    /// Says whether the server has been silent for so long that the connection must be dead. Half of its own limit may
    /// pass before a busy walsender looks at what we sent.
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        !self.pace.silence_max.is_zero() && now.duration_since(self.received_at) > self.pace.silence_max
    }

    /// Says whether records wait and Kafka has taken none of them for a while.
    #[must_use]
    pub fn is_blocked(&self, now: Instant) -> bool {
        now.duration_since(self.progress_at) > BLOCKED_AFTER
    }

    /// Says whether Kafka has taken nothing for so long that PostgreSQL must be let go.
    #[must_use]
    pub fn is_stalled(&self, now: Instant) -> bool {
        now.duration_since(self.progress_at) > self.pace.stall_release_after
    }

    /// Says whether the server asks again and again for a position that we cannot give: it is shutting down.
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
        let pace = Pace { wal_sender_timeout: 60 * SECOND, silence_max: 60 * SECOND, stall_release_after: 30 * SECOND };
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
        assert_eq!(feedback.reportable(), None, "asked for is not stored");
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
        assert_eq!(feedback.to_persist_last(), None, "asked for once");
        feedback.settled(at(70), 4, false, now);
        assert_eq!(feedback.to_persist_last(), last(70), "a stop does not wait for a position that nobody stores");
        feedback.persisted(at(50));
        assert_eq!((feedback.reportable(), feedback.is_persisted()), (Some(Reportable(at(50))), false));
        assert_eq!(feedback.to_persist_last(), None, "still asked for");
        feedback.persisted(at(70));
        assert_eq!((feedback.reportable(), feedback.is_persisted()), (Some(Reportable(at(70))), true));
        // What was asked for before the stop may be passed over meanwhile.
        feedback.settled(at(90), 4, false, now);
        assert_eq!(feedback.to_persist_last(), last(90));
        feedback.passed_over();
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
        feedback.passed_over();
        assert_eq!(feedback.to_persist(now + 11 * SECOND), None);
    }

    #[test]
    fn a_status_leaves_every_second_whatever_happens() {
        let now = Instant::now();
        let mut feedback = feedback(now);
        assert_eq!(feedback.to_report(now + REPLY_PAUSE), Some(false));
        assert_eq!(feedback.to_report(now + SECOND), None);
        assert_eq!(feedback.to_report(now + SECOND + REPLY_PAUSE), Some(true), "after silence an answer is asked for");
    }

    #[test]
    fn e4_answers_are_limited_while_the_position_stands_still() {
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
        assert!(feedback.is_storm(), "and the server is seen to wait for us");
        feedback.asked(start + 2 * SECOND);
        feedback.settled(at(99), 1, false, start + 2 * SECOND);
        feedback.persisted(at(99));
        assert!(feedback.to_report(start + REPLY_PAUSE + SECOND).is_some(), "at once when the position moved");
    }

    #[test]
    fn f1_a_stall_is_time_without_any_delivery_while_records_wait() {
        let start = Instant::now();
        let mut feedback = feedback(start);
        feedback.settled(at(1), 0, false, start + 100 * SECOND);
        assert!(!feedback.is_stalled(start + 101 * SECOND), "nothing waits");
        feedback.settled(at(1), 0, true, start + 120 * SECOND);
        assert!(feedback.is_blocked(start + 120 * SECOND) && !feedback.is_stalled(start + 120 * SECOND));
        assert!(feedback.is_stalled(start + 131 * SECOND));
        feedback.settled(at(1), 1, true, start + 131 * SECOND);
        assert!(!feedback.is_stalled(start + 132 * SECOND) && !feedback.is_blocked(start + 132 * SECOND));
    }

    #[test]
    fn e7_silence_longer_than_the_walsenders_own_limit_is_a_dead_connection() {
        let start = Instant::now();
        let mut feedback = feedback(start);
        assert!(!feedback.is_silent(start + 59 * SECOND));
        assert!(feedback.is_silent(start + 61 * SECOND));
        feedback.not_listening(start + 60 * SECOND);
        assert!(!feedback.is_silent(start + 61 * SECOND), "what is not read cannot be silent");
    }
}
