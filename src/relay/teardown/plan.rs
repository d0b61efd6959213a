//! What a teardown drops, and what that costs. Pure data: reading it changes nothing.

use crate::lsn::Lsn;

/// What would be dropped on one server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server, as in `db.example:5432`.
    pub host: String,
    pub database: String,
    /// None if it does not exist.
    pub slot: Option<SlotPlan>,
    /// None if it does not exist.
    pub publication: Option<PublicationPlan>,
    /// Other slots of this database that decode with pgoutput, and so may use the publication.
    pub other_slots: Vec<String>,
    /// None if no position is stored for the slot.
    pub position: Option<PositionPlan>,
    pub undelivered: Undelivered,
}

/// The slot before it is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotPlan {
    pub confirmed: Option<Lsn>,
    /// The WAL that the slot retains.
    pub retained_bytes: u64,
    /// The part of it that no other slot retains.
    pub freed_bytes: u64,
    /// The server has removed WAL that it needed.
    pub is_lost: bool,
}

/// The publication before it is dropped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PublicationPlan {
    pub tables: Vec<String>,
    /// What it publishes beside the outbox tables, as in "table public.orders". Then it is kept.
    pub others: Vec<String>,
}

/// The stored position of the slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PositionPlan {
    pub lsn: String,
    pub is_deleted: bool,
}

/// The events behind the slot that it has not confirmed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Undelivered {
    /// There is none.
    Nothing,
    /// At least this many if there are more than were counted.
    Events { count: u64, has_more: bool },
    /// It cannot be known, for this reason.
    Unknown(String),
}

impl Plan {
    /// Says whether nothing is left to drop.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slot.is_none()
            && !self.drops_publication()
            && !self.position.as_ref().is_some_and(|position| position.is_deleted)
    }

    /// Says whether the publication is dropped: one that publishes other tables as well belongs to others.
    #[must_use]
    pub fn drops_publication(&self) -> bool {
        self.publication.as_ref().is_some_and(|publication| publication.others.is_empty())
    }

    /// Says what is worse now than in the plan that was agreed to. Time has passed since: a person was asked.
    pub(super) fn worse_than(&self, agreed: &Self, accepts_gap: bool) -> Option<&'static str> {
        if self.slot.is_some() && agreed.slot.is_none() {
            return Some("the slot was created");
        }
        if self.publication.is_some() && agreed.drops_publication() && !self.drops_publication() {
            return Some("other tables were added to the publication");
        }
        let is_worse = !accepts_gap && self.undelivered.is_worse_than(&agreed.undelivered);
        is_worse.then_some("more events may not be delivered than were shown")
    }
}

impl Undelivered {
    fn is_worse_than(&self, agreed: &Self) -> bool {
        match (agreed, self) {
            (_, Self::Nothing) | (Self::Unknown(_), _) => false,
            (Self::Events { count: agreed, has_more: had_more }, Self::Events { count, has_more }) => {
                count > agreed || (*has_more && !had_more)
            }
            (Self::Nothing | Self::Events { .. }, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(undelivered: Undelivered) -> Plan {
        Plan {
            host: String::new(),
            database: String::new(),
            slot: Some(SlotPlan { confirmed: None, retained_bytes: 0, freed_bytes: 0, is_lost: false }),
            publication: Some(PublicationPlan::default()),
            other_slots: Vec::new(),
            position: None,
            undelivered,
        }
    }

    #[test]
    fn more_events_than_agreed_are_worse_unless_any_gap_is_accepted() {
        let events = |count, has_more| Undelivered::Events { count, has_more };
        let unknown = || Undelivered::Unknown("lost".to_owned());
        for (agreed, now, is_worse) in [
            (Undelivered::Nothing, Undelivered::Nothing, false),
            (Undelivered::Nothing, events(1, false), true),
            (Undelivered::Nothing, unknown(), true),
            (events(3, false), events(3, false), false),
            (events(3, false), events(4, false), true),
            (events(3, false), events(3, true), true),
            (events(3, false), unknown(), true),
            (events(3, false), Undelivered::Nothing, false),
            (unknown(), events(9, true), false),
        ] {
            let (agreed, now) = (plan(agreed), plan(now));
            assert_eq!(now.worse_than(&agreed, false).is_some(), is_worse, "{agreed:?} {now:?}");
            assert_eq!(now.worse_than(&agreed, true), None);
        }
    }

    #[test]
    fn an_object_that_became_anothers_is_not_dropped_even_if_any_gap_is_accepted() {
        let before = plan(Undelivered::Nothing);
        let without_slot = Plan { slot: None, ..before.clone() };
        assert_eq!(before.worse_than(&without_slot, true), Some("the slot was created"));
        let others = vec!["table public.orders".to_owned()];
        let shared =
            Plan { publication: Some(PublicationPlan { others, ..PublicationPlan::default() }), ..before.clone() };
        assert!(shared.worse_than(&before, true).is_some());
        assert!(!shared.drops_publication() && Plan { slot: None, ..shared }.is_empty());
    }
}
