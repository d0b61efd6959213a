//! Every option, by section. Each section belongs to its room, with its defaults.

use serde::Deserialize;
use serde::Serialize;

use crate::admin;
use crate::log;
use crate::relay;
use crate::relay::postgres;
use crate::relay::publish;
use crate::relay::record::route;

/// Every option of every room.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub relay: relay::Config,
    pub postgres: postgres::Config,
    pub source: relay::SourceOptions,
    pub outbox: Vec<route::Config>,
    pub kafka: publish::Config,
    pub delivery: relay::DeliveryOptions,
    pub http: admin::Config,
    pub log: log::Config,
    pub shutdown: relay::ShutdownOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            relay: relay::Config::default(),
            postgres: postgres::Config::default(),
            source: relay::SourceOptions::default(),
            outbox: vec![route::Config::default()],
            kafka: publish::Config::default(),
            delivery: relay::DeliveryOptions::default(),
            http: admin::Config::default(),
            log: log::Config::default(),
            shutdown: relay::ShutdownOptions::default(),
        }
    }
}

impl Config {
    /// Gives the relay's settings.
    #[must_use]
    pub fn relay_settings(&self) -> relay::Settings {
        relay::Settings {
            relay: self.relay.clone(),
            source: self.source.clone(),
            postgres: self.postgres.clone(),
            outboxes: self.outbox.clone(),
            kafka: self.kafka.clone(),
            delivery: self.delivery.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}
