//! Estimates when the server will invalidate the slot: how fast the retained WAL grows, and how long the rest of
//! `max_slot_wal_keep_size` lasts.
//!
//! While a relay streams, the retained WAL rises and falls, because `restart_lsn` advances in steps, about every 15 s.
//! So the growth is the slope between two low points: that of the older and that of the newer half of the window.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

/// The window of the growth.
const WINDOW: Duration = Duration::from_secs(180);
/// The number of samples within it.
const MAX_SAMPLES: usize = 1_024;
/// The span of the samples before there is an estimate: a burst of writes is no growth yet.
pub(in crate::relay) const MIN_SPAN: Duration = Duration::from_secs(30);
/// The same for a slot in use: each half needs a step of `restart_lsn`.
const MIN_USED_SPAN: Duration = Duration::from_secs(60);

/// The slot at one query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::relay) struct Sample {
    pub(in crate::relay) at: Instant,
    /// The WAL retained because of the slot.
    pub(in crate::relay) retained_bytes: u64,
    /// A walsender uses the slot.
    pub(in crate::relay) is_used: bool,
    /// `safe_wal_size`: absent without a limit, negative beyond it.
    pub(in crate::relay) safe_bytes: Option<i64>,
}

/// What follows from the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::relay) struct Outlook {
    /// The growth of the retained WAL, 0 while it shrinks; absent before there are enough samples.
    pub(in crate::relay) growth_bytes_per_second: Option<f64>,
    /// The time until the slot may be invalidated; absent without a limit, without growth, and before both are known.
    pub(in crate::relay) time_left: Option<Duration>,
}

/// The samples of the last minutes.
#[derive(Clone, Debug)]
pub(in crate::relay) struct WalBudget {
    min_span: Duration,
    samples: VecDeque<Sample>,
}

/// What to log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::relay) enum Notice {
    /// The time left is below the threshold.
    Low,
    /// It was, and is twice the threshold or more now.
    Recovered,
}

/// Whether a warning was logged.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Warning {
    threshold: Duration,
    is_given: bool,
}

impl WalBudget {
    /// Estimates nothing before the samples span this time.
    #[must_use]
    pub(in crate::relay) const fn new(min_span: Duration) -> Self {
        Self { min_span, samples: VecDeque::new() }
    }

    /// Adds a sample. One that is not later than the last one is ignored.
    pub(in crate::relay) fn observe(&mut self, sample: Sample) -> Outlook {
        if self.samples.back().is_none_or(|last| last.at < sample.at) {
            self.samples.push_back(sample);
        }
        while self.samples.len() > MAX_SAMPLES
            || self.samples.front().is_some_and(|first| sample.at.saturating_duration_since(first.at) > WINDOW)
        {
            self.samples.pop_front();
        }
        let growth_bytes_per_second = self.growth();
        Outlook { growth_bytes_per_second, time_left: time_left(sample.safe_bytes, growth_bytes_per_second) }
    }

    /// Drops the samples: the slot is another one now, or lost.
    pub(in crate::relay) fn forget(&mut self) {
        self.samples.clear();
    }

    fn growth(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.at.saturating_duration_since(first.at);
        let is_used = self.samples.iter().any(|each| each.is_used);
        let min_span = if is_used { self.min_span.max(MIN_USED_SPAN) } else { self.min_span };
        if span.is_zero() || span < min_span {
            return None;
        }
        let middle = first.at + span / 2;
        let (older, newer): (Vec<&Sample>, Vec<&Sample>) = self.samples.iter().partition(|each| each.at <= middle);
        let lowest = |half: Vec<&Sample>| half.into_iter().min_by_key(|each| each.retained_bytes).copied();
        let (older, newer) = (lowest(older)?, lowest(newer)?);
        let rise = newer.retained_bytes.saturating_sub(older.retained_bytes);
        // Two low points may stand side by side: what one is above the other is not the growth of that moment.
        let time = newer.at.saturating_duration_since(older.at).max(span / 2);
        Some(approximate(rise) / time.as_secs_f64())
    }
}

impl Warning {
    /// Warns below this time; never if it is zero.
    #[must_use]
    pub(in crate::relay) const fn new(threshold: Duration) -> Self {
        Self { threshold, is_given: false }
    }

    /// Decides what to log. An unknown growth changes nothing.
    pub(in crate::relay) fn judge(&mut self, outlook: &Outlook) -> Option<Notice> {
        let is_low = outlook.time_left.is_some_and(|left| left < self.threshold);
        let is_well = outlook.growth_bytes_per_second.is_some()
            && outlook.time_left.is_none_or(|left| left >= self.threshold.saturating_mul(2));
        let notice = match self.is_given {
            false if is_low => Notice::Low,
            true if is_well => Notice::Recovered,
            false | true => return None,
        };
        self.is_given = notice == Notice::Low;
        Some(notice)
    }
}

fn time_left(safe_bytes: Option<i64>, growth: Option<f64>) -> Option<Duration> {
    match u64::try_from(safe_bytes?) {
        // The next checkpoint may invalidate the slot, whatever the growth.
        Ok(0) | Err(_) => Some(Duration::ZERO),
        // Without growth this is infinite, which no duration is.
        Ok(safe) => Duration::try_from_secs_f64(approximate(safe) / growth?).ok(),
    }
}

/// An estimate needs no more than 53 bits.
const fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn observed(budget: &mut WalBudget, samples: &[(u64, u64, Option<i64>)]) -> Outlook {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let sample = |&(millis, retained_bytes, safe_bytes)| Sample {
            at: at(millis),
            retained_bytes,
            is_used: false,
            safe_bytes,
        };
        samples.iter().map(sample).fold(Outlook::default(), |_, sample| budget.observe(sample))
    }

    /// A relay follows: after each period `restart_lsn` advances to the end of the WAL. Gives the last growth.
    fn followed(period: u64, phase: u64, rate: u64, samples: u64) -> Option<f64> {
        let (mut budget, start) = (WalBudget::new(MIN_SPAN), Instant::now());
        let sample = |at: u64| Sample {
            at: start + Duration::from_secs(at * 5),
            retained_bytes: (1 << 20) + (at * 5 + phase) % period * rate,
            is_used: true,
            safe_bytes: Some(1 << 30),
        };
        (0..samples).fold(None, |_, at| budget.observe(sample(at)).growth_bytes_per_second)
    }

    fn outlook(samples: &[(u64, u64, Option<i64>)]) -> Outlook {
        observed(&mut WalBudget::new(MIN_SPAN), samples)
    }

    #[test]
    fn one_sample_and_a_short_span_give_no_estimate() {
        assert_eq!(outlook(&[(0, 5 * MIB, Some(1_000))]), Outlook::default());
        assert_eq!(outlook(&[(0, 0, Some(1_000)), (29_999, MIB, Some(500))]), Outlook::default());
        assert_eq!(outlook(&[(0, 0, Some(1_000)), (0, MIB, Some(500))]), Outlook::default());
        let mut without = WalBudget::new(Duration::ZERO);
        let one_second = observed(&mut without, &[(0, 0, Some(1_000)), (1_000, 100, Some(900))]);
        assert_eq!(one_second.time_left, Some(Duration::from_secs(9)));
    }

    #[test]
    fn beyond_the_limit_no_time_is_left_and_without_a_limit_there_is_no_estimate() {
        assert_eq!(outlook(&[(0, MIB, Some(-7))]).time_left, Some(Duration::ZERO));
        assert_eq!(outlook(&[(0, MIB, Some(0))]).time_left, Some(Duration::ZERO));
        let unlimited = outlook(&[(0, 0, None), (40_000, 40 * MIB, None)]);
        assert_eq!((unlimited.growth_bytes_per_second, unlimited.time_left), (Some(1_048_576.0), None));
    }

    #[test]
    fn a_slot_that_nobody_follows_any_more_is_noticed_within_the_window() {
        let retained = |at: u64| if at < 300 { 50 + at % 15 } else { 50 + at - 300 };
        let samples: Vec<_> = (0..480_u64).step_by(5).map(|at| (at * 1_000, retained(at), Some(1_000))).collect();
        let growth = outlook(&samples).growth_bytes_per_second.unwrap();
        assert!((0.8..=1.2).contains(&growth), "{growth}");
    }

    #[test]
    fn the_warning_comes_once_and_again_only_after_recovery() {
        let mut warning = Warning::new(Duration::from_secs(60));
        let known = |left| Outlook { growth_bytes_per_second: Some(1.0), time_left: left };
        let left = |seconds| known(Some(Duration::from_secs(seconds)));
        for (outlook, expected) in [
            (left(100), None),
            (left(60), None),
            (left(59), Some(Notice::Low)),
            (left(0), None),
            (left(100), None),
            (left(59), None),
            (Outlook::default(), None),
            (left(120), Some(Notice::Recovered)),
            (left(10), Some(Notice::Low)),
            (known(None), Some(Notice::Recovered)),
            (known(None), None),
        ] {
            assert_eq!(warning.judge(&outlook), expected, "{outlook:?}");
        }
        assert_eq!(Warning::new(Duration::ZERO).judge(&left(0)), None, "a threshold of zero disables it");
        assert_eq!(Warning::new(Duration::MAX).judge(&left(5)), Some(Notice::Low));
    }

    proptest! {
        #[test]
        fn any_samples_give_a_growth_that_is_finite_and_not_negative_and_a_bounded_memory(
            steps in vec((0_u64..20_000, any::<u64>(), proptest::option::of(any::<i64>())), 0..200),
        ) {
            let (mut budget, mut at) = (WalBudget::new(Duration::ZERO), 0);
            let samples: Vec<_> = steps.iter().map(|(step, retained, safe)| {
                at += step;
                (at, *retained, *safe)
            }).collect();
            let outlook = observed(&mut budget, &samples);
            prop_assert!(outlook.growth_bytes_per_second.is_none_or(|growth| growth.is_finite() && growth >= 0.0));
            prop_assert!(budget.samples.len() <= MAX_SAMPLES);
            let span = budget.samples.back().zip(budget.samples.front()).map(|(last, first)| last.at - first.at);
            prop_assert!(span.is_none_or(|span| span <= WINDOW));
            let safe = samples.last().and_then(|(_, _, safe)| *safe);
            prop_assert!(safe.is_some() || outlook.time_left.is_none(), "without a limit there is nothing to estimate");
        }

        #[test]
        fn a_slot_that_a_relay_follows_hardly_grows_whatever_the_steps_of_its_restart_lsn(
            period in 1_u64..=20, phase in 0_u64..20, rate in 1_u64..1 << 30, samples in 1_u64..80,
        ) {
            let growth = followed(period, phase, rate, samples);
            prop_assert_eq!(growth.is_some(), samples > 12, "known after a minute");
            prop_assert!(growth.is_none_or(|growth| growth <= approximate(rate) / 5.0), "{:?} of {}", growth, rate);
        }

        #[test]
        fn steady_growth_is_measured_exactly_and_the_time_left_is_the_rest_at_that_growth(
            rate in 1_u64..1 << 30, base in 0_u64..1 << 40, samples in 7_u64..80, safe in 1_i64..1 << 50,
        ) {
            let samples: Vec<_> = (0..samples).map(|at| (at * 5_000, base + at * 5 * rate, Some(safe))).collect();
            let outlook = outlook(&samples);
            prop_assert_eq!(outlook.growth_bytes_per_second, Some(approximate(rate)));
            let left = outlook.time_left.unwrap().as_secs_f64() * approximate(rate);
            prop_assert!((left - approximate(safe.unsigned_abs())).abs() <= approximate(rate) * 1e-3 + left * 1e-9);
        }
    }
}
