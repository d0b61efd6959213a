//! Asks a type about its tag, without a payload.

use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use crate::event::headers::EVENT_TYPE;

use super::reason::Reason;

/// Returns whether a type has a variant of this name. It is given the tag alone: an internally tagged enum reads it
/// first, and any error but an unknown variant proves that the variant exists.
pub(super) fn knows<E: DeserializeOwned>(event_type: &str) -> bool {
    let tag = MapDeserializer::<_, Reason>::new(std::iter::once((EVENT_TYPE, event_type)));
    !matches!(E::deserialize(tag), Err(Reason::UnknownVariant(_)))
}

/// Returns whether a type requires the tag.
pub(super) fn requires_tag<E: DeserializeOwned>() -> bool {
    let nothing = MapDeserializer::<_, Reason>::new(std::iter::empty::<(&str, &str)>());
    matches!(E::deserialize(nothing), Err(Reason::MissingField(EVENT_TYPE)))
}
