/* Scenario policy: parameters of a session by its device. */

#define EK_SCENARIO
#include "evenkeel_policy.h"

EK_MANIFEST("by_device.json");

/* Settings, validated against the manifest, with defaults filled in. */
static int64_t floor_kbps, phone_kbps, ceiling_kbps, priority;
static double low_battery;

const char *ek_init(ek_text settings, uint64_t seed) {
    (void)seed;
    floor_kbps = ek_whole(settings, "floor", 0);
    phone_kbps = ek_whole(settings, "phone_ceiling", 0);
    ceiling_kbps = ek_whole(settings, "ceiling", 0);
    low_battery = ek_fraction(settings, "low_battery", 0);
    priority = ek_whole(settings, "priority", 0);
    return floor_kbps > 0 && low_battery > 0 ? NULL : "floor and low_battery should be above 0";
}

void ek_catalog(const ek_entry *entries, size_t count) { (void)entries, (void)count; }

void ek_resolve(ek_text scenario, ek_labels labels, ek_params *out) {
    (void)scenario;
    int64_t ceiling = ek_is(ek_label_of(labels, "device"), "phone") ? phone_kbps : ceiling_kbps;
    if (ek_is(ek_label_of(labels, "battery"), "low")) ceiling = (int64_t)((double)ceiling * low_battery);
    /* Other parameters stay as in the policy set. */
    ek_set(out, "bitrate-floor", floor_kbps);
    ek_set(out, "bitrate-ceiling", ceiling > floor_kbps ? ceiling : floor_kbps);
    ek_set(out, "priority", priority);
}
