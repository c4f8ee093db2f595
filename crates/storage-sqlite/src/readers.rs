//! The threads that read, each on a connection of its own: a query that had to travel to another
//! thread row by row would cost several times what SQLite does.

use std::thread;

use evenkeel_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::oneshot;

/// What a reader is asked.
type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// Asks whichever reader is free first. The readers end with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    line: flume::Sender<Question>,
}

impl Readers {
    /// A reader on each of the connections.
    pub(crate) fn start(connections: impl IntoIterator<Item = Result<Connection>>) -> Result<Self> {
        let (line, questions) = flume::unbounded::<Question>();
        for connection in connections {
            let (mut connection, questions) = (connection?, questions.clone());
            let answer_all = move || questions.into_iter().for_each(|question| question(&mut connection));
            start_thread("evenkeel-sqlite-r", answer_all)?;
        }
        Ok(Self { line })
    }

    /// What `question` finds. One whose asker went away before its turn is not asked.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if !reply.is_closed() {
                // Who went away meanwhile does not want to know.
                let _ = reply.send(question(connection));
            }
        });
        let stopped = || Error::new(ErrorKind::Unavailable, "the store's readers have stopped");
        self.line.send(question).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Runs `work` on a thread of its own.
pub(crate) fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|source| {
        Error::new(ErrorKind::Unavailable, "a thread could not be started").with_source(source)
    })
}
