//! Settles what handlers and dead-letter writes returned: what is done, what is retried, and what stops the consumer.

use std::iter;
use std::time::Duration;
use std::time::Instant;

use crate::consumer::call::Failed;
use crate::consumer::error::Error;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::LastJob;
use crate::consumer::lanes::Run;
use crate::consumer::lanes::Ticket;
use crate::consumer::observe::Observed;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::consumer::retry;
use crate::consumer::starter::Ran;
use crate::consumer::starter::Returned;
use crate::consumer::starter::Written;
use crate::consumer::verdict;
use crate::consumer::verdict::Verdict;
use crate::consumer::waiting;

use super::Dispatcher;

impl Dispatcher {
    /// Processes what a task returned.
    pub(super) fn process_one(&mut self, returned: Returned) {
        match returned {
            Returned::Ran(ran) => self.ran(ran),
            Returned::Write(number, written) => {
                self.written(number, written);
                self.lanes.writing(self.writes.count());
            }
        }
    }

    fn written(&mut self, number: u64, written: Written) {
        match written {
            Written::Done { last, reason } => {
                self.writes.ended(number);
                let LastJob { ticket, job } = last;
                self.observe(&Observed::DeadLettered { record: &job.record, reason: &reason });
                if self.is_current(&ticket, std::slice::from_ref(&job)) {
                    self.lanes.done(&ticket, &job);
                    self.lanes.end(&ticket);
                }
            }
            Written::Failed { record, error } => {
                let error = self.writes.failed(number, &record, &error, Instant::now());
                self.observe(&Observed::DeadLetterFailed { record: &record, error: &error });
            }
            Written::Refused { last, error } => {
                let record = &last.job.record;
                let text = self.writes.failed(number, record, &error, Instant::now());
                self.writes.ended(number);
                self.observe(&Observed::DeadLetterFailed { record, error: &text });
                if self.is_current(&last.ticket, std::slice::from_ref(&last.job)) {
                    self.fail(Error::DeadLetterRefused { record: last.job.record.to_string(), source: error });
                    self.keep(last);
                }
            }
            Written::Cancelled { last } => {
                self.writes.ended(number);
                if self.is_current(&last.ticket, std::slice::from_ref(&last.job)) {
                    self.keep(last);
                }
            }
        }
    }

    /// Keeps a record that is not done in its lane until the consumer has stopped, so that its offset is not committed.
    fn keep(&mut self, LastJob { ticket, job }: LastJob<Record>) {
        self.retry(&ticket, vec![job], self.config.retry.max_backoff);
    }

    /// Returns whether the partition of records is still assigned. If not, another member handles them again: the
    /// records leave the lanes, and nothing else follows from them.
    fn is_current(&mut self, ticket: &Ticket, jobs: &[Job<Record>]) -> bool {
        let is_current = self.lanes.is_current(ticket);
        if !is_current {
            self.lanes.end_late(ticket, jobs);
        }
        is_current
    }

    fn ran(&mut self, Ran { run: Run { ticket, jobs }, acked, failed }: Ran) {
        if !self.is_current(&ticket, &jobs) {
            return;
        }
        let mut jobs = jobs.into_iter();
        for job in jobs.by_ref().take(acked) {
            self.observe(&Observed::Handled { record: &job.record, verdict: &Verdict::Ack, took: job.took });
            self.budget.acked(job.record.topic_partition());
            self.end_wait(&job.record, job.transient.since());
            self.lanes.done(&ticket, &job);
            self.pool.put(job.record);
        }
        let first = if failed.is_some() { jobs.next() } else { None };
        let Some((failed, job)) = failed.zip(first) else {
            self.lanes.put_back(&ticket, jobs);
            return self.lanes.end(&ticket);
        };
        match failed {
            Failed::Record(outcome) => {
                self.lanes.put_back(&ticket, jobs);
                self.failed(LastJob { ticket, job }, outcome);
            }
            Failed::Batch { reason } => {
                tracing::warn!(first = %job.record, reason, "batch failed, handling each record alone");
                let jobs: Vec<_> = iter::once(job).chain(jobs).map(Job::alone).collect();
                self.retry(&ticket, jobs, self.config.retry.initial_backoff);
            }
        }
    }

    fn failed(&mut self, LastJob { ticket, mut job }: LastJob<Record>, outcome: Outcome) {
        let (took, policy, now, waited_since) = (job.took, &self.config.retry, Instant::now(), job.transient.since());
        let seed = job.jitter_seed() ^ u64::from(took.subsec_nanos());
        let verdict = verdict::decide(outcome, &mut job.attempts, &mut job.transient, policy, seed, now);
        self.observe(&Observed::Handled { record: &job.record, verdict: &verdict, took });
        let is_waiting = matches!(verdict, Verdict::Retry { transient_for: Some(_), .. });
        if !is_waiting {
            self.end_wait(&job.record, waited_since);
        }
        match verdict {
            Verdict::Ack => {
                self.lanes.done(&ticket, &job);
                self.lanes.end(&ticket);
            }
            Verdict::Skip { reason } => {
                self.health.skipped(&job.record, &reason);
                self.lanes.done(&ticket, &job);
                self.lanes.end(&ticket);
            }
            Verdict::Retry { backoff, transient_for, reason } => {
                tracing::debug!(record = %job.record, reason, attempts = job.attempts, ?backoff, "retrying");
                if transient_for.is_some() {
                    self.wait(&job, &reason, now);
                }
                self.retry(&ticket, vec![job], backoff);
            }
            Verdict::DeadLetter { reason } => self.dead_letter(ticket, job, reason),
            Verdict::Stop { reason } => {
                self.fail(Error::HandlerStopped { record: job.record.to_string(), reason });
                self.keep(LastJob { ticket, job });
            }
        }
    }

    /// Notes that a record no longer waits, if it did.
    fn end_wait(&mut self, record: &Record, since: Option<Instant>) {
        if let Some(since) = since {
            self.waiting.ended(record.topic_partition(), record.offset(), since);
        }
    }

    /// Notes that a record waits for its environment, and logs it now and then.
    fn wait(&mut self, job: &Job<Record>, reason: &str, now: Instant) {
        let (record, Some(since)) = (&job.record, job.transient.since()) else { return };
        if self.waiting.failed(record.topic_partition(), record.offset(), since, now) {
            tracing::warn!(
                topic = record.topic(),
                partition = record.partition(),
                offset = record.offset(),
                key_hash = record.key().map(waiting::key_hash),
                waiting = ?now.saturating_duration_since(since),
                reason,
                "retrying after transient failure"
            );
        }
    }

    fn retry(&mut self, ticket: &Ticket, jobs: Vec<Job<Record>>, backoff: Duration) {
        self.lanes.put_back(ticket, jobs.into_iter());
        self.lanes.retry(ticket, retry::after(Instant::now(), backoff));
    }

    fn dead_letter(&mut self, ticket: Ticket, job: Job<Record>, reason: String) {
        let partition = job.record.topic_partition().clone();
        if let Err(exceeded) = self.budget.dead_letter(&partition) {
            self.fail(Error::DeadLetterBudgetExceeded { record: job.record.to_string(), exceeded, reason });
            return self.keep(LastJob { ticket, job });
        }
        tracing::warn!(record = %job.record, reason, "dead-lettering record");
        self.writes.start(LastJob { ticket, job }, reason);
        self.lanes.writing(self.writes.count());
    }
}
