//! Messages between workers, and from the daemon to them: bounded channels with a
//! knock on the door.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError, error::TrySendError};

use super::relay_sockets::Held;
use super::tcp_relay::Moving;
use crate::io::Waker;
use crate::tls::Certificates;
use crate::turn::ShardMessage;

/// Messages that may wait for a worker.
const CAPACITY: usize = 4096;

/// Messages taken per turn.
const BUDGET: usize = 256;

/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Something for a worker.
#[derive(Debug)]
pub enum Mail {
    /// A core says something to this worker's core.
    Shard {
        /// The sender.
        from: u16,
        /// What it says.
        message: ShardMessage,
        /// The sockets that the message hands over.
        held: Vec<Held>,
    },
    /// A client's connection that belongs here.
    Connection(Moving),
    /// Certificates for sessions that begin from now on.
    Certificates(Arc<Certificates>),
    /// End every allocation and return.
    Stop,
}

/// The receiving end.
pub struct Mailbox {
    queue: mpsc::Receiver<Mail>,
    waker: Waker,
}

/// A sending end.
#[derive(Clone)]
pub struct Post {
    queue: mpsc::Sender<Mail>,
    waker: Waker,
}

impl Mailbox {
    /// A mailbox and a post to it.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> io::Result<(Self, Post)> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let waker = Waker::new()?;
        Ok((Self { queue: receiver, waker: waker.clone() }, Post { queue: sender, waker }))
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl Post {
    /// Delivers, or gives the mail back when the box is full. A box whose owner
    /// is gone swallows it.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        match self.queue.try_send(mail) {
            Ok(()) => {
                // The counter of an eventfd cannot overflow from knocks that the
                // owner reads; an error here is not one of delivery.
                let _ = self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(mail)) => Err(mail),
            Err(TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// A worker's mail, in and out. What does not fit a full mailbox waits here: a
/// message between cores is never lost. Their number is bounded by that of the
/// allocations they are about.
pub(super) struct Exchange {
    index: u16,
    inbox: Mailbox,
    posts: Vec<Post>,
    waiting: Vec<VecDeque<Mail>>,
}

impl Exchange {
    pub(super) fn new(index: u16, inbox: Mailbox, posts: Vec<Post>) -> Self {
        let waiting = posts.iter().map(|_| VecDeque::new()).collect();
        Self { index, inbox, posts, waiting }
    }

    /// The next message; `None` when there is none or the turn's budget is used up.
    pub(super) fn receive(&mut self, taken: &mut usize) -> Option<Mail> {
        if *taken == 0 {
            // A failed read leaves the door marked as knocked at: one turn more.
            let _ = self.inbox.waker.drain();
        }
        if *taken == BUDGET {
            // There may be more; come back for it.
            let _ = self.inbox.waker.wake();
            return None;
        }
        *taken += 1;
        match self.inbox.queue.try_recv() {
            Ok(mail) => Some(mail),
            Err(TryRecvError::Disconnected) => Some(Mail::Stop),
            Err(TryRecvError::Empty) => None,
        }
    }

    pub(super) fn send(&mut self, to: u16, message: ShardMessage, held: Vec<Held>) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(to)) {
            waiting.push_back(Mail::Shard { from: self.index, message, held });
        }
    }

    /// Hands a client's connection to another worker.
    pub(super) fn send_connection(&mut self, to: u16, moving: Moving) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(to)) {
            waiting.push_back(Mail::Connection(moving));
        }
    }

    /// Delivers what waits, as far as there is room.
    pub(super) fn deliver(&mut self) {
        for (post, waiting) in self.posts.iter().zip(&mut self.waiting) {
            while let Some(mail) = waiting.pop_front() {
                if let Err(mail) = post.send(mail) {
                    waiting.push_front(mail);
                    break;
                }
            }
        }
    }

    /// How soon to come back when something still waits.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.waiting.iter().any(|w| !w.is_empty()).then_some(RETRY)
    }
}
