//! Durations of several trials, as a small table and as JSON.

use std::time::Duration;

use serde_json::json;
use walrelay_events::testing::Postgres;

use crate::support::source::Sql;

/// The trials of one situation.
pub(crate) struct Figures {
    name: &'static str,
    seconds: Vec<f64>,
}

impl Figures {
    pub(crate) fn new(name: &'static str, trials: Vec<Duration>) -> Self {
        let mut seconds: Vec<f64> = trials.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        Self { name, seconds }
    }

    fn median(&self) -> f64 {
        let middle = self.seconds.len() / 2;
        if self.seconds.len() % 2 == 1 {
            self.seconds[middle]
        } else {
            self.seconds[middle - 1..=middle].iter().sum::<f64>() / 2.0
        }
    }

    fn maximum(&self) -> f64 {
        self.seconds[self.seconds.len() - 1]
    }
}

/// Prints the table to standard error and a JSON line for each row to standard output.
pub(crate) fn print(run: &str, version: &str, rows: &[Figures]) {
    eprintln!("  PostgreSQL {version:<42} trials   median  maximum");
    for row in rows {
        let (trials, median, maximum) = (row.seconds.len(), row.median(), row.maximum());
        eprintln!("  {:<53} {trials:>6} {median:>6.2} s {maximum:>6.2} s", row.name);
        println!(
            "{}",
            json!({
                "endure": run, "postgresql": version, "situation": row.name, "trials": trials, "median_seconds": median,
                "maximum_seconds": maximum, "seconds": row.seconds,
            })
        );
    }
}

/// Gives the version of a server, as `18.4`.
pub(crate) fn version(postgres: &Postgres) -> String {
    let text = Sql::connect(&postgres.url()).text("SELECT current_setting('server_version')");
    text.split(' ').next().unwrap().to_owned()
}
