use evenkeel_core::{Error, ErrorKind, Result};

use crate::flare::Shared;
use crate::{Flare, Subscription};

/// What [`Flare::reseal`] came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Resealed {
    /// How many subscriptions have their secrets under the newest key now, and had not before.
    pub resealed: usize,
    /// How many had that already.
    pub current: usize,
    /// Those whose secrets are as they were.
    pub left: Vec<Unsealable>,
}

/// A subscription whose secrets cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unsealable {
    /// Which.
    pub subscription: String,
    /// Why, as that the vault lacks a key, which is named.
    pub error: Error,
}

impl Flare {
    /// Seals the secrets of every subscription under the vault's first key, so that the others are needed
    /// no more.
    ///
    /// # Behavior
    /// - The secrets stay what they are; subscribers notice nothing.
    /// - What is under the first key already stays untouched, so that this can be done again and again.
    /// - Replaced secrets that sign no more are forgotten.
    /// - One that cannot be opened is left as it is, and keeps no other from being sealed.
    /// - Dropping the future leaves some sealed and some not; another time does the rest.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reseal(&self) -> Result<Resealed> {
        let mut report = Resealed::default();
        for resource in self.resources().await? {
            for subscription in self.subscriptions(&resource.id).await? {
                let mut sealed = subscription.clone();
                if let Err(error) = self.shared.reseal(&mut sealed) {
                    report.left.push(Unsealable { subscription: subscription.id, error });
                    continue;
                }
                if sealed == subscription {
                    report.current += 1;
                    continue;
                }
                match self.replace(&subscription.id, |subscription, _| self.shared.reseal(subscription)).await
                {
                    Ok(()) => report.resealed += 1,
                    // It ended meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(report)
    }
}

impl Shared {
    fn reseal(&self, subscription: &mut Subscription) -> Result<()> {
        let (now, vault) = (self.now(), &self.settings.vault);
        subscription.keys.retain(|key| key.signs_at(now));
        for key in &mut subscription.keys {
            key.sealed = vault.reseal(&key.sealed, &subscription.id)?;
        }
        Ok(())
    }
}
