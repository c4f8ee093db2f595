//! Go's time layouts, which show how the reference time `Mon Jan 2 15:04:05 MST 2006` would be
//! written, for reading times. What a layout means is what Go's `time.Parse` does with it, but for
//! three layouts and texts it would guess at: a layout without a year, one with the hours of a
//! 12-hour clock and no `PM`, and a zone's name other than `UTC` and `GMT` are refused.

use evenkeel_core::Result;
use jiff::civil;

use crate::absolute::invalid;
use element::{Element, Part};
use reader::Reader;

mod element; // what a layout is made of
mod reader; // what a text says
#[cfg(test)]
mod tests;

/// The longest layout, in bytes.
const MAX_LENGTH: usize = 128;

const EPOCH: civil::DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);

/// How a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    text: String,
    parts: Vec<Part>,
}

/// What a text has said so far.
#[derive(Debug, Default)]
struct Said {
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
    day_of_year: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    half: Option<Half>,
    /// How far the zone is ahead of UTC, in seconds.
    offset: i32,
}

/// Half of a day.
#[derive(Clone, Copy, Debug)]
enum Half {
    Am,
    Pm,
}

impl Layout {
    /// Reads a layout that is the value of `field`.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(invalid("is a layout longer than 128 bytes", field, text));
        }
        let parts = element::split(text);
        let has = |wanted: &[Element]| {
            parts.iter().any(|part| matches!(part, Part::Element(element) if wanted.contains(element)))
        };
        if !has(&[Element::Year, Element::YearOfCentury]) {
            return Err(invalid("is a layout that has no year", field, text));
        }
        if has(&[Element::Hour12, Element::ZeroHour12]) && !has(&[Element::UpperHalf, Element::LowerHalf]) {
            return Err(invalid("is a layout that has a 12-hour clock and no PM", field, text));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// `2006-01-02T15:04:05Z07:00`, which with Go's rule for fractions reads every RFC 3339 time in
    /// upper case.
    pub(crate) fn rfc3339() -> Self {
        Self::parse("layout", "2006-01-02T15:04:05Z07:00").expect("the layout has a year")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The nanoseconds since 1970 that a text of this layout stands for, or why it is none.
    pub(crate) fn nanoseconds(&self, text: &str) -> Result<i128, String> {
        let (mut reader, mut said) = (Reader::new(text), Said::default());
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(literal) => reader.literal(literal)?,
                Part::Element(element) => {
                    reader.element(*element, &mut said)?;
                    let fraction_follows =
                        matches!(self.parts.get(i + 1), Some(Part::Element(next)) if next.is_fraction());
                    if element.is_second() && !fraction_follows {
                        reader.optional_fraction(&mut said);
                    }
                }
            }
        }
        reader.end()?;
        said.nanoseconds()
    }
}

impl Said {
    fn nanoseconds(&self) -> Result<i128, String> {
        let hour = match self.half {
            Some(Half::Pm) if self.hour < 12 => self.hour + 12,
            Some(Half::Am) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let time = civil::Time::new(hour, self.minute, self.second, self.nanosecond)
            .map_err(|_| "there is no such time of day")?;
        let since_epoch = self.date()?.to_datetime(time).duration_since(EPOCH);
        Ok(since_epoch.as_nanos() - i128::from(self.offset) * 1_000_000_000)
    }

    /// The date; in January and on the first of a month where the layout does not say otherwise.
    fn date(&self) -> Result<civil::Date, String> {
        let Some(day_of_year) = self.day_of_year else {
            let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
            return civil::Date::new(self.year, month, day)
                .map_err(|_| format!("there is no {}-{month:02}-{day:02}", self.year));
        };
        let first = civil::Date::new(self.year, 1, 1).map_err(|_| "the year is out of range")?;
        let date = first
            .with()
            .day_of_year(day_of_year)
            .build()
            .map_err(|_| format!("there is no day {day_of_year} of {}", self.year))?;
        let is_same = |said: Option<i8>, found| said.is_none_or(|said| said == found);
        if !is_same(self.month, date.month()) || !is_same(self.day, date.day()) {
            return Err(format!("day {day_of_year} of {} is another date", self.year));
        }
        Ok(date)
    }
}
