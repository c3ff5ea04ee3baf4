//! Money: what a host costs and what it has cost so far. Pure arithmetic over the provider's price and two moments.
//! Amounts are whole millionths of a unit of currency, because a rate like 0.0063 has no place in cents.

use super::{HOUR_MS, Ms};
use serde::{Deserialize, Serialize};

/// Millionths of a unit of currency.
pub type Micros = i64;

/// What a host costs, as its provider's API said when it was rented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    pub hourly: Micros,
    /// A month never costs more than this, where the provider caps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Micros>,
    /// `USD`, `EUR`.
    pub currency: String,
    /// The smallest time that is billed: an hour that was begun costs a whole one where this is an hour.
    pub unit_ms: Ms,
}

impl Price {
    /// What the time from `from` to `to` costs, in units that were begun. Nothing where no time has passed.
    pub fn of(&self, from: Ms, to: Ms) -> Micros {
        if to <= from || self.unit_ms <= 0 {
            return 0;
        }
        let billed_ms = ((to - from) + self.unit_ms - 1) / self.unit_ms * self.unit_ms;
        // In i128: a year of milliseconds times a price in millionths does not fit into 64 bits for certain.
        (i128::from(billed_ms) * i128::from(self.hourly) / i128::from(HOUR_MS)) as Micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MINUTE_MS;

    #[test]
    fn an_hour_that_was_begun_is_paid_for_whole_where_hours_are_billed() {
        let price = Price { hourly: 10_000, monthly: None, currency: "EUR".into(), unit_ms: HOUR_MS };
        assert_eq!([0, 1, HOUR_MS, HOUR_MS + 1].map(|to| price.of(0, to)), [0, 10_000, 10_000, 20_000]);
        let by_minute = Price { unit_ms: MINUTE_MS, hourly: 60_000, ..price };
        assert_eq!([1, MINUTE_MS, 90 * MINUTE_MS].map(|to| by_minute.of(0, to)), [1_000, 1_000, 90_000]);
    }
}
