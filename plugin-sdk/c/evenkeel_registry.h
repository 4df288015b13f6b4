/* The registry's numbers and names, generated from ../wit/registry.toml by `make reference`. */

#ifndef EVENKEEL_REGISTRY_H
#define EVENKEEL_REGISTRY_H

/* Packets of the session lost on the way to the gateway. Of a room: of the session that fares worst. [ppm, of session, room] */
#define EK_LOSS_UP 1
/* Packets lost on the way from the gateway to the session, as its receiver reports. [ppm, of session, room] */
#define EK_LOSS_DOWN 2
/* Interarrival jitter of what the session sends (RFC 3550, 6.4.1). [us, of session, room] */
#define EK_JITTER_UP 3
/* Interarrival jitter as the session's receiver reports it. [us, of session, room] */
#define EK_JITTER_DOWN 4
/* Round trip between gateway and session. [us, of session, room] */
#define EK_RTT_CLIENT 5
/* What the session sends. [kbps, of session, room] */
#define EK_BITRATE_UP 6
/* What the session is sent. [kbps, of session, room] */
#define EK_BITRATE_DOWN 7
/* The degradation rung in force; 0 is undegraded. [count, of session] */
#define EK_RUNG 8
/* The cap in force; 0 where there is none. [kbps, of session] */
#define EK_CAP 9
/* E-model R-factor of the session's voice times 100 (ITU-T G.107). [centi, of session, room] */
#define EK_R_FACTOR 10
/* Since the session or room opened. [ms, of session, room] */
#define EK_AGE 11
/* 1 where the session carries video. [count, of session, room] */
#define EK_VIDEO 12
/* Sessions of the room. [count, of session, room] */
#define EK_SESSIONS 13
/* The lowest cap the session's scenario allows; its ceiling where nobody would obey a cap. [kbps, of session, room] */
#define EK_FLOOR 14
/* The highest rate the session's scenario allows. [kbps, of session, room] */
#define EK_CEILING 15
/* One-way delay to the node: half of the measured round trip. [us, of node, region] */
#define EK_DELAY 32
/* Probes of the node that went unanswered, smoothed. [ppm, of node, region] */
#define EK_LOSS_NODE 33
/* Jitter of the node's round trip. [us, of node, region] */
#define EK_JITTER_NODE 34
/* Admitted load and reserves against capacity. [permille, of node, region] */
#define EK_LOAD 35
/* Health of the node: 0 Up, 1 Suspect, 2 Wary, 3 Down. [count, of node] */
#define EK_HEALTH 36
/* 1 where the node is being drained. [count, of node] */
#define EK_DRAINING 37
/* What the node can carry. [kbps, of node, region] */
#define EK_CAPACITY 38
/* Rooms on the node. [count, of node, region] */
#define EK_ROOMS 39
/* Breaker of the region: 0 closed, 1 open, 2 half-open. [count, of region] */
#define EK_BREAKER 40
/* Nodes of the region that may take a room. [count, of region] */
#define EK_NODES_UP 41

/* Cap what the session sends (REMB). Argument: kbit/s; 0 lifts the cap. [kbps] */
#define EK_OP_CAP 1
/* Send the session voice only. Argument: 1 drops video, 0 restores it. [count] */
#define EK_OP_VOICE_ONLY 2

/* There was room, or too little of it: load against capacity. */
#define EK_REASON_CAPACITY 65536
/* Packets were lost, or no longer are. */
#define EK_REASON_LOSS 65537
/* The way is long, or shorter than another. */
#define EK_REASON_DELAY 65538
/* Packets came unevenly, or no longer do. */
#define EK_REASON_JITTER 65539
/* A node or region failed, is suspected to, or is sound again. */
#define EK_REASON_HEALTH 65540
/* A node is being drained. */
#define EK_REASON_DRAINING 65541
/* It is where the session, its room or its gateway is. */
#define EK_REASON_LOCALITY 65542
/* A label of the session, room, node or region says so. */
#define EK_REASON_LABEL 65543

/* A region. [id] */
#define EK_KIND_REGION 1
/* A zone of a region. [id] */
#define EK_KIND_ZONE 2
/* A node in a zone. [id] */
#define EK_KIND_NODE 3
/* The region this gateway is in; its `parent` is that region. [id] */
#define EK_KIND_HOME 4

/* Lowest cap. [kbps] */
#define EK_PARAM_BITRATE_FLOOR "bitrate-floor"
/* Highest rate. [kbps] */
#define EK_PARAM_BITRATE_CEILING "bitrate-ceiling"
/* Spares a route should hold. [count] */
#define EK_PARAM_SPARES "spares"
/* Silence after which a session is closed. [ms] */
#define EK_PARAM_CLOSE_AFTER "close-after"
/* Who goes first in a herd; higher is earlier. [count] */
#define EK_PARAM_PRIORITY "priority"

/* Whose session it is. [text] */
#define EK_LABEL_TENANT "tenant"
/* The region the session is nearest to, by its name in the configuration. [text] */
#define EK_LABEL_REGION "region"
/* The zone the session is nearest to, by its name in the configuration. [text] */
#define EK_LABEL_ZONE "zone"
/* What it runs on: phone, tablet, desktop, browser. [text] */
#define EK_LABEL_DEVICE "device"
/* Video codecs it can decode, best first, separated by commas. [text] */
#define EK_LABEL_CODEC "codec"
/* Tallest video it can show. [pixels] */
#define EK_LABEL_MAX_HEIGHT "max-height"
/* `low` where it should be spared. [text] */
#define EK_LABEL_BATTERY "battery"
/* What it does in a stream: `publisher` or `viewer`. [text] */
#define EK_LABEL_ROLE "role"

#endif
