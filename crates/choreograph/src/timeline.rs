//! A picture of a run.

use std::fmt::Write;

use evenkeel_core::Timestamp;

use crate::durable::{Entry, Event};

const ROW: usize = 26;
const TOP: usize = 46;
const NAMES: f64 = 220.0;
const BARS: f64 = 640.0;
const LEGEND_STEP: f64 = 127.0;

/// A run's [history](crate::Choreographer::history) as an SVG of plain text: a row a step, a bar an
/// attempt. What happened is told apart by shape as well as by colour:
///
/// - an attempt that succeeded is a filled bar,
/// - a failure a hatched bar with a cross,
/// - an attempt that was cut off an empty bar without an end, from where it can have begun to where
///   that was found,
/// - a wait a dashed line,
/// - a compensation an outlined bar with an arrow back, one that failed a dashed bar with a cross,
/// - what has no length (skipped, parked, resumed, cancelled, the end) a diamond.
///
/// It is readable on light and dark grounds; the details are in tooltips.
#[must_use]
pub fn timeline_svg(history: &[Entry]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    for entry in history {
        if !rows.contains(&row_of(entry)) {
            rows.push(row_of(entry));
        }
    }
    let first = history.iter().map(|entry| entry.began_at).min().unwrap_or(Timestamp::EPOCH);
    let last = history.iter().map(|entry| entry.ended_at.unwrap_or(entry.began_at)).max().unwrap_or(first);
    let length = last.since(first).as_secs_f64().max(0.000_001);
    let place = |at: Timestamp| NAMES + at.since(first).as_secs_f64() / length * BARS;

    let bottom = TOP + rows.len() * ROW;
    let (width, height) = (NAMES + BARS + 60.0, bottom + 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\">{STYLE}{HATCH}"
    );
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a string takes any text");
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (x, y, label) = (NAMES + share * BARS, TOP - 8, elapsed(length * share));
        put(format_args!("<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"));
        put(format_args!(
            "<text class=\"axis\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
        ));
    }
    for (row, name) in rows.iter().enumerate() {
        let (x, y, name) = (NAMES - 12.0, TOP + row * ROW + 17, escape(&short(name)));
        put(format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{name}</text>"));
    }
    for entry in history {
        let row = rows.iter().position(|row| *row == row_of(entry)).expect("each entry has its row");
        let (from, to) = (place(entry.began_at), place(entry.ended_at.unwrap_or(entry.began_at)));
        if entry.event == Event::Skipped && to > from {
            put(format_args!("<g class=\"wait\">{}</g>", shape(Event::Wait, from, to, TOP + row * ROW)));
        }
        let from = if entry.event == Event::Skipped { to } else { from };
        let (class, tooltip) = (class(entry.event), escape(&tooltip(entry, first)));
        let shape = shape(entry.event, from, to, TOP + row * ROW);
        put(format_args!("<g class=\"{class}\"><title>{tooltip}</title>{shape}</g>"));
    }
    let mut x = 24.0;
    for (event, label) in LEGEND {
        let (shape, y) = (shape(event, x, x + 20.0, bottom + 12), bottom + 29);
        put(format_args!("<g class=\"legend {}\">{shape}</g>", class(event)));
        put(format_args!("<text x=\"{:.1}\" y=\"{y}\">{label}</text>", x + 28.0));
        x += LEGEND_STEP;
    }
    svg.push_str("</svg>\n");
    svg
}

const LEGEND: [(Event, &str); 7] = [
    (Event::Attempt, "done"),
    (Event::Failure, "failure"),
    (Event::Interrupted, "cut off"),
    (Event::Wait, "wait"),
    (Event::Compensation, "taken back"),
    (Event::Parked, "event"),
    (Event::CompensationFailure, "not taken back"),
];

const STYLE: &str = "<style>text{fill:#1f2328}.grid{stroke:#8886;stroke-width:1}.axis{font-size:11px;opacity:.75}\
.attempt rect{fill:#2da44e}.failure rect{fill:url(#hatch);stroke:#cf222e;stroke-width:1.5}\
.failure path{stroke:#cf222e;stroke-width:2;fill:none}.interrupted path{stroke:#8250df;stroke-width:2;fill:none}\
.wait path{stroke:#6e7781;stroke-width:2;stroke-dasharray:4 4;fill:none}\
.compensation rect{fill:none;stroke:#bf8700;stroke-width:2}.compensation path{stroke:#bf8700;stroke-width:2;fill:none}\
.compensation-failure rect{fill:none;stroke:#cf222e;stroke-width:2;stroke-dasharray:3 2}\
.compensation-failure path{stroke:#cf222e;stroke-width:2;fill:none}.event path{fill:#0969da}\
@media (prefers-color-scheme: dark){text{fill:#e6edf3}.attempt rect{fill:#3fb950}.wait path{stroke:#9198a1}\
.failure rect,.failure path,.compensation-failure rect,.compensation-failure path{stroke:#ff7b72}\
.compensation rect,.compensation path{stroke:#d29922}.interrupted path{stroke:#a371f7}.event path{fill:#58a6ff}}</style>";

const HATCH: &str = "<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
patternTransform=\"rotate(45)\"><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" \
style=\"stroke:#cf222e;stroke-width:3\"/></pattern></defs>";

fn row_of(entry: &Entry) -> &str {
    entry.step.as_deref().unwrap_or("run")
}

const fn class(event: Event) -> &'static str {
    match event {
        Event::Attempt => "attempt",
        Event::Failure => "failure",
        Event::Interrupted => "interrupted",
        Event::Wait => "wait",
        Event::Compensation => "compensation",
        Event::CompensationFailure => "compensation-failure",
        _ => "event",
    }
}

/// The shape of an event between two places of its row.
fn shape(event: Event, from: f64, to: f64, top: usize) -> String {
    // What is too short to be seen is drawn as wide as it must be.
    let (y, width, middle) = (top + 6, (to - from).max(9.0), top + 13);
    let centre = from + width / 2.0;
    let bar = format!("<rect x=\"{from:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" rx=\"2\"/>");
    match event {
        Event::Attempt => bar,
        Event::Failure | Event::CompensationFailure => {
            format!("{bar}<path d=\"M{:.1} {}l8 8m0 -8l-8 8\"/>", centre - 4.0, middle - 4)
        }
        Event::Interrupted => {
            let end = from + width;
            format!("<path d=\"M{end:.1} {y}H{from:.1}v14H{end:.1}\"/>")
        }
        Event::Wait => format!("<path d=\"M{from:.1} {middle}H{:.1}\"/>", from + width),
        Event::Compensation => {
            format!("{bar}<path d=\"M{:.1} {}l-4 4l4 4\"/>", centre + 2.0, middle - 4)
        }
        _ => format!("<path d=\"M{from:.1} {}l6 6l-6 6l-6 -6z\"/>", middle - 6),
    }
}

fn tooltip(entry: &Entry, first: Timestamp) -> String {
    let mut parts = vec![format!("{} {}", row_of(entry), word(entry.event))];
    parts.extend(entry.item.map(|item| format!("item {item}")));
    parts.extend(entry.attempt.map(|attempt| format!("attempt {attempt}")));
    parts.push(format!("after {}", elapsed(entry.began_at.since(first).as_secs_f64())));
    let lasted = entry.ended_at.map(|ended_at| ended_at.since(entry.began_at).as_secs_f64());
    parts.extend(lasted.map(|lasted| format!("for {}", elapsed(lasted))));
    let why = entry.error.as_ref().map_or_else(String::new, |error| format!(": {}", error.message()));
    parts.join(", ") + &why
}

const fn word(event: Event) -> &'static str {
    match event {
        Event::Started => "started",
        Event::Attempt => "done",
        Event::Failure => "failed",
        Event::Skipped => "skipped",
        Event::NotTaken => "not taken",
        Event::Wait => "waited",
        Event::Interrupted => "cut off",
        Event::Compensation => "taken back",
        Event::CompensationFailure => "not taken back",
        Event::Parked => "parked",
        Event::Resumed => "resumed",
        Event::Retried => "retried",
        Event::Cancelled => "cancelled",
        Event::Ended => "ended",
    }
}

fn elapsed(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7_200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.1} h", seconds / 3_600.0)
    } else {
        format!("{:.1} d", seconds / 86_400.0)
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= 30 { name.to_owned() } else { name.chars().take(29).chain(['…']).collect() }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
