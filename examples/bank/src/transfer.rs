use std::error::Error as StdError;
use std::time::Duration;

use evenkeel::choreograph::{Definition, RetryPolicy, StepContext, StepKey};
use evenkeel::core::{BoxError, Result, Store};
use evenkeel::projections::{CommandError, Repository};
use serde::{Deserialize, Serialize};

use crate::account::{Account, Command, Refused};

pub(crate) const NAME: &str = "transfer";

const SEND: StepKey<()> = StepKey::new("send");
const RECEIVE: StepKey<()> = StepKey::new("receive");

/// What is to be moved. Its id is that of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    from: String,
    to: String,
    cents: i64,
}

/// The steps of a transfer between accounts that may be in different partitions, where no commit can
/// have both: money leaves the one, and comes to the other or back.
///
/// Each is a command to an account under the transfer's id, which is carried out once however often
/// it is given. A store that fails is waited out, since nobody knows what it did: only a refusal is a
/// reason to give money back.
pub(crate) fn definition<S: Store + Clone>(
    accounts: &Repository<Account, S>,
) -> Result<Definition<Transfer>> {
    let patient =
        RetryPolicy::attempts(u32::MAX).first(Duration::from_millis(50)).longest(Duration::from_secs(2));
    let does = |command: fn(&Context) -> (String, Command)| {
        let accounts = accounts.clone();
        move |ctx: Context| {
            let (accounts, (account, command)) = (accounts.clone(), command(&ctx));
            async move { execute(&accounts, &account, &command).await }
        }
    };
    Definition::builder(NAME)
        .step(SEND, does(send))
        .retry(patient)
        .non_retryable(is_refusal)
        .compensate_with(patient, does(take_back))
        .step(RECEIVE, does(receive))
        .retry(patient)
        .non_retryable(is_refusal)
        .build()
}

type Context = StepContext<Transfer>;

fn send(ctx: &Context) -> (String, Command) {
    let (transfer, Transfer { from, to, cents }) = (ctx.run_id().to_owned(), ctx.input().clone());
    (from, Command::Send { transfer, to, cents })
}

fn receive(ctx: &Context) -> (String, Command) {
    let (transfer, Transfer { from, to, cents }) = (ctx.run_id().to_owned(), ctx.input().clone());
    (to, Command::Receive { transfer, from, cents })
}

fn take_back(ctx: &Context) -> (String, Command) {
    (ctx.input().from.clone(), Command::TakeBack { transfer: ctx.run_id().to_owned() })
}

async fn execute<S: Store + Clone>(
    accounts: &Repository<Account, S>,
    account: &str,
    command: &Command,
) -> Result<(), BoxError> {
    match accounts.execute(account, command).await {
        Ok(_) => Ok(()),
        Err(CommandError::Refused(refused)) => Err(refused.into()),
        Err(CommandError::Store(error)) => Err(error.into()),
    }
}

fn is_refusal(error: &(dyn StdError + 'static)) -> bool {
    error.is::<Refused>()
}
