// Measures libsrtp 2 beside the gateway's SRTP, on commands of evenkeel-bench.
//
// Prints the version of libsrtp and the library of its ciphers. Then, for each line of standard input with the name of a
// crypto suite (RFC 4568), protects and unprotects batches of RTP packets, and prints the medians of both times in
// nanoseconds per packet. A suite that is named again continues its stream.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <srtp2/srtp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// As in tests/bench/src/srtp.rs.
enum { PACKET = 200, BATCH = 100, TIMINGS = 201, HEADER = 12 };

struct suite {
    const char *name;
    void (*set)(srtp_crypto_policy_t *);
    size_t key, salt;
    srtp_t sender, receiver;
    unsigned short sequence;
};

static struct suite suites[] = {
    {.name = "AEAD_AES_128_GCM", .set = srtp_crypto_policy_set_aes_gcm_128_16_auth, .key = 16, .salt = 12},
    {.name = "AEAD_AES_256_GCM", .set = srtp_crypto_policy_set_aes_gcm_256_16_auth, .key = 32, .salt = 12},
    {.name = "AES_CM_128_HMAC_SHA1_80", .set = srtp_crypto_policy_set_rtp_default, .key = 16, .salt = 14},
    {.name = "AES_CM_128_HMAC_SHA1_32", .set = srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32, .key = 16, .salt = 14},
    {.name = "AES_256_CM_HMAC_SHA1_80", .set = srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80, .key = 32, .salt = 14},
};

static unsigned char packets[BATCH][PACKET + SRTP_MAX_TRAILER_LEN + 4];
static int lengths[BATCH];

static void require(srtp_err_status_t status, const char *call) {
    if (status != srtp_err_status_ok) {
        fprintf(stderr, "%s failed with status %d\n", call, status);
        exit(1);
    }
}

static srtp_t create(const struct suite *suite) {
    unsigned char key[SRTP_MAX_KEY_LEN];
    memset(key, 1, suite->key);
    memset(key + suite->key, 2, suite->salt);
    srtp_policy_t policy = {.ssrc = {.type = ssrc_specific, .value = 1}, .key = key, .window_size = 128};
    suite->set(&policy.rtp);
    suite->set(&policy.rtcp);
    srtp_t session;
    require(srtp_create(&session, &policy), "srtp_create");
    return session;
}

static void write_packet(unsigned char *packet, unsigned short sequence) {
    const unsigned char header[HEADER] = {0x80, 111, sequence >> 8, sequence & 255, 0, 0, 3, 0xc0, 0, 0, 0, 1};
    memcpy(packet, header, HEADER);
    memset(packet + HEADER, 0x5a, PACKET - HEADER);
}

static double now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double median(double *timings) {
    qsort(timings, TIMINGS, sizeof *timings, compare);
    return timings[TIMINGS / 2] / BATCH;
}

static void measure(struct suite *suite) {
    static double protects[TIMINGS], unprotects[TIMINGS];
    if (!suite->sender) {
        suite->sender = create(suite);
        suite->receiver = create(suite);
    }
    for (int timing = 0; timing < TIMINGS; timing++) {
        for (int i = 0; i < BATCH; i++) {
            write_packet(packets[i], suite->sequence++);
            lengths[i] = PACKET;
        }
        double began = now_ns();
        for (int i = 0; i < BATCH; i++)
            require(srtp_protect(suite->sender, packets[i], &lengths[i]), "srtp_protect");
        protects[timing] = now_ns() - began;
        began = now_ns();
        for (int i = 0; i < BATCH; i++)
            require(srtp_unprotect(suite->receiver, packets[i], &lengths[i]), "srtp_unprotect");
        unprotects[timing] = now_ns() - began;
        if (lengths[0] != PACKET || packets[0][HEADER] != 0x5a) {
            fprintf(stderr, "%s: the packet differs after srtp_unprotect\n", suite->name);
            exit(1);
        }
    }
    printf("%.1f %.1f\n", median(protects), median(unprotects));
}

// The library of the ciphers has one of these functions; without any, the ciphers are libsrtp's own.
static void print_backend(void) {
    const char *(*nss)(void), *(*openssl)(int);
    void (*mbedtls)(char *);
    char version[64] = "";
    if ((nss = (const char *(*)(void))dlsym(RTLD_DEFAULT, "NSS_GetVersion")))
        printf("NSS %s\n", nss());
    else if ((openssl = (const char *(*)(int))dlsym(RTLD_DEFAULT, "OpenSSL_version")))
        printf("%s\n", openssl(0));
    else if ((mbedtls = (void (*)(char *))dlsym(RTLD_DEFAULT, "mbedtls_version_get_string_full"))) {
        mbedtls(version);
        printf("%s\n", version);
    } else
        printf("its own ciphers\n");
}

int main(void) {
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    require(srtp_init(), "srtp_init");
    printf("%s with ", srtp_get_version_string());
    print_backend();
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        struct suite *found = NULL;
        for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
            if (!strcmp(line, suites[i].name))
                found = &suites[i];
        if (!found) {
            fprintf(stderr, "unknown crypto suite: %s\n", line);
            return 1;
        }
        measure(found);
    }
    return 0;
}
