//! What was asked for on the command line.

/// The shortest useful comparison: a middle, and how far the others lie from it.
const ROUNDS: usize = 3;
const RATES: [u64; 2] = [1_000, 5_000];

/// The arguments.
pub(crate) struct Options {
    wanted: Vec<String>,
    /// How often each subject is run.
    pub(crate) rounds: usize,
    /// What the sizes are multiplied with.
    pub(crate) scale: f64,
    /// The rates at which latency is measured.
    pub(crate) rates: Vec<u64>,
    /// Other builds of the program, to be measured beside this one: a name and the file.
    pub(crate) against: Vec<(&'static str, &'static str)>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Self {
        let mut options =
            Self { wanted: Vec::new(), rounds: ROUNDS, scale: 1.0, rates: Vec::new(), against: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--scale" => options.scale = value().parse().unwrap(),
                "--rate" => options.rates.push(value().parse().unwrap()),
                "--against" => {
                    let program: &'static str = value().clone().leak();
                    // The name of the file, cut so that it fits its column.
                    let name = program.rsplit('/').next().unwrap_or(program);
                    options.against.push((name.get(..17).unwrap_or(name), program));
                }
                "drain" | "latency" | "poll" | "consumer" => options.wanted.push(argument.clone()),
                unknown => panic!("{unknown}: see the head of benches/bench/main.rs"),
            }
        }
        if options.rates.is_empty() {
            options.rates = RATES.to_vec();
        }
        options
    }

    /// Says whether this was asked for by its name.
    pub(crate) fn names(&self, what: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == what)
    }

    /// Says whether nothing was asked for by its name.
    pub(crate) const fn names_nothing(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(crate) fn scaled(&self, count: u32) -> u32 {
        ((f64::from(count) * self.scale) as u32).max(1)
    }
}
