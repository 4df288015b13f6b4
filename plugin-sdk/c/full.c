/* Admission policy: caps new sessions while a region fills up, and rejects them when it is full. */

#define EK_ADMISSION
#include "evenkeel_policy.h"

EK_MANIFEST("full.json");

/* Its own reasons, as in the manifest. */
enum { WHY_HAS_CAPACITY = 1, WHY_NEARLY_FULL = 2, WHY_FULL = 3 };

/* Settings, validated against the manifest, with defaults filled in. Loads are parts per thousand. */
static uint32_t cap_above, cap_kbps, full_above, retry_ms;

const char *ek_init(ek_text settings, uint64_t seed) {
    (void)seed;
    cap_above = (uint32_t)(ek_fraction(settings, "cap_above", 1) * 1000 + 0.5);
    full_above = (uint32_t)(ek_fraction(settings, "full_above", 1) * 1000 + 0.5);
    cap_kbps = (uint32_t)ek_whole(settings, "cap", 0);
    retry_ms = (uint32_t)ek_whole(settings, "retry_after", 0);
    return cap_kbps == 0 ? "cap should be a whole number above 0" : NULL;
}

/* Regions of the catalog with a hash of their names, and the gateway's own. */
enum { REGIONS_MAX = 256 };
static uint64_t own, ids[REGIONS_MAX], names[REGIONS_MAX];
static size_t regions;

/* FNV-1a */
static uint64_t hash(ek_text name) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < name.size; i++) hash = (hash ^ (uint8_t)name.at[i]) * 0x100000001b3;
    return hash;
}

void ek_catalog(const ek_entry *entries, size_t count) {
    own = UINT64_MAX, regions = 0;
    for (const ek_entry *entry = entries; entry < entries + count; entry++) {
        if (entry->kind == EK_KIND_HOME) own = entry->parent;
        if (entry->kind != EK_KIND_REGION || regions == REGIONS_MAX) continue;
        ids[regions] = entry->id;
        names[regions++] = hash(entry->name);
    }
}

/* The region of the session's room, or of its label, or the gateway's own. */
static uint64_t region_of(const ek_admission *asked) {
    if (asked->stands) return asked->standing;
    ek_text label = ek_label_of(asked->labels, "region");
    if (label.at == NULL) return own;
    for (size_t i = 0; i < regions; i++) if (names[i] == hash(label)) return ids[i];
    return UINT64_MAX;
}

ek_judgement ek_admit(const ek_admission *asked) {
    uint64_t region = region_of(asked);
    for (size_t row = 0; row < asked->regions.rows; row++) {
        uint32_t load = ek_cell(asked->regions, row, EK_LOAD);
        if (asked->regions.ids[row] != region || load == EK_UNMEASURED) continue;
        ek_note(0, "load_permille", load);
        if (load >= full_above) return (ek_judgement){ .verdict = EK_REJECT, .retry_ms = retry_ms, .reason = WHY_FULL };
        if (load >= cap_above) {
            return (ek_judgement){ .verdict = EK_ACCEPT_CAPPED, .cap_kbps = cap_kbps, .reason = WHY_NEARLY_FULL };
        }
        return (ek_judgement){ .verdict = EK_ACCEPT, .reason = WHY_HAS_CAPACITY };
    }
    /* Not measured. No opinion: the gateway's own limits decide. */
    return (ek_judgement){ .verdict = EK_ABSTAIN };
}
