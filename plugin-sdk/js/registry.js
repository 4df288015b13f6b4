// The registry's numbers and names, generated from ../wit/registry.toml by `make reference`.

export const Metric = Object.freeze({
  /** Packets of the session lost on the way to the gateway. Of a room: of the session that fares worst. [ppm] */
  LossUp: 1,
  /** Packets lost on the way from the gateway to the session, as its receiver reports. [ppm] */
  LossDown: 2,
  /** Interarrival jitter of what the session sends (RFC 3550, 6.4.1). [us] */
  JitterUp: 3,
  /** Interarrival jitter as the session's receiver reports it. [us] */
  JitterDown: 4,
  /** Round trip between gateway and session. [us] */
  RttClient: 5,
  /** What the session sends. [kbps] */
  BitrateUp: 6,
  /** What the session is sent. [kbps] */
  BitrateDown: 7,
  /** The degradation rung in force; 0 is undegraded. [count] */
  Rung: 8,
  /** The cap in force; 0 where there is none. [kbps] */
  Cap: 9,
  /** E-model R-factor of the session's voice times 100 (ITU-T G.107). [centi] */
  RFactor: 10,
  /** Since the session or room opened. [ms] */
  Age: 11,
  /** 1 where the session carries video. [count] */
  Video: 12,
  /** Sessions of the room. [count] */
  Sessions: 13,
  /** The lowest cap the session's scenario allows; its ceiling where nobody would obey a cap. [kbps] */
  Floor: 14,
  /** The highest rate the session's scenario allows. [kbps] */
  Ceiling: 15,
  /** One-way delay to the node: half of the measured round trip. [us] */
  Delay: 32,
  /** Probes of the node that went unanswered, smoothed. [ppm] */
  LossNode: 33,
  /** Jitter of the node's round trip. [us] */
  JitterNode: 34,
  /** Admitted load and reserves against capacity. [permille] */
  Load: 35,
  /** Health of the node: 0 Up, 1 Suspect, 2 Wary, 3 Down. [count] */
  Health: 36,
  /** 1 where the node is being drained. [count] */
  Draining: 37,
  /** What the node can carry. [kbps] */
  Capacity: 38,
  /** Rooms on the node. [count] */
  Rooms: 39,
  /** Breaker of the region: 0 closed, 1 open, 2 half-open. [count] */
  Breaker: 40,
  /** Nodes of the region that may take a room. [count] */
  NodesUp: 41,
});

export const Op = Object.freeze({
  /** Cap what the session sends (REMB). Argument: kbit/s; 0 lifts the cap. [kbps] */
  Cap: 1,
  /** Send the session voice only. Argument: 1 drops video, 0 restores it. [count] */
  VoiceOnly: 2,
});

export const CommonReason = Object.freeze({
  /** There was room, or too little of it: load against capacity. */
  Capacity: 65536,
  /** Packets were lost, or no longer are. */
  Loss: 65537,
  /** The way is long, or shorter than another. */
  Delay: 65538,
  /** Packets came unevenly, or no longer do. */
  Jitter: 65539,
  /** A node or region failed, is suspected to, or is sound again. */
  Health: 65540,
  /** A node is being drained. */
  Draining: 65541,
  /** It is where the session, its room or its gateway is. */
  Locality: 65542,
  /** A label of the session, room, node or region says so. */
  Label: 65543,
});

export const EntryKind = Object.freeze({
  /** A region. [id] */
  Region: 1,
  /** A zone of a region. [id] */
  Zone: 2,
  /** A node in a zone. [id] */
  Node: 3,
  /** The region this gateway is in; its `parent` is that region. [id] */
  Home: 4,
});

export const Param = Object.freeze({
  /** Lowest cap. [kbps] */
  BitrateFloor: 'bitrate-floor',
  /** Highest rate. [kbps] */
  BitrateCeiling: 'bitrate-ceiling',
  /** Spares a route should hold. [count] */
  Spares: 'spares',
  /** Silence after which a session is closed. [ms] */
  CloseAfter: 'close-after',
  /** Who goes first in a herd; higher is earlier. [count] */
  Priority: 'priority',
});

export const Label = Object.freeze({
  /** Whose session it is. [text] */
  Tenant: 'tenant',
  /** The region the session is nearest to, by its name in the configuration. [text] */
  Region: 'region',
  /** The zone the session is nearest to, by its name in the configuration. [text] */
  Zone: 'zone',
  /** What it runs on: phone, tablet, desktop, browser. [text] */
  Device: 'device',
  /** Video codecs it can decode, best first, separated by commas. [text] */
  Codec: 'codec',
  /** Tallest video it can show. [pixels] */
  MaxHeight: 'max-height',
  /** `low` where it should be spared. [text] */
  Battery: 'battery',
  /** What it does in a stream: `publisher` or `viewer`. [text] */
  Role: 'role',
});
