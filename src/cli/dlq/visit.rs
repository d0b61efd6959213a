//! Visits the dead-letter records that are selected.

use std::ops::ControlFlow;

use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::consumer::dead_letter::DeadLetterTopic;

use crate::cli::report::Failed;

use super::error::Error;
use super::filter::Filter;

/// Visits the records that match, until a visit fails. Returns how many were visited.
pub(super) fn visit(
    filter: &Filter,
    topic: &DeadLetterTopic<'_>,
    mut visit: impl FnMut(&DeadLetter) -> Result<(), Failed>,
) -> Result<u64, Failed> {
    let mut count = 0;
    let mut ended = Ok(());
    let read = topic.visit(&mut |dead_letter| {
        if filter.matches(&dead_letter) {
            ended = visit(&dead_letter);
            count += 1;
        }
        let is_over = ended.is_err() || filter.limit.is_some_and(|limit| count >= limit);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    read.map_err(Error::kafka(format!("cannot read {}", topic.name())))?;
    ended.map(|()| count)
}

/// Names a number of records.
pub(super) fn counted(count: u64) -> String {
    if count == 1 { "1 dead-letter record".to_owned() } else { format!("{count} dead-letter records") }
}
