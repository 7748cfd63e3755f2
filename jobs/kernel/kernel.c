/* The tree kernel: raw scores of rows by the widest vectors that this machine has, then LightGBM's transformation.
 *
 * Free of Python: loaded with ctypes by native.py, so that one library serves every Python.
 * Compiled with -ffp-contract=off: a fused multiply-add rounds once where LightGBM rounds twice.
 */

#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double ZERO_THRESHOLD = 1e-35f; /* LightGBM's kZeroThreshold, a float there too */

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

static inline __attribute__((always_inline)) AVX512 __m512i lookup_avx512(const uint8_t *table, __m512i index)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), index);
}

/* Up to 32 values sit in four registers, from which eight rows take theirs at once. */
static inline __attribute__((always_inline)) AVX512 void add_leaves_avx512(const double *values, uint32_t planes,
                                                                            const uint8_t *leaf, double *sums)
{
    if (planes > 4) {
        for (int row = 0; row < 256; row++) sums[row] += values[leaf[row]];
        return;
    }
    __m512d first = _mm512_loadu_pd(values), second = planes > 1 ? _mm512_loadu_pd(values + 8) : first;
    if (planes <= 2) {
        for (int row = 0; row < 256; row += 8) {
            __m512i index = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(leaf + row)));
            __m512d value = _mm512_permutex2var_pd(first, index, second);
            _mm512_storeu_pd(sums + row, _mm512_add_pd(_mm512_loadu_pd(sums + row), value));
        }
        return;
    }
    __m512d third = _mm512_loadu_pd(values + 16), fourth = planes > 3 ? _mm512_loadu_pd(values + 24) : third;
    for (int row = 0; row < 256; row += 8) {
        __m512i index = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(leaf + row)));
        __m512d value = _mm512_mask_blend_pd(_mm512_cmpgt_epi64_mask(index, _mm512_set1_epi64(15)),
                                             _mm512_permutex2var_pd(first, index, second),
                                             _mm512_permutex2var_pd(third, index, fourth));
        _mm512_storeu_pd(sums + row, _mm512_add_pd(_mm512_loadu_pd(sums + row), value));
    }
}

#define NAME(x) x##_avx512
#define WIDTH 64
#define VECTORS 4
#define TARGET AVX512
#define LOOKUP(table, index) ((UVEC)lookup_avx512(table, (__m512i)(index)))
#define ADD_LEAVES
#include "block.h"

#define AVX2 __attribute__((target("avx2")))

static inline __attribute__((always_inline)) AVX2 __m256i lookup_avx2(const uint8_t *table, __m256i index)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), index);
}

#define NAME(x) x##_avx2
#define WIDTH 32
#define VECTORS 8
#define TARGET AVX2
#define LOOKUP(table, index) ((UVEC)lookup_avx2(table, (__m256i)(index)))
#include "block.h"

#define SSSE3 __attribute__((target("ssse3")))

static inline __attribute__((always_inline)) SSSE3 __m128i lookup_ssse3(const uint8_t *table, __m128i index)
{
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)table), index);
}

#define NAME(x) x##_ssse3
#define WIDTH 16
#define VECTORS 8
#define TARGET SSSE3
#define LOOKUP(table, index) ((UVEC)lookup_ssse3(table, (__m128i)(index)))
#include "block.h"

static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static int has_avx2(void) { return __builtin_cpu_supports("avx2") != 0; }
static int has_ssse3(void) { return __builtin_cpu_supports("ssse3") != 0; }
#endif

#if defined(__aarch64__)
#include <arm_neon.h>
#define LOOKUP(table, index) ((UVEC)vqtbl1q_u8(vld1q_u8(table), (uint8x16_t)(index)))
#else
typedef uint8_t bytes16 __attribute__((vector_size(16), may_alias));

static inline bytes16 lookup_plain(const uint8_t *table, bytes16 index)
{
    uint8_t at[16], found[16];
    memcpy(at, &index, 16);
    for (int i = 0; i < 16; i++) found[i] = (uint8_t)(table[at[i] & 15] & ((at[i] >> 7) - 1));
    memcpy(&index, found, 16);
    return index;
}
#define LOOKUP(table, index) ((UVEC)lookup_plain(table, (bytes16)(index)))
#endif
#define NAME(x) x##_plain
#define WIDTH 16
#define VECTORS 8
#define TARGET
#include "block.h"

static int has_plain(void) { return 1; }

static const struct variant {
    const char *name;
    int (*is_here)(void);
    score_rows *score;
} VARIANTS[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, score_avx512},
    {"avx2", has_avx2, score_avx2},
    {"ssse3", has_ssse3, score_ssse3},
    {"sse2", has_plain, score_plain},
#elif defined(__aarch64__)
    {"neon", has_plain, score_plain},
#else
    {"plain", has_plain, score_plain},
#endif
    {0, 0, 0},
};
enum { MOST_ROWS = 256, ALIGNMENT = 64 };

uint32_t almanac_kernel_version(void) { return ALMANAC_KERNEL_VERSION; }

/* The name of the variant at an index, widest first; "" where this machine lacks it, NULL behind the last. */
const char *almanac_variant(uint32_t index)
{
    const struct variant *variant = VARIANTS + index;
    return variant->name && !variant->is_here() ? "" : variant->name;
}

static void transform(const struct model *model, double *row)
{
    uint32_t count = model->outputs;
    if (model->average != 0.0)
        for (uint32_t k = 0; k < count; k++) row[k] /= model->average;
    switch (model->output) {
    case OUTPUT_SIGMOID:
        for (uint32_t k = 0; k < count; k++) row[k] = 1.0 / (1.0 + exp(-model->sigmoid * row[k]));
        break;
    case OUTPUT_EXP:
        for (uint32_t k = 0; k < count; k++) row[k] = exp(row[k]);
        break;
    case OUTPUT_LOG1P_EXP:
        for (uint32_t k = 0; k < count; k++) row[k] = log1p(exp(row[k]));
        break;
    case OUTPUT_SIGNED_SQUARE:
        for (uint32_t k = 0; k < count; k++) row[k] = ((row[k] > 0.0) - (row[k] < 0.0)) * row[k] * row[k];
        break;
    case OUTPUT_SOFTMAX: {
        double most = row[0], sum = 0.0;
        for (uint32_t k = 1; k < count; k++) most = row[k] > most ? row[k] : most;
        for (uint32_t k = 0; k < count; k++) sum += row[k] = exp(row[k] - most);
        for (uint32_t k = 0; k < count; k++) row[k] /= sum;
        break;
    }
    default:
        break;
    }
}

/* Scores `rows` rows of feature columns into output, row by row. 0, or -1 where there is no memory for a block. */
int32_t almanac_score(const struct model *model, uint32_t variant, const double *const *features, int64_t rows,
                      int32_t is_raw, double *output)
{
    size_t bytes = ((size_t)model->most_planes + 1 + model->slots + 8 * (size_t)model->outputs) * MOST_ROWS;
    uint8_t *scratch = aligned_alloc(ALIGNMENT, bytes);
    if (!scratch) return -1;
    VARIANTS[variant].score(model, features, 0, rows, scratch, output);
    free(scratch);
    if (!is_raw && (model->output != OUTPUT_RAW || model->average != 0.0))
        for (int64_t row = 0; row < rows; row++) transform(model, output + row * model->outputs);
    return 0;
}
