//! Aggregates tested without a store, in the form given, when, then.
//!
//! ```
//! # use evenkeel_projections::{Aggregate, Event};
//! use evenkeel_projections::testing::given;
//! # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! # enum DoorEvent { Opened, Closed }
//! # impl Event for DoorEvent {}
//! # #[derive(Clone, Default)]
//! # struct Door { open: bool }
//! # #[derive(Debug, PartialEq)]
//! # struct OpenAlready;
//! # struct Open;
//! # impl Aggregate for Door {
//! #     const NAME: &'static str = "door";
//! #     type Event = DoorEvent;
//! #     type Command = Open;
//! #     type Error = OpenAlready;
//! #     fn apply(&mut self, event: &DoorEvent) { self.open = *event == DoorEvent::Opened; }
//! #     fn decide(&self, _: &Open) -> Result<Vec<DoorEvent>, OpenAlready> {
//! #         if self.open { Err(OpenAlready) } else { Ok(vec![DoorEvent::Opened]) }
//! #     }
//! # }
//!
//! given::<Door>(&[]).when(&Open).then(&[DoorEvent::Opened]);
//! given::<Door>(&[DoorEvent::Opened]).when(&Open).then_refused(&OpenAlready);
//! ```

use std::fmt::Debug;

use crate::Aggregate;

/// An aggregate to which these events have happened.
#[must_use]
pub fn given<A: Aggregate>(events: &[A::Event]) -> Given<A> {
    let mut state = A::default();
    events.iter().for_each(|event| state.apply(event));
    Given { state }
}

/// An aggregate that waits for a command.
#[derive(Clone, Debug)]
pub struct Given<A> {
    state: A,
}

impl<A: Aggregate> Given<A> {
    /// Lets it decide a command.
    #[must_use]
    pub fn when(self, command: &A::Command) -> When<A> {
        When { decided: self.state.decide(command) }
    }
}

/// What an aggregate decided.
pub struct When<A: Aggregate> {
    decided: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> When<A>
where
    A::Event: Debug + PartialEq,
    A::Error: Debug,
{
    /// Asserts that it led to these events.
    #[track_caller]
    pub fn then(self, expected: &[A::Event]) {
        match self.decided {
            Ok(events) => assert_eq!(events, expected, "the events that the command led to"),
            Err(error) => panic!("the command was refused: {error:?}"),
        }
    }

    /// Asserts that it was refused for this reason.
    #[track_caller]
    pub fn then_refused(self, expected: &A::Error)
    where
        A::Error: PartialEq,
    {
        match self.decided {
            Ok(events) => panic!("the command was not refused, but led to {events:?}"),
            Err(error) => assert_eq!(&error, expected, "why the command was refused"),
        }
    }
}

impl<A: Aggregate> Debug for When<A>
where
    A::Event: Debug,
    A::Error: Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("When").field("decided", &self.decided).finish()
    }
}
