use std::sync::Arc;

use evenkeel_core::{Batch, Conflict, Error, ErrorKind, Expect, Found, Result, Store};

use crate::flare::Shared;
use crate::task::Task;
use crate::{Flare, NewResource, Resource, places};

impl Flare {
    /// Creates a resource.
    ///
    /// # Errors
    /// `AlreadyExists` where another resource has the same documents, whatever it calls its
    /// wildcards; those of the store.
    pub async fn create_resource(&self, new: NewResource) -> Result<Resource> {
        let shared = &*self.shared;
        let now = shared.now();
        let mut batch = Batch::new(places::catalog(&shared.store), now);
        let NewResource { endpoint, change } = new;
        let resource = Resource { id: batch.id().to_string(), endpoint, change, created_at: now };
        let taken = places::resource_endpoint(&resource.endpoint.pattern());
        let value = serde_json::to_vec(&resource).expect("a resource is JSON");
        batch.put(taken, resource.id.clone(), Expect::Absent);
        batch.put(places::resource(&resource.id), value, Expect::Absent);
        Shared::change_catalog(&mut batch);
        match shared.store.commit(batch).await {
            Ok(_) => {
                shared.catalog_now().await?;
                Ok(resource)
            }
            Err(error) => {
                Err(exists(error, "a resource with the same documents exists", resource.endpoint.as_str()))
            }
        }
    }

    /// A resource.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; those of the store.
    pub async fn resource(&self, id: &str) -> Result<Resource> {
        let snapshot = self.shared.catalog_now().await?;
        snapshot.resource(id).map(|entry| entry.resource.clone()).ok_or_else(|| no_resource(id))
    }

    /// All resources, in the order of their creation.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn resources(&self) -> Result<Vec<Resource>> {
        let snapshot = self.shared.catalog_now().await?;
        let mut resources: Vec<_> = snapshot.resources().map(|entry| entry.resource.clone()).collect();
        resources.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(resources)
    }

    /// Deletes a resource and its documents.
    ///
    /// # Errors
    /// `NotFound` where there is none of this id; `Conflict` where it has subscriptions; those of
    /// the store.
    pub async fn delete_resource(&self, id: &str) -> Result<()> {
        let shared = &*self.shared;
        loop {
            let snapshot = shared.catalog_now().await?;
            let entry = Arc::clone(snapshot.resource(id).ok_or_else(|| no_resource(id))?);
            if !entry.subscribers.is_empty() {
                return Err(Error::new(ErrorKind::Conflict, "the resource has subscriptions")
                    .with("resource", id)
                    .with("subscriptions", entry.subscribers.len()));
            }
            let mut batch = Batch::new(places::catalog(&shared.store), shared.now());
            batch.delete(places::resource(id), Expect::Version(entry.version));
            batch.delete(places::resource_endpoint(&entry.resource.endpoint.pattern()), Expect::Any);
            Shared::change_catalog(&mut batch);
            Task::Purge { resource: id.to_owned(), partition: 0, page: 0 }.push(&mut batch, b"");
            match shared.store.commit(batch).await {
                // Somebody subscribed, or deleted it, meanwhile.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                result => {
                    result?;
                    return shared.catalog_now().await.map(drop);
                }
            }
        }
    }
}

/// Says `message` where `error` is that the first operation's record exists.
pub(crate) fn exists(error: Error, message: &'static str, endpoint: &str) -> Error {
    match error.conflict() {
        Some(Conflict { op: 0, found: Found::Record { record: Some(record), .. } }) => {
            Error::new(ErrorKind::AlreadyExists, message)
                .with("endpoint", endpoint)
                .with("id", String::from_utf8_lossy(&record.value))
        }
        _ => error,
    }
}

pub(crate) fn no_resource(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such resource").with("resource", id.escape_debug())
}
