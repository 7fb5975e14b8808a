/* Float64 as text, eight at a time, for processors with AVX-512 (IFMA, VBMI): as `_float_text.c` has it, which
 * includes this, for one.
 *
 * `shortest` takes the product with 128 bits of a power of ten; here it has 104, in two limbs of the 52 bits that
 * IFMA multiplies. That leaves at least 47 bits of fraction instead of 60, so that one random float64 in 10^13 is
 * too near to call and goes the long way. Digits are made in lanes of eight, and one permutation puts point, sign
 * and zeros in their places.
 *
 * Invariants
 * 1. Lanes that aren't of the plain kind (NaN, infinities, powers of two, subnormals, exponents in the text, what
 *    is too near to call) are left to `write_any`, all others give its bytes.
 * 2. Nothing is written behind SLACK bytes after a value's text.
 */

#include <immintrin.h>

#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512ifma,avx512vbmi")))

enum {
    LANES = 8,
    FEW = 2,             /* so many lanes go the long way one by one; if more would, a whole block goes */
    LEAST_POINT = -4,    /* the point stands behind so many digits, at least and at most, in a text */
    LARGEST_POINT = 16,  /* without exponent */
    POINTS = LARGEST_POINT - LEAST_POINT + 1,
    PLACES = 32,         /* of the longest text, and of what a permutation takes */
    POINT_OFFSET = 1024, /* makes exponents positive in their bits */
    TOLERANCE = 128,     /* four times what the product can be off, in its last place */
};

/* What a permutation finds where: sixteen digits, the one before them, and what isn't a digit. */
enum { FIRST = 16, POINT, ZERO, MINUS };

/* As Scale: c * 2^q is (c << shift) * (high * 2^52 + low) / 2^104 * 10^exponent. Above `high`'s 52 bits stands where
 * the point of 17 digits is, above those of `low` the shift. */
typedef struct {
    uint64_t high, low;
} Limbs;

static Limbs limbs[0x800];

/* By sign, whether there are 17 digits, and point: the text's places. */
static uint8_t places[2 * 2 * POINTS][PLACES];

static void fill_places(uint8_t *out, int is_negative, int is_long, int point)
{
    int digit = 0, digits = 16 + is_long, at = 0;
    memset(out, ZERO, PLACES);
    if (is_negative)
        out[at++] = MINUS;
    if (point <= 0) {
        out[at + 1] = POINT;
        at += 2 - point;
    }
    for (; digit < digits; digit++) {
        if (digit == point && point > 0)
            out[at++] = POINT;
        out[at++] = (uint8_t)(is_long ? (digit ? digit - 1 : FIRST) : digit);
    }
    if (digit == point)
        out[at] = POINT;
}

static void fill_wide_tables(void)
{
    for (int biased = 1; biased < 0x7ff; biased++) {
        Power power = scales[biased].power;
        uint64_t high = power.high >> 12, low = (power.high << 40 | power.low >> 24) & FRACTION;
        uint64_t point = (uint64_t)(scales[biased].exponent + DIGITS + POINT_OFFSET);
        limbs[biased] = (Limbs){high | point << 52, low | (uint64_t)scales[biased].shift << 52};
    }
    for (int i = 0; i < 2 * 2 * POINTS; i++)
        fill_places(places[i], i / (2 * POINTS), i / POINTS % 2, i % POINTS + LEAST_POINT);
}

static int has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
           __builtin_cpu_supports("avx512vbmi");
}

/* Eight digits a lane, the first in the lowest byte; numbers are below 10^8. */
FOR_AVX512 static inline __m512i eights_of(__m512i numbers)
{
    __m512i fours = _mm512_srli_epi64(_mm512_mul_epu32(numbers, _mm512_set1_epi64(109951163)), 40);
    __m512i rest = _mm512_sub_epi32(numbers, _mm512_mul_epu32(fours, _mm512_set1_epi64(10000)));
    fours = _mm512_or_si512(fours, _mm512_slli_epi64(rest, 32));
    __m512i twos = _mm512_srli_epi16(_mm512_mulhi_epu16(fours, _mm512_set1_epi16(10486)), 4);
    rest = _mm512_sub_epi16(fours, _mm512_mullo_epi16(twos, _mm512_set1_epi16(100)));
    twos = _mm512_or_si512(twos, _mm512_slli_epi32(rest, 16));
    __m512i ones = _mm512_mulhi_epu16(twos, _mm512_set1_epi16(6554));
    rest = _mm512_sub_epi16(twos, _mm512_mullo_epi16(ones, _mm512_set1_epi16(10)));
    return _mm512_or_si512(ones, _mm512_slli_epi16(rest, 8));
}

/* The parts of eight decimals of 16 or 17 digits, and what their texts need. */
typedef struct {
    uint8_t even[LANES / 2][16], odd[LANES / 2][16]; /* the last sixteen digits of lanes 0, 2, 4, 6 and 1, 3, 5, 7 */
    uint64_t others[LANES];                          /* what stands behind those for the permutation */
    uint64_t places[LANES], size[LANES];
    unsigned unlike; /* lanes that are left to `write_any` */
} Eight;

FOR_AVX512 static inline void find_eight(Eight *out, const char *in)
{
    const __m512i mask = _mm512_set1_epi64((long long)FRACTION), zero = _mm512_setzero_si512();
    const __m512i one = _mm512_set1_epi64(1), hundred_million = _mm512_set1_epi64(100000000);
    __m512i bits = _mm512_loadu_si512(in);
    __m512i fraction = _mm512_and_si512(bits, mask);
    __m512i biased = _mm512_and_si512(_mm512_srli_epi64(bits, 52), _mm512_set1_epi64(0x7ff));
    __m512i row = _mm512_slli_epi64(biased, 1);
    __m512i high = _mm512_i64gather_epi64(row, &limbs[0].high, 8);
    __m512i low = _mm512_i64gather_epi64(row, &limbs[0].low, 8);
    __m512i point = _mm512_srli_epi64(high, 52), shift = _mm512_srli_epi64(low, 52);
    __mmask8 unlike = _mm512_cmpeq_epi64_mask(fraction, zero) | _mm512_cmpeq_epi64_mask(point, zero);

    /* s and part, of 52 bits: the float64 in units of 10^k */
    __m512i middle = _mm512_madd52hi_epu64(_mm512_and_si512(low, mask), fraction, low);
    middle = _mm512_madd52lo_epu64(middle, fraction, high);
    __m512i half = _mm512_and_si512(high, mask);
    __m512i top = _mm512_madd52hi_epu64(_mm512_add_epi64(half, _mm512_srli_epi64(middle, 52)), fraction, high);
    middle = _mm512_and_si512(middle, mask);
    __m512i s = _mm512_sllv_epi64(top, shift);
    s = _mm512_or_si512(s, _mm512_srlv_epi64(middle, _mm512_sub_epi64(_mm512_set1_epi64(52), shift)));
    __m512i part = _mm512_and_si512(_mm512_sllv_epi64(middle, shift), mask);
    half = _mm512_srli_epi64(_mm512_sllv_epi64(half, shift), 1);

    /* s is front * 10^8 + back; (s >> 8) * ceil(2^70 / 5^8) >> 70 is exact below 2^50 */
    __m512i front = _mm512_madd52hi_epu64(zero, _mm512_srli_epi64(s, 8), _mm512_set1_epi64(3022314549036573));
    front = _mm512_srli_epi64(front, 18);
    __m512i back = _mm512_sub_epi64(s, _mm512_mul_epu32(front, hundred_million));
    __m512i tens = _mm512_srli_epi64(_mm512_mul_epu32(back, _mm512_set1_epi64(0xcccccccd)), 35);
    tens = _mm512_mul_epu32(tens, _mm512_set1_epi64(10));
    __m512i below = _mm512_or_si512(_mm512_slli_epi64(_mm512_sub_epi64(back, tens), 52), part);
    __m512i above = _mm512_sub_epi64(_mm512_set1_epi64((long long)10 << 52), below);
    __m512i distance = _mm512_min_epu64(below, above);
    const __m512i tolerance = _mm512_set1_epi64(TOLERANCE), both = _mm512_set1_epi64(2 * TOLERANCE);
    __m512i from_half = _mm512_add_epi64(_mm512_sub_epi64(distance, half), tolerance);
    __m512i from_middle = _mm512_sub_epi64(part, _mm512_set1_epi64(((long long)1 << 51) - TOLERANCE));
    unlike |= _mm512_cmple_epu64_mask(from_half, both) | _mm512_cmple_epu64_mask(from_middle, both);
    __mmask8 is_above = _mm512_cmplt_epu64_mask(above, below);
    __m512i multiple = _mm512_mask_add_epi64(tens, is_above, tens, _mm512_set1_epi64(10));
    __m512i nearest = _mm512_add_epi64(back, _mm512_srli_epi64(part, 51));
    back = _mm512_mask_blend_epi64(_mm512_cmplt_epu64_mask(distance, half), nearest, multiple);
    __mmask8 is_carried = _mm512_cmpge_epu64_mask(back, hundred_million);
    back = _mm512_mask_sub_epi64(back, is_carried, back, hundred_million);
    front = _mm512_mask_add_epi64(front, is_carried, front, one);

    /* the first of 17 digits; front is below 10^9, so that 2^42 will do */
    __m512i first = _mm512_mul_epu32(_mm512_srli_epi64(front, 8), _mm512_set1_epi64(11259000));
    first = _mm512_srli_epi64(first, 42);
    front = _mm512_sub_epi64(front, _mm512_mul_epu32(first, hundred_million));
    __mmask8 is_long = _mm512_test_epi64_mask(first, first);
    /* a zero is sixteen digits, of which the first stands before the point */
    __mmask8 is_zero = _mm512_testn_epi64_mask(bits, _mm512_set1_epi64((long long)(UINT64_MAX >> 1)));
    __m512i fronts = eights_of(front), backs = eights_of(back);
    const __m512i text = _mm512_set1_epi8('0');
    _mm512_storeu_si512(out->even, _mm512_or_si512(_mm512_unpacklo_epi64(fronts, backs), text));
    _mm512_storeu_si512(out->odd, _mm512_or_si512(_mm512_unpackhi_epi64(fronts, backs), text));
    const __m512i others = _mm512_set1_epi64('0' | '.' << 8 | '0' << 16 | '-' << 24);
    _mm512_storeu_si512(out->others, _mm512_or_si512(first, others));

    /* sizes: digits without the zeros at the end, which are the highest bytes; a sign, a point, zeros around it */
    __mmask8 is_back_zero = _mm512_cmpeq_epi64_mask(backs, zero);
    __m512i zeros = _mm512_srli_epi64(_mm512_lzcnt_epi64(_mm512_mask_mov_epi64(backs, is_back_zero, fronts)), 3);
    __m512i length = _mm512_sub_epi64(_mm512_set1_epi64(16), zeros);
    length = _mm512_mask_sub_epi64(length, is_back_zero, length, _mm512_set1_epi64(8));
    length = _mm512_mask_add_epi64(length, is_long, length, one);
    point = _mm512_sub_epi64(point, _mm512_set1_epi64(POINT_OFFSET + 1));
    point = _mm512_mask_add_epi64(point, is_long, point, one);
    point = _mm512_mask_mov_epi64(point, is_zero, one);
    __m512i place = _mm512_sub_epi64(point, _mm512_set1_epi64(LEAST_POINT));
    unlike |= _mm512_cmpge_epu64_mask(place, _mm512_set1_epi64(POINTS));
    unlike &= (__mmask8)~is_zero;
    __m512i behind = _mm512_add_epi64(_mm512_max_epi64(length, _mm512_add_epi64(point, one)), one);
    __m512i before = _mm512_sub_epi64(_mm512_add_epi64(length, _mm512_set1_epi64(2)), point);
    __m512i size = _mm512_mask_blend_epi64(_mm512_cmpgt_epi64_mask(point, zero), before, behind);
    __mmask8 is_negative = _mm512_movepi64_mask(bits);
    size = _mm512_mask_add_epi64(size, is_negative, size, one);
    place = _mm512_mask_add_epi64(place, is_negative, place, _mm512_set1_epi64(2 * POINTS));
    place = _mm512_mask_add_epi64(place, is_long, place, _mm512_set1_epi64(POINTS));
    _mm512_storeu_si512(out->places, place);
    _mm512_storeu_si512(out->size, size);
    out->unlike = unlike;
}

FOR_AVX512 static inline char *write_lane(char *out, const Eight *eight, int lane)
{
    const uint8_t *digits = lane % 2 ? eight->odd[lane / 2] : eight->even[lane / 2];
    __m256i source = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)&eight->others[lane]),
                                      _mm_loadu_si128((const __m128i *)digits));
    __m256i order = _mm256_loadu_si256((const __m256i *)places[eight->places[lane]]);
    _mm256_storeu_si256((__m256i *)out, _mm256_permutexvar_epi8(order, source));
    out += eight->size[lane];
    *out++ = ',';
    return out;
}

/* As `write_any`. */
FOR_AVX512 static char *write_wide(char *out, const char *in, Py_ssize_t count)
{
    Eight eight;
    for (; count >= LANES; in += 8 * LANES, count -= LANES) {
        find_eight(&eight, in);
        if (__builtin_expect(eight.unlike == 0, 1)) {
            for (int lane = 0; lane < LANES; lane++)
                out = write_lane(out, &eight, lane);
        } else if (__builtin_popcount(eight.unlike) > FEW) {
            Py_ssize_t more = (count < BLOCK ? count : BLOCK) - LANES;
            out = write_any(out, in, LANES + more);
            in += 8 * more;
            count -= more;
        } else {
            for (int lane = 0; lane < LANES; lane++)
                out = eight.unlike >> lane & 1 ? write_any(out, in + 8 * lane, 1) : write_lane(out, &eight, lane);
        }
    }
    return write_any(out, in, count);
}
