use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Subcommand};
use evenkeel::core::{AnyStore, Error, ErrorKind, Partition, Read, Result, Store, StoreExt, SystemClock};
use evenkeel::projections::{EventStore, Recorded};

use crate::command::block_on;
use crate::settings::Given;
use crate::stop;

/// How often is looked for events that no hint told of: those of other processes, on some stores.
const LOOK: Duration = Duration::from_millis(500);

/// How many of the last events are printed where nobody says from where.
const LAST: u64 = 10;

/// How many events are read at a time.
const PAGE: usize = 500;

/// Looks at events.
#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Print events, a line each, and go on with those that are appended until it is interrupted
    ///
    /// A line has the time, partition/position, stream@version, kind and payload.
    Tail {
        /// Only those of this stream
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
        /// Only those of this partition, from 0
        #[arg(long, value_name = "INDEX", conflicts_with = "stream")]
        partition: Option<u32>,
        /// The version of the stream, or the position in each partition, to begin at; the last ten
        /// unless said
        #[arg(long, value_name = "NUMBER")]
        from: Option<u64>,
        #[command(flatten)]
        given: Box<Given>,
    },
}

impl Events {
    /// Does what was asked; `matches` are those of the command that this is part of.
    ///
    /// # Errors
    /// `Config` where a setting is none; `InvalidInput` for a partition that does not exist; those of
    /// the store.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        let (_, matches) = matches.subcommand().expect("clap has found the subcommand");
        let Self::Tail { stream, partition, from, given } = self;
        let settings = given.resolve(matches)?;
        block_on(async {
            let stop = stop::requested()?;
            let store = evenkeel::open(&settings.store).await?;
            let followed = Followed::of(&store, stream, partition)?;
            tail(&EventStore::new(store), followed, from, stop).await
        })
    }
}

/// What is followed.
enum Followed {
    Stream(String),
    Logs(Vec<Partition>),
}

/// Something that is followed, and how far it was read.
struct Reader<'a> {
    events: &'a EventStore<AnyStore>,
    at: Partition,
    stream: Option<&'a str>,
    after: u64,
}

async fn tail(
    events: &EventStore<AnyStore>,
    followed: Followed,
    from: Option<u64>,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode> {
    // Subscribed before the first look, so that nothing falls between.
    let mut signals = events.store().signals();
    let clock = SystemClock::shared();
    let mut readers = match &followed {
        Followed::Stream(stream) => {
            vec![Reader { events, at: events.partition_of(stream), stream: Some(stream), after: 0 }]
        }
        Followed::Logs(partitions) => {
            let reader = |at: &Partition| Reader { events, at: at.clone(), stream: None, after: 0 };
            partitions.iter().map(reader).collect()
        }
    };
    for reader in &mut readers {
        reader.after = match from {
            Some(from) => from.saturating_sub(1),
            None => reader.head().await?.saturating_sub(LAST),
        };
    }
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            printed = print(&mut readers) => printed?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        }
        tokio::select! {
            _ = signals.next() => {}
            () = clock.sleep(LOOK) => {}
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn print(readers: &mut [Reader<'_>]) -> Result<()> {
    for reader in readers {
        reader.print().await?;
    }
    Ok(())
}

impl Followed {
    fn of(store: &AnyStore, stream: Option<String>, partition: Option<u32>) -> Result<Self> {
        if let Some(stream) = stream {
            return Ok(Self::Stream(stream));
        }
        let all = store.partitions();
        let Some(index) = partition else { return Ok(Self::Logs(all)) };
        let count = all.len();
        let found = all.into_iter().find(|at| at.index() == index).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "there is no such partition")
                .with("partition", index)
                .with("partitions", count)
        })?;
        Ok(Self::Logs(vec![found]))
    }
}

impl Reader<'_> {
    async fn head(&self) -> Result<u64> {
        let read = match self.stream {
            Some(stream) => Read::stream_backwards(stream, None, 1),
            None => Read::partition(0, 1),
        };
        Ok(self.events.read(&self.at, read).await?.head)
    }

    /// Prints what there is after what was printed.
    async fn print(&mut self) -> Result<()> {
        loop {
            let page = match self.stream {
                Some(stream) => self.events.load(stream, self.after, PAGE).await?,
                None => self.events.read(&self.at, Read::partition(self.after, PAGE)).await?,
            };
            for event in &page.events {
                // Whoever reads it may have seen enough.
                writeln!(stdout(), "{}", line(&self.at, event)).map_err(|source| {
                    Error::new(ErrorKind::Unexpected, "events cannot be printed").with_source(source)
                })?;
            }
            self.after = self.after.max(page.examined_to);
            if page.examined_to >= page.head {
                return Ok(());
            }
        }
    }
}

fn line(at: &Partition, event: &Recorded) -> String {
    let micros = event.recorded_at.as_micros();
    let time = jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |time| time.to_string());
    let payload = match serde_json::from_slice::<serde_json::Value>(&event.payload) {
        Ok(json) => json.to_string().replace(char::is_control, "\u{fffd}"),
        Err(_) => String::from_utf8_lossy(&event.payload).escape_debug().to_string(),
    };
    let (index, position, version) = (at.index(), event.position, event.version);
    let (stream, kind) = (event.stream.escape_debug(), event.kind.escape_debug());
    format!("{time}  {index}/{position}  {stream}@{version}  {kind}  {payload}")
}
