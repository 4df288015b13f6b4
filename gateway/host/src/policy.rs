//! A plugin bound to one hook with its settings, ready to be asked.

use std::sync::Arc;

use evenkeel_core::{Answered, Entry, Fault, Hook, Question};
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::component::Component;
use crate::diary::{Diary, Line};
use crate::engine::Engine;
use crate::grant::{Allowed, Grant};
use crate::guest::{Guest, Recipe};
use crate::refused::Refused;

/// A plugin bound to one hook with its settings, ready to be asked. Owned by one thread.
///
/// It keeps nothing between questions that the questions do not bring: states and memo travel in them. So when the
/// plugin faults, its instance is thrown away and made anew before the fault is returned, and nothing is lost.
pub struct Policy {
    recipe: Recipe,
    revision: Arc<str>,
    life: Life,
    ungranted: u64,
    lessons: u64,
}

enum Life {
    Alive(Box<Guest>),
    /// The last attempt to make it anew failed so; what it said is kept.
    Dead(Fault, Diary),
}

impl Policy {
    /// Binds a plugin: settings checked and completed by its schema, an instance made, `init` and `catalog` called.
    ///
    /// Settings may be `null` where everything has a default. `seed` is the only randomness the plugin gets.
    pub fn install(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<Entry>,
        seed: u64,
    ) -> Result<Policy, Refused> {
        let all = Allowed::default();
        Policy::install_within(engine, component, hook, settings, catalog, seed, &all)
    }

    /// The same, granted what an operator allows of what the plugin asks for.
    #[expect(clippy::too_many_arguments, reason = "all that a policy is made from")]
    pub fn install_within(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<Entry>,
        seed: u64,
        allowed: &Allowed,
    ) -> Result<Policy, Refused> {
        let manifest = component.manifest();
        if !manifest.hooks.contains(&hook) {
            return Err(Refused::HookUnanswered { plugin: (*manifest.name).into(), hook });
        }
        let settings = manifest.settings.complete(settings).map_err(|unfit| Refused::Setting {
            path: unfit.path.into(),
            expected: unfit.expected.into(),
            found: unfit.found.into(),
        })?;
        let settings = settings.to_string();
        let grant = Grant::of(manifest, allowed);
        let revision = revision(component, &settings, &grant);
        let (engine, component) = (engine.clone(), component.clone());
        let recipe = Recipe { engine, component, hook, settings, seed, catalog, grant };
        let guest = Guest::start(&recipe, &mut Diary::default())?;
        Ok(Policy {
            recipe,
            revision,
            life: Life::Alive(Box::new(guest)),
            ungranted: 0,
            lessons: 0,
        })
    }

    /// Asks, on the budget of the question. `now_us` is gateway time, all the clock the plugin gets.
    ///
    /// Decision, states and memo come together or, with a fault, not at all.
    pub fn ask(&mut self, question: &Question, now_us: u64) -> Result<Answered, Fault> {
        self.act(|guest| {
            guest.begin(now_us);
            let answer = guest.answer(question, now_us)?;
            Ok((answer, guest.diary().take_notes(), guest.spent()))
        })
        .map(|(answer, notes, took)| {
            let revision = Arc::clone(&self.revision);
            Answered { answer, revision, notes, took }
        })
    }

    /// Tells the plugin of a changed catalog, all of it. It is kept, also with a fault, for instances to come.
    pub fn catalog(&mut self, catalog: Vec<Entry>) -> Result<(), Fault> {
        self.recipe.catalog = catalog;
        self.lessons += 1;
        let told = match &mut self.life {
            Life::Alive(guest) => guest.catalog(&self.recipe.catalog),
            // Made anew, it is told of the new catalog.
            Life::Dead(..) => return self.act(|_| Ok(())),
        };
        if told.is_err() {
            self.renew();
        }
        told
    }

    /// First 12 hexadecimal digits of SHA-256 over the plugin's digest and its completed settings, and over its grant where
    /// that is less than it asks for.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The plugin behind this policy.
    pub fn component(&self) -> &Component {
        &self.recipe.component
    }

    /// The hook it answers.
    pub fn hook(&self) -> Hook {
        self.recipe.hook
    }

    /// The only randomness that the plugin got.
    pub fn seed(&self) -> u64 {
        self.recipe.seed
    }

    /// How often it was told of another catalog than the one that it was installed with.
    pub fn lessons(&self) -> u64 {
        self.lessons
    }

    /// The catalog that it knows.
    pub fn known_catalog(&self) -> &[Entry] {
        &self.recipe.catalog
    }

    /// Settings as the plugin got them, with defaults in place.
    pub fn settings(&self) -> &str {
        &self.recipe.settings
    }

    /// The next log line of the plugin, oldest first. At most 64 wait; a policy may write 10 a second.
    pub fn poll_line(&mut self) -> Option<Line> {
        self.diary().poll_line()
    }

    /// Log lines dropped since installation because there were too many.
    pub fn unsaid(&mut self) -> u64 {
        self.diary().unsaid()
    }

    /// Actions dropped since installation because they were not granted.
    pub fn ungranted(&self) -> u64 {
        self.ungranted
            + match &self.life {
                Life::Alive(guest) => guest.ungranted(),
                Life::Dead(..) => 0,
            }
    }

    fn diary(&mut self) -> &mut Diary {
        match &mut self.life {
            Life::Alive(guest) => guest.diary(),
            Life::Dead(_, diary) => diary,
        }
    }

    fn act<T>(&mut self, f: impl FnOnce(&mut Guest) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Life::Dead(..) = self.life {
            self.renew();
        }
        let outcome = match &mut self.life {
            Life::Alive(guest) => f(guest),
            Life::Dead(fault, _) => return Err(fault.clone()),
        };
        if outcome.is_err() {
            self.renew();
        }
        outcome
    }

    /// Throws the instance away and makes it anew.
    fn renew(&mut self) {
        self.ungranted = self.ungranted();
        let mut diary =
            match std::mem::replace(&mut self.life, Life::Dead(Fault::Absent, Diary::default())) {
                Life::Alive(guest) => guest.end(),
                Life::Dead(_, diary) => diary,
            };
        self.life = match Guest::start(&self.recipe, &mut diary) {
            Ok(guest) => Life::Alive(Box::new(guest)),
            Err(Refused::Faulted { fault, .. }) => Life::Dead(fault, diary),
            Err(refused) => Life::Dead(Fault::Trap(refused.to_string().into()), diary),
        };
    }
}

fn revision(component: &Component, settings: &str, grant: &Grant) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(component.digest());
    context.update(settings.as_bytes());
    if !grant.is_whole(component.manifest()) {
        context.update(&grant.bytes());
    }
    let digest = context.finish();
    digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
