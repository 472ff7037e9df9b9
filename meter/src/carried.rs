//! Calls of an earlier process: where this one takes over while the other still serves some, their holds
//! are carried here and settled as the other tells, or at their bound when it is gone.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wire::RequestId;

use crate::account::{Account, Taken};
use crate::budget::Amounts;
use crate::entry::{Charge, Entry, Held, Record};
use crate::hold::{Denied, Meter};
use crate::ledger::{JournalError, Position};
use crate::standing::Unit;

/// A hold of a call that another process serves.
#[derive(Debug)]
pub(crate) struct Carried {
    account: Option<Arc<Account>>,
    taken: Vec<Taken>,
    held: Held,
}

/// What was used of a rate limit in its present minute; it is not written down anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub tenant: Arc<str>,
    /// The limit's id.
    pub budget: Arc<str>,
    pub start_ms: i64,
    pub used: i64,
}

impl Meter {
    /// Counts a hold that is in the journal, and whose call another process still serves. Call behind
    /// [`Meter::configure`].
    pub fn carry(&self, held: Held, now_ms: i64) {
        let account = self.account(&held.subject.tenant);
        let taken = account
            .as_ref()
            .map_or_else(Vec::new, |account| account.carry(&held, now_ms));
        self.add(held, account, taken);
    }

    /// Makes a hold for a call that another process serves, by the budgets of this one.
    ///
    /// # Errors
    /// As [`Meter::hold`].
    pub fn hold_for(&self, mut held: Held, now_ms: i64) -> Result<Position, Denied> {
        let behind_ms = self.behind_ms(now_ms);
        let account = self.account(&held.subject.tenant);
        let taken = match &account {
            // Whether a model without a price may be called has been decided where the call is.
            Some(account) => account.reserve(self, &held, true, (now_ms, behind_ms))?,
            None => Vec::new(),
        };
        let charged = taken.iter().filter(|it| it.unit == Unit::Usd);
        held.charges = charged
            .map(|it| Charge {
                budget: Arc::clone(&it.budget),
                start_ms: it.start_ms,
            })
            .collect();
        let record = Record::Hold(Box::new(held));
        let written = self.journal.hold(&record);
        let Record::Hold(held) = record else {
            return written;
        };
        match written {
            Ok(position) => {
                self.add(*held, account, taken);
                Ok(position)
            }
            Err(denied) => {
                if let Some(account) = account {
                    account.release(&taken, &Amounts::default());
                }
                Err(denied)
            }
        }
    }

    /// Settles a hold that is carried as the process that serves the call tells; `None` where it is not
    /// carried any more.
    ///
    /// # Errors
    /// When it can not be written; it is tried again with [`Meter::write_again`].
    pub fn settle_for(&self, mut entry: Entry) -> Option<Result<Position, JournalError>> {
        let key = (entry.held.request, entry.held.attempt);
        let carried = self.lock_carried().remove(&key)?;
        // What it counts in was decided by the budgets here.
        entry.held.charges.clone_from(&carried.held.charges);
        Some(self.end(carried, entry))
    }

    /// Charges what is carried at its bound: nobody will tell any more. Returns how many holds that were.
    pub fn abandon(&self, now_ms: i64) -> usize {
        let left: Vec<Carried> = self.lock_carried().drain().map(|(_, it)| it).collect();
        let count = left.len();
        for carried in left {
            let entry = Entry::orphan(carried.held.clone(), now_ms);
            // What can not be written is kept, to be tried again.
            let _written = self.end(carried, entry);
        }
        count
    }

    /// How many holds are carried.
    pub fn carried(&self) -> usize {
        self.lock_carried().len()
    }

    /// What is used of all rate limits, for the process that takes over.
    pub fn rates(&self, now_ms: i64) -> Vec<Rate> {
        let accounts = self.accounts.iter();
        accounts
            .flat_map(|account| account.value().rates(account.key(), now_ms))
            .collect()
    }

    /// Takes up what the process before has used of rate limits.
    pub fn take_rates(&self, rates: &[Rate]) {
        for rate in rates {
            if let Some(account) = self.account(&rate.tenant) {
                account.take_rate(rate);
            }
        }
    }

    fn add(&self, held: Held, account: Option<Arc<Account>>, taken: Vec<Taken>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let key = (held.request, held.attempt);
        let carried = Carried {
            account,
            taken,
            held,
        };
        self.lock_carried().insert(key, carried);
    }

    /// Ends a hold that was carried with `entry`.
    fn end(&self, carried: Carried, entry: Entry) -> Result<Position, JournalError> {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(account) = carried.account {
            let cost = entry.cost + entry.suspense;
            let settled = Amounts::settled(&entry.held, cost, &entry.usage);
            account.release(&carried.taken, &settled);
        }
        let record = Record::Settle(Box::new(entry));
        let written = self.journal.append(&record);
        if written.is_err() {
            self.lock_unwritten().push(record);
        }
        written
    }

    fn lock_carried(&self) -> MutexGuard<'_, HashMap<(RequestId, u16), Carried>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
