//! The load, in a process of its own: requests over connections that stay, either as fast as they
//! are answered or at a given rate. What it did is written to a file.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future;
use serde::{Deserialize, Serialize};
use shared::time::{Clock as _, SystemClock};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

use self::request::{Request, Shape, Target};
use crate::mark::{Mark, now_us};
use crate::percentiles::{Percentiles, Samples};
use crate::usage;
use crate::wire::Connection;

pub(crate) mod bare;
pub(crate) mod request;

/// How often the load looks how far the deliveries are.
const LOOK: Duration = Duration::from_millis(4);
/// A sleeping process wakes up a little late; what is later than this is the machine's being
/// overloaded, and counts towards the latency of what is sent.
const LATE_US_MAX: u64 = 2_000;

/// What the child is told by its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    /// Taken in turn.
    pub(crate) targets: Vec<Target>,
    pub(crate) shape: Shape,
    /// Of an event as it is sent, about.
    pub(crate) event_bytes: usize,
    /// Events of a request.
    pub(crate) batch: usize,
    /// Ordering keys of each target; at least as many as there are connections.
    pub(crate) keys: u64,
    pub(crate) connections: u64,
    pub(crate) pace: Pace,
    pub(crate) until: Until,
    pub(crate) ahead: Option<Ahead>,
    /// Where [`Done`] goes.
    pub(crate) result: PathBuf,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// The next request of a connection goes when the one before it is answered.
    AsAnswered,
    /// Requests begin at this rate, however long they take.
    PerSecond(f64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Until {
    Seconds(f64),
    Requests(u64),
}

/// The load stays this close to the deliveries: what waits in a backlog says nothing of the rate
/// at which events go through.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ahead {
    /// Of the receiver.
    pub(crate) control: SocketAddr,
    pub(crate) deliveries_max: u64,
    /// Deliveries that an event leads to.
    pub(crate) webhooks: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Answered with success.
    pub(crate) events: u64,
    pub(crate) refused_requests: u64,
    /// The answer to the first of these.
    pub(crate) refusal: Option<String>,
    pub(crate) started_at_us: u64,
    /// To the last answer.
    pub(crate) seconds: f64,
    /// From the sending of each request to its answer.
    pub(crate) answered_ms: Option<Percentiles>,
    pub(crate) cpu_seconds: f64,
}

/// Shared by the connections.
struct Load<'a> {
    plan: &'a Plan,
    clock: SystemClock,
    begun: Cell<u64>,
    /// As many requests as may have begun by now.
    may_begin: Cell<u64>,
    moved: Notify,
    /// Times of requests that wait for a connection, at a given rate.
    due: RefCell<VecDeque<u64>>,
    waiting: Semaphore,
    is_over: Cell<bool>,
    events: Cell<u64>,
    refused: Cell<u64>,
    refusal: RefCell<Option<String>>,
    answered: RefCell<Samples>,
}

/// Does what `plan` says, and writes what was done.
pub(crate) async fn drive(plan: &Plan) -> Result<()> {
    ensure!(plan.keys >= plan.connections, "a key for each connection");
    ensure!(!plan.targets.is_empty(), "somewhere to send to");
    let load = Load {
        plan,
        clock: SystemClock::new(),
        begun: Cell::new(0),
        may_begin: Cell::new(match plan.ahead {
            None => u64::MAX,
            Some(ahead) => ahead.may_begin(0, plan),
        }),
        moved: Notify::new(),
        due: RefCell::default(),
        waiting: Semaphore::new(0),
        is_over: Cell::new(false),
        events: Cell::new(0),
        refused: Cell::new(0),
        refusal: RefCell::default(),
        answered: RefCell::default(),
    };
    let connections = (0..plan.connections).map(|number| Sender::open(&load, number));
    let senders = future::try_join_all(connections).await?;
    let started_at_us = now_us(&load.clock);
    let sending = async {
        future::try_join_all(senders.into_iter().map(Sender::send_all)).await?;
        load.is_over.set(true);
        anyhow::Ok(())
    };
    tokio::try_join!(sending, load.pace(), load.stay_close())?;
    let took_us = now_us(&load.clock).saturating_sub(started_at_us);
    let done = Done {
        events: load.events.get(),
        refused_requests: load.refused.get(),
        refusal: load.refusal.take(),
        started_at_us,
        seconds: Duration::from_micros(took_us).as_secs_f64(),
        answered_ms: load.answered.borrow().percentiles(),
        cpu_seconds: usage::cpu_seconds(std::process::id())?,
    };
    std::fs::write(&plan.result, serde_json::to_vec(&done)?).context("writing the result")
}

impl Ahead {
    fn may_begin(&self, delivered: u64, plan: &Plan) -> u64 {
        let per_request = self.webhooks * u64::try_from(plan.batch).unwrap_or(1);
        (delivered + self.deliveries_max) / per_request.max(1)
    }
}

impl Load<'_> {
    /// Hands out the times at which requests are due.
    async fn pace(&self) -> Result<()> {
        let Pace::PerSecond(rate) = self.plan.pace else {
            return Ok(());
        };
        let requests = match self.plan.until {
            Until::Seconds(seconds) => seconds * rate,
            Until::Requests(requests) => f64::from(u32::try_from(requests)?),
        };
        let (began, began_us) = (Instant::now(), now_us(&self.clock));
        let mut number = 0.0;
        while number < requests {
            let after = Duration::from_secs_f64(number / rate);
            sleep_until(began + after).await;
            let due_us = began_us + u64::try_from(after.as_micros())?;
            let now = now_us(&self.clock);
            let is_late = now.saturating_sub(due_us) > LATE_US_MAX;
            self.due
                .borrow_mut()
                .push_back(if is_late { due_us } else { now });
            self.waiting.add_permits(1);
            number += 1.0;
        }
        // What waits is still taken; then there is nothing more to wait for.
        self.is_over.set(true);
        self.waiting
            .add_permits(usize::try_from(self.plan.connections)?);
        Ok(())
    }

    /// Asks the receiver how far it is, and lets the connections go on accordingly.
    async fn stay_close(&self) -> Result<()> {
        let Some(ahead) = self.plan.ahead else {
            return Ok(());
        };
        let mut control = Connection::new(TcpStream::connect(ahead.control).await?);
        while !self.is_over.get() {
            control.write(b"GET /count HTTP/1.1\r\n\r\n").await?;
            let count = control.next(|answer| {
                let text = std::str::from_utf8(answer.body).unwrap_or_default();
                text.parse::<u64>().unwrap_or_default()
            });
            let count = count.await?.context("the receiver is gone")?;
            self.may_begin.set(ahead.may_begin(count, self.plan));
            self.moved.notify_waiters();
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until one more request may begin; gives its number and the time that counts as its
    /// sending. `None` when there are no more.
    async fn next(&self, until: Option<Duration>) -> Result<Option<(u64, u64)>> {
        if let Pace::PerSecond(_) = self.plan.pace {
            self.waiting.acquire().await?.forget();
            let due = self.due.borrow_mut().pop_front();
            return Ok(due.map(|at_us| (self.begin(), at_us)));
        }
        loop {
            let is_over = match self.plan.until {
                Until::Seconds(_) => until.is_some_and(|until| self.clock.elapsed() >= until),
                Until::Requests(requests) => self.begun.get() >= requests,
            };
            if is_over {
                return Ok(None);
            }
            if self.begun.get() < self.may_begin.get() {
                return Ok(Some((self.begin(), now_us(&self.clock))));
            }
            self.moved.notified().await;
        }
    }

    fn begin(&self) -> u64 {
        let number = self.begun.get();
        self.begun.set(number + 1);
        number
    }
}

/// One connection.
struct Sender<'a> {
    load: &'a Load<'a>,
    connection: Connection<TcpStream>,
    requests: Vec<Request>,
    /// Of the connection.
    number: u64,
    /// Events of this connection so far.
    sent: u64,
}

impl<'a> Sender<'a> {
    async fn open(load: &'a Load<'a>, number: u64) -> Result<Self> {
        let plan = load.plan;
        let stream = TcpStream::connect(plan.address)
            .await
            .context("connecting")?;
        stream.set_nodelay(true)?;
        let requests = plan.targets.iter().map(|target| {
            Request::new(
                plan.shape,
                target,
                plan.address,
                plan.event_bytes,
                plan.batch,
            )
        });
        Ok(Self {
            load,
            connection: Connection::new(stream),
            requests: requests.collect::<Result<_>>()?,
            number,
            sent: 0,
        })
    }

    /// Sends until there is nothing more to send. Keys are divided among the connections, so that
    /// events of one key follow each other.
    async fn send_all(mut self) -> Result<()> {
        let plan = self.load.plan;
        let until = match plan.until {
            Until::Seconds(seconds) => {
                Some(self.load.clock.elapsed() + Duration::from_secs_f64(seconds))
            }
            Until::Requests(_) => None,
        };
        let own_keys = (plan.keys - self.number).div_ceil(plan.connections);
        let targets = u64::try_from(plan.targets.len())?;
        while let Some((request, at_us)) = self.load.next(until).await? {
            let target = usize::try_from(request % targets)?;
            let request = self.requests.get_mut(target).context("a target")?;
            for place in 0..plan.batch {
                self.sent += 1;
                let key = self.number + self.sent % own_keys * plan.connections;
                let mark = Mark {
                    at_us,
                    key,
                    number: self.sent,
                };
                request.mark(place, &mark);
            }
            self.connection.write(request.signed()).await?;
            let answer = self.connection.next(|answer| {
                let is_taken = (200..300).contains(&answer.status());
                (!is_taken).then(|| String::from_utf8_lossy(answer.body).into_owned())
            });
            let refusal = answer.await?.context("the connection was closed")?;
            self.count(refusal, at_us);
        }
        Ok(())
    }

    fn count(&self, refusal: Option<String>, at_us: u64) {
        let load = self.load;
        if let Some(refusal) = refusal {
            load.refused.set(load.refused.get() + 1);
            load.refusal.borrow_mut().get_or_insert(refusal);
        } else {
            let events = u64::try_from(load.plan.batch).unwrap_or_default();
            load.events.set(load.events.get() + events);
        }
        let now = now_us(&load.clock);
        load.answered.borrow_mut().add_us(at_us, now);
    }
}
