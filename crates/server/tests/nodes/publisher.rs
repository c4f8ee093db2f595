use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::common::process::PATIENCE;

pub(crate) const TEMPLATE: &str = "https://shop.example/documents/{document}";

/// How many documents each publisher has for itself.
const DOCUMENTS: usize = 10;

/// Publishes documents of its own, one request at a time, each until it is known to be done.
pub(crate) struct Publisher {
    number: usize,
    cluster: Arc<Cluster>,
    documents: BTreeMap<String, i64>,
}

impl Publisher {
    pub(crate) fn new(number: usize, cluster: Arc<Cluster>) -> Self {
        Self { number, cluster, documents: BTreeMap::new() }
    }

    /// Returns the documents that are there in the end, with their revisions.
    pub(crate) async fn publish_until(mut self, over: watch::Receiver<bool>) -> BTreeMap<String, i64> {
        let mut revision = 0;
        while !*over.borrow() {
            revision += 1;
            let document = format!("{}-{}", self.number, fastrand::usize(..DOCUMENTS));
            if self.documents.contains_key(&document) && fastrand::u32(..8) == 0 {
                // A retry of what was done may find that there is nothing left to delete.
                self.insist(Method::DELETE, &document, "", &[StatusCode::ACCEPTED, StatusCode::NOT_FOUND])
                    .await;
                self.documents.remove(&document);
            } else {
                let content = json!({ "version": revision }).to_string();
                self.insist(Method::PUT, &document, &content, &[StatusCode::ACCEPTED]).await;
                self.documents.insert(document, revision);
            }
        }
        self.documents
    }

    /// Sends a request to one server after the other until one of them says that it is done.
    async fn insist(&self, method: Method, document: &str, content: &str, done: &[StatusCode]) {
        let path = format!("/documents/{}", TEMPLATE.replace("{document}", document));
        let insisting = async {
            loop {
                let request = Request::builder().method(method.clone()).uri(&path);
                let request = request.body(Full::<Bytes>::from(content.to_owned())).unwrap();
                match self.cluster.any().send(request).await {
                    Ok(answer) if done.contains(&answer.status) => return,
                    Ok(answer) => {
                        assert!(answer.status.is_server_error(), "{method} {path}: {}", answer.text())
                    }
                    // It was killed, and whether it was done is not known.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(PATIENCE, insisting).await.expect("a server answers");
    }
}
