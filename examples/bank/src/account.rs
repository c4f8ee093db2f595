use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use evenkeel::projections::{Aggregate, Event};
use serde::{Deserialize, Serialize};

/// What happens to an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Opened {
        owner: String,
        cents: i64,
    },
    /// Money has left for another account.
    Sent {
        transfer: String,
        to: String,
        cents: i64,
    },
    /// Money has come from another account.
    Received {
        transfer: String,
        from: String,
        cents: i64,
    },
    /// What was sent has come back.
    Returned {
        transfer: String,
        cents: i64,
    },
}

impl Event for AccountEvent {}

impl AccountEvent {
    /// What it adds to the balance.
    pub(crate) fn cents(&self) -> i64 {
        match self {
            Self::Opened { cents, .. } | Self::Received { cents, .. } | Self::Returned { cents, .. } => {
                *cents
            }
            Self::Sent { cents, .. } => -cents,
        }
    }
}

/// What is asked of an account. Asked again, it has been done.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Open { owner: String, cents: i64 },
    Send { transfer: String, to: String, cents: i64 },
    Receive { transfer: String, from: String, cents: i64 },
    TakeBack { transfer: String },
}

/// An account, as its events have made it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    /// `None` where it was never opened.
    pub(crate) owner: Option<String>,
    pub(crate) cents: i64,
    /// The transfers that it sent and received, by which it knows one that it is asked for again. One
    /// to itself is among both.
    sent: BTreeMap<String, Sent>,
    received: BTreeSet<String>,
}

/// What became of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Sent {
    Gone { cents: i64 },
    Back,
}

/// Why an account refuses. It would refuse again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotOpen,
    OpenAlready,
    TooLittle { cents: i64 },
    NotAnAmount { cents: i64 },
}

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
    type Command = Command;
    type Error = Refused;

    fn apply(&mut self, event: &AccountEvent) {
        self.cents += event.cents();
        match event {
            AccountEvent::Opened { owner, .. } => self.owner = Some(owner.clone()),
            AccountEvent::Sent { transfer, cents, .. } => {
                self.sent.insert(transfer.clone(), Sent::Gone { cents: *cents });
            }
            AccountEvent::Received { transfer, .. } => {
                self.received.insert(transfer.clone());
            }
            AccountEvent::Returned { transfer, .. } => {
                self.sent.insert(transfer.clone(), Sent::Back);
            }
        }
    }

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, Refused> {
        let is_open = self.owner.is_some();
        Ok(match command.clone() {
            Command::Open { owner, .. } if self.owner.as_ref() == Some(&owner) => vec![],
            Command::Open { .. } if is_open => return Err(Refused::OpenAlready),
            Command::Open { cents, .. } if cents < 0 => return Err(Refused::NotAnAmount { cents }),
            Command::Open { owner, cents } => vec![AccountEvent::Opened { owner, cents }],
            _ if !is_open => return Err(Refused::NotOpen),
            Command::Send { transfer, .. } if self.sent.contains_key(&transfer) => vec![],
            Command::Receive { transfer, .. } if self.received.contains(&transfer) => vec![],
            Command::Send { cents, .. } if cents <= 0 => return Err(Refused::NotAnAmount { cents }),
            Command::Send { cents, .. } if cents > self.cents => {
                return Err(Refused::TooLittle { cents: self.cents });
            }
            Command::Send { transfer, to, cents } => vec![AccountEvent::Sent { transfer, to, cents }],
            Command::Receive { transfer, from, cents } => {
                vec![AccountEvent::Received { transfer, from, cents }]
            }
            Command::TakeBack { transfer } => match self.sent.get(&transfer) {
                Some(Sent::Gone { cents }) => vec![AccountEvent::Returned { transfer, cents: *cents }],
                Some(Sent::Back) | None => vec![],
            },
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => write!(f, "there is no such account"),
            Self::OpenAlready => write!(f, "the account is somebody else's"),
            Self::TooLittle { cents } => write!(f, "there are only {cents} cents"),
            Self::NotAnAmount { cents } => write!(f, "{cents} cents cannot be moved"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use evenkeel::projections::testing::given;

    use super::*;

    fn opened(cents: i64) -> AccountEvent {
        AccountEvent::Opened { owner: "ada".into(), cents }
    }

    fn sent(cents: i64) -> AccountEvent {
        AccountEvent::Sent { transfer: "t".into(), to: "b".into(), cents }
    }

    fn send(cents: i64) -> Command {
        Command::Send { transfer: "t".into(), to: "b".into(), cents }
    }

    #[test]
    fn no_more_is_sent_than_there_is() {
        given::<Account>(&[opened(5)]).when(&send(5)).then(&[sent(5)]);
        given::<Account>(&[opened(5)]).when(&send(6)).then_refused(&Refused::TooLittle { cents: 5 });
        given::<Account>(&[opened(5)]).when(&send(-1)).then_refused(&Refused::NotAnAmount { cents: -1 });
        given::<Account>(&[]).when(&send(1)).then_refused(&Refused::NotOpen);
    }

    #[test]
    fn what_is_asked_again_has_been_done() {
        let open = Command::Open { owner: "ada".into(), cents: 5 };
        given::<Account>(&[opened(5)]).when(&open).then(&[]);
        given::<Account>(&[opened(5), sent(5)]).when(&send(5)).then(&[]);
        let receive = Command::Receive { transfer: "t".into(), from: "a".into(), cents: 5 };
        let received = AccountEvent::Received { transfer: "t".into(), from: "a".into(), cents: 5 };
        given::<Account>(&[opened(0)]).when(&receive).then(std::slice::from_ref(&received));
        given::<Account>(&[opened(0), received]).when(&receive).then(&[]);
    }

    #[test]
    fn what_an_account_sends_to_itself_arrives() {
        let receive = Command::Receive { transfer: "t".into(), from: "b".into(), cents: 5 };
        let received = AccountEvent::Received { transfer: "t".into(), from: "b".into(), cents: 5 };
        given::<Account>(&[opened(5), sent(5)]).when(&receive).then(std::slice::from_ref(&received));
    }

    #[test]
    fn what_was_sent_comes_back_once() {
        let take_back = Command::TakeBack { transfer: "t".into() };
        let returned = AccountEvent::Returned { transfer: "t".into(), cents: 5 };
        given::<Account>(&[opened(5)]).when(&take_back).then(&[]);
        given::<Account>(&[opened(5), sent(5)]).when(&take_back).then(std::slice::from_ref(&returned));
        given::<Account>(&[opened(5), sent(5), returned]).when(&take_back).then(&[]);
    }
}
