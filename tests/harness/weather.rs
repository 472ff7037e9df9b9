//! A bad network between two sides: bytes are forwarded late, slowly, in crumbs, changed or not at all, as a
//! seed says. What happens to a connection depends on the seed and its number alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What may happen, each to one connection in so many; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Bytes of a piece wait, up to so many microseconds.
    pub delay_us: u64,
    /// Pieces are cut, down to single bytes.
    pub crumbs: u64,
    /// Both sides hear a reset, after some bytes.
    pub reset: u64,
    /// Nothing goes through any more, after some bytes, and nobody hears of it.
    pub blackhole: u64,
    /// One side hears the end, after some bytes, while the other goes on.
    pub half_open: u64,
    /// A bit is turned, after some bytes.
    pub flip: u64,
    /// The connection is not even taken: it ends at once.
    pub refuse: u64,
}

/// A xorshift.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self((seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        for _ in 0..8 {
            chance.below(2);
        }
        chance
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    /// True once in `every`; never where that is 0.
    pub fn once_in(&mut self, every: u64) -> bool {
        every > 0 && self.below(every) == 0
    }
}

/// What happens to a connection, and after how many bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Reset(usize),
    Blackhole(usize),
    HalfOpen(usize),
    Flip(usize),
}

/// The address to connect to in place of the one behind it.
#[derive(Debug)]
pub struct Network {
    pub address: SocketAddr,
    /// Connections so far, and those something happened to.
    pub connections: Arc<AtomicU64>,
    pub spoilt: Arc<AtomicUsize>,
}

impl Network {
    /// Forwards to `target` in this weather.
    pub async fn start(target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, spoilt) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, noted) = (Arc::clone(&connections), Arc::clone(&spoilt));
        tokio::task::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let mut chance = Chance::new(seed, number);
                if chance.once_in(weather.refuse) {
                    noted.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let noted = Arc::clone(&noted);
                tokio::task::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else {
                        return;
                    };
                    carry(near, far, weather, chance, &noted).await;
                });
            }
        });
        Self {
            address,
            connections,
            spoilt,
        }
    }
}

async fn carry(
    near: TcpStream,
    far: TcpStream,
    weather: Weather,
    mut chance: Chance,
    spoilt: &AtomicUsize,
) {
    let _plain = (near.set_nodelay(true), far.set_nodelay(true));
    let mut fate = || {
        let after = usize::try_from(chance.below(4_000)).unwrap();
        [
            (weather.reset, Fate::Reset(after)),
            (weather.blackhole, Fate::Blackhole(after)),
            (weather.half_open, Fate::HalfOpen(after)),
            (weather.flip, Fate::Flip(after)),
        ]
        .into_iter()
        .find(|(every, _)| chance.once_in(*every))
        .map_or(Fate::Fine, |(_, fate)| fate)
    };
    // Of the two directions one has the fate.
    let fate = fate();
    let (there, back) = if chance.once_in(2) {
        (fate, Fate::Fine)
    } else {
        (Fate::Fine, fate)
    };
    if fate != Fate::Fine {
        spoilt.fetch_add(1, Ordering::Relaxed);
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let crumbs = chance.once_in(weather.crumbs);
    let (one, other) = (
        Chance(chance.below(u64::MAX) | 1),
        Chance(chance.below(u64::MAX) | 1),
    );
    let up = Way {
        from: near_in,
        to: far_out,
        fate: there,
        crumbs,
        delay_us: weather.delay_us,
        chance: one,
    };
    let down = Way {
        from: far_in,
        to: near_out,
        fate: back,
        crumbs,
        delay_us: weather.delay_us,
        chance: other,
    };
    tokio::join!(up.carry(), down.carry());
}

/// One direction.
struct Way {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    fate: Fate,
    crumbs: bool,
    delay_us: u64,
    chance: Chance,
}

impl Way {
    async fn carry(mut self) {
        let (mut piece, mut gone) = (vec![0; 16 << 10], 0);
        loop {
            let Ok(length @ 1..) = self.from.read(&mut piece).await else {
                let _ended = self.to.shutdown().await;
                return;
            };
            if self.delay_us > 0 {
                let delay = Duration::from_micros(self.chance.below(self.delay_us));
                tokio::time::sleep(delay).await;
            }
            let is_due = |at: usize| gone + length > at;
            match self.fate {
                Fate::Reset(at) if is_due(at) => {
                    let _set = (
                        self.to.as_ref().set_zero_linger(),
                        self.from.as_ref().set_zero_linger(),
                    );
                    return;
                }
                Fate::Blackhole(at) if is_due(at) => {
                    // Both ends stay open until whoever waits has had enough.
                    while let Ok(1..) = self.from.read(&mut piece).await {}
                    return;
                }
                Fate::HalfOpen(at) if is_due(at) => {
                    let _ended = self.to.shutdown().await;
                    while let Ok(1..) = self.from.read(&mut piece).await {}
                    return;
                }
                Fate::Flip(at) if is_due(at) => {
                    let at = at.saturating_sub(gone).min(length - 1);
                    piece[at] ^= 1 << self.chance.below(8);
                    self.fate = Fate::Fine;
                }
                _ => {}
            }
            gone += length;
            let mut rest = &piece[..length];
            while !rest.is_empty() {
                let most = if self.crumbs {
                    1 + usize::try_from(self.chance.below(40)).unwrap()
                } else {
                    rest.len()
                };
                let (now, later) = rest.split_at(most.min(rest.len()));
                if self.to.write_all(now).await.is_err() {
                    return;
                }
                rest = later;
                if self.crumbs {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
