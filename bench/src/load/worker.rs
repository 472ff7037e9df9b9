//! One worker: a thread with its own poll, connections and histograms. Nothing is shared between
//! workers and nothing allocated for a call, so that the load is not what is measured.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use mio::event::Event;
use mio::{Interest, Poll, Token};

use super::clock::{self, Timer};
use super::events::{self, Events, Said};
use super::feed::{Feed, Job, Share};
use super::http::{Reader, Way};
use super::tally::{Failure, SLICES, Tally};
use super::window::{Gauges, Plan, Prepared, Target, Times};
use super::wire::Wire;

const TIMER: Token = Token(usize::MAX);
/// How often calls that take too long are looked for.
const SWEEP: u64 = 50_000_000;
/// A call begun later than this after its time was late because of the load.
const LATE: u64 = 1_000_000;
const BUFFER: usize = 64 << 10;

pub(super) struct Worker<'a> {
    target: &'a Target,
    plan: &'a Plan,
    times: Times,
    gauges: &'a Gauges,
    feed: Feed<'a>,
    poll: Poll,
    timer: Timer,
    places: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    idle: Vec<usize>,
    /// Calls that are due while all connections are taken.
    waiting: VecDeque<Job>,
    under_way: u64,
    swept: u64,
    tally: Tally,
}

/// A connection and the call on it.
struct Connection {
    wire: Wire,
    connected: bool,
    job: Option<Job>,
    sent: usize,
    reader: Reader,
    got: Got,
}

/// What has come of an answer.
#[derive(Default)]
struct Got {
    events: Events,
    whole: Vec<u8>,
    bytes: u64,
    /// When the first and the last piece came; 0 before.
    first: u64,
    last: u64,
    pieces: u64,
    usage: u64,
    ended: bool,
    error: bool,
}

impl Got {
    fn reset(&mut self) {
        self.events.reset();
        self.whole.clear();
        (self.bytes, self.first, self.last) = (0, 0, 0);
        (self.pieces, self.usage) = (0, 0);
        (self.ended, self.error) = (false, false);
    }
}

/// How a turn at a connection ends.
#[derive(Clone, Copy)]
enum Turn {
    /// Nothing more to do now.
    Wait,
    /// The answer is whole.
    Whole,
    /// It is over otherwise.
    Failed(Failure),
    /// An idle connection was closed by the server.
    Gone,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        target: &'a Target,
        plan: &'a Plan,
        made: &'a Prepared,
        share: Share,
        times: Times,
        gauges: &'a Gauges,
    ) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            target,
            plan,
            times,
            gauges,
            feed: Feed::new(plan, target, made, share, (times.start, times.to)),
            timer: Timer::new(&poll, TIMER)?,
            poll,
            places: Vec::new(),
            free: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            under_way: 0,
            swept: 0,
            tally: Tally::default(),
        })
    }

    /// Sends until the window is over and every call has ended or been given up.
    pub(super) fn run(mut self) -> std::io::Result<Tally> {
        let mut events = mio::Events::with_capacity(1_024);
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            let now = clock::now();
            self.begin(now);
            if now >= self.times.end || self.is_over() {
                break;
            }
            if now >= self.swept + SWEEP {
                self.sweep(now);
            }
            let wake = self.feed.next().unwrap_or(u64::MAX);
            self.timer
                .wake_at(wake.min(self.swept + SWEEP).min(self.times.end))?;
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            for event in &events {
                if event.token() == TIMER {
                    self.timer.fired();
                } else {
                    self.turn(event, &mut buffer);
                }
            }
        }
        self.give_up();
        Ok(self.tally)
    }

    fn is_over(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty() && self.feed.next().is_none()
    }

    /// Begins what is due.
    fn begin(&mut self, now: u64) {
        while let Some(job) = self.feed.take(now) {
            if self.in_window(job.due) {
                self.tally.planned += 1;
            }
            self.waiting.push_back(job);
        }
        while !self.waiting.is_empty() {
            let place = self.idle.pop();
            let taken = self.places.len() - self.free.len();
            if place.is_none() && taken >= self.plan.at_once {
                return;
            }
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            if self.in_window(job.due) {
                let lag = now.saturating_sub(job.due);
                self.tally.lag.saturating_record(lag);
                self.tally.late += u64::from(lag > LATE);
            }
            self.under_way += 1;
            self.gauges.in_flight.fetch_add(1, Ordering::Relaxed);
            match place {
                Some(place) => self.send(place, job),
                None => self.connect(job),
            }
        }
    }

    /// Opens a connection for a call.
    fn connect(&mut self, job: Job) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let opened =
            Wire::open(self.target.address, self.target.tls.as_ref()).and_then(|mut wire| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll
                    .registry()
                    .register(wire.tcp(), Token(place), interest)?;
                Ok(wire)
            });
        let Ok(wire) = opened else {
            self.free.push(place);
            self.end(&job, &Got::default(), Some(Failure::Connect), clock::now());
            return;
        };
        self.places[place] = Some(Box::new(Connection {
            wire,
            connected: false,
            job: Some(job),
            sent: 0,
            reader: Reader::new(Way::Answer),
            got: Got::default(),
        }));
    }

    /// Sends a call on an idle connection.
    fn send(&mut self, place: usize, job: Job) {
        let Some(mut connection) = self.places[place].take() else {
            // An idle place always has a connection.
            return;
        };
        connection.sent = 0;
        connection.reader.reset();
        connection.got.reset();
        connection.job = Some(job);
        let turn = self.write(&mut connection);
        self.settle(place, connection, turn);
    }

    /// Serves what the poll says of a connection.
    fn turn(&mut self, event: &Event, buffer: &mut [u8]) {
        let place = event.token().0;
        let Some(mut connection) = self.places.get_mut(place).and_then(Option::take) else {
            return;
        };
        let mut turn = Turn::Wait;
        if !connection.connected {
            match connection.begin() {
                Ok(true) => turn = self.write(&mut connection),
                Ok(false) => {}
                Err(()) => turn = Turn::Failed(Failure::Connect),
            }
        } else if event.is_writable() {
            turn = self.write(&mut connection);
        }
        if matches!(turn, Turn::Wait) && connection.connected {
            turn = self.read(&mut connection, event.is_read_closed(), buffer);
        }
        self.settle(place, connection, turn);
    }

    fn write(&mut self, connection: &mut Connection) -> Turn {
        let Some(job) = &connection.job else {
            return Turn::Wait;
        };
        let before = connection.sent;
        while connection.sent < job.request.len() {
            match connection.wire.write(&job.request[connection.sent..]) {
                Ok(written) => connection.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // An answer may be there already that says why.
                Err(_) => break,
            }
        }
        if connection.wire.push().is_err() {
            return Turn::Failed(Failure::Reset);
        }
        if self.in_window(job.due) {
            let written = connection.sent - before;
            self.tally.bytes_out += u64::try_from(written).unwrap_or(0);
        }
        Turn::Wait
    }

    fn read(&mut self, connection: &mut Connection, closed: bool, buffer: &mut [u8]) -> Turn {
        loop {
            let read = match connection.wire.read(buffer) {
                Ok(0) => return connection.closed(),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return connection.broken(),
            };
            if connection.job.is_none() {
                return Turn::Gone;
            }
            let now = clock::now();
            if self.in_window(now) {
                self.tally.bytes_in += u64::try_from(read).unwrap_or(0);
            }
            let taken = self.take(connection, &buffer[..read], now);
            match taken {
                Some(used) if used < read => return Turn::Failed(Failure::Malformed),
                Some(_) if connection.reader.is_done() => return Turn::Whole,
                Some(_) => {}
                None => return Turn::Failed(Failure::Malformed),
            }
            if read < buffer.len() && !closed && connection.wire.short_read_is_empty() {
                return Turn::Wait;
            }
        }
    }

    /// Takes bytes of an answer; `None` where they are no HTTP.
    fn take(&mut self, connection: &mut Connection, bytes: &[u8], now: u64) -> Option<usize> {
        let in_window = self.in_window(now);
        let (tally, dialect) = (&mut self.tally, self.target.dialect);
        let Connection { reader, got, .. } = connection;
        let had_head = reader.has_head();
        // The head says how the body is to be read, and comes first.
        let mut pending = 0;
        if !had_head {
            pending = reader.read_head_only(bytes).ok()?;
            if !reader.has_head() {
                return Some(pending);
            }
        }
        let is_stream = reader.head.events;
        let used = reader.read(&bytes[pending..], &mut |body| {
            got.bytes += u64::try_from(body.len()).unwrap_or(0);
            if !is_stream {
                if got.first == 0 {
                    got.first = now;
                }
                return events::keep(&mut got.whole, body);
            }
            let Got {
                events,
                first,
                last,
                pieces,
                usage,
                ended,
                error,
                ..
            } = got;
            events.read(body, dialect, &mut |said| match said {
                Said::Piece(sent) => {
                    *pieces += 1;
                    if in_window {
                        tally.chunks += 1;
                        if let Some(sent) = sent {
                            tally.transit.saturating_record(now.saturating_sub(sent));
                        }
                        if *last > 0 {
                            tally.gap.saturating_record(now - *last);
                        }
                    }
                    if *first == 0 {
                        *first = now;
                    }
                    *last = now;
                }
                Said::Usage(tokens) => *usage = tokens,
                Said::Error => *error = true,
                Said::End => *ended = true,
            });
        });
        Some(pending + used.ok()?)
    }

    /// Puts a connection back, or ends its call.
    fn settle(&mut self, place: usize, mut connection: Box<Connection>, turn: Turn) {
        let now = clock::now();
        let failure = match turn {
            Turn::Wait => {
                self.places[place] = Some(connection);
                return;
            }
            Turn::Gone => {
                self.idle.retain(|idle| *idle != place);
                self.free.push(place);
                return;
            }
            Turn::Whole => connection.failure(self.plan.shape.stream, self.target.dialect),
            Turn::Failed(failure) => Some(failure),
        };
        let Some(job) = connection.job.take() else {
            self.free.push(place);
            return;
        };
        let keep = matches!(turn, Turn::Whole)
            && !connection.reader.head.close
            && connection.sent == job.request.len();
        self.end(&job, &connection.got, failure, now);
        if keep {
            self.places[place] = Some(connection);
            self.idle.push(place);
        } else {
            self.free.push(place);
        }
        // In a closed loop the next call goes out at once, on this very connection.
        self.begin(now);
    }

    /// Counts a call that is over.
    fn end(&mut self, job: &Job, got: &Got, failure: Option<Failure>, now: u64) {
        self.under_way -= 1;
        self.gauges.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.gauges.ended.fetch_add(1, Ordering::Relaxed);
        let planned = self.in_window(job.due);
        let ended = self.in_window(now);
        let counted = job.due < self.times.to && now >= self.times.from;
        if let Some(failure) = failure {
            self.gauges.failed.fetch_add(1, Ordering::Relaxed);
            if counted {
                self.tally.errors.count(failure);
            }
        } else {
            if counted {
                self.tally.good += 1;
            }
            if ended {
                self.tally.in_time += 1;
                self.tally.tokens += got.usage.max(got.pieces);
            }
            if planned {
                self.tally.latency.saturating_record(now - job.due);
                if got.first > 0 {
                    self.tally.first.saturating_record(got.first - job.due);
                }
            }
        }
        if ended {
            let window = (self.times.to - self.times.from).max(1);
            let place = (now - self.times.from) * SLICES / window;
            let place = usize::try_from(place.min(SLICES - 1)).unwrap_or(0);
            let slice = &mut self.tally.slices[place];
            slice.ended += 1;
            if failure.is_some() {
                slice.failed += 1;
            } else {
                slice.record(now - job.due);
            }
        }
        self.feed.ended(job, failure.is_none(), now);
    }

    /// Ends calls that take too long.
    fn sweep(&mut self, now: u64) {
        self.swept = now;
        let timeout = u64::try_from(self.plan.timeout.as_nanos()).unwrap_or(u64::MAX);
        let late = |job: &Job| now.saturating_sub(job.due) > timeout;
        for place in 0..self.places.len() {
            let taken = &mut self.places[place];
            let over = taken
                .as_ref()
                .is_some_and(|it| it.job.as_ref().is_some_and(late));
            if over && let Some(connection) = taken.take() {
                self.settle(place, connection, Turn::Failed(Failure::Timeout));
            }
        }
        while self.waiting.front().is_some_and(late) {
            if let Some(job) = self.waiting.pop_front() {
                self.drop_unsent(&job, now);
            }
        }
    }

    /// Ends a call that never got a connection.
    fn drop_unsent(&mut self, job: &Job, now: u64) {
        self.under_way += 1;
        self.gauges.in_flight.fetch_add(1, Ordering::Relaxed);
        self.end(job, &Got::default(), Some(Failure::Timeout), now);
    }

    /// What is still under way at the end has failed where it came at its own time; a closed loop
    /// hangs up.
    fn give_up(&mut self) {
        if !self.plan.workload.is_open() {
            return;
        }
        let now = clock::now();
        for place in 0..self.places.len() {
            let Some(connection) = self.places[place].take() else {
                continue;
            };
            if let Some(job) = &connection.job {
                self.end(job, &connection.got, Some(Failure::Timeout), now);
            }
        }
        while let Some(job) = self.waiting.pop_front() {
            self.drop_unsent(&job, now);
        }
    }

    fn in_window(&self, at: u64) -> bool {
        (self.times.from..self.times.to).contains(&at)
    }
}

impl Connection {
    /// Whether it has come about.
    fn begin(&mut self) -> Result<bool, ()> {
        if let Ok(Some(_)) | Err(_) = self.wire.tcp().take_error() {
            return Err(());
        }
        match self.wire.tcp().peer_addr() {
            Ok(_) => {
                self.connected = true;
                // Without this, the end of a long call waits for an acknowledgement.
                let _set = self.wire.tcp().set_nodelay(true);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(_) => Err(()),
        }
    }

    /// The server has ended the connection.
    fn closed(&mut self) -> Turn {
        if self.job.is_none() {
            return Turn::Gone;
        }
        if self.reader.close() {
            return Turn::Whole;
        }
        self.broken()
    }

    /// The connection broke: before an answer or within it.
    fn broken(&mut self) -> Turn {
        if self.job.is_none() {
            return Turn::Gone;
        }
        let begun = self.reader.has_head();
        Turn::Failed(if begun {
            Failure::BrokenStream
        } else {
            Failure::Reset
        })
    }

    /// What is wrong with an answer that came whole.
    fn failure(&mut self, streams: bool, dialect: super::Dialect) -> Option<Failure> {
        match self.reader.head.status {
            200..300 => {}
            429 => return Some(Failure::Status429),
            500.. => return Some(Failure::Status5xx),
            _ => return Some(Failure::Status4xx),
        }
        if !self.reader.head.events {
            match events::read_whole(&self.got.whole, dialect) {
                Some(Said::Error) => return Some(Failure::InBand),
                Some(Said::Usage(tokens)) => self.got.usage = tokens,
                _ => {}
            }
            return None;
        }
        if self.got.error {
            return Some(Failure::InBand);
        }
        (streams && !self.got.ended).then_some(Failure::BrokenStream)
    }
}
