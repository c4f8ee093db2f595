use super::element::{Element, OffsetForm};
use super::{Half, Said};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The letters of a short month or weekday.
const SHORT: usize = 3;

/// Whether a number may have fewer digits than it could.
#[derive(Clone, Copy)]
enum Digits {
    UpTo(usize),
    Exactly(usize),
}

/// Reads a text from left to right.
pub(super) struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { rest: text }
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("the time goes on with {:?}", self.rest)) }
    }

    /// Reads a literal. Any number of spaces stands for one; there may be none only at the end.
    pub(super) fn literal(&mut self, literal: &str) -> Result<(), String> {
        let mut literal = literal;
        while let Some(first) = literal.chars().next() {
            if first == ' ' {
                if !self.rest.is_empty() && !self.rest.starts_with(' ') {
                    return Err(self.expected("a space"));
                }
                literal = literal.trim_start_matches(' ');
                self.rest = self.rest.trim_start_matches(' ');
            } else {
                self.rest =
                    self.rest.strip_prefix(first).ok_or_else(|| self.expected(&format!("{first:?}")))?;
                literal = &literal[first.len_utf8()..];
            }
        }
        Ok(())
    }

    pub(super) fn element(&mut self, element: Element, said: &mut Said) -> Result<(), String> {
        use Digits::{Exactly, UpTo};
        match element {
            Element::Year => said.year = self.number(Exactly(4), "a year of four digits")?,
            Element::YearOfCentury => {
                let year: i16 = self.number(Exactly(2), "a year of two digits")?;
                said.year = if year >= 69 { 1900 + year } else { 2000 + year };
            }
            Element::LongMonth => said.month = Some(self.name(&MONTHS, usize::MAX, "a month's name")? + 1),
            Element::Month => said.month = Some(self.name(&MONTHS, SHORT, "a month's short name")? + 1),
            Element::NumericMonth => said.month = Some(self.number(UpTo(2), "a month")?),
            Element::ZeroMonth => said.month = Some(self.number(Exactly(2), "a month of two digits")?),
            Element::LongWeekday => {
                self.name(&WEEKDAYS, usize::MAX, "a weekday")?;
            }
            Element::Weekday => {
                self.name(&WEEKDAYS, SHORT, "a short weekday")?;
            }
            Element::Day => said.day = Some(self.number(UpTo(2), "a day")?),
            Element::SpaceDay => {
                self.skip_spaces(1);
                said.day = Some(self.number(UpTo(2), "a day")?);
            }
            Element::ZeroDay => said.day = Some(self.number(Exactly(2), "a day of two digits")?),
            Element::SpaceDayOfYear => {
                self.skip_spaces(2);
                said.day_of_year = Some(self.number(UpTo(3), "a day of the year")?);
            }
            Element::ZeroDayOfYear => {
                said.day_of_year = Some(self.number(Exactly(3), "a day of the year of three digits")?);
            }
            Element::Hour => said.hour = self.number(UpTo(2), "an hour")?,
            Element::Hour12 => said.hour = self.hour12(UpTo(2))?,
            Element::ZeroHour12 => said.hour = self.hour12(Exactly(2))?,
            Element::Minute => said.minute = self.number(UpTo(2), "a minute")?,
            Element::ZeroMinute => said.minute = self.number(Exactly(2), "a minute of two digits")?,
            Element::Second => said.second = self.number(UpTo(2), "a second")?,
            Element::ZeroSecond => said.second = self.number(Exactly(2), "a second of two digits")?,
            Element::UpperHalf => said.half = Some(self.half("AM", "PM")?),
            Element::LowerHalf => said.half = Some(self.half("am", "pm")?),
            Element::Fraction(count) => {
                let digits = self.fraction_digits().filter(|digits| digits.len() >= count);
                let digits = digits.ok_or_else(|| self.expected(&format!("a fraction of {count} digits")))?;
                self.take_fraction(&digits[..count], said);
            }
            Element::OptionalFraction => self.optional_fraction(said),
            Element::ZoneName => {
                let rest = self.rest.strip_prefix("UTC").or_else(|| self.rest.strip_prefix("GMT"));
                self.rest = rest
                    .filter(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '+' || c == '-'))
                    .ok_or_else(|| self.expected("the zone UTC or GMT, the only ones known by name,"))?;
            }
            Element::ZuluOffset(form) => match self.rest.strip_prefix('Z') {
                Some(rest) => self.rest = rest,
                None => said.offset = self.offset(form)?,
            },
            Element::Offset(form) => said.offset = self.offset(form)?,
        }
        Ok(())
    }

    /// Reads a separator and digits where they are there.
    pub(super) fn optional_fraction(&mut self, said: &mut Said) {
        if let Some(digits) = self.fraction_digits() {
            self.take_fraction(digits, said);
        }
    }

    /// The digits after a separator, of which there is at least one.
    fn fraction_digits(&self) -> Option<&'t str> {
        let digits = leading_digits(self.rest.strip_prefix(['.', ','])?);
        (!digits.is_empty()).then_some(digits)
    }

    /// Reads a separator and these digits; those beyond nanoseconds are cut.
    fn take_fraction(&mut self, digits: &str, said: &mut Said) {
        self.rest = &self.rest[1 + digits.len()..];
        let mut nanosecond = 0;
        for place in 0..9 {
            let digit = digits.as_bytes().get(place).map_or(0, |digit| i32::from(digit - b'0'));
            nanosecond = nanosecond * 10 + digit;
        }
        said.nanosecond = nanosecond;
    }

    fn hour12(&mut self, digits: Digits) -> Result<i8, String> {
        let hour = self.number(digits, "an hour")?;
        if hour > 12 { Err(format!("there is no hour {hour} on a 12-hour clock")) } else { Ok(hour) }
    }

    fn half(&mut self, am: &str, pm: &str) -> Result<Half, String> {
        for (name, half) in [(am, Half::Am), (pm, Half::Pm)] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                return Ok(half);
            }
        }
        Err(self.expected(&format!("{am} or {pm}")))
    }

    /// An offset in seconds. As in Go, hours go to 24, minutes and seconds to 60.
    fn offset(&mut self, form: OffsetForm) -> Result<i32, String> {
        let sign = match self.rest.chars().next() {
            Some('+') => 1,
            Some('-') => -1,
            _ => return Err(self.expected("an offset from UTC")),
        };
        self.rest = &self.rest[1..];
        let (colon, parts) = match form {
            OffsetForm::Hours => ("", 1),
            OffsetForm::Minutes => ("", 2),
            OffsetForm::ColonMinutes => (":", 2),
            OffsetForm::Seconds => ("", 3),
            OffsetForm::ColonSeconds => (":", 3),
        };
        let mut offset = 0;
        for (unit, most) in [(3600, 24), (60, 60), (1, 60)].into_iter().take(parts) {
            if unit != 3600 {
                self.literal(colon)?;
            }
            let value: i32 = self.number(Digits::Exactly(2), "two digits of an offset")?;
            if value > most {
                return Err(format!("there is no offset with {value} where {most} is the most"));
            }
            offset += value * unit;
        }
        Ok(sign * offset)
    }

    fn number<T: TryFrom<u16>>(&mut self, digits: Digits, what: &str) -> Result<T, String> {
        let found = leading_digits(self.rest);
        let count = match digits {
            Digits::UpTo(most) => found.len().min(most),
            Digits::Exactly(count) => count,
        };
        let number = found.get(..count).and_then(|digits| digits.parse::<u16>().ok());
        let number = number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| self.expected(what))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    /// Reads one of the names, or as many letters of it, in any case; returns which.
    fn name(&mut self, names: &[&str], letters: usize, what: &str) -> Result<i8, String> {
        for (i, name) in (0..).zip(names) {
            let name = &name[..letters.min(name.len())];
            if self.rest.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
                self.rest = &self.rest[name.len()..];
                return Ok(i);
            }
        }
        Err(self.expected(what))
    }

    fn skip_spaces(&mut self, most: usize) {
        for _ in 0..most {
            self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
        }
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what} at {:?}", self.rest)
    }
}

fn leading_digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}
