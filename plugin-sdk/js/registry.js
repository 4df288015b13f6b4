// The registry's numbers and names, generated from ../wit/registry.toml by `make reference`.

export const Metric = Object.freeze({
  /** Packets of the session lost on the way to the gateway. For a room: of its worst session. [ppm] */
  LossUp: 1,
  /** Packets lost on the way from the gateway to the session, from its receiver reports. [ppm] */
  LossDown: 2,
  /** Interarrival jitter of the session's packets (RFC 3550, 6.4.1). [us] */
  JitterUp: 3,
  /** Interarrival jitter in the session's receiver reports. [us] */
  JitterDown: 4,
  /** Round trip between gateway and session. [us] */
  RttClient: 5,
  /** Bit rate from the session. [kbps] */
  BitrateUp: 6,
  /** Bit rate to the session. [kbps] */
  BitrateDown: 7,
  /** The active degradation rung; 0 is undegraded. [count] */
  Rung: 8,
  /** The active cap; 0 without one. [kbps] */
  Cap: 9,
  /** E-model R-factor of the session's voice times 100 (ITU-T G.107). [centi] */
  RFactor: 10,
  /** Time since the session or room opened. [ms] */
  Age: 11,
  /** 1 if the session carries video. [count] */
  Video: 12,
  /** Sessions of the room. [count] */
  Sessions: 13,
  /** The lowest cap allowed by the session's scenario; its ceiling if no sender would obey a cap. [kbps] */
  Floor: 14,
  /** The highest rate allowed by the session's scenario. [kbps] */
  Ceiling: 15,
  /** Burn rate of the error budget of the scenario times 100, over 5 minutes: of the indicator of its service level objective that burns fastest. [centi] */
  SloBurn: 16,
  /** Packets of the session that the gateway lacks: lost on the way, and neither sent again nor recovered. [ppm] */
  LossUpAfterRepair: 17,
  /** Packets that the session lacks: lost on the way from the gateway, and not sent again in time. [ppm] */
  LossDownAfterRepair: 18,
  /** Mean length of bursts of lost packets of the session times 100. Unmeasured without loss. [centi] */
  BurstUp: 19,
  /** Mean length of bursts of packets that the session asked for (RFC 4585, 6.2.1) times 100. Unmeasured without loss. [centi] */
  BurstDown: 20,
  /** Segment of the path that impairs the session's media, by the diagnosis: 0 none, 1 device, 2 uplink, 3 leg, 4 node, 5 gateway, 6 downlink, 7 unknown. [count] */
  ImpairedSegment: 21,
  /** 1 if the session's device sends much fewer video frames than usual. [count] */
  FewFrames: 22,
  /** The active cap on what the session sends, by the action of this name; 0 without one. [kbps] */
  CapUp: 23,
  /** The active cap on what the session receives, by the action of this name; 0 without one. [kbps] */
  CapDown: 24,
  /** Packets that the session lacks of all that others sent to it: those of `loss-down-after-repair`, and those that were lost before the gateway sent them. [ppm] */
  LossHeard: 25,
  /** Bit rate that the path to the session can carry, by arrival times of numbered packets or by its receiver reports. [kbps] */
  AvailableDown: 26,
  /** The active argument of the action of this name, which drops frames of the video to the session; 0 for all frames. [count] */
  Thin: 27,
  /** 1 if the session is suspended by the action of this name. [count] */
  Park: 28,
  /** Time in which the picture of the session's video stands still, estimated: of frames that came late, and of those that lack a packet after repair. [ppm] */
  FreezeDown: 29,
  /** Simulcast layer of video that the session is sent now, from 1 for the lowest on, by their bit rates; of several senders the lowest. Unmeasured without one. [count] */
  Layer: 30,
  /** One-way delay to the node: half of the measured round trip. [us] */
  Delay: 32,
  /** Unanswered probes of the node, smoothed. [ppm] */
  LossNode: 33,
  /** Jitter of the node's round trip. [us] */
  JitterNode: 34,
  /** Admitted load and reserves against capacity. [permille] */
  Load: 35,
  /** Health of the node: 0 Up, 1 Suspect, 2 Wary, 3 Down. [count] */
  Health: 36,
  /** 1 if the node is being drained. [count] */
  Draining: 37,
  /** Capacity of the node. [kbps] */
  Capacity: 38,
  /** Rooms on the node. [count] */
  Rooms: 39,
  /** Breaker of the region: 0 closed, 1 open, 2 half-open. [count] */
  Breaker: 40,
  /** Nodes of the region that may take a room. [count] */
  NodesUp: 41,
  /** Forecast that the node fails: 0 none; 500, its delay or loss reaches its limit in an hour; 1,000, it has. [permille] */
  Decay: 42,
  /** Admitted load against capacity, without reserves. [permille] */
  Carried: 43,
  /** Growth of the one-way delay to the session: milliseconds in a second, by arrival times of packets in its feedback; 0 if the delay does not grow. [permille] */
  TrendDown: 44,
});

export const Op = Object.freeze({
  /** Cap the session's bit rate (REMB). Argument: kbit/s; 0 removes the cap. [kbps] */
  Cap: 1,
  /** Send the session voice only. Argument: 1 drops video, 0 restores it. [count] */
  VoiceOnly: 2,
  /** Cap the bit rate that the session sends (REMB, TMMBR), and no other one's. Without effect if its client takes no caps. Argument: kbit/s; 0 removes the cap. [kbps] */
  CapUp: 3,
  /** Cap the bit rate that the session receives: of what the other session of a room of two sends, and by its own REMB to a node that obeys it. Argument: kbit/s; 0 removes the cap. [kbps] */
  CapDown: 4,
  /** Send the session fewer frames of video, and only such as it can decode. Without effect if its codec (not VP8, VP9 or H.264) or its encryption does not show which. Argument: 1 drops the frames to which no other refers, and those of the highest temporal layer; 2 leaves the base layer alone; 0 restores all. [count] */
  Thin: 5,
  /** Suspend the session: media of neither direction passes, and its user is told. Granted only if the operator lists it in `actions`. Argument: 1 suspends, 0 resumes. [count] */
  Park: 6,
  /** End the session, with the reason `ended-by-policy`. Granted only if the operator lists it in `actions`. Argument: 1 ends it; nothing undoes that, and 0 has no effect. [count] */
  End: 7,
  /** Send the session no simulcast layer of video above this one. Without effect on video without layers. Argument: the number of the layer, from 1 for the lowest on; 0 removes the limit. [count] */
  Layer: 8,
});

export const CommonReason = Object.freeze({
  /** Enough or too little capacity for the load. */
  Capacity: 65536,
  /** Packet loss began or ended. */
  Loss: 65537,
  /** The path is long, or shorter than another. */
  Delay: 65538,
  /** Jitter began or ended. */
  Jitter: 65539,
  /** A node or region failed, is suspected, or recovered. */
  Health: 65540,
  /** A node is being drained. */
  Draining: 65541,
  /** Near the session, its room or its gateway. */
  Locality: 65542,
  /** Required by a label of the session, room, node or region. */
  Label: 65543,
});

export const EntryKind = Object.freeze({
  /** A region. [id] */
  Region: 1,
  /** A zone of a region. [id] */
  Zone: 2,
  /** A node in a zone. [id] */
  Node: 3,
  /** The gateway's own region; its `parent` is that region. [id] */
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
  /** Order of moves in a mass failover; higher is earlier. [count] */
  Priority: 'priority',
});

export const Label = Object.freeze({
  /** Tenant of the session. [text] */
  Tenant: 'tenant',
  /** Configured name of the region nearest to the session. [text] */
  Region: 'region',
  /** Configured name of the zone nearest to the session. [text] */
  Zone: 'zone',
  /** Device: phone, tablet, desktop, browser. [text] */
  Device: 'device',
  /** Video codecs it can decode, best first, separated by commas. [text] */
  Codec: 'codec',
  /** Tallest video it can show. [pixels] */
  MaxHeight: 'max-height',
  /** `low` to save power. [text] */
  Battery: 'battery',
  /** Role in a stream: `publisher` or `viewer`. [text] */
  Role: 'role',
  /** Highest rate that it can receive. [kbps] */
  MaxBitrate: 'max-bitrate',
});
