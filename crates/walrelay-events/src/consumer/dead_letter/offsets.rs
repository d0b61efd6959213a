//! A set of offsets in little memory: about a bit for each offset if they are close together.

use std::collections::BTreeMap;

/// The number of offsets in a chunk and in a word, and of words in a chunk.
const CHUNK: i64 = 1_024;
const WORD: i64 = 64;
const WORDS: usize = 16;

/// A set of offsets of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets(BTreeMap<i64, [u64; WORDS]>);

impl Offsets {
    /// Returns whether it is new.
    pub(super) fn insert(&mut self, offset: i64) -> bool {
        let (chunk, word, bit) = place(offset);
        let Some(word) = self.0.entry(chunk).or_default().get_mut(word) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        let (chunk, word, bit) = place(offset);
        self.0.get(&chunk).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }
}

/// Returns the chunk of an offset, the word in the chunk and the bit in the word.
fn place(offset: i64) -> (i64, usize, u64) {
    let within = offset.rem_euclid(CHUNK);
    (offset.div_euclid(CHUNK), usize::try_from(within / WORD).unwrap_or_default(), 1 << (within % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_inserted_and_nothing_else() {
        let mut offsets = Offsets::default();
        let inserted = [0, 1, 63, 64, 1_023, 1_024, 5_000_000_000];
        assert!(inserted.iter().all(|offset| offsets.insert(*offset)));
        assert!(!inserted.iter().any(|offset| offsets.insert(*offset)));
        assert!(inserted.iter().all(|offset| offsets.contains(*offset)));
        assert!(![2, 62, 65, 1_022, 1_025, 4_999_999_999].iter().any(|offset| offsets.contains(*offset)));
    }

    #[test]
    fn a_million_offsets_in_a_row_need_little_memory() {
        let mut offsets = Offsets::default();
        (0..1_000_000).for_each(|offset| _ = offsets.insert(offset));
        assert_eq!(offsets.0.len(), 977, "chunks of 128 bytes");
    }
}
