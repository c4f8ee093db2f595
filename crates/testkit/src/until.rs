use std::time::Duration;

use evenkeel_core::SystemClock;

/// The longest that a test waits for what another process does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again and again until the answer is yes: for what happens in another process or a server, which no
/// clock of the test's moves.
///
/// # Panics
/// After a minute, with `what` was waited for.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let clock = SystemClock::shared();
    let deadline = clock.now() + PATIENCE;
    while !is_so().await {
        assert!(clock.now() < deadline, "not within {PATIENCE:?}: {what}");
        clock.sleep(PAUSE).await;
    }
}
