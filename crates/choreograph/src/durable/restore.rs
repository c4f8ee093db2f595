//! What a run needs to go on, from what is kept of it.

use super::driver::Driver;
use super::journal::Journal;
use super::records::{SetPart, StepEnd};
use crate::bag::Part;
use crate::context::RunShared;
use crate::key::Codec;
use crate::plan::{LeafKind, Plan};

impl Driver {
    /// Reads the items of lists; an error names the step.
    pub(super) fn read_lists(&mut self) -> std::result::Result<(), (usize, serde_json::Error)> {
        for (step, list) in &self.journal.lists {
            let LeafKind::ForEach(each) = &self.registered.plan.leaves[*step].kind else {
                continue;
            };
            let items = list.iter().map(|item| (each.item.decode)(item)).collect::<serde_json::Result<_>>();
            self.items.insert(*step, items.map_err(|source| (*step, source))?);
        }
        Ok(())
    }
}

/// Puts the values of what finished into the bag; an error names the step.
pub(super) fn restore(
    run: &RunShared,
    plan: &Plan,
    journal: &Journal,
) -> std::result::Result<(), (usize, serde_json::Error)> {
    let mut steps: Vec<_> = journal.steps.iter().filter(|(step, _)| **step < plan.leaves.len()).collect();
    steps.sort_by_key(|(_, record)| record.order);
    for (&step, record) in steps {
        let leaf = &plan.leaves[step];
        let put = |step, part, codec: Codec, json: &serde_json::value::RawValue| {
            run.bag.put(step, part, (codec.decode)(json).map_err(|source| (step, source))?);
            Ok(())
        };
        if let Some(json) = &record.pre_check {
            put(step, Part::PreCheck, leaf.pre_value, json)?;
        }
        for set in &record.set {
            let Some(step) = plan.index_of(&set.name) else { continue };
            let target = &plan.leaves[step];
            match set.part {
                SetPart::Job => put(step, Part::Job, target.value, &set.value)?,
                SetPart::PreCheck => put(step, Part::PreCheck, target.pre_value, &set.value)?,
            }
        }
        if let StepEnd::Done(json) = &record.end {
            put(step, Part::Job, leaf.value, json)?;
        }
    }
    Ok(())
}
