use evenkeel_core::{
    Appended, Batch, Error, ErrorKind, Event as RawEvent, Expect, ExpectStream, Found, NewEvent, Partition,
    Result, Transactional,
};

use super::apply::{apply, passing};
use super::drive::Stop;
use super::partition::PartitionRun;
use super::patience::Patience;
use super::{Mode, Projection};
use crate::projector::Effects;
use crate::{Event, Projector, Recorded, places};

/// Why nothing was appended.
enum Refusal {
    /// That stays so.
    Final(Error),
    /// Others were faster.
    Beaten(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let is_of_the_append = match error.conflict().map(|conflict| &conflict.found) {
            Some(Found::Record { key, .. }) => {
                key.space == places::TOMBSTONES || key.space == places::EVENT_IDS
            }
            _ => false,
        };
        if error.kind() == ErrorKind::Conflict && !is_of_the_append {
            Self::Beaten(error)
        } else {
            Self::Final(error)
        }
    }
}

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
        self.check()?;
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
        let at = self.shared.events.partition_of(stream);
        let mut patience = Patience::default();
        loop {
            let outcome = match self.try_append(&at, stream, expect, &new).await {
                Ok(appended) => return Ok(appended),
                Err(Refusal::Final(error)) => Err(error),
                Err(Refusal::Beaten(error)) => patience.another(self.shared.clock(), error).await,
            };
            if let Err(error) = outcome {
                return Err(self.shared.events.explain(stream, error).await);
            }
        }
    }

    async fn try_append(
        &self,
        at: &Partition,
        stream: &str,
        expect: ExpectStream,
        new: &[NewEvent],
    ) -> Result<Appended, Refusal> {
        let shared = &*self.shared;
        let version = shared.operations.control().await?.active;
        self.initialise(version).await?;
        let run = PartitionRun::open(&self.shared, at.clone(), version, Effects::Live).await?;
        let entry = run.load_entry(stream).await?;
        if entry.is_parked {
            let appended = shared.events.append_new(stream, expect, new.to_vec()).await;
            return appended.map_err(Refusal::Final);
        }
        let (mut entry, head) = match run.bring_up(stream, entry).await {
            Ok(brought) => brought,
            Err(Stop::Store(error)) => return Err(error.into()),
            Err(Stop::Failed(failure)) => return Err(Refusal::Final(self.stopped(at, &failure))),
        };
        if !expect.holds(head) {
            return Err(self.refused(at, stream, expect).await);
        }
        let mut tx = shared.store().begin(at.clone(), shared.now()).await?;
        // What is appended has the versions that the state is told of, or is not appended.
        let exactly = ExpectStream::Version(head);
        shared.events.append_new_in(tx.batch(), stream, exactly, new.to_vec())?;
        if expect.version().is_none() {
            tx.batch().check(places::tombstone(stream), Expect::Absent);
        }
        shared.unless_retired(tx.batch(), version);
        let to_come = self.to_come(stream, head, new, tx.batch().id());
        let applied = match &to_come[..] {
            [] => Ok(()),
            to_come => apply(shared, version, run.effects, to_come, &mut entry.state, &mut tx).await,
        };
        if let Err(failed) = applied {
            shared.store().rollback(tx).await;
            return Err(match passing(failed.error) {
                Ok(error) => error.into(),
                Err(error) => {
                    let problem = "the events were not applied, and not appended";
                    Refusal::Final(self.failed(problem, version, error))
                }
            });
        }
        entry.version = head + u64::try_from(new.len()).expect("a usize fits a u64");
        run.put_entry(tx.batch(), stream, &entry)?;
        let committed = shared.store().finish(tx).await?;
        let appended = committed.appended.into_iter().find(|appended| appended.stream == stream);
        Ok(appended.expect("a commit says where the events went that it appended"))
    }

    /// What the store has to say to an expectation that did not hold.
    async fn refused(&self, at: &Partition, stream: &str, expect: ExpectStream) -> Refusal {
        let mut batch = Batch::new(at.clone(), self.shared.now());
        batch.append(stream, expect, []);
        match self.shared.store().commit(batch).await {
            Err(error) => Refusal::Final(error),
            Ok(_) => {
                let moved = Error::new(ErrorKind::Conflict, "the stream has moved meanwhile");
                Refusal::Beaten(moved.with("stream", stream))
            }
        }
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
