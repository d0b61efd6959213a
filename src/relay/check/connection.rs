//! One connection for all queries of a check, which ends each of them in time.
//!
//! It may go through a pooler, which gives the session to the application afterwards: nothing is set on it, and each
//! question is a transaction of its own.

use std::time::Duration;

use tokio::time::Instant;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Session;
use crate::relay::postgres::Target;
use crate::relay::settings::Settings;

use super::login;
use super::report::Check;
use super::report::Finding;
use super::report::Needed;
use super::report::Outcome;

/// The timeout of all checks of PostgreSQL together.
const WHOLE: Duration = Duration::from_secs(15);
/// The timeout of a log-in.
const LOGIN: Duration = Duration::from_secs(8);
/// The timeout of a question. The server ends a statement a little earlier, so that the connection can be used again.
const QUERY: Duration = Duration::from_secs(3);
const STATEMENT: Duration = Duration::from_millis(2_500);

/// The name of the check that all others need.
pub(super) const LOGIN_CHECK: &str = "login";
/// The same of a replication connection.
pub(super) const REPLICATION_CHECK: &str = "replication_login";

/// An ordinary connection, and how to make others to the same server.
pub(super) struct Connection {
    pub(super) target: Target,
    config: postgres::Config,
    application_name: String,
    pub(super) ordinary: Ordinary,
    deadline: Instant,
}

impl Connection {
    /// Logs in.
    pub(super) async fn open(settings: &Settings) -> (Check, Needed<Self>) {
        let deadline = Instant::now() + WHOLE;
        let application_name = format!("{} check", settings.relay.name);
        let mut config = settings.postgres.clone();
        config.connect_timeout = config.connect_timeout.min(LOGIN);
        let why = "everything else is asked through it";
        let resolved = Target::resolve(&config.url).map_err(postgres::Error::from);
        let mut target = match resolved {
            Ok(target) => target,
            Err(source) => {
                let error = RelayError::Postgres { action: "read the configuration", source };
                return (Check::new(LOGIN_CHECK, why, Outcome::failed(&error)), Err(LOGIN_CHECK));
            }
        };
        target.connect_timeout = target.connect_timeout.map(|limit| limit.min(LOGIN));
        match postgres::connect_shared(&target, &config, &application_name).await {
            Ok(ordinary) => {
                let found = format!("role {}, database {} at {}", target.user, target.dbname, ordinary.found.host);
                let connection =
                    Self { target: target.only(&ordinary.found), config, application_name, ordinary, deadline };
                (Check::new(LOGIN_CHECK, why, Outcome::Passed(found)), Ok(connection))
            }
            Err(error) => {
                let outcome = refused("connect to PostgreSQL", error, &target, &config);
                (Check::new(LOGIN_CHECK, why, outcome), Err(LOGIN_CHECK))
            }
        }
    }

    /// Makes a replication connection.
    pub(super) async fn replicate(&self) -> (Outcome, Needed<Session>) {
        let connecting = Session::connect(&self.target, &self.config, &self.application_name);
        let limit = LOGIN.min(self.rest());
        match postgres::within(limit, connecting).await {
            Ok(session) => (Outcome::Passed(format!("role {} has REPLICATION", self.target.user)), Ok(session)),
            Err(error) => {
                let action = "connect to PostgreSQL for replication";
                (refused(action, error, &self.target, &self.config), Err(REPLICATION_CHECK))
            }
        }
    }

    /// Asks in a transaction that only reads, for a limited time.
    pub(super) async fn ask<T, E: Into<RelayError>>(
        &self,
        action: &'static str,
        queries: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RelayError> {
        let client = &self.ordinary.client;
        let failed = RelayError::postgres(action);
        let begin = self.ordinary.begin_reading(STATEMENT);
        let done = self.within(action, async {
            client.batch_execute(&begin).await.map_err(&failed)?;
            queries.await.map_err(Into::into)
        });
        let done = done.await;
        let ended = self.within(action, async { client.batch_execute("ROLLBACK").await.map_err(&failed) }).await;
        // The first error is the cause.
        let done = done?;
        ended.map(|()| done)
    }

    /// Awaits an answer, for a limited time.
    pub(super) async fn within<T, E: Into<RelayError>>(
        &self,
        action: &'static str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RelayError> {
        let limit = QUERY.min(self.rest());
        match tokio::time::timeout(limit, answer).await {
            Ok(answered) => answered.map_err(|error| error.into().of_role(&self.target.user)),
            Err(_) => Err(RelayError::Postgres { action, source: postgres::Error::NoAnswer { limit } }),
        }
    }

    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The outcome of a refused log-in. A secret that cannot be read has a check of its own.
fn refused(action: &'static str, source: postgres::Error, target: &Target, config: &postgres::Config) -> Outcome {
    if matches!(source, postgres::Error::Secret(_)) {
        return Outcome::skipped("secret postgres.password");
    }
    let next = login::next(&source, target, config);
    Outcome::Found(vec![Finding::failure(&RelayError::Postgres { action, source }).then(next)])
}
