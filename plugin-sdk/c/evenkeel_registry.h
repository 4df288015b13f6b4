/* The registry's numbers and names, generated from ../wit/registry.toml by `make reference`. */

#ifndef EVENKEEL_REGISTRY_H
#define EVENKEEL_REGISTRY_H

/* Packets of the session lost on the way to the gateway. For a room: of its worst session. [ppm, of session, room] */
#define EK_LOSS_UP 1
/* Packets lost on the way from the gateway to the session, from its receiver reports. [ppm, of session, room] */
#define EK_LOSS_DOWN 2
/* Interarrival jitter of the session's packets (RFC 3550, 6.4.1). [us, of session, room] */
#define EK_JITTER_UP 3
/* Interarrival jitter in the session's receiver reports. [us, of session, room] */
#define EK_JITTER_DOWN 4
/* Round trip between gateway and session. [us, of session, room] */
#define EK_RTT_CLIENT 5
/* Bit rate from the session. [kbps, of session, room] */
#define EK_BITRATE_UP 6
/* Bit rate to the session. [kbps, of session, room] */
#define EK_BITRATE_DOWN 7
/* The active degradation rung; 0 is undegraded. [count, of session] */
#define EK_RUNG 8
/* The active cap; 0 without one. [kbps, of session] */
#define EK_CAP 9
/* E-model R-factor of the session's voice times 100 (ITU-T G.107). [centi, of session, room] */
#define EK_R_FACTOR 10
/* Time since the session or room opened. [ms, of session, room] */
#define EK_AGE 11
/* 1 if the session carries video. [count, of session, room] */
#define EK_VIDEO 12
/* Sessions of the room. [count, of session, room] */
#define EK_SESSIONS 13
/* The lowest cap allowed by the session's scenario; its ceiling if no sender would obey a cap. [kbps, of session, room] */
#define EK_FLOOR 14
/* The highest rate allowed by the session's scenario. [kbps, of session, room] */
#define EK_CEILING 15
/* Burn rate of the error budget of the scenario times 100, over 5 minutes: of the indicator of its service level objective that burns fastest. [centi, of session, room] */
#define EK_SLO_BURN 16
/* Packets of the session that the gateway lacks: lost on the way, and neither sent again nor recovered. [ppm, of session] */
#define EK_LOSS_UP_AFTER_REPAIR 17
/* Packets that the session lacks: lost on the way from the gateway, and not sent again in time. [ppm, of session] */
#define EK_LOSS_DOWN_AFTER_REPAIR 18
/* Mean length of bursts of lost packets of the session times 100. Unmeasured without loss. [centi, of session] */
#define EK_BURST_UP 19
/* Mean length of bursts of packets that the session asked for (RFC 4585, 6.2.1) times 100. Unmeasured without loss. [centi, of session] */
#define EK_BURST_DOWN 20
/* Segment of the path that impairs the session's media, by the diagnosis: 0 none, 1 device, 2 uplink, 3 leg, 4 node, 5 gateway, 6 downlink, 7 unknown. [count, of session] */
#define EK_IMPAIRED_SEGMENT 21
/* 1 if the session's device sends much fewer video frames than usual. [count, of session] */
#define EK_FEW_FRAMES 22
/* The active cap on what the session sends, by the action of this name; 0 without one. [kbps, of session] */
#define EK_CAP_UP 23
/* The active cap on what the session receives, by the action of this name; 0 without one. [kbps, of session] */
#define EK_CAP_DOWN 24
/* Packets that the session lacks of all that others sent to it: those of `loss-down-after-repair`, and those that were lost before the gateway sent them. [ppm, of session] */
#define EK_LOSS_HEARD 25
/* Bit rate that the path to the session can carry, by arrival times of numbered packets or by its receiver reports. [kbps, of session] */
#define EK_AVAILABLE_DOWN 26
/* The active argument of the action of this name, which drops frames of the video to the session; 0 for all frames. [count, of session] */
#define EK_THIN 27
/* 1 if the session is suspended by the action of this name. [count, of session] */
#define EK_PARK 28
/* Time in which the picture of the session's video stands still, estimated: of frames that came late, and of those that lack a packet after repair. [ppm, of session] */
#define EK_FREEZE_DOWN 29
/* Simulcast layer of video that the session is sent now, from 1 for the lowest on, by their bit rates; of several senders the lowest. Unmeasured without one. [count, of session] */
#define EK_LAYER 30
/* One-way delay to the node: half of the measured round trip. [us, of node, region] */
#define EK_DELAY 32
/* Unanswered probes of the node, smoothed. [ppm, of node, region] */
#define EK_LOSS_NODE 33
/* Jitter of the node's round trip. [us, of node, region] */
#define EK_JITTER_NODE 34
/* Admitted load and reserves against capacity. [permille, of node, region] */
#define EK_LOAD 35
/* Health of the node: 0 Up, 1 Suspect, 2 Wary, 3 Down. [count, of node] */
#define EK_HEALTH 36
/* 1 if the node is being drained. [count, of node] */
#define EK_DRAINING 37
/* Capacity of the node. [kbps, of node, region] */
#define EK_CAPACITY 38
/* Rooms on the node. [count, of node, region] */
#define EK_ROOMS 39
/* Breaker of the region: 0 closed, 1 open, 2 half-open. [count, of region] */
#define EK_BREAKER 40
/* Nodes of the region that may take a room. [count, of region] */
#define EK_NODES_UP 41
/* Forecast that the node fails: 0 none; 500, its delay or loss reaches its limit in an hour; 1,000, it has. [permille, of node] */
#define EK_DECAY 42
/* Admitted load against capacity, without reserves. [permille, of node, region] */
#define EK_CARRIED 43
/* Growth of the one-way delay to the session: milliseconds in a second, by arrival times of packets in its feedback; 0 if the delay does not grow. [permille, of session] */
#define EK_TREND_DOWN 44

/* Cap the session's bit rate (REMB). Argument: kbit/s; 0 removes the cap. [kbps] */
#define EK_OP_CAP 1
/* Send the session voice only. Argument: 1 drops video, 0 restores it. [count] */
#define EK_OP_VOICE_ONLY 2
/* Cap the bit rate that the session sends (REMB, TMMBR), and no other one's. Without effect if its client takes no caps. Argument: kbit/s; 0 removes the cap. [kbps] */
#define EK_OP_CAP_UP 3
/* Cap the bit rate that the session receives: of what the other session of a room of two sends, and by its own REMB to a node that obeys it. Argument: kbit/s; 0 removes the cap. [kbps] */
#define EK_OP_CAP_DOWN 4
/* Send the session fewer frames of video, and only such as it can decode. Without effect if its codec (not VP8, VP9 or H.264) or its encryption does not show which. Argument: 1 drops the frames to which no other refers, and those of the highest temporal layer; 2 leaves the base layer alone; 0 restores all. [count] */
#define EK_OP_THIN 5
/* Suspend the session: media of neither direction passes, and its user is told. Granted only if the operator lists it in `actions`. Argument: 1 suspends, 0 resumes. [count] */
#define EK_OP_PARK 6
/* End the session, with the reason `ended-by-policy`. Granted only if the operator lists it in `actions`. Argument: 1 ends it; nothing undoes that, and 0 has no effect. [count] */
#define EK_OP_END 7
/* Send the session no simulcast layer of video above this one. Without effect on video without layers. Argument: the number of the layer, from 1 for the lowest on; 0 removes the limit. [count] */
#define EK_OP_LAYER 8

/* Enough or too little capacity for the load. */
#define EK_REASON_CAPACITY 65536
/* Packet loss began or ended. */
#define EK_REASON_LOSS 65537
/* The path is long, or shorter than another. */
#define EK_REASON_DELAY 65538
/* Jitter began or ended. */
#define EK_REASON_JITTER 65539
/* A node or region failed, is suspected, or recovered. */
#define EK_REASON_HEALTH 65540
/* A node is being drained. */
#define EK_REASON_DRAINING 65541
/* Near the session, its room or its gateway. */
#define EK_REASON_LOCALITY 65542
/* Required by a label of the session, room, node or region. */
#define EK_REASON_LABEL 65543

/* A region. [id] */
#define EK_KIND_REGION 1
/* A zone of a region. [id] */
#define EK_KIND_ZONE 2
/* A node in a zone. [id] */
#define EK_KIND_NODE 3
/* The gateway's own region; its `parent` is that region. [id] */
#define EK_KIND_HOME 4

/* Lowest cap. [kbps] */
#define EK_PARAM_BITRATE_FLOOR "bitrate-floor"
/* Highest rate. [kbps] */
#define EK_PARAM_BITRATE_CEILING "bitrate-ceiling"
/* Spares a route should hold. [count] */
#define EK_PARAM_SPARES "spares"
/* Silence after which a session is closed. [ms] */
#define EK_PARAM_CLOSE_AFTER "close-after"
/* Order of moves in a mass failover; higher is earlier. [count] */
#define EK_PARAM_PRIORITY "priority"

/* Tenant of the session. [text] */
#define EK_LABEL_TENANT "tenant"
/* Configured name of the region nearest to the session. [text] */
#define EK_LABEL_REGION "region"
/* Configured name of the zone nearest to the session. [text] */
#define EK_LABEL_ZONE "zone"
/* Device: phone, tablet, desktop, browser. [text] */
#define EK_LABEL_DEVICE "device"
/* Video codecs it can decode, best first, separated by commas. [text] */
#define EK_LABEL_CODEC "codec"
/* Tallest video it can show. [pixels] */
#define EK_LABEL_MAX_HEIGHT "max-height"
/* `low` to save power. [text] */
#define EK_LABEL_BATTERY "battery"
/* Role in a stream: `publisher` or `viewer`. [text] */
#define EK_LABEL_ROLE "role"
/* Highest rate that it can receive. [kbps] */
#define EK_LABEL_MAX_BITRATE "max-bitrate"

#endif
