use evenkeel_fuzz::Corpus;

use super::*;
use crate::frames::tests::layer;

/// Writes numbers of some bits each.
#[derive(Default)]
struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    fn put(&mut self, number: u32, count: u32) -> &mut Writer {
        self.bits.extend((0..count).rev().map(|bit| number >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter().zip((0..8).rev()).fold(0_u8, |byte, (bit, at)| byte | u8::from(*bit) << at)
        };
        self.bits.chunks(8).map(byte).collect()
    }

    /// Begins the descriptor of a frame with this template.
    fn frame(template: u32) -> Writer {
        let mut writer = Writer::default();
        writer.put(3, 2).put(template, 6).put(7, 16);
        writer
    }

    /// Writes the uses of a frame to all targets: `-`, D, S or R.
    fn uses(&mut self, uses: &str) -> &mut Writer {
        for one in uses.chars() {
            self.put("-DSR".find(one).unwrap() as u32, 2);
        }
        self
    }

    /// Writes a structure without chains: of each template the step to its layer, and its uses.
    fn structure(&mut self, first_id: u32, templates: &[(u32, &str)]) -> &mut Writer {
        let targets = templates[0].1.len() as u32;
        self.put(first_id, 6).put(targets - 1, 5);
        templates[1..].iter().for_each(|(step, _)| _ = self.put(*step, 2));
        self.put(3, 2);
        templates.iter().for_each(|(_, uses)| _ = self.uses(uses));
        for place in 0..templates.len() as u32 {
            // The first one refers to no frame, the others to one each.
            if place > 0 {
                self.put(1, 1).put(place, 4);
            }
            self.put(0, 1);
        }
        // No chain: 0, which is short below any limit.
        self.put(0, (targets + 1).ilog2())
    }
}

/// One spatial and three temporal layers, as libwebrtc has them, and a frame of the base layer that is discardable.
const LAYERED: [(u32, &str); 5] = [(0, "SSS"), (0, "SSS"), (0, "DDD"), (1, "-DS"), (1, "--D")];

/// A key frame with the structure.
fn key_frame(first_id: u32, templates: &[(u32, &str)]) -> Vec<u8> {
    let mut writer = Writer::frame(first_id);
    writer.put(0x10, 5).structure(first_id, templates).put(0, 1);
    writer.bytes()
}

fn known(templates: &[(u32, &str)]) -> Option<DependencyStructure> {
    let mut known = None;
    DependencyStructure::follow(&mut known, &key_frame(60, templates)).unwrap();
    known
}

fn link(known: &mut Option<DependencyStructure>, template: u32) -> Option<FrameLink> {
    let descriptor = Writer::frame(template).bytes();
    assert_eq!(descriptor.len(), MANDATORY_LEN);
    DependencyStructure::follow(known, &descriptor).map(|frame| frame.link)
}

#[test]
fn templates_tell_temporal_layers() {
    let mut known = known(&LAYERED);
    // Ids go on behind 63.
    for (template, expected) in [
        (60, layer(0, LayerJoin::Above)),
        (61, layer(0, LayerJoin::Above)),
        (62, Some(FrameLink::Discardable)),
        (63, layer(1, LayerJoin::Above)),
        (0, layer(2, LayerJoin::No)),
        (1, None),
        (59, None),
    ] {
        assert_eq!(link(&mut known, template), expected, "{template}");
    }
}

#[test]
fn required_frame_joins_no_layer() {
    let mut known = known(&[(0, "SS"), (0, "SR"), (1, "-D")]);
    assert_eq!(link(&mut known, 60), layer(0, LayerJoin::Above));
    assert_eq!(link(&mut known, 61), layer(0, LayerJoin::No));
}

#[test]
fn stream_without_layers_has_references_and_discardable_frames() {
    let mut known = known(&[(0, "S"), (0, "R"), (0, "D")]);
    for (template, expected) in
        [(60, FrameLink::Reference), (61, FrameLink::Reference), (62, FrameLink::Discardable)]
    {
        assert_eq!(link(&mut known, template), Some(expected), "{template}");
    }
}

#[test]
fn spatial_layers_are_told_apart() {
    // Targets: the base layer without and with temporal layer 1, then both layers.
    let templates = [(0, "SSRR"), (1, "-D-R"), (2, "--SS"), (1, "---D")];
    let mut known = known(&templates);
    let mut frame = |template| {
        let descriptor = Writer::frame(template).bytes();
        DependencyStructure::follow(&mut known, &descriptor).unwrap()
    };
    let of = |spatial, link: Option<FrameLink>| Av1Frame { spatial, link: link.unwrap() };
    // A frame of the base layer does not have a receiver join the spatial layer above, which is no matter of temporal layers.
    assert_eq!(frame(60), of(0, layer(0, LayerJoin::Above)));
    assert_eq!(frame(61), of(0, layer(1, LayerJoin::No)));
    assert_eq!(frame(62), of(1, layer(0, LayerJoin::Above)));
    assert_eq!(frame(63), of(1, layer(1, LayerJoin::No)));
}

#[test]
fn own_uses_replace_those_of_the_template() {
    let mut known = known(&LAYERED);
    let mut writer = Writer::frame(61);
    writer.put(HAS_OWN_USES, 5).uses("DDD");
    let frame = DependencyStructure::follow(&mut known, &writer.bytes()).unwrap();
    assert_eq!(frame.link, FrameLink::Discardable);
    assert_eq!(link(&mut known, 61), layer(0, LayerJoin::Above), "in that frame alone");
}

#[test]
fn inactive_targets_need_no_frame() {
    let mut known = known(&[(0, "SS"), (0, "DS"), (1, "-D")]);
    assert_eq!(link(&mut known, 61), layer(0, LayerJoin::Above));
    let mut writer = Writer::frame(60);
    // The lowest bit is the first target.
    writer.put(HAS_ACTIVE_TARGETS, 5).put(0b01, 2);
    DependencyStructure::follow(&mut known, &writer.bytes()).unwrap();
    assert_eq!(link(&mut known, 61), Some(FrameLink::Discardable), "from then on");
    DependencyStructure::follow(&mut known, &key_frame(60, &[(0, "SS"), (0, "DS"), (1, "-D")]));
    assert_eq!(link(&mut known, 61), layer(0, LayerJoin::Above), "until the next key frame");
}

#[test]
fn chains_and_sizes_are_passed_over() {
    let mut writer = Writer::frame(60);
    writer.put(HAS_STRUCTURE | HAS_OWN_USES, 5);
    writer.put(60, 6).put(1, 5).put(1, 2).put(3, 2).uses("SS").uses("-D");
    // No distance of the first template, two of the second.
    writer.put(0, 1).put(1, 1).put(4, 4).put(1, 1).put(2, 4).put(0, 1);
    // Two chains, of at most 2: 1 and an extra bit. Each protects a target. Four distances.
    writer.put(1, 1).put(1, 1).put(0, 1).put(1, 1).put(0x1234, 16);
    writer.put(1, 1).put(639, 16).put(359, 16).uses("DD");
    let (mut known, bytes) = (None, writer.bytes());
    let frame = DependencyStructure::follow(&mut known, &bytes).unwrap();
    assert_eq!(frame.link, FrameLink::Discardable, "the uses stand behind all of it");
    for length in 0..bytes.len() {
        let mut known = None;
        assert_eq!(DependencyStructure::follow(&mut known, &bytes[..length]), None, "{length}");
        assert!(known.is_none());
    }
}

#[test]
fn unreadable_structure_leaves_the_known_one() {
    let mut known = known(&LAYERED);
    let mut unknown_template = Writer::frame(1);
    unknown_template.put(HAS_STRUCTURE, 5).structure(60, &LAYERED).put(0, 1);
    let whole = key_frame(0, &LAYERED);
    let unreadable = [
        key_frame(60, &[(0, "S"); TEMPLATES_MAX + 1]),
        // Layers that AV1 does not have.
        key_frame(60, &[(1, "S"); TEMPORAL_MAX as usize + 2]),
        key_frame(60, &[(2, "S"); SPATIAL_MAX as usize + 2]),
        unknown_template.bytes(),
        whole[..whole.len() - 1].to_vec(),
    ];
    for descriptor in unreadable {
        assert_eq!(DependencyStructure::follow(&mut known, &descriptor), None);
        assert_eq!(link(&mut known, 63), layer(1, LayerJoin::Above));
    }
    for (step, templates) in [(0, TEMPLATES_MAX), (1, 8), (2, 4)] {
        let descriptor = key_frame(9, &vec![(step, "S"); templates]);
        let mut known = None;
        assert!(DependencyStructure::follow(&mut known, &descriptor).is_some(), "the most");
    }
}

#[test]
fn numbers_below_a_limit_use_its_bits_alone() {
    for limit in 1..=33 {
        let (width, short) = (u32::ilog2(limit), (2_u32 << u32::ilog2(limit)) - limit);
        for number in 0..limit {
            let mut writer = Writer::default();
            match number < short {
                true => writer.put(number, width),
                false => writer.put(number + short, width + 1),
            };
            let used = writer.bits.len();
            let bytes = writer.put(0, 8).bytes();
            let mut bits = Bits { bytes: &bytes, place: 0 };
            assert_eq!((bits.below(limit), bits.place), (Some(number), used), "{limit}");
        }
    }
}

#[test]
fn fuzz_dependency_descriptor() {
    let layered = key_frame(60, &LAYERED);
    let spatial = key_frame(3, &[(0, "SSRR"), (1, "-D-R"), (2, "--SS"), (1, "---D")]);
    let corpus = Corpus::of("dependency_descriptor").with(&layered[..]).with(spatial);
    corpus.with(Writer::frame(61).bytes()).check(|descriptor| {
        for mut known in [None, known(&LAYERED)] {
            let frame = DependencyStructure::follow(&mut known, descriptor);
            let Some(Av1Frame { spatial, link }) = frame else { continue };
            assert!(spatial <= SPATIAL_MAX);
            if let FrameLink::Layer { number, .. } = link {
                assert!(number <= TEMPORAL_MAX);
            }
            let known = known.as_ref().expect("a frame has a structure");
            assert!(known.templates.len() <= TEMPLATES_MAX && known.targets.len() <= 32);
            // A descriptor with a structure means the same, whatever was known before.
            if let Some(same) = DependencyStructure::follow(&mut None, descriptor) {
                assert_eq!(same, Av1Frame { spatial, link });
            }
        }
    });
}
