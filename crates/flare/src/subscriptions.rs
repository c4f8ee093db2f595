use std::sync::Arc;

use evenkeel_core::{Batch, Error, ErrorKind, Expect, Result, Store, Timestamp};

use crate::catalog::{Entry, Subscriber};
use crate::flare::Shared;
use crate::plan::Plan;
use crate::resources::{exists, no_resource};
use crate::signing::Secret;
use crate::subscription::Key;
use crate::task::Task;
use crate::{Backfill, Flare, NewSubscription, Status, Subscription, places};

/// How long a secret that was replaced still signs, unless told otherwise.
pub const GRACE: std::time::Duration = std::time::Duration::from_hours(24);

/// The most secrets that sign at a time: the one in use, and those it replaced.
const MOST_SECRETS: usize = 11;

impl Flare {
    /// Subscribes to a resource. Returns the subscription and the secret that signs its messages,
    /// which is told only here and when it is rotated.
    ///
    /// # Errors
    /// `NotFound` where there is no such resource; `InvalidInput` naming the field and value that
    /// break a rule; `AlreadyExists` where the resource has a subscription of the same URLs; those
    /// of the store.
    pub async fn subscribe(&self, resource: &str, new: NewSubscription) -> Result<(Subscription, Secret)> {
        let shared = &*self.shared;
        loop {
            let snapshot = shared.catalog_now().await?;
            let entry = Arc::clone(snapshot.resource(resource).ok_or_else(|| no_resource(resource))?);
            let now = shared.now();
            let mut batch = Batch::new(places::catalog(&shared.store), now);
            let id = batch.id().to_string();
            let secret = match &new.secret {
                Some(secret) => secret.parse()?,
                None => Secret::generate(),
            };
            let key = Key {
                sealed: shared.settings.vault.seal(&secret.to_string(), &id)?,
                created_at: now,
                until: None,
            };
            let subscription = Subscription {
                id,
                resource: resource.to_owned(),
                endpoint: new.endpoint.clone(),
                delivery: new.delivery.clone(),
                content: new.content,
                data: new.data.clone(),
                filter: new.filter.clone(),
                status: Status::Active,
                created_at: now,
                resumed_at: None,
                problem: None,
                keys: vec![key],
            };
            Plan::new(&subscription, &entry.resource, &shared.settings.vault, now)?;
            if let Some(urls) = subscription.endpoint.urls() {
                batch.put(
                    places::subscription_endpoint(resource, &urls),
                    subscription.id.clone(),
                    Expect::Absent,
                );
            }
            batch.put(
                places::subscription(resource, &subscription.id),
                subscription.encode(),
                Expect::Absent,
            );
            touch(&mut batch, &entry);
            if new.backfill == Backfill::All {
                Task::Backfill { subscription: subscription.id.clone(), partition: 0, after: None }
                    .push(&mut batch, b"");
            }
            match shared.store.commit(batch).await {
                Ok(_) => {
                    shared.catalog_now().await?;
                    return Ok((subscription, secret));
                }
                Err(error) => {
                    let urls = subscription.endpoint.urls().unwrap_or_default();
                    let error = exists(error, "the resource has a subscription of the same url", &urls);
                    // Somebody else changed the resource's subscriptions meanwhile.
                    if error.kind() != ErrorKind::Conflict {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A subscription.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; those of the store.
    pub async fn subscription(&self, id: &str) -> Result<Subscription> {
        let subscriber = self.shared.subscriber_of(id).await?;
        Ok(subscriber.subscription.clone())
    }

    /// The subscriptions of a resource, in the order of their creation.
    ///
    /// # Errors
    /// `NotFound` where there is no such resource; those of the store.
    pub async fn subscriptions(&self, resource: &str) -> Result<Vec<Subscription>> {
        let snapshot = self.shared.catalog_now().await?;
        let entry = snapshot.resource(resource).ok_or_else(|| no_resource(resource))?;
        Ok(entry.subscribers.iter().map(|subscriber| subscriber.subscription.clone()).collect())
    }

    /// Ends a subscription. What waits for it is forgotten by and by; an attempt that is under way
    /// may still arrive.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; those of the store.
    pub async fn unsubscribe(&self, id: &str) -> Result<()> {
        self.change(id, |batch, subscriber, _| {
            let Subscription { resource, endpoint, .. } = &subscriber.subscription;
            batch.delete(places::subscription(resource, id), Expect::Version(subscriber.version));
            if let Some(urls) = endpoint.urls() {
                batch.delete(places::subscription_endpoint(resource, &urls), Expect::Any);
            }
            Task::Forget { subscription: id.to_owned(), page: 0 }.push(batch, b"");
            Ok(())
        })
        .await
    }

    /// Says whether deliveries are made; what is published meanwhile waits, one delivery for each
    /// document. Made active again, everything that waits falls due at once.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; those of the store.
    pub async fn set_status(&self, id: &str, status: Status) -> Result<()> {
        let now = self.shared.now();
        self.replace(id, |subscription, batch| {
            subscription.status = status;
            if status == Status::Active {
                subscription.resumed_at = Some(now);
                Task::rearm(id).push(batch, b"");
            }
            Ok(())
        })
        .await
    }

    /// Disables a subscription, unless it was made active again since `resumed_at`.
    pub(crate) async fn disable_since(&self, id: &str, resumed_at: Option<Timestamp>) -> Result<()> {
        self.replace(id, |subscription, _| {
            if subscription.status == Status::Active && subscription.resumed_at == resumed_at {
                subscription.status = Status::Disabled;
            }
            Ok(())
        })
        .await
    }

    /// Lets everything that waits fall due at once: deliveries that are to be tried later, and those
    /// that were tried for the last time.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; those of the store.
    pub async fn recover(&self, id: &str) -> Result<()> {
        let shared = &*self.shared;
        let subscriber = shared.subscriber_of(id).await?;
        let mut batch = Batch::new(subscriber.at.clone(), shared.now());
        Task::rearm(id).push(&mut batch, b"");
        shared.store.commit(batch).await.map(drop)
    }

    /// Replaces the secret that signs a subscription's messages. Those before it sign beside it
    /// until `grace` is over, so that the subscriber can change over.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; `InvalidInput` where ten replaced secrets still
    /// sign; those of the store.
    pub async fn rotate_secret(
        &self,
        id: &str,
        secret: Option<Secret>,
        grace: std::time::Duration,
    ) -> Result<Secret> {
        let (now, vault) = (self.shared.now(), &self.shared.settings.vault);
        let secret = secret.unwrap_or_else(Secret::generate);
        let sealed = vault.seal(&secret.to_string(), id)?;
        self.replace(id, |subscription, _| {
            subscription.keys.retain(|key| key.signs_at(now));
            if subscription.keys.len() >= MOST_SECRETS {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "ten replaced secrets still sign; wait until one is over",
                )
                .with("subscription", id));
            }
            for key in &mut subscription.keys {
                key.until = Some(key.until.unwrap_or(Timestamp::MAX).min(now + grace));
            }
            subscription.keys.insert(0, Key { sealed: sealed.clone(), created_at: now, until: None });
            Ok(())
        })
        .await?;
        Ok(secret)
    }

    /// Changes the record of a subscription.
    pub(crate) async fn replace(
        &self,
        id: &str,
        change: impl Fn(&mut Subscription, &mut Batch) -> Result<()>,
    ) -> Result<()> {
        self.change(id, |batch, subscriber, _| {
            let mut subscription = subscriber.subscription.clone();
            change(&mut subscription, batch)?;
            let key = places::subscription(&subscription.resource, id);
            batch.put(key, subscription.encode(), Expect::Version(subscriber.version));
            Ok(())
        })
        .await
    }

    /// Commits what `write` writes of a subscription, looking again where it changed meanwhile.
    async fn change(
        &self,
        id: &str,
        write: impl Fn(&mut Batch, &Subscriber, &Entry) -> Result<()>,
    ) -> Result<()> {
        let shared = &*self.shared;
        loop {
            let snapshot = shared.catalog_now().await?;
            let subscriber = snapshot.subscriber(id).ok_or_else(|| no_subscription(id))?;
            let entry = snapshot.resource(&subscriber.subscription.resource);
            let entry = entry.ok_or_else(|| no_subscription(id))?;
            let mut batch = Batch::new(places::catalog(&shared.store), shared.now());
            write(&mut batch, subscriber, entry)?;
            touch(&mut batch, entry);
            match shared.store.commit(batch).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                result => {
                    result?;
                    return shared.catalog_now().await.map(drop);
                }
            }
        }
    }
}

impl Shared {
    /// The subscription as it is now.
    pub(crate) async fn subscriber_of(&self, id: &str) -> Result<Arc<Subscriber>> {
        self.catalog_now().await?.subscriber(id).cloned().ok_or_else(|| no_subscription(id))
    }
}

/// Rewrites the resource's record, so that whoever decided on its subscriptions looks again.
fn touch(batch: &mut Batch, entry: &Entry) {
    let value = serde_json::to_vec(&entry.resource).expect("a resource is JSON");
    batch.put(places::resource(&entry.resource.id), value, Expect::Version(entry.version));
    Shared::change_catalog(batch);
}

fn no_subscription(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such subscription").with("subscription", id.escape_debug())
}
