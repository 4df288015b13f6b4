/* Degradation policy: caps a session after three ticks of high jitter, and removes the cap when the jitter is low again.
 * The example of the Rust SDK's documentation, in C. */

#define EK_DEGRADATION
#include "evenkeel_policy.h"

EK_MANIFEST("calm.json");

/* Its own reasons, as in the manifest. */
enum { WHY_RESTLESS = 1, WHY_CALM = 2 };

/* A session is restless after so many ticks. */
enum { TICKS = 3 };

/* Settings, validated against the manifest, with defaults filled in. */
static uint32_t jitter_us, cap_kbps;

const char *ek_init(ek_text settings, uint64_t seed) {
    (void)seed;
    int64_t jitter = ek_whole(settings, "jitter", 0), cap = ek_whole(settings, "cap", 0);
    if (jitter <= 0 || cap <= 0) return "jitter and cap should be whole numbers above 0";
    jitter_us = (uint32_t)jitter * 1000;
    cap_kbps = (uint32_t)cap;
    return NULL;
}

void ek_catalog(const ek_entry *entries, size_t count) { (void)entries, (void)count; }

/* State of a session: one byte, the number of restless ticks. */
void ek_open_session(const ek_new_session *session, ek_blobs *states) {
    (void)session;
    ek_add(states, &(uint8_t){ 0 }, 1);
}

void ek_tick(const ek_sessions *sessions, ek_actions *out) {
    for (uint32_t row = 0; row < sessions->frame.rows; row++) {
        uint32_t jitter = ek_cell(sessions->frame, row, EK_JITTER_UP);
        if (jitter == EK_UNMEASURED) continue;   /* changes nothing */
        uint32_t cap = ek_cell(sessions->frame, row, EK_CAP);
        bool restless = jitter >= jitter_us, capped = cap != EK_UNMEASURED && cap > 0;
        ek_bytes state = ek_state(&sessions->states, row);
        uint8_t before = state.size == 1 ? state.at[0] : 0;
        uint8_t ticks = restless ? before + (before < TICKS) : 0;
        if (ticks == TICKS && !capped) {
            ek_act(out, row, EK_OP_CAP, ek_within_bounds(sessions->frame, row, cap_kbps), WHY_RESTLESS);
            ek_note(row, "jitter_us", jitter);
        }
        if (!restless && capped) ek_act(out, row, EK_OP_CAP, 0, WHY_CALM);
        if (ticks != before) ek_keep_state(&out->keep, row, &ticks, 1);
    }
}
