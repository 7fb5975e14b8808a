/* Float64 as text, eight at a time, on processors with AVX-512 (IFMA and VBMI). A part of `_float_text.c`.
 *
 * It finds the digits as `shortest` there. But for texts without exponent, and no others, the powers of ten that are
 * needed, 10^0 to 10^21, have at most 49 bits beside their factor of two. So the product with a float64 is exact: two
 * multiplications of IFMA make it, ties are seen, and nothing has to be asked again. Powers of two, whose lower
 * neighbour is nearer, need no care either: those that have a text without exponent are a decimal of at most 17
 * digits, which is what they are printed as. One permutation puts sign, point and zeros in their places.
 *
 * Invariants
 * 1. Lanes of another kind (texts with exponent, subnormals, NaN, infinities) are left to `write_any`; all others
 *    give its bytes.
 * 2. Nothing is written behind SLACK bytes after a value's text.
 */

#include <immintrin.h>

#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512ifma,avx512vbmi")))

enum {
    LANES = 8,
    FEW = 2,           /* so many lanes of another kind are written one by one; with more a whole block is */
    LEAST_POINT = -4,  /* behind so many digits, at least and at most, stands the point */
    LARGEST_POINT = 16,
    POINTS = LARGEST_POINT - LEAST_POINT + 1,
    LAYOUT = 32,       /* as many places as a permutation fills: more than the longest text has */
    NO_POINT = 0x1ff,
};

/* What a permutation finds where: the last sixteen digits, the one before them, and what isn't a digit. */
enum { FIRST = 16, POINT, ZERO, MINUS };

/* Of each exponent: as Scale the power's highest 52 bits; three bits of shift; nine that count the places from
 * LEAST_POINT to the point of 17 digits, NO_POINT where their text has an exponent. */
static uint64_t wide_scales[0x800];

/* By sign, whether there are 17 digits, and point. */
static uint8_t layouts[2 * 2 * POINTS][LAYOUT];

static void fill_layout(uint8_t *out, int is_negative, int is_long, int point)
{
    int count = 16 + is_long, at = 0;
    uint8_t layout[LAYOUT];
    memset(layout, ZERO, LAYOUT);
    if (is_negative)
        layout[at++] = MINUS;
    if (point <= 0) {
        layout[at + 1] = POINT;
        at += 2 - point;
    }
    for (int i = 0; i < count; i++) {
        if (i == point && point > 0)
            layout[at++] = POINT;
        layout[at++] = (uint8_t)(!is_long ? i : i ? i - 1 : FIRST);
    }
    if (count == point)
        layout[at] = POINT;
    memcpy(out, layout, LAYOUT);
}

static void fill_wide_tables(void)
{
    for (int biased = 0; biased <= 0x7ff; biased++) {
        int is_any = 0 < biased && biased < 0x7ff;
        int point = is_any ? scales[biased].exponent + DIGITS - LEAST_POINT : -1;
        uint64_t count = 0 <= point && point <= POINTS ? (uint64_t)point : NO_POINT;
        uint64_t high = is_any ? scales[biased].power.high >> 12 | (uint64_t)scales[biased].shift << 52 : 0;
        wide_scales[biased] = high | count << 55;
    }
    for (int i = 0; i < 2 * 2 * POINTS; i++)
        fill_layout(layouts[i], i / (2 * POINTS), i / POINTS % 2, i % POINTS + LEAST_POINT);
}

static int has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
           __builtin_cpu_supports("avx512vbmi");
}

/* Eight decimals: (front * 10^8 + back) * 10^exponent, of 16 or 17 digits, or 0. */
typedef struct {
    __m512i front, back;
} Decimals;

/* As `shortest`. */
FOR_AVX512 static inline Decimals find_decimals(__m512i bits, __m512i scale)
{
    const __m512i mask = _mm512_set1_epi64((long long)FRACTION), zero = _mm512_setzero_si512();
    const __m512i hundred_million = _mm512_set1_epi64(100000000), ten = _mm512_set1_epi64(10);
    const __m512i middle = _mm512_set1_epi64((long long)1 << 51);
    __m512i fraction = _mm512_and_si512(bits, mask), high = _mm512_and_si512(scale, mask);
    __m512i shift = _mm512_and_si512(_mm512_srli_epi64(scale, 52), _mm512_set1_epi64(7));

    /* The float64 in units of 10^exponent, an integer and 52 bits of fraction; IFMA takes 52 bits of its factors. */
    __m512i upper = _mm512_madd52hi_epu64(high, fraction, high);
    __m512i lower = _mm512_madd52lo_epu64(zero, fraction, high);
    __m512i s = _mm512_sllv_epi64(upper, shift);
    s = _mm512_or_si512(s, _mm512_srlv_epi64(lower, _mm512_sub_epi64(_mm512_set1_epi64(52), shift)));
    __m512i part = _mm512_and_si512(_mm512_sllv_epi64(lower, shift), mask);
    __m512i half = _mm512_srli_epi64(_mm512_sllv_epi64(high, shift), 1);

    /* s < 2^57, and n * ceil(2^70 / 5^8) >> 70 is n / 5^8 for n < 2^49. */
    __m512i front = _mm512_madd52hi_epu64(zero, _mm512_srli_epi64(s, 8), _mm512_set1_epi64(3022314549036573));
    front = _mm512_srli_epi64(front, 18);
    __m512i back = _mm512_sub_epi64(s, _mm512_mul_epu32(front, hundred_million));
    __m512i tens = _mm512_srli_epi64(_mm512_mul_epu32(back, _mm512_set1_epi64(0xcccccccd)), 35);
    tens = _mm512_mul_epu32(tens, ten);

    /* Of two that are as near the even one is taken, and what lies as far as half the distance to the next
     * float64 is read as this one if its fraction is even. */
    __m512i below = _mm512_or_si512(_mm512_slli_epi64(_mm512_sub_epi64(back, tens), 52), part);
    __m512i above = _mm512_sub_epi64(_mm512_slli_epi64(ten, 52), below);
    __mmask8 is_odd = _mm512_test_epi64_mask(bits, _mm512_set1_epi64(1));
    __m512i distance = _mm512_min_epu64(below, above);
    __mmask8 is_multiple = _mm512_cmplt_epu64_mask(distance, half);
    is_multiple |= _mm512_cmpeq_epu64_mask(distance, half) & (__mmask8)~is_odd;
    __m512i multiple = _mm512_mask_add_epi64(tens, _mm512_cmplt_epu64_mask(above, below), tens, ten);
    __mmask8 is_up = _mm512_cmpgt_epu64_mask(part, middle);
    is_up |= _mm512_cmpeq_epu64_mask(part, middle) & _mm512_test_epi64_mask(back, _mm512_set1_epi64(1));
    back = _mm512_mask_add_epi64(back, is_up, back, _mm512_set1_epi64(1));
    back = _mm512_mask_mov_epi64(back, is_multiple, multiple);
    __mmask8 is_carried = _mm512_cmpge_epu64_mask(back, hundred_million);
    back = _mm512_mask_sub_epi64(back, is_carried, back, hundred_million);
    front = _mm512_mask_add_epi64(front, is_carried, front, _mm512_set1_epi64(1));
    return (Decimals){front, back};
}

/* Eight digits a lane, the first in the lowest byte; numbers are below 10^8. As `write_sixteen`. */
FOR_AVX512 static inline __m512i digits_of(__m512i numbers)
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

/* Eight texts that have yet to be put in their places. Of `unlike` lanes nothing else counts. */
typedef struct {
    uint8_t even[LANES / 2][16], odd[LANES / 2][16]; /* the last sixteen digits of lanes 0, 2, 4, 6 and 1, 3, 5, 7 */
    uint64_t others[LANES];                          /* what a permutation finds behind those */
    uint64_t layout[LANES], size[LANES];
    unsigned unlike; /* lanes that are left to `write_any` */
} Eight;

FOR_AVX512 static inline void find_eight(Eight *out, const char *in)
{
    const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
    __m512i bits = _mm512_loadu_si512(in);
    __mmask8 is_zero = _mm512_testn_epi64_mask(bits, _mm512_set1_epi64((long long)(UINT64_MAX >> 1)));
    __m512i biased = _mm512_and_si512(_mm512_srli_epi64(bits, 52), _mm512_set1_epi64(0x7ff));
    __m512i scale = _mm512_i64gather_epi64(biased, wide_scales, 8);
    Decimals decimals = find_decimals(bits, scale);

    /* The first of 17 digits; front < 10^9, for which 2^42 will do. */
    __m512i first = _mm512_mul_epu32(_mm512_srli_epi64(decimals.front, 8), _mm512_set1_epi64(11259000));
    first = _mm512_srli_epi64(first, 42);
    __mmask8 is_long = _mm512_test_epi64_mask(first, first);
    __m512i leading = _mm512_mul_epu32(first, _mm512_set1_epi64(100000000));
    __m512i fronts = digits_of(_mm512_sub_epi64(decimals.front, leading)), backs = digits_of(decimals.back);
    const __m512i text = _mm512_set1_epi8('0');
    _mm512_storeu_si512(out->even, _mm512_or_si512(_mm512_unpacklo_epi64(fronts, backs), text));
    _mm512_storeu_si512(out->odd, _mm512_or_si512(_mm512_unpackhi_epi64(fronts, backs), text));
    const __m512i others = _mm512_set1_epi64('0' | '.' << 8 | '0' << 16 | '-' << 24);
    _mm512_storeu_si512(out->others, _mm512_or_si512(first, others));

    /* Digits without the zeros at the end, which are the highest bytes. */
    __mmask8 is_back_zero = _mm512_cmpeq_epi64_mask(backs, zero);
    __m512i zeros = _mm512_srli_epi64(_mm512_lzcnt_epi64(_mm512_mask_mov_epi64(backs, is_back_zero, fronts)), 3);
    __m512i length = _mm512_sub_epi64(_mm512_set1_epi64(16), zeros);
    length = _mm512_mask_sub_epi64(length, is_back_zero, length, _mm512_set1_epi64(8));
    length = _mm512_mask_add_epi64(length, is_long, length, one);

    /* A zero is sixteen of them with the point behind the first. */
    __m512i layout = _mm512_srli_epi64(scale, 55);
    layout = _mm512_mask_sub_epi64(layout, (__mmask8)~is_long, layout, one);
    layout = _mm512_mask_mov_epi64(layout, is_zero, _mm512_set1_epi64(1 - LEAST_POINT));
    out->unlike = _mm512_cmpge_epu64_mask(layout, _mm512_set1_epi64(POINTS));

    /* Digits, point and sign, and zeros around the point. */
    __m512i point = _mm512_add_epi64(layout, _mm512_set1_epi64(LEAST_POINT));
    __m512i behind = _mm512_add_epi64(_mm512_max_epi64(length, _mm512_add_epi64(point, one)), one);
    __m512i before = _mm512_sub_epi64(_mm512_add_epi64(length, _mm512_set1_epi64(2)), point);
    __m512i size = _mm512_mask_mov_epi64(before, _mm512_cmpgt_epi64_mask(point, zero), behind);
    __mmask8 is_negative = _mm512_movepi64_mask(bits);
    _mm512_storeu_si512(out->size, _mm512_mask_add_epi64(size, is_negative, size, one));
    layout = _mm512_mask_add_epi64(layout, is_negative, layout, _mm512_set1_epi64(2 * POINTS));
    _mm512_storeu_si512(out->layout, _mm512_mask_add_epi64(layout, is_long, layout, _mm512_set1_epi64(POINTS)));
}

FOR_AVX512 static inline char *write_lane(char *out, const Eight *eight, int lane)
{
    const uint8_t *digits = lane % 2 ? eight->odd[lane / 2] : eight->even[lane / 2];
    __m256i source = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)&eight->others[lane]),
                                      _mm_loadu_si128((const __m128i *)digits));
    __m256i layout = _mm256_loadu_si256((const __m256i *)layouts[eight->layout[lane]]);
    _mm256_storeu_si256((__m256i *)out, _mm256_permutexvar_epi8(layout, source));
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
