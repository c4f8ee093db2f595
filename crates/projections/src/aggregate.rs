use crate::Event;

/// Something that decides by its own history what may happen to it next.
///
/// Its state is what its events make of the default. It has no clock and no store: what a decision
/// depends on is in the command.
///
/// ```
/// # use evenkeel_projections::{Aggregate, Event};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # enum AccountEvent { Deposited { cents: i64 }, Withdrawn { cents: i64 } }
/// # impl Event for AccountEvent {}
/// # struct Withdraw { cents: i64 }
/// # #[derive(Debug)]
/// # struct Overdrawn;
/// #[derive(Clone, Default)]
/// struct Account {
///     balance: i64,
/// }
///
/// impl Aggregate for Account {
///     const NAME: &'static str = "account";
///     type Event = AccountEvent;
///     type Command = Withdraw;
///     type Error = Overdrawn;
///
///     fn apply(&mut self, event: &AccountEvent) {
///         match event {
///             AccountEvent::Deposited { cents } => self.balance += cents,
///             AccountEvent::Withdrawn { cents } => self.balance -= cents,
///         }
///     }
///
///     fn decide(&self, command: &Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
///         if command.cents > self.balance {
///             return Err(Overdrawn);
///         }
///         Ok(vec![AccountEvent::Withdrawn { cents: command.cents }])
///     }
/// }
/// ```
pub trait Aggregate: Clone + Default + Send + Sync + 'static {
    /// Its kind; the stream of the aggregate `7` is `NAME-7`. Stored data depends on it.
    const NAME: &'static str;
    /// What happens to it.
    type Event: Event;
    /// What is asked of it.
    type Command: Sync;
    /// Why it refuses.
    type Error;

    /// Takes an event into account. It has happened; there is no refusing it.
    fn apply(&mut self, event: &Self::Event);

    /// The events that a command leads to, perhaps none.
    ///
    /// # Errors
    /// Why it refuses the command; nothing is appended then.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;
}
