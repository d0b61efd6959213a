//! What a setup is asked for, and how it connects.

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Target;
use crate::relay::settings::Settings;
use crate::units::Secret;

use super::error::Error;

const ACTION: &str = "read the configuration";

/// What to do besides publication, slot and position.
#[derive(Clone, Debug, Default)]
pub struct SetupOptions {
    /// Create the outbox tables.
    pub with_outbox: bool,
    /// The role of the relay, which gets the privileges that `run` needs.
    pub role: Option<String>,
    /// The role of the application, which gets the privilege to insert events.
    pub app_role: Option<String>,
    /// The connection that makes the changes, instead of the relay's own one. It may contain a password.
    pub admin_url: Option<Secret>,
    /// The topics that the configuration names.
    pub topics: TopicOptions,
    /// Start at the slot's position, although earlier events may be missing.
    pub accept_gap: bool,
}

/// What to create a topic with, if it is not to follow from the brokers.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicOptions {
    /// Create the missing topics.
    pub with_topics: bool,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i32>,
    pub min_insync_replicas: Option<i32>,
}

/// Where the changes are made, and for which roles.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) config: postgres::Config,
    /// The role of the relay, if it gets privileges.
    pub(super) role: Option<String>,
}

impl SetupOptions {
    /// Decides how to connect. With an administrator's connection the relay's role is that of the configuration, unless
    /// one is given.
    pub(super) fn plan(&self, settings: &Settings) -> Result<Plan, Error> {
        let config = self.connection(settings);
        let target = Target::resolve(&config.url).map_err(RelayError::postgres(ACTION))?;
        let mut role = self.role.clone();
        if self.admin_url.is_some() {
            let relay = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres(ACTION))?;
            if relay.dbname != target.dbname {
                return Err(Error::OtherDatabase { admin: target.dbname, relay: relay.dbname });
            }
            role = role.or_else(|| (relay.user != target.user).then_some(relay.user));
        }
        Ok(Plan { target, config, role })
    }

    /// Gives the options of the connection. Password and client certificate of the configuration are those of the
    /// relay's role.
    fn connection(&self, settings: &Settings) -> postgres::Config {
        let mut config = settings.postgres.clone();
        if let Some(url) = &self.admin_url {
            url.expose().clone_into(&mut config.url);
            config.password = None;
            (config.tls.cert, config.tls.key) = (None, None);
        }
        config
    }
}
