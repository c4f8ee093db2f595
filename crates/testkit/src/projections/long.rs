use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_core::{BoxError, Filter, Result};
use evenkeel_projections::{Context, Projection, Projector, Recorded};
use futures_util::TryStreamExt;

use super::accounts::Mode;
use super::bench::Bank;
use crate::fixture::Fixture;
use crate::harness::{on_one_thread, open};

/// How many events are appended at a time.
const APPENDED: usize = 500;

/// Counts what it is given.
#[derive(Clone, Default)]
struct Counter {
    given: Arc<AtomicU64>,
}

impl<C: Send + 'static> Projector<C> for Counter {
    type State = u64;

    async fn apply(&self, _: &Recorded, context: &mut Context<'_, C, u64>) -> Result<(), BoxError> {
        *context.state += 1;
        self.given.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Appends a stream of the fixture's length, and reads, projects and truncates it.
pub(super) async fn a_long_stream_is_read_from_anywhere_and_projected_and_truncated<F: Fixture>(
    fixture: Arc<F>,
    partitions: u32,
) -> Result<()> {
    on_one_thread(move || async move {
        let bank = Bank::new(open(&*fixture, partitions).await?);
        let length = fixture.longest_stream();
        for _ in (0..length).step_by(APPENDED) {
            bank.deposit("a", &[1; APPENDED]).await;
        }
        assert_eq!(bank.events.version("a").await?, length);

        let middle = length / 2;
        let page = bank.events.load("a", middle, 3).await?;
        let versions: Vec<_> = page.events.iter().map(|event| event.version).collect();
        assert_eq!((versions, page.head), (vec![middle + 1, middle + 2, middle + 3], length));
        let page = bank.events.load_backwards("a", Some(middle), 3).await?;
        let versions: Vec<_> = page.events.iter().map(|event| event.version).collect();
        assert_eq!(versions, [middle - 1, middle - 2, middle - 3]);
        let mut rest = bank.events.stream("a", middle, Filter::all());
        let mut last = middle;
        while let Some(event) = rest.try_next().await? {
            last += 1;
            assert_eq!((event.version, event.position), (last, last));
        }
        assert_eq!(last, length);

        for mode in Mode::BOTH {
            assert_eq!(counted(&bank, mode, "before").await?, length);
        }
        bank.events.truncate("a", middle).await?;
        assert_eq!(bank.events.load("a", 0, 1).await?.events[0].version, middle);
        assert_eq!(counted(&bank, Mode::Stream, "after").await?, length - middle + 1);
        Ok(())
    })
    .await
}

/// How many events a new projection is given up to the end.
async fn counted<S>(bank: &Bank<S>, mode: Mode, when: &str) -> Result<u64>
where
    S: evenkeel_core::Transactional + Clone,
{
    let (counter, events, name) = (Counter::default(), bank.events.clone(), format!("{mode:?}, {when}"));
    let projection = match mode {
        Mode::Stream => Projection::stream(events, name, counter.clone()),
        Mode::Keyed => Projection::keyed(events, name, counter.clone()),
    };
    projection.catch_up().await?;
    assert_eq!(projection.position(&bank.at("a")).await?, bank.events.version("a").await?);
    Ok(counter.given.load(Ordering::SeqCst))
}
