/// What a layout is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This very text.
    Literal(String),
    /// A part of the reference time.
    Element(Element),
}

/// A part of the reference time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// `2006`
    Year,
    /// `06`
    YearOfCentury,
    /// `January`
    LongMonth,
    /// `Jan`
    Month,
    /// `1`
    NumericMonth,
    /// `01`
    ZeroMonth,
    /// `Monday`
    LongWeekday,
    /// `Mon`
    Weekday,
    /// `2`
    Day,
    /// `_2`
    SpaceDay,
    /// `02`
    ZeroDay,
    /// `__2`
    SpaceDayOfYear,
    /// `002`
    ZeroDayOfYear,
    /// `15`
    Hour,
    /// `3`
    Hour12,
    /// `03`
    ZeroHour12,
    /// `4`
    Minute,
    /// `04`
    ZeroMinute,
    /// `5`
    Second,
    /// `05`
    ZeroSecond,
    /// `PM`
    UpperHalf,
    /// `pm`
    LowerHalf,
    /// `.000` or `,000`: a separator and this many digits
    Fraction(usize),
    /// `.999` or `,999`: a separator and digits, or nothing
    OptionalFraction,
    /// `MST`
    ZoneName,
    /// `-0700` and its like
    Offset(OffsetForm),
    /// `Z0700` and its like: `Z` or an offset
    ZuluOffset(OffsetForm),
}

/// How an offset from UTC is written after its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffsetForm {
    /// `07`
    Hours,
    /// `0700`
    Minutes,
    /// `07:00`
    ColonMinutes,
    /// `070000`
    Seconds,
    /// `07:00:00`
    ColonSeconds,
}

impl Element {
    pub(super) const fn is_second(self) -> bool {
        matches!(self, Self::Second | Self::ZeroSecond)
    }

    pub(super) const fn is_fraction(self) -> bool {
        matches!(self, Self::Fraction(_) | Self::OptionalFraction)
    }
}

/// The longer of two elements that begin alike comes first.
const ELEMENTS: &[(&str, Element)] = &[
    ("2006", Element::Year),
    ("06", Element::YearOfCentury),
    ("January", Element::LongMonth),
    ("Jan", Element::Month),
    ("15", Element::Hour),
    ("1", Element::NumericMonth),
    ("01", Element::ZeroMonth),
    ("Monday", Element::LongWeekday),
    ("Mon", Element::Weekday),
    ("2", Element::Day),
    ("_2", Element::SpaceDay),
    ("02", Element::ZeroDay),
    ("__2", Element::SpaceDayOfYear),
    ("002", Element::ZeroDayOfYear),
    ("3", Element::Hour12),
    ("03", Element::ZeroHour12),
    ("4", Element::Minute),
    ("04", Element::ZeroMinute),
    ("5", Element::Second),
    ("05", Element::ZeroSecond),
    ("PM", Element::UpperHalf),
    ("pm", Element::LowerHalf),
    ("MST", Element::ZoneName),
    ("-070000", Element::Offset(OffsetForm::Seconds)),
    ("-07:00:00", Element::Offset(OffsetForm::ColonSeconds)),
    ("-0700", Element::Offset(OffsetForm::Minutes)),
    ("-07:00", Element::Offset(OffsetForm::ColonMinutes)),
    ("-07", Element::Offset(OffsetForm::Hours)),
    ("Z070000", Element::ZuluOffset(OffsetForm::Seconds)),
    ("Z07:00:00", Element::ZuluOffset(OffsetForm::ColonSeconds)),
    ("Z0700", Element::ZuluOffset(OffsetForm::Minutes)),
    ("Z07:00", Element::ZuluOffset(OffsetForm::ColonMinutes)),
    ("Z07", Element::ZuluOffset(OffsetForm::Hours)),
];

/// Finds a layout's elements; what is none is a literal.
pub(super) fn split(layout: &str) -> Vec<Part> {
    let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), layout);
    while let Some(first) = rest.chars().next() {
        if let Some((element, length)) = element_at(rest) {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Element(element));
            rest = &rest[length..];
        } else {
            literal.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    parts
}

/// The element that the text begins with, and its length.
fn element_at(text: &str) -> Option<(Element, usize)> {
    // An underscore before the whole year is a literal.
    if text.starts_with("_2006") {
        return None;
    }
    fraction_at(text).or_else(|| {
        ELEMENTS.iter().find_map(|(reference, element)| {
            let rest = text.strip_prefix(reference)?;
            // `Janitor` and `Monitor` are words.
            let is_name = matches!(element, Element::Month | Element::Weekday);
            let is_word = is_name && rest.starts_with(|c: char| c.is_ascii_lowercase());
            (!is_word).then_some((*element, reference.len()))
        })
    })
}

/// A separator and a run of zeros or nines that no other digit follows.
fn fraction_at(text: &str) -> Option<(Element, usize)> {
    let digits = text.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|digit| matches!(digit, '0' | '9'))?;
    let rest = digits.trim_start_matches(digit);
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let count = digits.len() - rest.len();
    let element = if digit == '0' { Element::Fraction(count) } else { Element::OptionalFraction };
    Some((element, count + 1))
}
