/* The contract between the Evenkeel gateway and a policy, for C.
 *
 * It is `../wit/policy.wit` by hand: a policy is a core module with exports named and typed by the canonical ABI of the
 * component model; the gateway wraps it. Only clang and wasm-ld are needed:
 *
 *     clang --target=wasm32 -ffreestanding -nostdlib -O2 -Wl,--no-entry -Wl,--strip-all -o calm.wasm calm.c
 *
 * One file defines its hooks, includes this header, and implements these functions:
 *
 *     always                     const char *ek_init(ek_text settings, uint64_t seed);
 *                                void ek_catalog(const ek_entry *entries, size_t count);
 *     #define EK_ADMISSION       ek_judgement ek_admit(const ek_admission *asked);
 *     #define EK_ROUTING         ek_placement ek_place(const ek_new_room *room, uint64_t now_us, ek_frame nodes);
 *                                void ek_open_room(const ek_new_room *room, ek_blobs *states);
 *                                void ek_reroute(const ek_rooms *rooms, ek_moves *out);
 *     #define EK_DEGRADATION     void ek_open_session(const ek_new_session *session, ek_blobs *states);
 *                                void ek_tick(const ek_sessions *sessions, ek_actions *out);
 *     #define EK_SCENARIO        void ek_resolve(ek_text scenario, ek_labels labels, ek_params *out);
 *     #define EK_MIGRATE         bool ek_migrate(uint32_t from_schema, ek_bytes state, ek_blobs *states);
 *                                bool ek_migrate_memo(uint32_t from_schema, ek_bytes memo, ek_bytes *out);
 *
 * EK_MIGRATE is for a policy with states of an older schema, which are refused without it.
 *
 * Arguments, and memory from `ek_take`, are valid until the answer has been read. Between questions a policy keeps only
 * its settings and its part of the catalog: anything else about a session or a room belongs into its state.
 *
 * EK_MANIFEST("calm.json") embeds the manifest: see REFERENCE.md. */

#ifndef EVENKEEL_POLICY_H
#define EVENKEEL_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evenkeel_registry.h"

/* Not measured. */
#define EK_UNMEASURED UINT32_MAX

/* Padding of routes with fewer hops than the longest; alone in a placement, it refuses the room. */
#define EK_NO_HOP UINT32_MAX

/* ---- Arguments from the gateway, in the layout of the canonical ABI ---- */

/* UTF-8, without a terminating zero. */
typedef struct { const char *at; size_t size; } ek_text;
typedef struct { const uint8_t *at; size_t size; } ek_bytes;
typedef struct { ek_text key, value; } ek_label;
typedef struct { const ek_label *at; size_t count; } ek_labels;

/* A catalog entry, which frames refer to by number; `kind` is one of EK_KIND_. */
typedef struct { uint32_t kind; uint64_t id, parent; ek_text name; ek_labels labels; } ek_entry;

/* A table of measurements; see ek_cell. */
typedef struct { const uint64_t *ids; size_t rows; const uint32_t *cells; size_t count; } ek_frame;

/* Row r is bytes[offsets[r]] up to bytes[offsets[r + 1]]; see ek_state and ek_add. */
typedef struct { uint32_t *offsets; size_t count; uint8_t *bytes; size_t size; } ek_blobs;

typedef struct { uint64_t session, room; ek_text scenario; ek_labels labels; } ek_new_session;
typedef struct { uint64_t room; ek_text scenario; ek_labels labels; } ek_new_room;

typedef struct {
    uint64_t now_us, session, room;
    bool stands;          /* the room is in region `standing`: no redirect */
    uint64_t standing;
    ek_text scenario;
    ek_labels labels;
    ek_frame regions;
} ek_admission;

typedef struct { uint64_t now_us; ek_frame frame; ek_blobs states; ek_bytes memo; } ek_sessions;

/* Row r has the route from standing[r * width], best first, padded with EK_NO_HOP. */
typedef struct {
    uint64_t now_us;
    ek_frame nodes, frame;
    uint32_t width;
    const uint32_t *standing;
    size_t count;
    ek_blobs states;
    ek_bytes memo;
} ek_rooms;

/* ---- Answers of a policy ---- */

enum { EK_ABSTAIN, EK_ACCEPT, EK_ACCEPT_CAPPED, EK_REDIRECT, EK_REJECT };

typedef struct {
    uint8_t verdict;
    union { uint32_t cap_kbps; uint64_t region; uint32_t retry_ms; };
    uint32_t reason;
} ek_judgement;

/* `hops` best first; none is no opinion. The room is reviewed after `ttl_ms`; 0 is never. EK_NO_HOP alone refuses the room: its
 * client gets `reason`, and may try again after `ttl_ms`; 0 is the gateway's choice. */
typedef struct { const uint32_t *hops; size_t count; uint32_t ttl_ms, reason; ek_bytes state; } ek_placement;
typedef struct { uint32_t row; const uint32_t *hops; size_t count; uint32_t ttl_ms, reason; } ek_move;
typedef struct { uint32_t row, op; uint64_t arg; uint32_t reason; } ek_action;
typedef struct { ek_text key; int64_t value; } ek_param;

/* rows[i] gets the i-th of `states`; other rows keep theirs. */
typedef struct { uint32_t *rows; size_t count; ek_blobs states; uint8_t has_memo; ek_bytes memo; } ek_keep;

typedef struct { ek_move *at; size_t count; ek_keep keep; } ek_moves;
typedef struct { ek_action *at; size_t count; ek_keep keep; } ek_actions;
typedef struct { ek_param *at; size_t count; } ek_params;

_Static_assert(sizeof(void *) == 4, "a policy is built with --target=wasm32");
_Static_assert(sizeof(ek_entry) == 40 && sizeof(ek_new_session) == 32 && sizeof(ek_new_room) == 24, "as in the WIT");
_Static_assert(sizeof(ek_judgement) == 24 && sizeof(ek_placement) == 24 && sizeof(ek_keep) == 36, "as in the WIT");
_Static_assert(sizeof(ek_move) == 20 && sizeof(ek_action) == 24 && sizeof(ek_param) == 16, "as in the WIT");
_Static_assert(offsetof(ek_rooms, memo) == 68 && offsetof(ek_moves, keep) == 8, "as in the WIT");
_Static_assert(sizeof(ek_admission) == 72 && sizeof(ek_rooms) == 80 && sizeof(ek_sessions) == 48, "as in the WIT");

/* ---- Memory: one heap that is empty between questions ---- */

extern uint8_t __heap_base;
static uintptr_t ek_top;

/* The heap's begin if the gateway calls the policy flat: above the buffer for arguments. */
static uintptr_t ek_floor;

/* Allocates until the question ends. Traps beyond the memory limit. */
static void *ek_take(size_t size, size_t align) {
    uintptr_t begin = ek_top ? ek_top : (uintptr_t)&__heap_base;
    begin = (begin + align - 1) & ~(uintptr_t)(align - 1);
    if (size > UINTPTR_MAX - begin) __builtin_trap();
    uintptr_t end = begin + size, pages = __builtin_wasm_memory_size(0);
    if (end > pages * 65536) {
        uintptr_t more = (end - pages * 65536 + 65535) / 65536;
        if (__builtin_wasm_memory_grow(0, more) == (size_t)-1) __builtin_trap();
    }
    ek_top = end;
    return (void *)begin;
}

static void ek_copy(void *to, const void *from, size_t size) {
    uint8_t *out = to;
    const uint8_t *in = from;
    for (size_t i = 0; i < size; i++) out[i] = in[i];
}

__attribute__((export_name("cabi_realloc")))
void *ek_realloc(void *old, size_t old_size, size_t align, size_t size) {
    void *grown = ek_take(size, align);
    if (old_size > 0) ek_copy(grown, old, old_size < size ? old_size : size);
    return grown;
}

/* clang generates calls of these. */
__attribute__((weak)) void *memcpy(void *to, const void *from, size_t size) { ek_copy(to, from, size); return to; }
__attribute__((weak)) void *memset(void *to, int byte, size_t size) {
    for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = (uint8_t)byte;
    return to;
}

/* Capacity of a list of this length: doubles, so that appending is linear. */
static size_t ek_room(size_t length) {
    size_t room = length > 0;
    while (room < length) room *= 2;
    return room;
}

/* Grows a list by one. */
static void *ek_grown(void *list, size_t count, size_t item, size_t align) {
    if (count < ek_room(count)) return list;
    void *grown = ek_take(ek_room(count + 1) * item, align);
    ek_copy(grown, list, count * item);
    return grown;
}

/* ---- Texts ---- */

static size_t ek_length(const char *words) { size_t size = 0; while (words[size]) size++; return size; }
#define EK_TEXT(words) ((ek_text){ (words), ek_length(words) })

static bool ek_is(ek_text text, const char *words) {
    for (size_t i = 0; i < text.size; i++) if (words[i] == 0 || words[i] != text.at[i]) return false;
    return words[text.size] == 0;
}

/* The value of a label; `at` is NULL if it is missing. */
__attribute__((unused)) static ek_text ek_label_of(ek_labels labels, const char *key) {
    for (size_t i = 0; i < labels.count; i++) if (ek_is(labels.at[i].key, key)) return labels.at[i].value;
    return (ek_text){ NULL, 0 };
}

/* The JSON of a setting; `at` is NULL if it is missing. Settings are validated, with defaults filled in. */
static ek_text ek_setting(ek_text settings, const char *key) {
    size_t depth = 0;
    for (size_t i = 0; i < settings.size; i++) {
        char letter = settings.at[i];
        if (letter == '{' || letter == '[') depth++;
        if (letter == '}' || letter == ']') depth--;
        if (letter != '"') continue;
        size_t from = ++i;
        while (i < settings.size && settings.at[i] != '"') i += settings.at[i] == '\\' ? 2 : 1;
        bool named = depth == 1 && ek_is((ek_text){ settings.at + from, i - from }, key);
        if (!named || i + 2 >= settings.size || settings.at[i + 1] != ':') continue;
        size_t begin = i + 2, end = begin, inside = 0;
        bool quoted = false;
        for (; end < settings.size; end++) {
            char next = settings.at[end];
            if (quoted && next == '\\') end++;
            else if (next == '"') quoted = !quoted;
            else if (quoted) continue;
            else if (next == '{' || next == '[') inside++;
            else if (inside == 0 && (next == ',' || next == '}')) break;
            else if (next == '}' || next == ']') inside--;
        }
        return (ek_text){ settings.at + begin, end - begin };
    }
    return (ek_text){ NULL, 0 };
}

static bool ek_is_digit(ek_text text, size_t at) { return at < text.size && text.at[at] >= '0' && text.at[at] <= '9'; }

/* An integer setting. */
__attribute__((unused)) static int64_t ek_whole(ek_text settings, const char *key, int64_t otherwise) {
    ek_text value = ek_setting(settings, key);
    size_t at = value.size > 0 && value.at[0] == '-';
    if (!ek_is_digit(value, at)) return otherwise;
    int64_t number = 0;
    for (; ek_is_digit(value, at); at++) number = number * 10 + (value.at[at] - '0');
    return value.at[0] == '-' ? -number : number;
}

/* A setting that is a number, such as 0.05. */
__attribute__((unused)) static double ek_fraction(ek_text settings, const char *key, double otherwise) {
    ek_text value = ek_setting(settings, key);
    size_t at = value.size > 0 && value.at[0] == '-';
    if (!ek_is_digit(value, at)) return otherwise;
    double number = 0, power = 1;
    int64_t scale = 0, exponent = 0;
    for (; ek_is_digit(value, at); at++) number = number * 10 + (value.at[at] - '0');
    if (at < value.size && value.at[at] == '.') {
        for (at++; ek_is_digit(value, at); at++, scale--) number = number * 10 + (value.at[at] - '0');
    }
    if (at < value.size && value.at[at] == 'e') {
        bool down = ++at < value.size && value.at[at] == '-';
        if (at < value.size && (down || value.at[at] == '+')) at++;
        for (; ek_is_digit(value, at) && exponent < 1000; at++) exponent = exponent * 10 + (value.at[at] - '0');
        scale += down ? -exponent : exponent;
    }
    for (int64_t i = 0; i < (scale < 0 ? -scale : scale); i++) power *= 10;
    number = scale < 0 ? number / power : number * power;
    return value.at[0] == '-' ? -number : number;
}

/* Copies a setting that is a text, and a terminating zero, into a buffer of this size, since `settings` are gone after `ek_init`.
 * Returns the number of bytes; 0 for a text that is empty, missing, or longer than the buffer. */
__attribute__((unused)) static size_t ek_setting_text(ek_text settings, const char *key, char *to, size_t size) {
    ek_text value = ek_setting(settings, key);
    size_t count = 0;
    for (size_t at = 1; at + 1 < value.size && count < size; at++) {
        char letter = value.at[at];
        if (letter == '\\') {
            letter = value.at[++at];
            if (letter == 'u') {   /* of a control character: \u00 and two digits */
                uint8_t high = (uint8_t)value.at[at + 3], low = (uint8_t)value.at[at + 4];
                letter = (char)((high - '0') << 4 | (low <= '9' ? low - '0' : (low | 32) - 'a' + 10));
                at += 4;
            } else if (letter == 'n') letter = '\n';
            else if (letter == 't') letter = '\t';
            else if (letter == 'r') letter = '\r';
            else if (letter == 'b') letter = '\b';
            else if (letter == 'f') letter = '\f';
        }
        to[count++] = letter;
    }
    if (count >= size) count = 0;
    if (size > 0) to[count] = 0;
    return count;
}

/* Log lines and notes. */
__attribute__((import_module("evenkeel:policy/diag@0.1.1"), import_name("log")))
void ek_log_words(uint32_t level, const char *at, size_t size);
__attribute__((import_module("evenkeel:policy/diag@0.1.1"), import_name("note")))
void ek_note_words(uint32_t row, const char *key, size_t size, int64_t value);

/* `level`: 0 trace, 1 debug, 2 info, 3 warn, 4 error. */
__attribute__((unused)) static void ek_log(uint32_t level, const char *words) { ek_log_words(level, words, ek_length(words)); }

/* Explains the decision on this row; put the unit into the key. */
__attribute__((unused)) static void ek_note(uint32_t row, const char *key, int64_t value) {
    ek_note_words(row, key, ek_length(key), value);
}

/* ---- Data documents: facts beside the settings ---- */

typedef struct { uint8_t is_found; ek_text json; } ek_found;
_Static_assert(sizeof(ek_found) == 12 && sizeof(ek_text) == 8, "as in the WIT");

__attribute__((import_module("evenkeel:policy/data@0.1.1"), import_name("lookup")))
void ek_lookup_path(const char *document, size_t size, const ek_text *path, size_t count, ek_found *found);

/* The JSON of the value at a path of a document: names of members, numbers of items. `at` is NULL if it is missing. `ek_whole`
 * and `ek_fraction` read members of an object. Valid until the answer has been read. */
__attribute__((unused)) static ek_text ek_lookup(const char *document, const ek_text *path, size_t count) {
    ek_found found = { 0 };
    ek_lookup_path(document, ek_length(document), path, count, &found);
    return found.is_found ? found.json : (ek_text){ NULL, 0 };
}

/* ---- Tables ---- */

/* Columns are the granted metrics in order: of sessions and rooms, and of nodes and regions. */
#define EK_COLUMNS_MAX 256
static uint32_t ek_columns[2][EK_COLUMNS_MAX];
static size_t ek_column_counts[2];
static uint32_t ek_ops;

/* The value of a cell; EK_UNMEASURED if not measured or not granted. */
__attribute__((unused)) static uint32_t ek_cell(ek_frame frame, size_t row, uint32_t metric) {
    for (size_t kind = 0; kind < 2; kind++) {
        for (size_t column = 0; column < ek_column_counts[kind]; column++) {
            size_t at = column * frame.rows + row;
            if (ek_columns[kind][column] == metric) return at < frame.count ? frame.cells[at] : EK_UNMEASURED;
        }
    }
    return EK_UNMEASURED;
}

/* The cap nearest to this one that the session's scenario allows, by EK_FLOOR and EK_CEILING. The gateway refuses others. */
__attribute__((unused)) static uint32_t ek_within_bounds(ek_frame frame, size_t row, uint32_t kbps) {
    uint32_t floor = ek_cell(frame, row, EK_FLOOR), ceiling = ek_cell(frame, row, EK_CEILING);
    if (ceiling != EK_UNMEASURED && kbps > ceiling) kbps = ceiling;
    return floor != EK_UNMEASURED && kbps < floor ? floor : kbps;
}

/* True if the operator grants this action. */
__attribute__((unused)) static bool ek_may(uint32_t op) { return op < 32 && ek_ops >> op & 1; }

/* The state of a row. */
__attribute__((unused)) static ek_bytes ek_state(const ek_blobs *states, size_t row) {
    return (ek_bytes){ states->bytes + states->offsets[row], states->offsets[row + 1] - states->offsets[row] };
}

/* Appends a row. */
__attribute__((unused)) static void ek_add(ek_blobs *states, const void *state, size_t size) {
    if (states->count == 0) {
        states->offsets = ek_take(sizeof(uint32_t), sizeof(uint32_t));
        states->offsets[states->count++] = 0;
    }
    size_t room = ek_room(states->size), needed = states->size + size;
    if (needed > room) {
        uint8_t *bytes = ek_take(ek_room(needed), 1);
        ek_copy(bytes, states->bytes, states->size);
        states->bytes = bytes;
    }
    ek_copy(states->bytes + states->size, state, size);
    states->size = needed;
    states->offsets = ek_grown(states->offsets, states->count, sizeof(uint32_t), sizeof(uint32_t));
    states->offsets[states->count++] = states->size;
}

/* Sets the state of a row; call it once per row. */
__attribute__((unused)) static void ek_keep_state(ek_keep *keep, uint32_t row, const void *state, size_t size) {
    keep->rows = ek_grown(keep->rows, keep->count, sizeof(uint32_t), sizeof(uint32_t));
    keep->rows[keep->count++] = row;
    ek_add(&keep->states, state, size);
}

__attribute__((unused)) static void ek_act(ek_actions *out, uint32_t row, uint32_t op, uint64_t arg, uint32_t reason) {
    out->at = ek_grown(out->at, out->count, sizeof(ek_action), 8);
    out->at[out->count++] = (ek_action){ row, op, arg, reason };
}

__attribute__((unused)) static void ek_move_to(ek_moves *out, ek_move move) {
    out->at = ek_grown(out->at, out->count, sizeof(ek_move), 4);
    out->at[out->count++] = move;
}

__attribute__((unused)) static void ek_set(ek_params *out, const char *key, int64_t value) {
    out->at = ek_grown(out->at, out->count, sizeof(ek_param), 8);
    out->at[out->count++] = (ek_param){ EK_TEXT(key), value };
}

/* ---- The exports: `interface@version#function` ---- */

#define EK_EXPORT(interface, function) \
    __attribute__((export_name("evenkeel:policy/" interface "@0.1.1#" function)))

/* The gateway has read the answer: frees the memory of the question. */
#define EK_POST(interface, function, name) \
    __attribute__((export_name("cabi_post_evenkeel:policy/" interface "@0.1.1#" function))) \
    void name(void *answer) { (void)answer; ek_top = 0; }

/* Each function is exported once more, flat: the gateway writes its arguments as one record into this buffer, passes the address,
 * and reads the answer before the next call. It calls a policy one way or the other. */
#define EK_FLAT(interface, function) \
    __attribute__((export_name("flat_evenkeel:policy/" interface "@0.1.1#" function)))

__attribute__((export_name("flat_reserve")))
void *ek_reserve(size_t size) {
    ek_top = 0;
    void *buffer = ek_take(size, 8);
    ek_floor = ek_top;
    return buffer;
}

/* Frees the memory of the question before. */
static void ek_begin(void) { ek_top = ek_floor; }

/* result<_, string>, and results of the same size or smaller. */
typedef struct { uint8_t failed; union { ek_text said; ek_blobs states; ek_bytes memo; }; } ek_result;

const char *ek_init(ek_text settings, uint64_t seed);
void ek_catalog(const ek_entry *entries, size_t count);

EK_EXPORT("guest", "init")
ek_result *ek_export_init(const char *settings, size_t size, const uint32_t *subject, size_t subjects, const uint32_t *node,
                          size_t nodes, const uint32_t *ops, size_t op_count, uint64_t seed) {
    ek_column_counts[0] = subjects < EK_COLUMNS_MAX ? subjects : EK_COLUMNS_MAX;
    ek_column_counts[1] = nodes < EK_COLUMNS_MAX ? nodes : EK_COLUMNS_MAX;
    for (size_t i = 0; i < ek_column_counts[0]; i++) ek_columns[0][i] = subject[i];
    for (size_t i = 0; i < ek_column_counts[1]; i++) ek_columns[1][i] = node[i];
    ek_ops = 0;
    for (size_t i = 0; i < op_count; i++) if (ops[i] < 32) ek_ops |= 1u << ops[i];
    ek_result *result = ek_take(sizeof(ek_result), 4);
    const char *said = ek_init((ek_text){ settings, size }, seed);
    *result = (ek_result){ said != NULL, .said = said ? EK_TEXT(said) : (ek_text){ NULL, 0 } };
    return result;
}
EK_POST("guest", "init", ek_post_init)

typedef struct { const uint32_t *at; size_t count; } ek_numbers;
typedef struct { ek_text settings; ek_numbers subject, node, ops; uint64_t seed; } ek_grant;

EK_FLAT("guest", "init")
ek_result *ek_flat_init(const ek_grant *asked) {
    ek_begin();
    return ek_export_init(asked->settings.at, asked->settings.size, asked->subject.at, asked->subject.count, asked->node.at,
                          asked->node.count, asked->ops.at, asked->ops.count, asked->seed);
}

EK_EXPORT("guest", "catalog")
void ek_export_catalog(const ek_entry *entries, size_t count) { ek_catalog(entries, count); ek_top = 0; }

typedef struct { const ek_entry *at; size_t count; } ek_entries;

EK_FLAT("guest", "catalog")
const ek_entries *ek_flat_catalog(const ek_entries *asked) {
    ek_begin();
    ek_catalog(asked->at, asked->count);
    return asked;
}

#ifdef EK_MIGRATE
bool ek_migrate(uint32_t from_schema, ek_bytes state, ek_blobs *states);
bool ek_migrate_memo(uint32_t from_schema, ek_bytes memo, ek_bytes *out);
#endif

EK_EXPORT("guest", "migrate")
ek_result *ek_export_migrate(uint32_t from, uint32_t *offsets, size_t count, uint8_t *bytes, size_t size) {
    ek_result *result = ek_take(sizeof(ek_result), 4);
#ifdef EK_MIGRATE
    ek_blobs older = { offsets, count, bytes, size }, states = { 0 };
    size_t row = 0;
    while (row + 1 < count && ek_migrate(from, ek_state(&older, row), &states)) row++;
    *result = (ek_result){ 0, .states = states };
    if (row + 1 >= count) return result;
#endif
    (void)from, (void)offsets, (void)count, (void)bytes, (void)size;
    *result = (ek_result){ 1, .said = EK_TEXT("a state of that schema cannot be read by this revision") };
    return result;
}
EK_POST("guest", "migrate", ek_post_migrate)

typedef struct { uint32_t from; ek_blobs states; } ek_older_states;

EK_FLAT("guest", "migrate")
ek_result *ek_flat_migrate(const ek_older_states *asked) {
    ek_begin();
    const ek_blobs *states = &asked->states;
    return ek_export_migrate(asked->from, states->offsets, states->count, states->bytes, states->size);
}

EK_EXPORT("guest", "migrate-memo")
ek_result *ek_export_migrate_memo(uint32_t from, const uint8_t *memo, size_t size) {
    ek_result *result = ek_take(sizeof(ek_result), 4);
#ifdef EK_MIGRATE
    ek_bytes out = { 0 };
    if (ek_migrate_memo(from, (ek_bytes){ memo, size }, &out)) {
        *result = (ek_result){ 0, .memo = out };
        return result;
    }
#endif
    (void)from, (void)memo, (void)size;
    *result = (ek_result){ 1, .said = EK_TEXT("a memo of that schema cannot be read by this revision") };
    return result;
}
EK_POST("guest", "migrate-memo", ek_post_migrate_memo)

typedef struct { uint32_t from; ek_bytes memo; } ek_older_memo;

EK_FLAT("guest", "migrate-memo")
ek_result *ek_flat_migrate_memo(const ek_older_memo *asked) {
    ek_begin();
    return ek_export_migrate_memo(asked->from, asked->memo.at, asked->memo.size);
}

#ifdef EK_ADMISSION
ek_judgement ek_admit(const ek_admission *asked);

EK_EXPORT("admission", "admit")
ek_judgement *ek_export_admit(uint64_t now_us, uint64_t session, uint64_t room, uint32_t stands, uint64_t standing,
                              const char *scenario, size_t scenario_size, const ek_label *labels, size_t label_count,
                              const uint64_t *ids, size_t rows, const uint32_t *cells, size_t cell_count) {
    ek_judgement *answer = ek_take(sizeof(ek_judgement), 8);
    ek_admission asked = { now_us, session, room, stands, standing, { scenario, scenario_size },
                           { labels, label_count }, { ids, rows, cells, cell_count } };
    *answer = ek_admit(&asked);
    return answer;
}
EK_POST("admission", "admit", ek_post_admit)

EK_FLAT("admission", "admit")
ek_judgement *ek_flat_admit(const ek_admission *asked) {
    ek_begin();
    ek_judgement *answer = ek_take(sizeof(ek_judgement), 8);
    *answer = ek_admit(asked);
    return answer;
}
#endif

#ifdef EK_ROUTING
ek_placement ek_place(const ek_new_room *room, uint64_t now_us, ek_frame nodes);
void ek_open_room(const ek_new_room *room, ek_blobs *states);
void ek_reroute(const ek_rooms *rooms, ek_moves *out);

EK_EXPORT("routing", "place")
ek_placement *ek_export_place(uint64_t now_us, uint64_t room, const char *scenario, size_t scenario_size,
                              const ek_label *labels, size_t label_count, const uint64_t *ids, size_t rows,
                              const uint32_t *cells, size_t cell_count) {
    ek_placement *answer = ek_take(sizeof(ek_placement), 4);
    ek_new_room asked = { room, { scenario, scenario_size }, { labels, label_count } };
    *answer = ek_place(&asked, now_us, (ek_frame){ ids, rows, cells, cell_count });
    return answer;
}
EK_POST("routing", "place", ek_post_place)

typedef struct { uint64_t now_us; ek_new_room room; ek_frame nodes; } ek_place_asked;

EK_FLAT("routing", "place")
ek_placement *ek_flat_place(const ek_place_asked *asked) {
    ek_begin();
    ek_placement *answer = ek_take(sizeof(ek_placement), 4);
    *answer = ek_place(&asked->room, asked->now_us, asked->nodes);
    return answer;
}

EK_EXPORT("routing", "open")
ek_blobs *ek_export_open_rooms(const ek_new_room *rooms, size_t count) {
    ek_blobs *states = ek_take(sizeof(ek_blobs), 4);
    *states = (ek_blobs){ 0 };
    for (size_t i = 0; i < count; i++) ek_open_room(&rooms[i], states);
    return states;
}
EK_POST("routing", "open", ek_post_open_rooms)

typedef struct { const ek_new_room *at; size_t count; } ek_new_rooms;

EK_FLAT("routing", "open")
ek_blobs *ek_flat_open_rooms(const ek_new_rooms *asked) {
    ek_begin();
    return ek_export_open_rooms(asked->at, asked->count);
}

/* More parameters than the canonical ABI passes by value: passed as one record. */
EK_EXPORT("routing", "reroute")
ek_moves *ek_export_reroute(const ek_rooms *rooms) {
    ek_moves *answer = ek_take(sizeof(ek_moves), 4);
    *answer = (ek_moves){ 0 };
    ek_reroute(rooms, answer);
    return answer;
}
EK_POST("routing", "reroute", ek_post_reroute)

EK_FLAT("routing", "reroute")
ek_moves *ek_flat_reroute(const ek_rooms *asked) {
    ek_begin();
    return ek_export_reroute(asked);
}
#endif

#ifdef EK_DEGRADATION
void ek_open_session(const ek_new_session *session, ek_blobs *states);
void ek_tick(const ek_sessions *sessions, ek_actions *out);

EK_EXPORT("degradation", "open")
ek_blobs *ek_export_open_sessions(const ek_new_session *sessions, size_t count) {
    ek_blobs *states = ek_take(sizeof(ek_blobs), 4);
    *states = (ek_blobs){ 0 };
    for (size_t i = 0; i < count; i++) ek_open_session(&sessions[i], states);
    return states;
}
EK_POST("degradation", "open", ek_post_open_sessions)

typedef struct { const ek_new_session *at; size_t count; } ek_new_sessions;

EK_FLAT("degradation", "open")
ek_blobs *ek_flat_open_sessions(const ek_new_sessions *asked) {
    ek_begin();
    return ek_export_open_sessions(asked->at, asked->count);
}

EK_EXPORT("degradation", "tick")
ek_actions *ek_export_tick(uint64_t now_us, const uint64_t *ids, size_t rows, const uint32_t *cells, size_t cell_count,
                           uint32_t *offsets, size_t offset_count, uint8_t *bytes, size_t size, const uint8_t *memo,
                           size_t memo_size) {
    ek_actions *answer = ek_take(sizeof(ek_actions), 4);
    *answer = (ek_actions){ 0 };
    ek_sessions asked = { now_us, { ids, rows, cells, cell_count }, { offsets, offset_count, bytes, size },
                          { memo, memo_size } };
    ek_tick(&asked, answer);
    return answer;
}
EK_POST("degradation", "tick", ek_post_tick)

EK_FLAT("degradation", "tick")
ek_actions *ek_flat_tick(const ek_sessions *asked) {
    ek_begin();
    ek_actions *answer = ek_take(sizeof(ek_actions), 4);
    *answer = (ek_actions){ 0 };
    ek_tick(asked, answer);
    return answer;
}
#endif

#ifdef EK_SCENARIO
void ek_resolve(ek_text scenario, ek_labels labels, ek_params *out);

EK_EXPORT("scenario", "resolve")
ek_params *ek_export_resolve(const char *scenario, size_t size, const ek_label *labels, size_t count) {
    ek_params *answer = ek_take(sizeof(ek_params), 4);
    *answer = (ek_params){ 0 };
    ek_resolve((ek_text){ scenario, size }, (ek_labels){ labels, count }, answer);
    return answer;
}
EK_POST("scenario", "resolve", ek_post_resolve)

typedef struct { ek_text scenario; ek_labels labels; } ek_resolve_asked;

EK_FLAT("scenario", "resolve")
ek_params *ek_flat_resolve(const ek_resolve_asked *asked) {
    ek_begin();
    ek_params *answer = ek_take(sizeof(ek_params), 4);
    *answer = (ek_params){ 0 };
    ek_resolve(asked->scenario, asked->labels, answer);
    return answer;
}
#endif

/* Embeds the manifest from a JSON file. */
#define EK_MANIFEST(file) \
    __asm__(".section \".custom_section.evenkeel:manifest\",\"\",@\n" \
            ".incbin \"" file "\"\n")

#endif
