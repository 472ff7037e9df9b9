//! A thread of the fixed endpoint: reads calls, answers at once or at a pace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::Fixed;
use super::answers::{Answers, Stream, healthy, write_stamp};
use crate::load::clock::{self, Timer};
use crate::load::http::{Reader, Way};
use crate::load::{Ask, Dialect};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
const BUFFER: usize = 256 << 10;
/// What is kept of a body's beginning and of its end: `stream` and the asked for pace stand in either.
const KEPT: usize = 2 << 10;

pub(super) struct Worker {
    fixed: Fixed,
    arrivals: Receiver<std::net::TcpStream>,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    poll: Poll,
    waker: Arc<Waker>,
    timer: Timer,
    places: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    answers: Answers,
    /// Streams whose next piece waits for its time, with the number of the call.
    paced: BinaryHeap<Reverse<(u64, usize, u64)>>,
    /// Streams without a pace: each writes one piece, then it is the next one's turn, as the streams of
    /// one batch get theirs.
    ready: VecDeque<(usize, u64)>,
    calls: u64,
}

struct Connection {
    tcp: TcpStream,
    reader: Reader,
    body: Ends,
    /// Bytes that came while an answer was under way.
    early: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    writing: Option<Writing>,
    /// A piece was due while its reader had not taken the last one.
    stalled: bool,
    /// The number of the call on it.
    call: u64,
}

/// A stream that is being written, or an answer that waits for its time.
struct Writing {
    stream: Option<Arc<Stream>>,
    plain: Option<Arc<[u8]>>,
    left: u32,
    pieces: u32,
    gap: u64,
    due: u64,
    begun: bool,
}

/// The two ends of a body.
#[derive(Default)]
struct Ends {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Ends {
    fn take(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..room]);
        let rest = &bytes[room..];
        if rest.len() >= KEPT {
            self.last.clear();
            self.last.extend_from_slice(&rest[rest.len() - KEPT..]);
        } else {
            self.last.extend_from_slice(rest);
            if self.last.len() > 4 * KEPT {
                self.last.drain(..self.last.len() - KEPT);
            }
        }
    }

    fn clear(&mut self) {
        self.first.clear();
        self.last.clear();
    }

    fn has(&self, words: &[u8]) -> bool {
        let within = |part: &[u8]| memchr::memmem::find(part, words).is_some();
        within(&self.last) || within(&self.first)
    }

    fn streams(&self) -> bool {
        self.has(b"\"stream\":true") || self.has(b"\"stream\": true")
    }

    fn ask(&self) -> Ask {
        let found = Ask::find(&self.last).or_else(|| Ask::find(&self.first));
        found.unwrap_or_default()
    }

    /// The most tokens that the answer may have, where the call says it.
    fn cap(&self) -> Option<u32> {
        let within = |part: &[u8]| {
            let names: [&[u8]; 2] = [b"\"max_tokens\":", b"\"max_completion_tokens\":"];
            let find = |name: &&[u8]| Some(memchr::memmem::find(part, name)? + name.len());
            let at = names.iter().find_map(find)?;
            let rest = part[at..].trim_ascii_start();
            let digits = rest.split(|it| !it.is_ascii_digit()).next()?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        };
        within(&self.first).or_else(|| within(&self.last))
    }
}

impl Worker {
    pub(super) fn new(
        fixed: Fixed,
        arrivals: Receiver<std::net::TcpStream>,
        stop: Arc<AtomicBool>,
        open: Arc<AtomicUsize>,
    ) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            fixed,
            arrivals,
            stop,
            open,
            waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
            timer: Timer::new(&poll, TIMER)?,
            poll,
            places: Vec::new(),
            free: Vec::new(),
            answers: Answers::default(),
            paced: BinaryHeap::new(),
            ready: VecDeque::new(),
            calls: 0,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        let mut buffer = vec![0_u8; BUFFER];
        while !self.stop.load(Ordering::Acquire) {
            let timeout = (!self.ready.is_empty()).then_some(Duration::ZERO);
            if let Some(next) = self.paced.peek()
                && self.timer.wake_at(next.0.0).is_err()
            {
                return;
            }
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => self.admit(),
                    TIMER => self.timer.fired(),
                    Token(place) => {
                        if event.is_writable() {
                            self.flush(place);
                        }
                        self.read(place, event.is_read_closed(), &mut buffer);
                    }
                }
            }
            let now = clock::now();
            while self.paced.peek().is_some_and(|next| next.0.0 <= now) {
                if let Some(Reverse((_, place, call))) = self.paced.pop() {
                    self.step(place, call);
                }
            }
            for _ in 0..self.ready.len() {
                if let Some((place, call)) = self.ready.pop_front() {
                    self.step(place, call);
                }
            }
        }
    }

    /// Takes over new connections.
    fn admit(&mut self) {
        while let Ok(tcp) = self.arrivals.try_recv() {
            if tcp.set_nonblocking(true).is_err() || tcp.set_nodelay(true).is_err() {
                continue;
            }
            let place = self.free.pop().unwrap_or_else(|| {
                self.places.push(None);
                self.places.len() - 1
            });
            let mut tcp = TcpStream::from_std(tcp);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if registry.register(&mut tcp, Token(place), interest).is_err() {
                self.free.push(place);
                continue;
            }
            self.open.fetch_add(1, Ordering::Relaxed);
            self.places[place] = Some(Box::new(Connection {
                tcp,
                reader: Reader::new(Way::Call),
                body: Ends::default(),
                early: Vec::new(),
                out: Vec::new(),
                sent: 0,
                writing: None,
                stalled: false,
                call: 0,
            }));
        }
    }

    fn close(&mut self, place: usize) {
        if self.places[place].take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.free.push(place);
        }
    }

    /// Reads what has come and answers calls that are whole.
    fn read(&mut self, place: usize, closed: bool, buffer: &mut [u8]) {
        loop {
            let Some(connection) = self.places.get_mut(place).and_then(Option::as_mut) else {
                return;
            };
            let read = match connection.tcp.read(buffer) {
                Ok(0) => return self.close(place),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.close(place),
            };
            self.take(place, &buffer[..read]);
            if read < buffer.len() && !closed {
                return;
            }
        }
    }

    fn take(&mut self, place: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(connection) = self.places[place].as_mut() else {
                return;
            };
            if connection.is_busy() {
                connection.early.extend_from_slice(rest);
                return;
            }
            let Connection { reader, body, .. } = &mut **connection;
            let Ok(used) = reader.read(rest, &mut |part| body.take(part)) else {
                return self.close(place);
            };
            rest = &rest[used..];
            if reader.is_done() {
                self.answer(place);
            }
        }
    }

    /// Answers the call that has been read.
    fn answer(&mut self, place: usize) {
        let Some(connection) = self.places[place].as_mut() else {
            return;
        };
        self.calls += 1;
        connection.call = self.calls;
        let head = &connection.reader.head;
        let dialect = if head.path.contains("/messages") {
            Dialect::Messages
        } else {
            Dialect::Chat
        };
        let is_call =
            head.is_post && (dialect == Dialect::Messages || head.path.contains("/chat/"));
        let mut asked = self.fixed.asked(connection.body.ask());
        let streams = is_call && connection.body.streams();
        if streams && let Some(cap) = connection.body.cap() {
            // As of any model: a piece is a token.
            asked.chunks = asked.chunks.min(cap);
        }
        connection.body.clear();
        connection.reader.reset();
        if !is_call {
            connection.out.extend_from_slice(healthy());
            return self.flush(place);
        }
        if !streams && asked.first_us == 0 {
            let plain = self.answers.plain(dialect, asked.answer_bytes);
            return self.write(place, &plain);
        }
        let due = clock::now() + asked.first_us * 1_000;
        let stream = streams.then(|| self.answers.stream(dialect, asked.chunk_bytes));
        let plain = (!streams).then(|| self.answers.plain(dialect, asked.answer_bytes));
        connection.writing = Some(Writing {
            stream,
            plain,
            left: asked.chunks,
            pieces: asked.chunks,
            gap: asked.gap_us * 1_000,
            due,
            begun: false,
        });
        if asked.first_us > 0 {
            self.paced.push(Reverse((due, place, self.calls)));
        } else {
            self.step(place, self.calls);
        }
    }

    /// Writes the next piece of an answer.
    fn step(&mut self, place: usize, call: u64) {
        let Some(connection) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if connection.call != call {
            return;
        }
        if connection.sent < connection.out.len() {
            // The reader is slow: its next piece waits until it has taken this one.
            connection.stalled = true;
            return;
        }
        let Some(mut writing) = connection.writing.take() else {
            return;
        };
        let Some(stream) = writing.stream.clone() else {
            let plain = writing.plain.take().unwrap_or_else(|| Arc::from([]));
            return self.write(place, &plain);
        };
        let Connection { out, .. } = &mut **connection;
        if !writing.begun {
            writing.begun = true;
            out.extend_from_slice(&stream.start);
        }
        if writing.left > 0 {
            writing.left -= 1;
            let at = out.len() + stream.stamp;
            out.extend_from_slice(&stream.piece);
            write_stamp(&mut out[at..at + 16], clock::now());
        }
        let is_last = writing.left == 0;
        if is_last {
            out.extend_from_slice(&stream.end(writing.pieces));
        } else {
            writing.due += writing.gap;
            let next = (writing.due, place, call);
            let paced = writing.gap > 0;
            connection.writing = Some(writing);
            if paced {
                self.paced.push(Reverse(next));
            } else {
                self.ready.push_back((place, call));
            }
        }
        self.flush(place);
    }

    /// Writes bytes that are at hand, without a copy where they go at once.
    fn write(&mut self, place: usize, bytes: &[u8]) {
        let Some(connection) = self.places[place].as_mut() else {
            return;
        };
        let mut written = 0;
        if connection.out.is_empty() {
            match connection.tcp.write(bytes) {
                Ok(count) => written = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.close(place),
            }
        }
        if written < bytes.len() {
            connection.out.extend_from_slice(&bytes[written..]);
            return self.flush(place);
        }
        self.next_call(place);
    }

    /// Writes what waits.
    fn flush(&mut self, place: usize) {
        let Some(connection) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let had = !connection.out.is_empty();
        while connection.sent < connection.out.len() {
            match connection.tcp.write(&connection.out[connection.sent..]) {
                Ok(count) => connection.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(place),
            }
        }
        connection.out.clear();
        connection.sent = 0;
        if std::mem::take(&mut connection.stalled) {
            let call = connection.call;
            self.ready.push_back((place, call));
            return;
        }
        if had {
            self.next_call(place);
        }
    }

    /// Reads on where an answer is over and more has come already.
    fn next_call(&mut self, place: usize) {
        let Some(connection) = self.places[place].as_mut() else {
            return;
        };
        if connection.is_busy() || connection.early.is_empty() {
            return;
        }
        let early = std::mem::take(&mut connection.early);
        self.take(place, &early);
    }
}

impl Connection {
    fn is_busy(&self) -> bool {
        self.writing.is_some() || !self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_body_are_kept_however_it_is_cut() {
        let body: Vec<u8> = (0..9_000_u32).flat_map(u32::to_le_bytes).collect();
        for size in [1, 7, 2_000, 5_000, 36_000] {
            let mut ends = Ends::default();
            for piece in body.chunks(size) {
                ends.take(piece);
            }
            assert_eq!(ends.first, body[..KEPT]);
            assert!(
                ends.last.len() >= KEPT && body.ends_with(&ends.last),
                "{size}"
            );
        }
    }
}
