//! One history, told by chance: the seed decides every step.

use stateright::{Expectation, Model};

use super::actions::{Protocol, Step};
use super::state::Cluster;

/// The longest story; most end by themselves, when the bounds are spent.
const STEPS_MAX: usize = 400;

/// What happened.
pub(crate) struct Story {
    pub(crate) steps: Vec<Step>,
    pub(crate) last: Cluster,
    /// A property that did not hold at the end.
    pub(crate) violated: Option<&'static str>,
    /// What was shown to be reachable.
    pub(crate) reached: Vec<&'static str>,
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// Tells story number `seed`.
pub(crate) fn story(model: &Protocol, seed: u64) -> Story {
    let mut dice = Dice(seed);
    let last = model.init_states().remove(0);
    let mut story = Story { steps: vec![], last, violated: None, reached: vec![] };
    while story.steps.len() < STEPS_MAX {
        let Some((step, next)) = any_step(model, &story.last, &mut dice) else { break };
        story.steps.push(step);
        story.last = next;
        for property in model.properties() {
            let holds = (property.condition)(model, &story.last);
            match property.expectation {
                Expectation::Always if !holds => {
                    story.violated = Some(property.name);
                    return story;
                }
                Expectation::Sometimes if holds && !story.reached.contains(&property.name) => {
                    story.reached.push(property.name);
                }
                Expectation::Always | Expectation::Sometimes | Expectation::Eventually => {}
            }
        }
    }
    story
}

/// One of the steps that can be taken; some that are offered come to nothing.
fn any_step(model: &Protocol, state: &Cluster, dice: &mut Dice) -> Option<(Step, Cluster)> {
    let mut steps = Vec::new();
    model.actions(state, &mut steps);
    while !steps.is_empty() {
        let step = steps.swap_remove(dice.below(steps.len()));
        if let Some(next) = model.next_state(state, step) {
            return Some((step, next));
        }
    }
    None
}
