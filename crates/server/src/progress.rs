use std::io::{IsTerminal, Write, stdout};

use evenkeel::core::Timestamp;

/// How wide the bar is.
const WIDTH: usize = 30;

/// A line that says how far something has come: written over and over on a terminal, and nowhere else.
pub(crate) struct Progress {
    is_terminal: bool,
    began: Option<(Timestamp, u64)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: stdout().is_terminal(), began: None }
    }

    /// Says how many of how many events are done by now.
    pub(crate) fn show(&mut self, done: u64, of: u64, now: Timestamp) {
        let (since, before) = *self.began.get_or_insert((now, done));
        if self.is_terminal {
            let rate = rate(done.saturating_sub(before), since, now);
            // A terminal that is gone is nobody's loss.
            let _ = write!(stdout(), "\r{}\x1b[K", line(done, of, rate)).and_then(|()| stdout().flush());
        }
    }

    /// Takes the line away, and says how many events were done, and how fast.
    pub(crate) fn end(self, done: u64, now: Timestamp) -> String {
        if self.is_terminal && self.began.is_some() {
            let _ = write!(stdout(), "\r\x1b[K").and_then(|()| stdout().flush());
        }
        let (since, before) = self.began.unwrap_or((now, done));
        let seconds = now.since(since).as_secs_f64();
        format!(
            "{} events in {seconds:.1} s, {}/s",
            grouped(done.saturating_sub(before)),
            grouped(rate(done.saturating_sub(before), since, now))
        )
    }
}

/// Events a second.
fn rate(events: u64, since: Timestamp, now: Timestamp) -> u64 {
    let micros = now.since(since).as_micros();
    let rate = u128::from(events) * 1_000_000 / micros.max(1);
    if micros == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
}

fn line(done: u64, of: u64, rate: u64) -> String {
    let done = done.min(of);
    let share = |parts: usize| {
        let parts = u128::try_from(parts).expect("a usize fits a u128");
        let share = if of == 0 { parts } else { u128::from(done) * parts / u128::from(of) };
        usize::try_from(share).expect("a share is at most the whole")
    };
    let (full, percent) = (share(WIDTH), share(100));
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
    let left = match (of - done).checked_div(rate) {
        Some(seconds) => format!("{} left", time(seconds)),
        None => "waiting for a program that runs it".to_owned(),
    };
    format!("[{bar}] {percent:3} %  {} of {} events  {}/s  {left}", grouped(done), grouped(of), grouped(rate))
}

fn time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_how_fast_and_how_long_it_takes() {
        for (done, of, rate, expected) in [
            (
                0,
                0,
                0,
                "[##############################] 100 %  0 of 0 events  0/s  waiting for a program that runs it",
            ),
            (
                1_000,
                3_000,
                0,
                "[##########....................]  33 %  1,000 of 3,000 events  0/s  waiting for a program that runs it",
            ),
            (
                1_500_000,
                3_000_000,
                20_000,
                "[###############...............]  50 %  1,500,000 of 3,000,000 events  20,000/s  1 min 15 s left",
            ),
            (9, 8, 1, "[##############################] 100 %  8 of 8 events  1/s  0 s left"),
        ] {
            assert_eq!(line(done, of, rate), expected);
        }
    }

    #[test]
    fn at_its_end_it_says_what_was_done_since_its_beginning() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let mut progress = Progress { is_terminal: false, began: None };
        progress.show(500, 5_000, at(10));
        progress.show(3_000, 5_000, at(11));
        assert_eq!(progress.end(5_500, at(14)), "5,000 events in 4.0 s, 1,250/s");
    }
}
