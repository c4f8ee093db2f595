use std::time::Duration;

/// Reads a duration as Go writes it: `10s`, `1h30m`, `1.5h`, `0`; a sequence of decimal numbers,
/// each with a unit (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`). `None` for anything else, for what
/// is negative, and for what is beyond 2^64 nanoseconds (584 years).
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number = &rest[..rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len())];
        rest = &rest[number.len()..];
        let unit = &rest[..rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        nanos = nanos.checked_add(scaled(number, nanos_of(unit)?)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

fn nanos_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number`, which may have a fraction, times `unit`; what is less than 1 is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut sum = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    let mut share = unit;
    for digit in fraction.bytes() {
        share /= 10;
        sum = sum.checked_add(u64::from(digit - b'0').checked_mul(share)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000),
            ("10s", 10_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1h15m30.918s", 4_530_918),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("5000us", 5),
            ("5000\u{b5}s", 5),
            ("5000\u{3bc}s", 5),
            ("3000000ns", 3),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "+",
            "-1s",
            "3",
            "s",
            ".s",
            "1.2.3s",
            "1 s",
            "1d",
            "1S",
            "1h ",
            "ms",
            "9999999999h",
            "1s1",
            "ä",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&format!("{}h", "9".repeat(500))), None);
        assert_eq!(parse(&format!("0.{}s", "9".repeat(500))), Some(Duration::from_nanos(999_999_999)));
    }
}
