//! What every error code means, why it happens and what to do, for `walrelay explain` and docs/errors.md.
//!
//! One table per group, and one entry per code. A test compares the tables with the codes that the sources give, and
//! docs/errors.md with [`page`].

mod checks;
mod configuration;
mod explanation;
mod internal;
mod mismatch;
mod poison;
mod position;
mod rights;
mod unavailable;

use std::fmt::Write as _;

pub use explanation::Explanation;
pub use explanation::exits;

/// How many codes are suggested in place of an unknown one.
const MAX_SIMILAR: usize = 3;

/// Gives every explanation, by code.
#[must_use]
pub fn all() -> Vec<Explanation> {
    let groups: [&[Explanation]; 8] = [
        &checks::ALL,
        &configuration::ALL,
        &mismatch::ALL,
        &position::ALL,
        &rights::ALL,
        &poison::ALL,
        &unavailable::ALL,
        &internal::ALL,
    ];
    let mut all: Vec<Explanation> = groups.concat();
    all.sort_by_key(|explanation| explanation.number);
    all
}

/// Finds the explanation of a code, written as `WR-6611`, `wr-6611` or `6611`. Gives the nearest ones if there is none.
pub fn find(code: &str) -> Result<Explanation, Vec<Explanation>> {
    let code = code.trim().to_uppercase();
    let number = code.strip_prefix("WR").map_or(code.as_str(), |rest| rest.trim_start_matches(['-', '_']));
    let mut all = all();
    if let Some(found) = all.iter().find(|known| number.parse() == Ok(known.number)) {
        return Ok(*found);
    }
    let distance = |known: &Explanation| {
        let apart = number.parse::<u16>().map_or(u16::MAX, |number| number.abs_diff(known.number));
        (strsim::damerau_levenshtein(&format!("{:04}", known.number), number), apart)
    };
    all.sort_by_key(distance);
    all.truncate(MAX_SIMILAR);
    Err(all)
}

/// Gives docs/errors.md.
#[must_use]
pub fn page() -> String {
    let mut page =
        "# Errors\n\nEvery error and many warnings have a code. Its first two digits are the exit code of a \
                    process that ends because of it. `walrelay\nexplain CODE` prints what stands here. This page is \
                    generated: `walrelay explain -o markdown > docs/errors.md`.\n"
            .to_owned();
    let mut exit = None;
    for explanation in all() {
        if exit != Some(explanation.exit()) {
            exit = Some(explanation.exit());
            let _ = writeln!(page, "\n## Exit code {}: {}", explanation.exit(), explanation.exit_means());
        }
        let Explanation { title, means, why, next, .. } = explanation;
        let _ = writeln!(page, "\n### {}: {title}\n\n{means} {why}\n\nNext: {next}", explanation.code());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for code in ["WR-6611", "wr-6611", "6611", " wr6611", "WR_6611"] {
            assert_eq!(find(code).map(|found| found.code()), Ok("WR-6611".to_owned()), "{code}");
        }
        assert_eq!(find("0101").map(|found| found.exit()), Ok(1));
    }

    #[test]
    fn the_nearest_codes_are_given_for_an_unknown_one() {
        let similar = |code: &str| find(code).unwrap_err().iter().map(Explanation::code).collect::<Vec<_>>();
        assert!(similar("WR-6613").contains(&"WR-6612".to_owned()), "{:?}", similar("WR-6613"));
        assert!(similar("6161").contains(&"WR-6611".to_owned()), "{:?}", similar("6161"));
        for code in ["", "WR-", "nonsense", "99999999"] {
            assert_eq!(similar(code).len(), MAX_SIMILAR, "{code}");
        }
    }

    #[test]
    fn each_explanation_is_whole_and_no_code_has_two() {
        let all = all();
        for pair in all.windows(2) {
            assert_ne!(pair[0].number, pair[1].number, "{:?}", pair[0]);
        }
        for it in all {
            assert!(!it.exit_means().is_empty(), "{it:?}");
            assert!(it.title.len() <= 60 && it.title.starts_with(|first: char| !first.is_ascii_whitespace()), "{it:?}");
            for text in [it.means, it.why, it.next] {
                assert!(text.ends_with(['.']) && !text.contains("  ") && text.matches('`').count() % 2 == 0, "{it:?}");
            }
        }
    }
}
