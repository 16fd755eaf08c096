/* XXH3-64 with the widest vectors that the processor has.

   A compiler may use what every x86-64 has, which is SSE2. What is longer than 240 bytes takes 1.4 times as long with
   that as with AVX-512 (messages of 1000 bytes, just received; 1.6 times for one of 1 MB). So the loops for AVX2 and
   AVX-512 that xxhash.h has are compiled as well, and `choose_digest` picks one when the module is loaded. Elsewhere
   xxhash.h picks for itself: all of AArch64 has NEON.

   xxhash.h is xxHash 0.8.2 as released, not changed; its licence (BSD-2-Clause) is in LICENSE.xxhash. Names of its that
   are used here and not public: XXH_DISPATCH_*, XXH_TARGET_*, XXH3_hashLong_64b_internal, XXH3_64bits_internal. */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define XXH_X86DISPATCH
#define XXH_DISPATCH_AVX2 1
#define XXH_DISPATCH_AVX512 1
#define XXH_TARGET_AVX2 __attribute__((target("avx2")))
#define XXH_TARGET_AVX512 __attribute__((target("avx512f")))
#endif

#define XXH_INLINE_ALL
#include "xxhash.h"

#ifdef XXH_X86DISPATCH

static XXH3_hashLong64_f digest_long = XXH3_hashLong_64b_default;

#define DIGEST_LONG(name, accumulate, scramble)                                                                        \
    static XXH64_hash_t name(const void *bytes, size_t size, XXH64_hash_t seed, const xxh_u8 *secret, size_t length)   \
    {                                                                                                                  \
        (void)seed, (void)secret, (void)length;                                                                        \
        return XXH3_hashLong_64b_internal(bytes, size, XXH3_kSecret, sizeof XXH3_kSecret, accumulate, scramble);       \
    }

XXH_TARGET_AVX2 DIGEST_LONG(digest_avx2, XXH3_accumulate_avx2, XXH3_scrambleAcc_avx2)
XXH_TARGET_AVX512 DIGEST_LONG(digest_avx512, XXH3_accumulate_avx512, XXH3_scrambleAcc_avx512)

static void
choose_digest(void)
{
    if (__builtin_cpu_supports("avx512f")) {
        digest_long = digest_avx512;
    }
    else if (__builtin_cpu_supports("avx2")) {
        digest_long = digest_avx2;
    }
}

static uint64_t
digest(const uint8_t *bytes, uint64_t size)
{
    return XXH3_64bits_internal(bytes, size, 0, XXH3_kSecret, sizeof XXH3_kSecret, digest_long);
}

#else

static void
choose_digest(void)
{
}

static uint64_t
digest(const uint8_t *bytes, uint64_t size)
{
    return XXH3_64bits(bytes, size);
}

#endif
