//! Looking at what is stored.

use std::collections::VecDeque;

use evenkeel_core::{
    Error, ErrorKind, Event, Filter, Job, JobPage, Jobs, Key, Order, Read, Record, RecordPage, Result, Scan,
    Slice, Source, Timestamp,
};
use redis::{Cmd, Value};

use crate::keys::{Place, Tag};
use crate::rows;
use crate::script::{self, Arguments};
use crate::servers::{Effect, Request, Servers};

/// The most rows of one answer, so that a page does not keep everybody else waiting.
pub(crate) const MAX_ROWS: usize = 1_000;

/// About the most bytes of one answer; a row more than them still fits.
pub(crate) const MAX_BYTES: usize = 4_000_000;

/// The fewest events asked for where a filter may drop them.
const MIN_FILTERED: usize = 100;

/// How many events one read examines at most, so that a filter that drops nearly all of them costs
/// several short reads rather than one long one.
const MAX_EXAMINED: usize = 10_000;

/// Reading from one partition.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) servers: &'a Servers,
    pub(crate) tag: Tag,
}

impl Reader<'_> {
    pub(crate) async fn get(&self, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let values = match keys {
            [] => return Ok(Vec::new()),
            [key] => {
                let group = self.tag.key(Place::group_of(key));
                vec![self.ask("getting records", redis::cmd("HGET").arg(group).arg(&key.id).take()).await?]
            }
            keys => {
                let mut arguments = Arguments::default();
                let groups: Vec<String> = keys.iter().map(|key| self.tag.key(Place::group_of(key))).collect();
                for key in keys {
                    arguments.push(&key.id);
                }
                rows::array(self.ask("getting records", script::GET.call(&groups, &arguments)).await?)?
            }
        };
        let live = |value| {
            let record = rows::optional_bytes(value)?.map(rows::record).transpose()?;
            Ok(record.filter(|record| record.is_live(now)))
        };
        values.into_iter().map(live).collect()
    }

    pub(crate) async fn scan(&self, scan: &Scan) -> Result<RecordPage> {
        let place = Place::Group { space: &scan.space, group: &scan.group };
        let range = Range {
            order: scan.order,
            after: scan.after.as_deref(),
            until: scan.until.as_deref(),
            limit: scan.limit,
        };
        let keys: Vec<String> = self.tag.keys(place).collect();
        let (found, cursor) = self.page("scanning records", &keys, range).await?;
        let mut records = Vec::with_capacity(found.len());
        for (id, bytes) in found {
            let record = rows::record(bytes)?;
            if record.is_live(scan.now) {
                records.push((id, record));
            }
        }
        Ok(RecordPage { records, cursor })
    }

    pub(crate) async fn jobs(&self, want: &Jobs) -> Result<JobPage> {
        match want {
            Jobs::ByIds { ids, .. } if ids.is_empty() => Ok(JobPage::default()),
            Jobs::ByIds { queue, ids } => {
                let jobs = self.tag.key(Place::Queue(queue));
                let found =
                    self.ask("looking at jobs", redis::cmd("HMGET").arg(jobs).arg(ids).take()).await?;
                let mut jobs = Vec::with_capacity(ids.len());
                for (id, found) in ids.iter().zip(rows::array(found)?) {
                    if let Some(bytes) = rows::optional_bytes(found)? {
                        jobs.push((id.clone(), rows::job(bytes)?));
                    }
                }
                Ok(JobPage { jobs, cursor: None })
            }
            Jobs::Page { queue, after, limit } => {
                let [jobs, _, ids] = self.tag.queue(queue);
                let range =
                    Range { order: Order::Ascending, after: after.as_deref(), until: None, limit: *limit };
                let (found, cursor) = self.page("looking at jobs", &[jobs, ids], range).await?;
                let jobs = found.into_iter().map(|(id, bytes)| Ok((id, rows::job(bytes)?)));
                Ok(JobPage { jobs: jobs.collect::<Result<Vec<(String, Job)>>>()?, cursor })
            }
        }
    }

    pub(crate) async fn read(&self, read: &Read) -> Result<Slice> {
        let mut run = Run::of(read);
        let mut slice = Slice { events: Vec::new(), examined_to: 0, head: 0 };
        let mut examined = 0;
        let page_size = match read.filter == Filter::all() {
            true => read.limit.min(MAX_ROWS),
            false => read.limit.clamp(MIN_FILTERED, MAX_ROWS),
        };
        loop {
            let page = self.events(&run, page_size).await?;
            slice.head = page.head;
            if let (Source::Partition { after }, true) = (&read.source, run.beyond > page.head) {
                return Err(Error::new(ErrorKind::Corrupt, "the log ends before the position asked for")
                    .with("after", after)
                    .with("head", page.head));
            }
            examined += page.events.len();
            for event in page.events {
                if read.filter.matches(&event) {
                    slice.examined_to = run.place_of(&event);
                    slice.events.push(event);
                    if slice.events.len() == read.limit {
                        return Ok(slice);
                    }
                }
            }
            slice.examined_to = page.examined_to;
            let is_done = match run.order {
                Order::Ascending => page.examined_to >= page.head,
                Order::Descending => page.examined_to <= 1,
            };
            if is_done || examined >= MAX_EXAMINED {
                return Ok(slice);
            }
            run.beyond = page.examined_to;
        }
    }

    async fn events(&self, run: &Run<'_>, limit: usize) -> Result<Events> {
        let mut arguments = Arguments::default();
        let [heads, log, trims] = self.tag.log();
        let cmd = match run.stream {
            None => {
                arguments.display(run.beyond).display(limit).display(MAX_BYTES);
                script::READ_LOG.call(&[log, heads, trims], &arguments)
            }
            Some(stream) => {
                let positions = self.tag.key(Place::Stream(stream));
                arguments.push(stream).display(run.beyond);
                arguments.push(match run.order {
                    Order::Ascending => "forwards",
                    Order::Descending => "backwards",
                });
                arguments.display(limit).display(MAX_BYTES);
                script::READ_STREAM.call(&[log, heads, positions], &arguments)
            }
        };
        Events::decode(self.ask("reading events", cmd).await?)
    }

    /// Ids and values, and where to go on.
    async fn page(
        &self,
        doing: &'static str,
        keys: &[String],
        range: Range<'_>,
    ) -> Result<(Vec<(String, Vec<u8>)>, Option<String>)> {
        let answer = self.ask(doing, script::SCAN.call(keys, &range.arguments())).await?;
        let mut answer = rows::array(answer)?.into_iter();
        let cursor = answer.next().ok_or_else(|| rows::damaged("answer"))?;
        let cursor = match cursor {
            Value::Nil => None,
            id => Some(rows::text(id)?),
        };
        let mut page = Vec::with_capacity(answer.len() / 2);
        while let (Some(id), Some(value)) = (answer.next(), answer.next()) {
            page.push((rows::text(id)?, rows::bytes(value)?));
        }
        Ok((page, cursor))
    }

    async fn ask(&self, doing: &'static str, cmd: Cmd) -> Result<Value> {
        self.servers.ask(&Request::new(self.tag.slot(), Effect::Reads, doing, cmd)).await
    }
}

/// A range of ids, both ends exclusive.
struct Range<'a> {
    order: Order,
    after: Option<&'a str>,
    until: Option<&'a str>,
    limit: usize,
}

impl Range<'_> {
    fn arguments(&self) -> Arguments {
        let (command, first, last) = match self.order {
            Order::Ascending => ("ZRANGEBYLEX", "-", "+"),
            Order::Descending => ("ZREVRANGEBYLEX", "+", "-"),
        };
        let bound = |id: Option<&str>, end: &str| id.map_or_else(|| end.to_owned(), |id| format!("({id}"));
        let mut arguments = Arguments::default();
        arguments.push(command).push(bound(self.after, first)).push(bound(self.until, last));
        arguments.display(self.limit.min(MAX_ROWS)).display(MAX_BYTES);
        arguments
    }
}

/// A run of events by position or by version, from beyond one place.
struct Run<'a> {
    stream: Option<&'a str>,
    order: Order,
    beyond: u64,
}

impl<'a> Run<'a> {
    fn of(read: &'a Read) -> Self {
        match &read.source {
            Source::Partition { after } => {
                Self { stream: None, order: Order::Ascending, beyond: rows::exact(*after) }
            }
            Source::Stream { name, after, order } => {
                let near_end = match order {
                    Order::Ascending => 0,
                    Order::Descending => u64::MAX,
                };
                let beyond = rows::exact(after.unwrap_or(near_end));
                Self { stream: Some(name), order: *order, beyond }
            }
        }
    }

    fn place_of(&self, event: &Event) -> u64 {
        match self.stream {
            Some(_) => event.version,
            None => event.position,
        }
    }
}

/// A page of events as the scripts return it.
struct Events {
    head: u64,
    examined_to: u64,
    events: Vec<Event>,
}

impl Events {
    fn decode(answer: Value) -> Result<Self> {
        let mut answer = VecDeque::from(rows::array(answer)?);
        let mut next = || answer.pop_front();
        let [Some(head), Some(examined_to)] = [next(), next()] else { return Err(rows::damaged("answer")) };
        let mut events = Vec::new();
        while let [Some(position), Some(stream), Some(version), Some(bytes)] =
            [next(), next(), next(), next()]
        {
            events.push(rows::event(&position, stream, &version, bytes)?);
        }
        Ok(Self { head: rows::number(&head)?, examined_to: rows::number(&examined_to)?, events })
    }
}
