//! What a table says that it is.

use evenkeel_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::client::Dynamo;
use crate::keys;
use crate::rows::{self, Item, binary_id, number};
use crate::write::{Action, Guard, Resent, Write};

/// The form in which this release keeps things.
const FORMAT: u32 = 1;

/// Checks that the table keeps a store of this form with this many partitions; a new table is made
/// one.
pub(crate) async fn verify(dynamo: &Dynamo, partitions: u32) -> Result<()> {
    if let Some(item) = dynamo.get(&keys::store(), "opening").await? {
        return check(&item, partitions);
    }
    let mut item = keys::store().attributes();
    rows::set(&mut item, "format", number(FORMAT));
    rows::set(&mut item, "partitions", number(partitions));
    rows::set(&mut item, "id", binary_id(Uuid::new_v4()));
    let guard = Some(Guard::no_item());
    let write = Write { key: keys::store(), action: Action::Put(item), guard, resent: Resent::Unclear };
    // Where another was first, that one's counts; where the answer is lost, what stands there tells.
    match dynamo.write(vec![write]).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
        Err(error) => return Err(error),
    }
    let item = dynamo.get(&keys::store(), "opening").await?;
    let item = item.ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "what the table says of itself was not written, or was removed")
            .with("table", &dynamo.table)
    })?;
    check(&item, partitions)
}

fn check(item: &Item, partitions: u32) -> Result<()> {
    let format: u32 = rows::needed(item, "format")?;
    if format > FORMAT {
        return Err(Error::new(
            ErrorKind::Config,
            "a newer evenkeel keeps this table: open it with that release or a later one",
        )
        .with("format", format)
        .with("known up to", FORMAT));
    }
    let created_with: u32 = rows::needed(item, "partitions")?;
    if created_with != partitions {
        return Err(Error::new(ErrorKind::Config, "the store was created with another number of partitions")
            .with("created with", created_with)
            .with("opened with", partitions));
    }
    Ok(())
}
