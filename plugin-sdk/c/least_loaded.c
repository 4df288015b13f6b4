/* Routing policy: a room goes to the least loaded near node, with spares in other zones. */

#define EK_ROUTING
#include "evenkeel_policy.h"

EK_MANIFEST("least_loaded.json");

/* Its own reasons, as in the manifest. */
enum { WHY_LEAST_LOADED = 1, WHY_NODE_LOST = 2 };

/* The value of EK_HEALTH of a node that is Down. */
enum { DOWN = 3 };

/* A route has a node and at most this many spares. */
enum { SPARES_MAX = 3 };

/* Settings, validated against the manifest, with defaults filled in. */
static uint32_t near_us;
static size_t spares;

const char *ek_init(ek_text settings, uint64_t seed) {
    (void)seed;
    int64_t wanted = ek_whole(settings, "spares", 0);
    if (wanted < 1 || wanted > SPARES_MAX) return "spares should be 1 to 3";
    spares = (size_t)wanted;
    near_us = (uint32_t)ek_whole(settings, "near", 0) * 1000;
    return NULL;
}

/* The zone of each node, by number. */
enum { NODES_MAX = 4096 };
static uint64_t zones[NODES_MAX];
#define NO_ZONE UINT64_MAX

void ek_catalog(const ek_entry *entries, size_t count) {
    for (size_t node = 0; node < NODES_MAX; node++) zones[node] = NO_ZONE;
    for (const ek_entry *entry = entries; entry < entries + count; entry++) {
        if (entry->kind == EK_KIND_NODE && entry->id < NODES_MAX) zones[entry->id] = entry->parent;
    }
}

static bool share_zone(uint64_t one, uint64_t other) {
    return one < NODES_MAX && other < NODES_MAX && zones[one] != NO_ZONE && zones[one] == zones[other];
}

static bool is_usable(ek_frame nodes, size_t row) {
    return ek_cell(nodes, row, EK_HEALTH) != DOWN && ek_cell(nodes, row, EK_DRAINING) != 1;
}

/* A node whose delay was not measured counts as far. */
static bool is_far(ek_frame nodes, size_t row) { return ek_cell(nodes, row, EK_DELAY) > near_us; }

/* Near before far, then less load, then the lower number. */
static bool is_before(ek_frame nodes, size_t one, size_t other) {
    if (is_far(nodes, one) != is_far(nodes, other)) return is_far(nodes, other);
    uint32_t load = ek_cell(nodes, one, EK_LOAD), others = ek_cell(nodes, other, EK_LOAD);
    if (load == EK_UNMEASURED) load = 0;
    if (others == EK_UNMEASURED) others = 0;
    return load != others ? load < others : nodes.ids[one] < nodes.ids[other];
}

/* The best node, then spares; spares in unused zones come first. Returns the number of hops. */
static size_t route(ek_frame nodes, uint32_t hops[SPARES_MAX + 1]) {
    size_t count = 0;
    while (count <= spares) {
        size_t best = nodes.rows;
        bool best_is_apart = false;
        for (size_t row = 0; row < nodes.rows; row++) {
            bool is_left = is_usable(nodes, row), is_apart = true;
            for (size_t hop = 0; hop < count; hop++) {
                is_left = is_left && nodes.ids[row] != hops[hop];
                is_apart = is_apart && !share_zone(nodes.ids[row], hops[hop]);
            }
            if (!is_left) continue;
            bool is_better = is_apart != best_is_apart ? is_apart : best < nodes.rows && is_before(nodes, row, best);
            if (best == nodes.rows || is_better) best = row, best_is_apart = is_apart;
        }
        if (best == nodes.rows) break;
        hops[count++] = (uint32_t)nodes.ids[best];
    }
    return count;
}

static uint32_t *new_hops(void) { return ek_take((SPARES_MAX + 1) * sizeof(uint32_t), sizeof(uint32_t)); }

/* No hop is no opinion: the gateway decides. */
ek_placement ek_place(const ek_new_room *room, uint64_t now_us, ek_frame nodes) {
    (void)room, (void)now_us;
    uint32_t *hops = new_hops();
    return (ek_placement){ .hops = hops, .count = route(nodes, hops), .reason = WHY_LEAST_LOADED };
}

/* Rooms have no state. */
void ek_open_room(const ek_new_room *room, ek_blobs *states) { (void)room, ek_add(states, NULL, 0); }

static bool is_node_usable(ek_frame nodes, uint32_t node) {
    for (size_t row = 0; row < nodes.rows; row++) if (nodes.ids[row] == node) return is_usable(nodes, row);
    return false;
}

void ek_reroute(const ek_rooms *rooms, ek_moves *out) {
    uint32_t *hops = new_hops();
    size_t count = route(rooms->nodes, hops);
    for (uint32_t row = 0; row < rooms->frame.rows && count > 0; row++) {
        uint32_t first = rooms->width > 0 ? rooms->standing[row * rooms->width] : EK_NO_HOP;
        if (is_node_usable(rooms->nodes, first)) continue;
        ek_move_to(out, (ek_move){ .row = row, .hops = hops, .count = count, .reason = WHY_NODE_LOST });
    }
}
