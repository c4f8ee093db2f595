use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A length of time as settings write it: `30s`, `1m 30s`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Period(pub(crate) Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.parse::<SignedDuration>().map_err(|error| error.to_string())?;
        Duration::try_from(parsed).map(Self).map_err(|_| "a length of time is not negative".to_owned())
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?}: {error}"))
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        write!(f, "{signed:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_written_with_units() {
        for (text, milliseconds) in [("30s", 30_000), ("1m 30s", 90_000), ("2h", 7_200_000), ("250ms", 250)] {
            let period = text.parse::<Period>().unwrap();
            assert_eq!(period.0, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(period.to_string().parse(), Ok(period), "{text}");
        }
        for text in ["", "30", "-1s", "soon"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
