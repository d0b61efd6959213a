//! Orders and their events.

use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

/// The kind of aggregate. The topic is its lower-case name followed by `-events`.
pub const ORDER: &str = "Order";

/// The events of an order. Their names are in rows, records and other services: they never change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event_type")]
#[expect(clippy::enum_variant_names, reason = "in a header the name has no context")]
pub enum OrderEvent {
    /// A customer has ordered.
    OrderCreated {
        customer: String,
        city: String,
        items: Vec<Item>,
        total: Amount,
        currency: Currency,
        created_at: String,
    },
    /// A carrier has it.
    OrderShipped { parcel: String, shipped_at: String },
    /// The customer does not want it any more.
    OrderCancelled { reason: String, cancelled_at: String },
}

/// A line of an order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
    pub price: Amount,
}

/// A currency the shop takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    Eur,
    Gbp,
    Usd,
}

/// An amount of money: a text with two places such as "17.37" wherever it is written, never a floating-point number.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount {
    cents: u64,
}

/// A text is not an amount.
#[derive(Debug, thiserror::Error)]
#[error("expected an amount such as \"17.37\", found {0:?}")]
pub struct NotAnAmount(String);

impl Amount {
    /// Returns the total of items, or none if it overflows.
    pub fn total(items: &[Item]) -> Option<Self> {
        let cost = |item: &Item| item.price.cents.checked_mul(item.quantity.into());
        let cents = items.iter().try_fold(0_u64, |sum, item| sum.checked_add(cost(item)?))?;
        Some(Self { cents })
    }
}

impl TryFrom<String> for Amount {
    type Error = NotAnAmount;

    fn try_from(text: String) -> Result<Self, NotAnAmount> {
        cents(&text).map(|cents| Self { cents }).ok_or(NotAnAmount(text))
    }
}

fn cents(text: &str) -> Option<u64> {
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?;
    let (whole, places) = text.split_once('.').filter(|(_, places)| places.len() == 2)?;
    number(whole)?.checked_mul(100)?.checked_add(number(places)?)
}

impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.to_string()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.cents / 100, self.cents % 100)
    }
}

impl Currency {
    /// Returns the ISO 4217 code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Eur => "EUR",
            Self::Gbp => "GBP",
            Self::Usd => "USD",
        }
    }
}

/// Returns the current time as RFC 3339.
pub fn now() -> String {
    walrelay_events::event::format_rfc3339(SystemTime::now()).unwrap_or_default()
}
