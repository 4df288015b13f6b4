"""Writes libsrtp.txt: packets that libsrtp (pylibsrtp) protects, for each profile, across two rollovers.

    pip install pylibsrtp && python libsrtp.py >libsrtp.txt

A line begins a profile with its master key and salt, or has a plain packet and the protected one; all in hexadecimal.
"""

import struct

from pylibsrtp import Policy, Session, ffi

SSRC = 0x0EC0FFEE
# The key lengths of a profile, and its number in libsrtp. That of AES-256-CM has none: its settings are written over
# those of another one.
PROFILES = {
    "AEAD_AES_128_GCM": (16 + 12, Policy.SRTP_PROFILE_AEAD_AES_128_GCM),
    "AEAD_AES_256_GCM": (32 + 12, Policy.SRTP_PROFILE_AEAD_AES_256_GCM),
    "AES_CM_128_HMAC_SHA1_80": (16 + 14, Policy.SRTP_PROFILE_AES128_CM_SHA1_80),
    "AES_CM_128_HMAC_SHA1_32": (16 + 14, Policy.SRTP_PROFILE_AES128_CM_SHA1_32),
    "AES_256_CM_HMAC_SHA1_80": (32 + 14, None),
}
# srtp_crypto_policy_t after srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80: cipher SRTP_AES_ICM_256 and bytes of its
# key with salt, authentication SRTP_HMAC_SHA1 and bytes of its key, bytes of the tag, sec_serv_conf_and_auth.
AES_256_CM = struct.pack("6i", 5, 46, 3, 20, 10, 3)
# Sequence numbers, in order of sending; some are overtaken.
SEQUENCES = [20_000, 50_000, 65_533, 65_535, 65_534, 0, 2, 1, 30_000, 60_000, 65_535, 1, 0, 32_768, 32_700]


def policy(profile, key):
    _, number = PROFILES[profile]
    if number is not None:
        return Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=number)
    policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND)
    for settings in (policy._policy.rtp, policy._policy.rtcp):
        ffi.buffer(ffi.addressof(settings))[:] = AES_256_CM
    return policy


def rtp(place, sequence):
    """A packet with CSRC, extension and padding, each in some of the packets, and payloads of any length."""
    csrcs, extended, padded = place % 3, place % 2, place % 4 == 3
    flags = 0x80 | padded << 5 | extended << 4 | csrcs
    packet = struct.pack("!BBHII", flags, 111, sequence, sequence * 960, SSRC)
    packet += struct.pack("!%dI" % csrcs, *range(csrcs))
    if extended:
        packet += bytes.fromhex("bede0001") + b"\x10\x7f\0\0"
    packet += bytes(range(place * 5))
    return packet + (b"\0\0\0\4" if padded else b"")


def rtcp(place):
    """A receiver report, and an APP packet with some words."""
    report = struct.pack("!BBHI", 0x80, 201, 1, SSRC)
    words = bytes(range(place * 4 * 3))
    return report + struct.pack("!BBHI4s", 0x80, 204, 2 + len(words) // 4, SSRC, b"test") + words


def main():
    for profile, (length, _) in PROFILES.items():
        key = bytes((7 * place + length) % 256 for place in range(length))
        session = Session(policy(profile, key))
        print(profile, key.hex())
        for place, sequence in enumerate(SEQUENCES):
            plain = rtp(place, sequence)
            print("rtp", plain.hex(), session.protect(plain).hex())
        for place in range(4):
            plain = rtcp(place)
            print("rtcp", plain.hex(), session.protect_rtcp(plain).hex())


main()
