use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use evenkeel::core::BoxError;

/// What a checkout does, and how it takes that back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    Reserve,
    Charge,
    Ship,
    Confirm,
    Recall,
    Refund,
    Release,
}

/// A point of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// What came before is recorded, and of this nothing is done.
    Before(Act),
    /// It is done, and nobody recorded that: the worst moment. What is written in a transaction is
    /// not committed.
    Inside(Act),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a point such as before:charge or inside:charge");
        let (point, act) = text.split_once(':').ok_or_else(wrong)?;
        let act = Act::from_str(act, false)?;
        match point {
            "before" => Ok(Self::Before(act)),
            "inside" => Ok(Self::Inside(act)),
            _ => Err(wrong()),
        }
    }
}

/// What can never succeed, however often it is tried.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// What is to go wrong.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) fail: Vec<Act>,
    pub(crate) die_at: Option<Point>,
}

impl Trouble {
    /// Does the work of an act, as far as nothing is to go wrong with it.
    pub(crate) async fn act<T>(
        &self,
        act: Act,
        work: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        self.pass(Point::Before(act)).await;
        if self.fail.contains(&act) {
            return Err(Refused(format!("the {act:?} was told to fail").to_lowercase()).into());
        }
        let done = work.await?;
        self.pass(Point::Inside(act)).await;
        Ok(done)
    }

    /// No handler runs and nothing is flushed, as if the machine had lost its power.
    async fn pass(&self, point: Point) {
        if self.die_at == Some(point) {
            let myself = rustix::process::getpid();
            rustix::process::kill_process(myself, rustix::process::Signal::KILL)
                .expect("a process may kill itself");
            std::future::pending().await
        }
    }
}
