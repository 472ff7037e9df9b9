//! Where the pages of tasks meet the gateway: what they look like is not the gateway's business.

use dashboards::{Asked, tasks};

use crate::clock::now_ms;

pub(crate) use dashboards::tasks::{Act, Refused, act};

/// A page of tasks, or a part of one.
pub(crate) enum Told {
    Shown(super::Shown),
    /// The reader has it already.
    Unchanged,
}

/// The page of tasks at `path`; `None` where there is none. `api` answers for tasks, and blocks.
pub(crate) fn page(path: &str, query: &str, api: tasks::Api<'_>) -> Result<Option<Told>, Refused> {
    let told = tasks::answer(asked(path, query), api)?;
    Ok(told.map(|told| match told {
        tasks::Told::Answer(answer) => Told::Shown(answer.into()),
        tasks::Told::Unchanged => Told::Unchanged,
    }))
}

/// The page that says why something was not done.
pub(crate) fn refused(why: &Refused, act: &Act) -> super::Shown {
    tasks::refused(asked(&act.back, ""), why, &act.back).into()
}

fn asked<'a>(path: &'a str, query: &'a str) -> Asked<'a> {
    Asked {
        path,
        query,
        now_ms: now_ms(),
        is_operator: true,
    }
}

impl From<dashboards::Answer> for super::Shown {
    fn from(answer: dashboards::Answer) -> Self {
        Self {
            kind: answer.kind,
            body: answer.body,
            file: answer.file,
        }
    }
}
