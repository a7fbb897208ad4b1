// SPDX-License-Identifier: GPL-2.0

//! Bytes that a device gives to its driver one buffer after the other: random numbers, what was
//! typed, what a serial line received.

use super::{
    payload::InBuf,
    queue::Queue, //
};

use kernel::prelude::*;

/// A queue whose buffers the device fills, read as one stream of bytes.
///
/// The device has all buffers of `N` bytes but the one that is being read, which it gets back when
/// nothing is left in that.
///
/// # Examples
///
/// ```
/// use crate::virtio::prelude::*;
///
/// /// Drops what has arrived so far; returns how much that was.
/// fn skip<const N: usize>(stream: &mut InStream<N>) -> Result<usize> {
///     let mut count = 0;
///
///     loop {
///         match stream.read(usize::MAX)? {
///             [] => return Ok(count),
///             bytes => count += bytes.len(),
///         }
///     }
/// }
/// ```
pub struct InStream<const N: usize> {
    queue: Queue<InBuf<N>>,
    depth: usize,
    /// What the device has filled and nobody has read to its end.
    current: Option<KBox<InBuf<N>>>,
}

impl<const N: usize> InStream<N> {
    /// Fills a queue with `depth` buffers, or fewer if it is smaller. Once the device is live,
    /// [`Self::notify`] lets it begin.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what [`Queue::add`] says of the first one.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(queue: Queue<InBuf<N>>, depth: usize) -> Result<Self> {
        for count in 0..depth {
            match queue.add(InBuf::new()?) {
                Ok(()) => (),
                // A small queue has room for fewer.
                Err((error, _)) if error == ENOSPC && count > 0 => break,
                Err((error, _)) => return Err(error),
            }
        }
        Ok(Self {
            queue,
            depth,
            current: None,
        })
    }

    /// Notifies the device of its buffers.
    ///
    /// # Errors
    ///
    /// As for [`Queue::notify`].
    ///
    /// # Context
    ///
    /// Any.
    pub fn notify(&self) -> Result {
        self.queue.notify()
    }

    /// Takes the next bytes, at most `max`; none if the device has not written any more yet.
    ///
    /// These are bytes of one buffer, so there may be more than what is returned.
    ///
    /// # Errors
    ///
    /// `EIO` if the queue is broken and nothing is left; those of [`Queue::send`].
    ///
    /// # Context
    ///
    /// Any.
    #[inline]
    pub fn read(&mut self, max: usize) -> Result<&[u8]> {
        if self.current.as_ref().is_none_or(|buf| buf.is_empty()) {
            self.go_on()?;
        }
        Ok(match &mut self.current {
            Some(buf) => buf.take(max),
            None => &[],
        })
    }

    /// Gives the buffer at hand back, and takes one with something in it, if there is any.
    #[cold]
    fn go_on(&mut self) -> Result {
        // A device that fills its buffers with nothing must not keep us here.
        for _ in 0..=self.depth {
            if let Some(buf) = self.current.take() {
                self.queue.send(buf).map_err(|(error, _)| error)?;
            }
            self.current = self.queue.take_used();
            match &self.current {
                Some(buf) if buf.is_empty() => (),
                None if self.queue.is_broken() => return Err(EIO),
                _ => break,
            }
        }
        Ok(())
    }
}
