use std::fmt::Display;
use std::process::ExitCode;

use evenkeel::core::{AnyStore, Clock, Durability, Key, Result, Store, StoreExt, SystemClock};
use evenkeel::flare::Flare;

use crate::command::with_causes;
use crate::settings::Settings;

/// Looks whether a server with these settings would work, and prints what it finds.
///
/// The exit code is 1 where it would not.
pub(crate) async fn examine(settings: &Settings) -> ExitCode {
    let mut report = Report::default();
    match evenkeel::open(&settings.store).await {
        Ok(store) => {
            look_at(&store, settings, &mut report).await;
            if let Err(error) = look_at_subscriptions(store, settings, &mut report).await {
                report.bad("subscriptions", with_causes(&error));
            }
        }
        // A clock that is too far off is found here too: no store opens with it.
        Err(error) => {
            report.bad("store", format_args!("{}: {}", settings.shown_store(), with_causes(&error)))
        }
    }
    if settings.vault_keys.is_empty() {
        report.note("secrets", "are stored as they are; `evenkeel keys vault` makes a key to encrypt them");
    } else {
        report.good("secrets", "are stored encrypted");
    }
    if settings.tokens.is_empty() {
        report.note("callers", "whoever is on this machine may do everything; there is no token");
    } else {
        report.good("callers", format_args!("{} tokens", settings.tokens.len()));
    }
    println!("{}\n\nsettings in effect:\n{}", report.lines.join("\n"), settings.shown());
    if report.is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn look_at(store: &AnyStore, settings: &Settings, report: &mut Report) {
    match round_trip(store).await {
        Ok(milliseconds) => report.good(
            "store",
            format_args!(
                "{} answers in {milliseconds:.1} ms, partitions: {}",
                settings.shown_store(),
                store.info().partitions
            ),
        ),
        Err(error) => report.bad("store", with_causes(&error)),
    }
    report.good("clock", format_args!("within {:?} of the store's", store.info().max_skew));
    match store.info().durability {
        Durability::Machine => report.good("durability", "what is committed outlives a crash of the machine"),
        Durability::Process => {
            report.note(
                "durability",
                "what is committed outlives a crash of the store's process, not of its machine",
            );
        }
        _ => report.note("durability", "nothing outlives the server"),
    }
}

/// Names the subscriptions of which no message can be made.
async fn look_at_subscriptions(store: AnyStore, settings: &Settings, report: &mut Report) -> Result<()> {
    let flare = Flare::new(store).vault(settings.vault()?);
    let (mut count, mut broken) = (0, 0);
    for resource in flare.resources().await? {
        for subscription in flare.subscriptions(&resource.id).await? {
            count += 1;
            if let Some(problem) = subscription.problem {
                broken += 1;
                report.bad("subscription", problem);
            }
        }
    }
    if broken == 0 {
        report.good("subscriptions", format_args!("{count}, of each of which messages can be made"));
    }
    Ok(())
}

/// How long a read of something that is not there takes, in milliseconds.
async fn round_trip(store: &AnyStore) -> Result<f64> {
    let begun = SystemClock.now();
    let at = store.partition_of("evenkeel.doctor");
    store.get(&at, begun, &[Key::new("evenkeel.doctor", "doctor", "doctor")]).await?;
    Ok(SystemClock.now().since(begun).as_secs_f64() * 1_000.0)
}

/// What was found, a line each.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    is_bad: bool,
}

impl Report {
    fn good(&mut self, what: &str, finding: impl Display) {
        self.add("ok", what, finding);
    }

    /// What works, and should be known.
    fn note(&mut self, what: &str, finding: impl Display) {
        self.add("note", what, finding);
    }

    fn bad(&mut self, what: &str, finding: impl Display) {
        self.is_bad = true;
        self.add("bad", what, finding);
    }

    fn add(&mut self, verdict: &str, what: &str, finding: impl Display) {
        self.lines.push(format!("{verdict:<5} {what:<13} {finding}"));
    }
}
