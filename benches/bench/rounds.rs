//! Rounds: every subject once in each, forwards and backwards in turn, so that a drift of the machine meets all alike.

/// Runs so many rounds. Gives for each subject what its runs gave, in the order of the rounds.
pub(crate) fn interleave<T>(rounds: usize, subjects: usize, mut run: impl FnMut(usize, usize) -> T) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = (0..subjects).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for step in 0..subjects {
            let subject = if round % 2 == 0 { step } else { subjects - 1 - step };
            runs[subject].push(run(subject, round));
        }
    }
    runs
}

/// The middle of several values, and the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { least: values[0], median: f64::midpoint(low, high), most: values[values.len() - 1] }
    }

    /// Compares runs with runs of the same rounds.
    pub(crate) fn of_ratios<T>(subject: &[T], floor: &[T], value: impl Fn(&T) -> f64) -> Self {
        Self::of(subject.iter().zip(floor).map(|(subject, floor)| value(subject) / value(floor)))
    }

    /// Gives the middle and the ends with so many decimals, or none if they are large: `1.2 (1.1-1.4)`.
    pub(crate) fn shown(&self, decimals: usize) -> String {
        let decimals = if self.most < 100.0 { decimals } else { 0 };
        format!("{:.decimals$} ({:.decimals$}-{:.decimals$})", self.median, self.least, self.most)
    }

    /// Gives the middle as a percentage.
    pub(crate) fn percent(&self) -> String {
        format!("{:.0}%", self.median * 100.0)
    }

    /// Gives the ends, in thousands if they are large: `101-118k`.
    pub(crate) fn ends(&self) -> String {
        if self.most < 10_000.0 {
            return format!("{:.0}-{:.0}", self.least, self.most);
        }
        format!("{:.0}-{:.0}k", self.least / 1e3, self.most / 1e3)
    }
}
