//! The dependency descriptor of AV1 (AV1 RTP payload format 1.0, appendix A), a header extension: which receivers need the frame of a packet.
//!
//! Key frames have the structure of their stream: templates of frames, each with its layers and its use to each decode target, which is a
//! pair of a spatial and a temporal layer that a receiver may decode. Each packet names the template of its frame.

use super::{FrameLink, LayerJoin};

/// Length of the fields that each descriptor has (section A.8.2).
const MANDATORY_LEN: usize = 3;

/// Ids of templates have six bits.
const TEMPLATES_MAX: usize = 64;

/// The highest layers of AV1 (AV1 specification, section 5.3.3).
const SPATIAL_MAX: u8 = 3;
const TEMPORAL_MAX: u8 = 7;

/// Flags of a descriptor, of which two more tell of fields behind those that are read.
const HAS_STRUCTURE: u32 = 0x10;
const HAS_ACTIVE_TARGETS: u32 = 0x08;
const HAS_OWN_USES: u32 = 0x04;

/// The frame of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Av1Frame {
    /// The number of its spatial layer. Frames of several spatial layers have one RTP timestamp.
    pub spatial: u8,
    /// Its references, within its spatial layer.
    pub link: FrameLink,
}

/// The structure of a stream since its last key frame.
#[derive(Debug)]
pub struct DependencyStructure {
    /// The id of the first template.
    first_id: u32,
    templates: Vec<FrameTemplate>,
    /// The layers of each decode target.
    targets: Vec<Layers>,
    /// The decode targets that the sender serves now, a bit each.
    active: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Layers {
    spatial: u8,
    temporal: u8,
}

#[derive(Debug)]
struct FrameTemplate {
    layers: Layers,
    uses: TargetUses,
}

/// The use of a frame to each decode target, two bits each.
#[derive(Clone, Copy, Debug)]
struct TargetUses(u64);

/// The use of a frame to a decode target: its decode target indication (section A.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TargetUse {
    NotPresent,
    /// No later frame of the target refers to it.
    Discardable,
    /// A receiver that decodes it can decode all later frames of the target.
    Switch,
    Required,
}

impl TargetUses {
    fn read(bits: &mut Bits<'_>, targets: usize) -> Option<TargetUses> {
        let uses = (0..targets)
            .try_fold(0_u64, |uses, target| Some(uses | u64::from(bits.take(2)?) << (2 * target)));
        uses.map(TargetUses)
    }

    fn of(self, target: usize) -> TargetUse {
        match self.0 >> (2 * target) & 3 {
            0 => TargetUse::NotPresent,
            1 => TargetUse::Discardable,
            2 => TargetUse::Switch,
            _ => TargetUse::Required,
        }
    }
}

impl DependencyStructure {
    /// Reads the descriptor of a packet, and replaces the known structure of the stream if the packet has one. `None` if the descriptor is
    /// malformed, or names no known template: the structure remains then.
    pub fn follow(known: &mut Option<DependencyStructure>, descriptor: &[u8]) -> Option<Av1Frame> {
        // Before the template stand two bits for the first and the last packet of the frame, behind it the frame's number.
        let bits = &mut Bits { bytes: descriptor, place: 2 };
        let id = bits.take(6)?;
        bits.take(16)?;
        let flags = if descriptor.len() > MANDATORY_LEN { bits.take(5)? } else { 0 };
        let new = match flags & HAS_STRUCTURE {
            0 => None,
            _ => Some(DependencyStructure::read(bits)?),
        };
        let structure = new.as_ref().or(known.as_ref())?;
        let targets = structure.targets.len();
        let active = match flags & HAS_ACTIVE_TARGETS {
            0 => structure.active,
            _ => bits.take(targets)?,
        };
        let index = (id + TEMPLATES_MAX as u32 - structure.first_id) as usize % TEMPLATES_MAX;
        let template = structure.templates.get(index)?;
        let uses = match flags & HAS_OWN_USES {
            0 => template.uses,
            _ => TargetUses::read(bits, targets)?,
        };
        let link = structure.link(template.layers, uses, active);
        let frame = Av1Frame { spatial: template.layers.spatial, link };
        if new.is_some() {
            *known = new;
        }
        if let Some(known) = known {
            known.active = active;
        }
        Some(frame)
    }

    /// Reads a structure (section A.8.2).
    fn read(bits: &mut Bits<'_>) -> Option<DependencyStructure> {
        let first_id = bits.take(6)?;
        let targets = bits.take(5)? as usize + 1;
        let layers = read_layers(bits)?;
        let mut templates = Vec::with_capacity(layers.len());
        for &layers in &layers {
            templates.push(FrameTemplate { layers, uses: TargetUses::read(bits, targets)? });
        }
        // The distances of the frames to which each refers.
        for _ in &templates {
            while bits.take(1)? == 1 {
                bits.take(4)?;
            }
        }
        // The chain that protects each target, and the distance of each template in each chain.
        let chains = bits.below(targets as u32 + 1)?;
        if chains > 0 {
            for _ in 0..targets {
                bits.below(chains)?;
            }
            for _ in 0..templates.len() as u32 * chains {
                bits.take(4)?;
            }
        }
        if bits.take(1)? == 1 {
            // Width and height of each spatial layer.
            for _ in 0..=layers.last()?.spatial {
                bits.take(32)?;
            }
        }
        let of_target = |target| {
            let present = templates.iter().filter(|it| it.uses.of(target) != TargetUse::NotPresent);
            present.fold(Layers::default(), |highest, FrameTemplate { layers, .. }| Layers {
                spatial: highest.spatial.max(layers.spatial),
                temporal: highest.temporal.max(layers.temporal),
            })
        };
        let layers_of_targets = (0..targets).map(of_target).collect();
        Some(DependencyStructure {
            first_id,
            targets: layers_of_targets,
            active: u32::MAX >> (32 - targets),
            templates,
        })
    }

    /// Returns the references to a frame of these layers, as far as they concern the active decode targets.
    fn link(&self, layers: Layers, uses: TargetUses, active: u32) -> FrameLink {
        let targets = self.targets.iter().enumerate();
        let present = targets
            .filter(|(target, _)| active >> target & 1 == 1)
            .map(|(target, of)| (of, uses.of(target)))
            .filter(|(_, target_use)| *target_use != TargetUse::NotPresent);
        let Layers { spatial, temporal: number } = layers;
        if number == 0 && present.clone().all(|(_, of)| of == TargetUse::Discardable) {
            return FrameLink::Discardable;
        }
        if self.templates.iter().all(|template| template.layers.temporal == 0) {
            return FrameLink::Reference;
        }
        let mut above = present
            .filter(|(of, _)| of.spatial == spatial && of.temporal > number)
            .map(|(_, target_use)| target_use == TargetUse::Switch)
            .peekable();
        // Nothing tells whether the frame itself refers to its own layer.
        let joins_above = above.peek().is_some() && above.all(|is_switch| is_switch);
        let joins = if joins_above { LayerJoin::Above } else { LayerJoin::No };
        FrameLink::Layer { number, joins }
    }
}

/// Reads the layers of all templates, each as a step from those before.
fn read_layers(bits: &mut Bits<'_>) -> Option<Vec<Layers>> {
    let (mut all, mut layers) = (Vec::new(), Layers::default());
    loop {
        if all.len() == TEMPLATES_MAX
            || layers.spatial > SPATIAL_MAX
            || layers.temporal > TEMPORAL_MAX
        {
            return None;
        }
        all.push(layers);
        match bits.take(2)? {
            0 => {}
            1 => layers.temporal += 1,
            2 => layers = Layers { spatial: layers.spatial + 1, temporal: 0 },
            _ => return Some(all),
        }
    }
}

/// The bits of a descriptor, the highest one of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Bits<'_> {
    /// Takes a number of at most 32 bits.
    fn take(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0, |number: u32, _| {
            let bit = *self.bytes.get(self.place / 8)? >> (7 - self.place % 8) & 1;
            self.place += 1;
            Some(number << 1 | u32::from(bit))
        })
    }

    /// Takes a number below a limit, in as few bits as tell it apart (`ns(n)`; AV1 specification, section 4.10.7).
    fn below(&mut self, limit: u32) -> Option<u32> {
        let width = limit.checked_ilog2()?;
        let short = (2_u32 << width) - limit;
        let number = self.take(width as usize)?;
        if number < short {
            return Some(number);
        }
        Some((number << 1) - short + self.take(1)?)
    }
}

#[cfg(test)]
mod tests;
