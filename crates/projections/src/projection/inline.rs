use evenkeel_core::{
    Appended, Error, ErrorKind, Event as RawEvent, ExpectStream, Found, NewEvent, Result, Transactional,
};

use super::apply::apply;
use super::drive::Stop;
use super::partition::PartitionRun;
use super::{Mode, Projection};
use crate::projector::Effects;
use crate::{Event, Projector, Recorded, places};

/// How often an append is begun anew where the stream or its state moves meanwhile.
const ATTEMPTS: usize = 10;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Appends events to a stream and applies them to the read model, in one commit: whoever reads
    /// the model after it finds them there. For keyed projections.
    ///
    /// - A state knows by its stream's versions what it holds. So what is applied here is passed
    ///   over by whoever runs the projection, and what others appended in other ways is applied
    ///   here first.
    /// - The handler is given the events before they have a position: that is 0.
    /// - Where the handler fails, nothing is appended.
    /// - To a stream that is parked is only appended.
    ///
    /// # Errors
    /// Those of [`EventStore::append`](crate::EventStore::append); `Unexpected` with the handler's error;
    /// `InvalidInput` for a projection that is not keyed. After `OutcomeUnknown`, load the stream.
    pub async fn append<E: Event>(
        &self,
        stream: &str,
        expect: ExpectStream,
        events: &[E],
    ) -> Result<Appended> {
        if self.shared.settings.mode != Mode::Keyed {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "only a keyed projection can be appended with: another has no place for an event \
                 before it has a position",
            )
            .with("projection", self.name()));
        }
        let new: Vec<NewEvent> =
            events.iter().map(|event| self.shared.events.new_event(event)).collect::<Result<_>>()?;
        let version = self.shared.operations.control().await?.active;
        self.initialise(version).await?;
        let at = self.shared.events.partition_of(stream);
        let mut attempt = 1;
        loop {
            let run = PartitionRun::open(&self.shared, at.clone(), version, Effects::Live).await?;
            match self.try_append(&run, stream, expect, &new).await {
                Err(error) if attempt < ATTEMPTS && is_worth_another(expect, &error) => attempt += 1,
                Err(error) => return Err(self.shared.events.explain(stream, error).await),
                appended => return appended,
            }
        }
    }

    async fn try_append(
        &self,
        run: &PartitionRun<P, S>,
        stream: &str,
        expect: ExpectStream,
        new: &[NewEvent],
    ) -> Result<Appended> {
        let shared = &*self.shared;
        let entry = run.load_entry(stream).await?;
        if entry.is_parked {
            return shared.events.append_new(stream, expect, new.to_vec()).await;
        }
        let mut entry = match run.bring_up(stream, entry).await {
            Ok(entry) => entry,
            Err(Stop::Store(error)) => return Err(error),
            Err(Stop::Failed(failure)) => return Err(self.stopped(&run.at, &failure)),
        };
        let head = shared.events.version(stream).await?;
        // What is appended has the versions that the state is told of, or is not appended.
        let expect = if expect.holds(head) { ExpectStream::Version(head) } else { expect };
        let mut tx = shared.store().begin(run.at.clone(), shared.now()).await?;
        shared.events.append_new_in(tx.batch(), stream, expect, new.to_vec())?;
        let to_come = self.to_come(stream, head, new, tx.batch().id());
        let applied = apply(shared, run.version, run.effects, &to_come, &mut entry.state, &mut tx).await;
        if let Err(failed) = applied {
            shared.store().rollback(tx).await;
            return Err(match super::apply::passing(failed.error) {
                Ok(error) => error,
                Err(error) => {
                    self.failed("the events were not applied, and not appended", run.version, error)
                }
            });
        }
        entry.version = head + u64::try_from(new.len()).expect("a usize fits a u64");
        run.put_entry(tx.batch(), stream, &entry)?;
        let committed = shared.store().finish(tx).await?;
        let appended = committed.appended.into_iter().find(|appended| appended.stream == stream);
        Ok(appended.expect("a commit says where the events went that it appended"))
    }

    /// The events as they will stand, as far as that is known, where the projector wants them.
    fn to_come(&self, stream: &str, head: u64, new: &[NewEvent], batch: uuid::Uuid) -> Vec<Recorded> {
        let filter = self.shared.projector.filter();
        let recorded_at = self.shared.now();
        let raw = new.iter().zip(head + 1..).map(|(event, version)| RawEvent {
            id: event.id,
            stream: stream.to_owned(),
            version,
            position: 0,
            kind: event.kind.clone().into_owned(),
            payload: event.payload.clone(),
            content_type: event.content_type.clone().into_owned(),
            metadata: event.metadata.clone(),
            recorded_at,
            batch,
        });
        let wanted = raw.filter(|event| filter.matches(event));
        wanted.map(|raw| Recorded::new(raw, &self.shared.events.upcasters)).collect()
    }
}

/// Whether the append may succeed on what stands there now.
fn is_worth_another(expect: ExpectStream, error: &Error) -> bool {
    match error.conflict().map(|conflict| &conflict.found) {
        Some(Found::Stream { .. }) => expect.version().is_none(),
        Some(Found::Record { key, .. }) => key.space == places::STATE,
        _ => false,
    }
}
