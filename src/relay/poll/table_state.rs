//! The state of one outbox.

use std::time::Instant;

use crate::relay::error::Error as RelayError;
use crate::relay::metrics::now_micros;
use crate::relay::record::route;
use crate::relay::record::route::ProducerRecord;
use crate::relay::record::route::Reason;
use crate::relay::record::route::Scratch;
use crate::relay::record::route::Written;
use crate::relay::record::row::Row;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::chain;

use super::error::Error;
use super::outbox::Outbox;
use super::selection::BatchSize;
use super::sweep::Sweep;
use super::table::Table;

/// The state of an outbox between two transactions.
pub(super) struct TableState {
    pub(super) outbox: Outbox,
    pub(super) sweep: Sweep,
    pub(super) batch_size: BatchSize,
    scratch: Scratch,
    /// Rows up to this one are published one at a time: a batch with one of them was rejected.
    pub(super) cautious_until: Option<i64>,
    /// Such a row was published in this sweep.
    saw_cautious: bool,
    /// Rows that cannot be published, if there are any.
    pub(super) halt: Option<Halt>,
    /// The table's OID and the columns that were read at the last connection.
    last: Option<(u32, Vec<String>)>,
    /// There was a warning of a missing index.
    pub(super) is_index_warned: bool,
    /// The used percentage of a sequence at the last warning.
    pub(super) warned_percent: u64,
}

/// Rows that cannot be published: the first one ends the relay, once the rows of other keys are published.
pub(super) struct Halt {
    pub(super) error: RelayError,
    /// The buckets of those keys.
    buckets: Vec<i32>,
    pub(super) since: Instant,
}

impl TableState {
    pub(super) fn new(outbox: Outbox, seed: u64, batch_size: BatchSize) -> Self {
        Self {
            outbox,
            sweep: Sweep::starting_at(seed),
            batch_size,
            scratch: Scratch::default(),
            cautious_until: None,
            saw_cautious: false,
            halt: None,
            last: None,
            is_index_warned: false,
            warned_percent: 0,
        }
    }

    /// Compares the table with the one of the last connection: another table under its name has other rows, and a
    /// column that is gone would be missing from the events without a word.
    pub(super) fn compare(&mut self, table: &Table) -> Result<(), Error> {
        let (class, columns) = (table.class(), table.names.read.clone());
        if let Some((last, read)) = &self.last {
            if *last != class {
                return Err(Error::Replaced { table: table.name() });
            }
            if columns.len() < read.len()
                && let Some(column) = read.iter().find(|column| !columns.contains(column))
            {
                return Err(Error::ColumnGone { table: table.name(), column: column.clone() });
            }
        }
        self.last = Some((class, columns));
        Ok(())
    }

    pub(super) fn begin_sweep(&mut self) {
        self.sweep.begin();
        self.saw_cautious = false;
    }

    pub(super) fn end_sweep(&mut self) {
        if !self.saw_cautious {
            self.cautious_until = None;
        }
    }

    /// Excludes a bucket, which has a row that cannot be published.
    pub(super) fn set_aside(&mut self, bucket: i32, error: RelayError) {
        tracing::warn!(
            code = %error.code(), error = chain(&error),
            "row cannot be published: stopping after the rows of other keys"
        );
        let halt = self.halt.get_or_insert_with(|| Halt { error, buckets: Vec::new(), since: Instant::now() });
        halt.buckets.push(bucket);
    }

    /// Gives the buckets to claim next.
    pub(super) fn candidates(&self) -> Vec<i32> {
        let mut candidates = self.sweep.candidates();
        candidates.retain(|bucket| self.halt.as_ref().is_none_or(|halt| !halt.buckets.contains(bucket)));
        candidates
    }

    /// Says whether this row is published alone.
    pub(super) fn is_cautious(&mut self, sequence: i64) -> bool {
        let is_cautious = self.cautious_until.is_some_and(|until| sequence <= until);
        self.saw_cautious |= is_cautious;
        is_cautious
    }

    /// Makes the record of a row. Gives when it was written, in microseconds of the Unix clock.
    pub(super) fn record<'r>(&'r mut self, table: &Table, row: &Row<'r>) -> Result<(ProducerRecord<'r>, i64), Reason> {
        let Written { at, is_ahead } = route::written_at(row, now_micros().cast_signed())?;
        if is_ahead {
            tracing::warn!(
                table = table.name(),
                event_id = route::event_id(row),
                "created_at is in the future: sending with the current time"
            );
        }
        let record = self.outbox.route.record(row, at, &mut self.scratch)?;
        Ok((record, route::unix_micros(at)))
    }
}
