//! HTTP/1.1 as cheap as it gets: what is measured shares the processors with those who call it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// One side of a connection that carries one message after the other, each way.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4096) })
    }

    pub(crate) async fn write(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(message).await?)
    }

    /// The first line of the next message, which is read to its end; `None` at the end of all.
    pub(crate) async fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some((line, length)) = message(&self.read)? {
                self.read.drain(..length);
                return Ok(Some(line));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The first line of the message that `read` begins with, and how long that is; `None` where it is not
/// complete.
fn message(read: &[u8]) -> Result<Option<(String, usize)>> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = std::str::from_utf8(&read[..end])?.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let mut length = end + 4;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length += value.trim().parse::<usize>()?;
        }
    }
    Ok((read.len() >= length).then_some((line, length)))
}
