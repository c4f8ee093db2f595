use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::Stored;

/// Which of a step's two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Job,
    PreCheck,
}

/// What the steps of one run found and made: two slots a step, by the step's index.
#[derive(Default)]
pub(crate) struct Bag {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: Box<[Slot]>,
    /// What callbacks set themselves, and in which step; recorded with that step.
    set: Vec<Setting>,
}

#[derive(Clone, Default)]
struct Slot {
    job: Option<Stored>,
    pre_check: Option<Stored>,
}

/// A value that a callback of step `by` put into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    by: usize,
    pub(crate) step: usize,
    pub(crate) part: Part,
}

impl Bag {
    pub(crate) fn with_steps(count: usize) -> Self {
        let slots = vec![Slot::default(); count].into_boxed_slice();
        Self { inner: Mutex::new(Inner { slots, set: Vec::new() }) }
    }

    pub(crate) fn get(&self, step: usize, part: Part) -> Option<Stored> {
        let inner = self.lock();
        let slot = &inner.slots[step];
        match part {
            Part::Job => slot.job.clone(),
            Part::PreCheck => slot.pre_check.clone(),
        }
    }

    pub(crate) fn put(&self, step: usize, part: Part, value: Stored) {
        self.lock().put(step, part, value);
    }

    /// Puts a value on behalf of a callback of step `by`.
    pub(crate) fn set(&self, by: usize, step: usize, part: Part, value: Stored) {
        let mut inner = self.lock();
        inner.put(step, part, value);
        let setting = Setting { by, step, part };
        if !inner.set.contains(&setting) {
            inner.set.push(setting);
        }
    }

    /// What callbacks of step `by` set since the last call.
    pub(crate) fn take_set(&self, by: usize) -> Vec<Setting> {
        self.lock().set.extract_if(.., |setting| setting.by == by).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put(&mut self, step: usize, part: Part, value: Stored) {
        let slot = &mut self.slots[step];
        let place = match part {
            Part::Job => &mut slot.job,
            Part::PreCheck => &mut slot.pre_check,
        };
        *place = Some(value);
    }
}
