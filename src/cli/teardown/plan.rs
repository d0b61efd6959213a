//! The plan of a teardown, for a person.

use crate::cli::wrap::printable;
use crate::lsn::Lsn;
use crate::relay::Settings;
use crate::relay::postgres::quote;
use crate::relay::teardown::Plan;
use crate::relay::teardown::PublicationPlan;
use crate::relay::teardown::SlotPlan;
use crate::relay::teardown::Undelivered;

/// Gives the lines of a plan. What is missing or kept is named as well.
pub(super) fn lines(plan: &Plan, settings: &Settings) -> Vec<String> {
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let mut lines = vec![format!("on {}, database {}:", printable(&plan.host), printable(&plan.database))];
    lines.push(plan.slot.map_or_else(|| format!("  slot {slot} does not exist"), |found| of_slot(slot, found)));
    let found = plan.publication.as_ref();
    lines.push(found.map_or_else(
        || format!("  publication {publication} does not exist"),
        |found| of_publication(publication, found),
    ));
    match &plan.position {
        Some(position) if position.is_deleted => {
            lines.push(format!("  delete the stored position {}", printable(&position.lsn)));
        }
        Some(position) => lines.push(format!(
            "  keep the stored position {}: until it is deleted (--with-position), `walrelay setup --apply` reports a \
             gap",
            printable(&position.lsn)
        )),
        None => {}
    }
    let tables: Vec<&str> = settings.outboxes.iter().map(|outbox| outbox.table.as_str()).collect();
    lines.push(format!("  keep the outbox table {}", tables.join(", ")));
    if plan.is_empty() {
        lines.push("nothing to drop".to_owned());
    } else if let Some(loss) = loss(&plan.undelivered) {
        lines.push(format!("warning: {loss}"));
    } else if plan.slot.is_some() {
        lines.push("every event behind the slot is delivered".to_owned());
    }
    if plan.slot.is_some_and(|slot| !slot.is_lost) {
        lines.push("transactions that still run are not counted: stop the application first".to_owned());
    }
    if plan.drops_publication() && !plan.other_slots.is_empty() {
        lines.push(format!(
            "warning: if slot {} of this database uses publication {publication} as well, it fails without it",
            plan.other_slots.join(", ")
        ));
    }
    lines
}

/// Says which events would not be delivered; none if there is no such event.
pub(super) fn loss(undelivered: &Undelivered) -> Option<String> {
    match undelivered {
        Undelivered::Nothing => None,
        Undelivered::Events { count, has_more } => {
            let at_least = if *has_more { "at least " } else { "" };
            let events = if *count == 1 { "event is" } else { "events are" };
            Some(format!("{at_least}{count} {events} not confirmed, and will not be published from this slot"))
        }
        Undelivered::Unknown(why) => Some(format!("whether every event is delivered cannot be known: {why}")),
    }
}

fn of_publication(name: &str, publication: &PublicationPlan) -> String {
    let PublicationPlan { tables, others } = publication;
    if !others.is_empty() {
        return format!(
            "  publication {name} kept: it also publishes {}; if nothing uses it, run `DROP PUBLICATION {}`",
            printable(&others.join(", ")),
            quote(name)
        );
    }
    if tables.is_empty() {
        return format!("  drop publication {name}: it has no tables");
    }
    format!("  drop publication {name}: of {}", printable(&tables.join(", ")))
}

fn of_slot(name: &str, slot: SlotPlan) -> String {
    let SlotPlan { confirmed, retained_bytes, freed_bytes, is_lost } = slot;
    if is_lost {
        return format!("  drop slot {name}: it is lost, and retains no WAL");
    }
    let at = confirmed.unwrap_or(Lsn::ZERO);
    let (retained, freed) = (size(retained_bytes), size(freed_bytes));
    if freed_bytes == retained_bytes {
        return format!("  drop slot {name}: confirmed up to {at}; the next checkpoint frees {freed} of WAL");
    }
    format!(
        "  drop slot {name}: confirmed up to {at}; it retains {retained} of WAL, of which the next checkpoint frees \
         {freed}: another slot retains the rest"
    )
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wal_that_another_slot_retains_is_not_counted_as_freed() {
        let slot = SlotPlan { confirmed: None, retained_bytes: 3 << 20, freed_bytes: 3 << 20, is_lost: false };
        assert!(of_slot("s", slot).ends_with("the next checkpoint frees 3.0 MiB of WAL"), "{}", of_slot("s", slot));
        let shared = of_slot("s", SlotPlan { freed_bytes: 1 << 20, ..slot });
        assert!(shared.contains("retains 3.0 MiB of WAL, of which the next checkpoint frees 1.0 MiB"), "{shared}");
        assert!(of_slot("s", SlotPlan { is_lost: true, ..slot }).contains("is lost"));
    }

    #[test]
    fn a_count_that_ended_early_is_a_lower_bound() {
        let loss = |count, has_more| loss(&Undelivered::Events { count, has_more }).unwrap();
        assert_eq!(loss(1, false), "1 event is not confirmed, and will not be published from this slot");
        assert!(loss(5_000, true).starts_with("at least 5000 events are not confirmed"));
    }
}
