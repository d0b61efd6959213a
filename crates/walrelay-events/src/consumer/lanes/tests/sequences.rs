//! Random sequences of everything that can happen to lanes.

use std::collections::BTreeMap;

use super::*;

const LIMITS: Limits = Limits { max_run: 3, ..super::LIMITS };

#[derive(Clone, Debug)]
enum Step {
    Take(i32, u8),
    Start,
    /// So many records of a run are done, then it ends.
    End(prop::sample::Index, usize),
    /// So many records of a run are done, and the next one fails.
    Retry(prop::sample::Index, usize),
    Wait,
    Close(i32),
    Revoke(i32),
    Assign(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let any_run = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..2, 0_u8..4).prop_map(|(partition, key)| Step::Take(partition, key)),
        6 => Just(Step::Start),
        4 => (any_run(), 0_usize..4).prop_map(|(run, done)| Step::End(run, done)),
        2 => (any_run(), 0_usize..3).prop_map(|(run, done)| Step::Retry(run, done)),
        1 => Just(Step::Wait),
        1 => (0..2).prop_map(Step::Close),
        1 => (0..2).prop_map(Step::Revoke),
        1 => (0..2).prop_map(Step::Assign),
    ]
}

/// Partition, epoch, key and offset of a record.
type Entry = (i32, u64, u8, i64);

/// What must be true of the lanes, kept in the simplest way.
struct Model {
    lanes: Lanes<Entry>,
    now: Instant,
    /// The epoch of each assigned partition.
    epochs: [Option<u64>; 2],
    epoch: u64,
    offset: i64,
    running: Vec<Run<Entry>>,
    /// Received, assigned and not done, oldest first.
    open: Vec<Entry>,
    /// The last record of each partition that is done.
    last_done: [i64; 2],
    is_closing: [bool; 2],
    /// How often each record has failed.
    attempts: BTreeMap<Entry, u32>,
}

impl Model {
    fn new() -> Self {
        Self {
            lanes: Lanes::new(LIMITS),
            now: Instant::now(),
            epochs: [None, None],
            epoch: 0,
            offset: 0,
            running: Vec::new(),
            open: Vec::new(),
            last_done: [0; 2],
            is_closing: [false; 2],
            attempts: BTreeMap::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Take(number, key) => self.take(number, key),
            Step::Start => {
                if let Some(run) = self.lanes.start(self.now) {
                    self.started(run);
                }
            }
            Step::End(index, done) if !self.running.is_empty() => {
                let run = self.running.swap_remove(index.index(self.running.len()));
                self.returned(run, done, false);
            }
            Step::Retry(index, done) if !self.running.is_empty() => {
                let run = self.running.swap_remove(index.index(self.running.len()));
                self.returned(run, done, true);
            }
            Step::Wait => self.now += Duration::from_millis(10),
            Step::Close(number) => {
                self.lanes.close_up(&partition(number));
                self.is_closing[number as usize] = self.epochs[number as usize].is_some();
            }
            Step::Revoke(number) => {
                self.lanes.revoke(&partition(number));
                self.forget(number);
            }
            Step::Assign(number) => {
                self.forget(number);
                self.epoch += 1;
                self.epochs[number as usize] = Some(self.epoch);
                self.lanes.assign(partition(number));
            }
            Step::End(..) | Step::Retry(..) => {}
        }
    }

    fn forget(&mut self, number: i32) {
        self.last_done[number as usize] = 0;
        self.is_closing[number as usize] = false;
        if let Some(gone) = self.epochs[number as usize].take() {
            self.open.retain(|entry| (entry.0, entry.1) != (number, gone));
        }
    }

    fn take(&mut self, number: i32, key: u8) {
        self.offset += 1;
        let epoch = self.epochs[number as usize];
        let entry = (number, epoch.unwrap_or_default(), key, self.offset);
        assert_eq!(self.lanes.take(&partition(number), self.offset, Some(&[key]), 1, entry), epoch.is_some());
        if epoch.is_some() {
            self.open.push(entry);
        }
    }

    fn started(&mut self, run: Run<Entry>) {
        let (number, epoch, key, _) = run.jobs[0].record;
        assert_eq!(self.epochs[number as usize], Some(epoch), "the partition is assigned");
        let open = self.open.iter().filter(|entry| (entry.0, entry.1, entry.2) == (number, epoch, key));
        let oldest: Vec<Entry> = open.copied().take(run.jobs.len()).collect();
        let started: Vec<Entry> = run.jobs.iter().map(|job| job.record).collect();
        assert_eq!(started, oldest, "the oldest of its key, in order");
        let last = run.jobs.last().map(|job| job.record.3);
        let is_closing = self.is_closing[number as usize];
        assert!(!is_closing || last < Some(self.last_done[number as usize]), "before what is done");
        // Across assignments, too.
        let running = self.running.iter().map(|run| run.jobs[0].record);
        assert!(!running.map(|it| (it.0, it.2)).any(|it| it == (number, key)), "one at a time");
        for job in &run.jobs {
            assert_eq!(job.attempts, self.attempts.get(&job.record).copied().unwrap_or_default());
        }
        assert!(run.jobs.len() <= LIMITS.max_run && (run.jobs[0].attempts == 0 || run.jobs.len() == 1));
        self.running.push(run);
        assert!(self.running.len() <= LIMITS.max_concurrency, "those of revoked partitions count");
    }

    fn returned(&mut self, run: Run<Entry>, done: usize, has_failed: bool) {
        let Run { ticket, jobs } = run;
        let (number, epoch, ..) = jobs[0].record;
        assert_eq!(self.lanes.is_current(&ticket), self.epochs[number as usize] == Some(epoch));
        if !self.lanes.is_current(&ticket) {
            return self.lanes.end_late(&ticket, &jobs);
        }
        let done = done.min(jobs.len() - usize::from(has_failed));
        let mut jobs = jobs.into_iter();
        for job in jobs.by_ref().take(done) {
            self.lanes.done(&ticket, &job);
            self.open.retain(|entry| *entry != job.record);
            let last_done = &mut self.last_done[number as usize];
            *last_done = job.record.3.max(*last_done);
        }
        let failed = if has_failed { jobs.next() } else { None };
        self.lanes.put_back(&ticket, jobs);
        let Some(mut job) = failed else { return self.lanes.end(&ticket) };
        job.attempts += 1;
        self.attempts.insert(job.record, job.attempts);
        self.lanes.put_back(&ticket, std::iter::once(job));
        self.lanes.retry(&ticket, self.now + Duration::from_millis(5));
    }

    fn check(&self) {
        assert_eq!(self.lanes.handlers(), self.running.len());
        let is_assigned = |entry: &Entry| self.epochs[entry.0 as usize] == Some(entry.1);
        let late = self.running.iter().flat_map(|run| &run.jobs).filter(|job| !is_assigned(&job.record)).count();
        assert_eq!(self.lanes.bytes(), (self.open.len() + late) as u64, "a byte each");
        for number in 0..2 {
            if let Some(position) = self.lanes.position(&partition(number)) {
                let is_passed = |entry: &Entry| entry.0 == number && entry.3 < position.offset;
                assert!(!self.open.iter().any(is_passed), "a record was passed");
            }
        }
    }

    /// Nothing is stuck: everything that is open runs to its end. Of a closing partition it is what comes before a
    /// record that is done, so that none of these is repeated.
    fn finish(mut self) {
        while let Some(run) = self.running.pop() {
            self.returned(run, 0, true);
        }
        self.now += Duration::from_secs(1);
        while let Some(run) = self.lanes.start(self.now) {
            self.returned(run, usize::MAX, false);
        }
        let is_due = |entry: &&Entry| !self.is_closing[entry.0 as usize] || entry.3 < self.last_done[entry.0 as usize];
        let stuck: Vec<&Entry> = self.open.iter().filter(is_due).collect();
        assert!(stuck.is_empty(), "{stuck:?} never ran");
        assert_eq!((self.lanes.handlers(), self.lanes.bytes()), (0, self.open.len() as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_runs_two_of_a_key_or_swaps_them_or_passes_one(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
            model.check();
        }
        model.finish();
    }
}
