//! Words that say what is asked for, in classes: negations, reasoning, questions, subjects.

use super::{SEED, mix};

/// How many classes there are; class 0 is every other word.
pub(super) const CLASSES: usize = 34;

/// The class of a word, by the hash over its folded bytes.
pub(super) fn class(hash: u64) -> u8 {
    let tag = (hash >> 32) | 1;
    let mut slot = hash & MASK;
    loop {
        let held = usize::try_from(slot)
            .ok()
            .and_then(|slot| TABLE.get(slot))
            .copied()
            .unwrap_or(0);
        if held == 0 {
            return 0;
        }
        if held >> 8 == tag {
            return held.to_le_bytes()[0];
        }
        slot = (slot + 1) & MASK;
    }
}

const SLOTS: usize = 2_048;
const MASK: u64 = SLOTS as u64 - 1;

/// Open addressing: a tag of 32 bits above the class, 0 where free.
static TABLE: [u64; SLOTS] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated when compiled, where a miss is an error"
)]
const fn table() -> [u64; SLOTS] {
    let mut table = [0; SLOTS];
    let mut class = 0;
    while class < WORDS.len() {
        let words = WORDS[class].as_bytes();
        let (mut start, mut at) = (0, 0);
        while at <= words.len() {
            if at == words.len() || words[at] == b' ' {
                let hash = hashed(words, start, at);
                let mut slot = (hash & MASK) as usize;
                while table[slot] != 0 {
                    slot = (slot + 1) % SLOTS;
                }
                table[slot] = (((hash >> 32) | 1) << 8) | (class as u64 + 1);
                start = at + 1;
            }
            at += 1;
        }
        class += 1;
    }
    table
}

/// The hash that [`super::Word`] gives `words[start..end]`.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated when compiled, where a miss is an error"
)]
const fn hashed(words: &[u8], start: usize, end: usize) -> u64 {
    let (mut hash, mut held, mut at) = (SEED, 0, start);
    while at < end {
        held |= (words[at] as u64) << (8 * ((at - start) % 8));
        at += 1;
        if (at - start).is_multiple_of(8) || at == end {
            hash = mix(hash, held);
            held = 0;
        }
    }
    hash
}

/// The words of each class; a word stands in one of them.
const WORDS: [&str; CLASSES - 1] = [
    // neg
    "not no never except least incorrect false cannot none nor neither without unlikely \
     untrue",
    // logic
    "if then all some every each any only always must either implies therefore hence \
     because unless",
    // comp
    "more less greater smaller larger higher lower most best than maximum minimum largest \
     smallest",
    // what
    "what which who whose whom when where",
    // how
    "how why",
    // many
    "many much total number amount percent percentage ratio average",
    // find
    "find calculate compute determine evaluate solve simplify prove show derive estimate \
     express",
    // write
    "write function implement create generate list program code return python def given",
    // code
    "for while else elif in len append print range import self true",
    // pron
    "he she his her him they them their it its",
    // i
    "i my me we our you your please",
    // prep
    "of on at by with from to into as",
    // art
    "the a an this that these those",
    // aux
    "is are was were be been has have had does do did can could would should will may \
     might",
    // time
    "year years day days hour hours minute minutes second seconds month week time date",
    // unit
    "m cm kg km mm g s mol j n w v c k hz ft inches meters degrees dollars cost price",
    // law
    "court defendant plaintiff law act state contract statute jury trial property owner",
    // follow
    "following statement statements correct describe describes example above according",
    // let
    "let suppose assume consider such denote",
    // geo
    "triangle circle angle square rectangle radius area perimeter length side point line \
     plane sphere cone cylinder volume parallel perpendicular polygon hexagon coordinates \
     asy draw",
    // alg
    "polynomial equation roots root real complex domain inverse variable variables \
     expression solution solutions quadratic inequality matrix vector logarithm log sqrt \
     frac",
    // nt
    "integer integers divisible prime digits digit remainder modulo factors factor \
     divisor multiple base positive odd even",
    // comb
    "ways probability arrange arrangements choose chosen random randomly distinct \
     permutations combinations dice coin cards marbles ball balls committee",
    // calc
    "derivative integral limit series sum converge differential continuous sequence \
     infinite theorem group ring field subgroup isomorphic",
    // phys
    "energy force velocity mass speed temperature pressure current voltage electric \
     magnetic wave frequency light heat gas electron charge acceleration",
    // chem
    "acid reaction molecule atom atoms compound hydrogen oxygen carbon ion bond molar \
     equilibrium water metal",
    // bio
    "cell cells dna protein gene species organism enzyme blood plant plants animals \
     membrane tissue evolution population",
    // med
    "patient disease treatment symptoms pain clinical physician diagnosis drug infection \
     syndrome medical old woman man",
    // law2
    "rule evidence motion claim liable negligence crime constitutional amendment murder",
    // hum
    "war century government president political history philosophy moral ethics religion \
     god art party nation",
    // econ
    "demand supply market firm income tax money interest rate investment bank profit \
     monopoly stock",
    // psy
    "behavior child children learning theory research social test therapy memory \
     personality students",
    // strop
    "replace split join strip upper index insert pop remove sort sorted reverse reversed \
     count isalpha isdigit startswith endswith format items keys values enumerate zip map \
     filter",
];
