/* The JSON text of a line of float64, each with the fewest digits that give it back.
 *
 * fastserve/api/float_text.py says when this runs and has its twin. The digits are found as R. Giulietti's
 * "The Schubfach way to render doubles" (2020) proves: three products with a power of ten tell between which
 * decimals a float64 lies, and one division by ten whether a shorter one fits. `shortest` mostly does with one of
 * the products. The powers are computed when the module is loaded. Digits are made sixteen at a time.
 *
 * Invariants
 * 1. The text is that of orjson, to the byte: 1e15 and less as 1000000000000000.0, 1e-5 and more as 0.00001, else
 *    with an exponent; null for a NaN or an infinity.
 * 2. Nothing is written behind SLACK bytes after a value's text.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if !defined(__SIZEOF_INT128__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs 128-bit integers and little-endian words; the twin in Python runs without"
#endif

__extension__ typedef unsigned __int128 uint128_t;

enum {
    LEAST_POWER = -292, /* 10^-k for all exponents k that a float64's decimal can have */
    LARGEST_POWER = 324,
    DIGITS = 17,         /* enough for any float64 */
    LONGEST = 24,        /* -1.2345678901234567e-308 */
    SLACK = 32,          /* texts are copied in whole words */
    BLOCK = 32,
    LIMBS = 18,          /* 1152 bits: 10^324 has 1077, and 2^1151 / 10^292 leaves 181 */
};

typedef struct {
    uint64_t high, low;
} Power;

/* ceil(10^e * 2^r) of 128 bits, the highest of them set. */
static Power powers[LARGEST_POWER - LEAST_POWER + 1];

/* What makes a float64 of an exponent a decimal: c * 2^q is (c << shift) * power * 10^exponent. */
typedef struct {
    Power power;
    uint64_t half; /* of 2^q, in units of 10^exponent / 2^60 */
    int exponent, shift;
} Scale;

static Scale scales[0x7ff];

/* --- powers of ten ------------------------------------------------------------------------------------- */

static void times_ten(uint64_t *limbs)
{
    uint128_t carry = 0;
    for (int i = 0; i < LIMBS; i++) {
        carry += (uint128_t)limbs[i] * 10;
        limbs[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

static void by_ten(uint64_t *limbs)
{
    uint128_t rest = 0;
    for (int i = LIMBS; i--;) {
        rest = rest << 64 | limbs[i];
        limbs[i] = (uint64_t)(rest / 10);
        rest %= 10;
    }
}

/* The 128 highest bits, and one more in their last place if anything but zeros follows or followed. */
static Power rounded_up(const uint64_t *limbs, int is_inexact)
{
    int top = LIMBS - 1;
    while (limbs[top] == 0)
        top--;
    int shift = __builtin_clzll(limbs[top]);
    uint64_t word[3];
    for (int i = 0; i < 3; i++)
        word[i] = top >= i ? limbs[top - i] : 0;
    uint128_t bits = (uint128_t)word[0] << 64 | word[1];
    if (shift) {
        bits = bits << shift | word[2] >> (64 - shift);
        word[2] <<= shift;
    }
    is_inexact |= word[2] != 0;
    for (int i = 0; i < top - 2; i++)
        is_inexact |= limbs[i] != 0;
    bits += is_inexact != 0;
    return (Power){(uint64_t)(bits >> 64), (uint64_t)bits};
}

/* floor(log10(2^q)), or of 3/4 of it */
static inline int log10_of(int q, int is_uneven)
{
    return (q * 1262611 - (is_uneven ? 524031 : 0)) >> 22;
}

/* How far 2^q / 10^k is from what its power of 128 bits says: 1 to 4 bits. */
static inline int shift_of(int q, int k)
{
    return q + ((-k * 1741647) >> 19) + 1;
}

static void fill_tables(void)
{
    uint64_t limbs[LIMBS] = {1};
    for (int e = 0; e <= LARGEST_POWER; e++, times_ten(limbs))
        powers[e - LEAST_POWER] = rounded_up(limbs, 0);
    memset(limbs, 0, sizeof limbs);
    limbs[LIMBS - 1] = (uint64_t)1 << 63;
    for (int e = -1; e >= LEAST_POWER; e--) {
        by_ten(limbs); /* rounding down each time rounds the quotient down once */
        powers[e - LEAST_POWER] = rounded_up(limbs, 1);
    }
    for (int biased = 1; biased < 0x7ff; biased++) {
        int q = biased - 1075, k = log10_of(q, 0), shift = shift_of(q, k);
        Power power = powers[-k - LEAST_POWER];
        scales[biased] = (Scale){power, power.high >> (5 - shift), k, shift};
    }
}

/* --- digits ---------------------------------------------------------------------------------------------- */

/* digits * 10^exponent */
typedef struct {
    uint64_t digits;
    int exponent;
} Decimal;

typedef struct {
    char text[32]; /* the digits; what follows them is never looked at, only copied */
    int point, length; /* the point stands behind so many of them, or so many zeros stand behind it */
} Digits;

static const uint64_t TEN_TO_15 = 1000000000000000, TEN_TO_16 = 10000000000000000;
static const uint64_t FRACTION = ((uint64_t)1 << 52) - 1, INFINITE = (uint64_t)0x7ff << 52;

static inline int is_special(uint64_t bits)
{
    return bits << 1 == 0 || (bits & INFINITE) == INFINITE;
}

/* The product's upper word; its last bit is set, too, if what was cut off counts. */
static inline uint64_t scaled(Power power, uint64_t quarters)
{
    uint64_t below = (uint64_t)((uint128_t)power.low * quarters >> 64);
    uint128_t product = (uint128_t)power.high * quarters + below;
    return (uint64_t)(product >> 64) | ((uint64_t)product > 1);
}

/* As `shortest`, for every float64 but 0, infinities and NaN; of 1 to 17 digits. */
static Decimal shortest_of_any(uint64_t bits)
{
    uint64_t fraction = bits & FRACTION;
    int biased = bits >> 52 & 0x7ff;
    uint64_t c = biased ? fraction | (FRACTION + 1) : fraction;
    int q = (biased ? biased : 1) - 1075;
    int is_uneven = fraction == 0 && biased > 1; /* the next float64 below is half as far as the one above */
    int k = log10_of(q, is_uneven);
    int h = shift_of(q, k);
    Power power = powers[-k - LEAST_POWER];
    uint64_t is_odd = c & 1;
    uint64_t lower = scaled(power, (4 * c - (is_uneven ? 1 : 2)) << h) + is_odd;
    uint64_t value = scaled(power, 4 * c << h);
    uint64_t upper = scaled(power, (4 * c + 2) << h) - is_odd;
    uint64_t s = value / 4;
    if (s >= 10) {
        uint64_t tens = s / 10 * 10;
        int is_below_in = lower <= 4 * tens;
        int is_above_in = 4 * tens + 40 <= upper;
        if (is_below_in != is_above_in)
            return (Decimal){is_above_in ? tens + 10 : tens, k};
    }
    int is_below_in = lower <= 4 * s;
    int is_above_in = 4 * s + 4 <= upper;
    uint64_t middle = 4 * s + 2;
    int is_above_nearer = value > middle || (value == middle && (s & 1));
    int is_above = is_below_in != is_above_in ? is_above_in : is_above_nearer;
    return (Decimal){is_above ? s + 1 : s, k};
}

static inline int is_near(uint64_t one, uint64_t other)
{
    return one - other + 4 <= 8;
}

/* The shortest decimal that is read as this float64, the nearest of those.
 *
 * One product gives the float64 in units of 10^k as an integer and a fraction, off by less than 2^-63. Half the
 * distance to the next float64, from 1/2 to 5 units, is the power itself. If a multiple of ten is no further away
 * than that, it is the answer, else the nearest integer. Where the product isn't exact enough to tell, or the
 * distances to both sides differ, the long way is taken: for ties, for powers of two, and else for one random
 * float64 in 10^17. */
static inline Decimal shortest(uint64_t bits)
{
    uint64_t fraction = bits & FRACTION;
    const Scale *scale = &scales[bits >> 52 & 0x7ff];
    uint64_t c = (fraction | (FRACTION + 1)) << scale->shift;
    uint128_t value = (uint128_t)scale->power.high * c + (uint64_t)((uint128_t)scale->power.low * c >> 64);
    uint64_t s = (uint64_t)(value >> 64), part = (uint64_t)value;
    uint64_t tens = s / 10 * 10;
    /* In units of 2^-60, since ten is to fit. */
    uint64_t below = (s - tens) << 60 | part >> 4;
    uint64_t above = ((uint64_t)10 << 60) - below;
    uint64_t distance = below < above ? below : above;
    int is_unsure = is_near(distance, scale->half) | is_near(part, (uint64_t)1 << 63) | (fraction == 0);
    if (__builtin_expect(is_unsure | (scale->half == 0), 0))
        return shortest_of_any(bits);
    uint64_t multiple = below < above ? tens : tens + 10;
    uint64_t nearest = s + (part >> 63);
    return (Decimal){distance < scale->half ? multiple : nearest, scale->exponent};
}

#ifdef __SSE2__
/* Sixteen digits as text; returns how many of them there are without the zeros at the end. */
static inline int write_sixteen(char *out, uint32_t high, uint32_t low)
{
    __m128i eights = _mm_set_epi64x(low, high);
    __m128i fours = _mm_srli_epi64(_mm_mul_epu32(eights, _mm_set1_epi32(109951163)), 40);
    __m128i rest = _mm_sub_epi32(eights, _mm_mul_epu32(fours, _mm_set1_epi32(10000)));
    fours = _mm_or_si128(fours, _mm_slli_epi64(rest, 32));
    __m128i twos = _mm_srli_epi16(_mm_mulhi_epu16(fours, _mm_set1_epi16(10486)), 4);
    rest = _mm_sub_epi16(fours, _mm_mullo_epi16(twos, _mm_set1_epi16(100)));
    twos = _mm_or_si128(twos, _mm_slli_epi32(rest, 16));
    __m128i ones = _mm_mulhi_epu16(twos, _mm_set1_epi16(6554));
    rest = _mm_sub_epi16(twos, _mm_mullo_epi16(ones, _mm_set1_epi16(10)));
    ones = _mm_or_si128(ones, _mm_slli_epi16(rest, 8));
    _mm_storeu_si128((__m128i *)out, _mm_or_si128(ones, _mm_set1_epi8('0')));
    unsigned zeros = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(ones, _mm_setzero_si128()));
    return 31 - __builtin_clz((zeros ^ 0xffff) << 1 | 1);
}
#else
/* Eight digits, the first in the lowest byte. */
static inline uint64_t eight_digits(uint32_t number)
{
    uint64_t fours = number / 10000 | (uint64_t)(number % 10000) << 32;
    uint64_t hundreds = fours * 10486 >> 20 & 0x0000007f0000007f;
    uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = twos * 103 >> 10 & 0x000f000f000f000f;
    return tens | (twos - 10 * tens) << 8;
}

/* Sixteen digits as text; returns how many of them there are without the zeros at the end. */
static inline int write_sixteen(char *out, uint32_t high, uint32_t low)
{
    uint64_t first = eight_digits(high), second = eight_digits(low);
    int length = second ? 16 - __builtin_clzll(second) / 8 : first ? 8 - __builtin_clzll(first) / 8 : 0;
    first += 0x3030303030303030;
    second += 0x3030303030303030;
    memcpy(out, &first, 8);
    memcpy(out + 8, &second, 8);
    return length;
}
#endif

static inline void write_digits(Digits *out, Decimal decimal)
{
    uint64_t s = decimal.digits;
    int point = decimal.exponent + DIGITS;
    while (__builtin_expect(s < TEN_TO_15, 0)) { /* of float64 below the least normal one */
        s *= 10;
        point--;
    }
    int is_short = s < TEN_TO_16;
    s = is_short ? 10 * s : s;
    uint64_t first = s / TEN_TO_16;
    uint64_t rest = s - first * TEN_TO_16;
    uint64_t high = rest / 100000000;
    out->text[0] = (char)('0' + first);
    out->length = 1 + write_sixteen(out->text + 1, (uint32_t)high, (uint32_t)(rest - high * 100000000));
    out->point = point - is_short;
}

/* --- text ------------------------------------------------------------------------------------------------ */

static char *write_exponent(char *out, int exponent)
{
    *out++ = 'e';
    *out++ = exponent < 0 ? '-' : '+';
    int size = exponent < 0 ? -exponent : exponent;
    if (size >= 100)
        *out++ = (char)('0' + size / 100);
    if (size >= 10)
        *out++ = (char)('0' + size / 10 % 10);
    *out++ = (char)('0' + size % 10);
    return out;
}

static inline char *write_number(char *out, const Digits *digits)
{
    const char *text = digits->text;
    int point = digits->point, length = digits->length;
    if (0 < point && point <= 16) {
        memcpy(out, text, 16);
        memcpy(out + point + 1, text + point, 16);
        out[point] = '.';
        return out + (length > point ? length + 1 : point + 2);
    }
    if (-5 < point && point <= 0) {
        memcpy(out, "0.000000", 8);
        memcpy(out + 2 - point, text, DIGITS);
        return out + 2 - point + length;
    }
    memcpy(out + 1, text, DIGITS);
    out[0] = text[0];
    out[1] = '.';
    return write_exponent(out + (length > 1 ? length + 1 : 1), point - 1);
}

static inline char *write_special(char *out, uint64_t bits)
{
    int is_zero = bits << 1 == 0;
    memcpy(out, is_zero ? "0.0" : "null", 4);
    return out + (is_zero ? 3 : 4);
}

/* Write up to BLOCK values, each with a comma behind it.
 *
 * One step is done for all of them before the next begins: the steps of one value wait for each other, those
 * of different values don't, and a processor sees only so many instructions ahead. */
static char *write_block(char *out, const uint64_t *bits, Py_ssize_t count)
{
    Decimal decimals[BLOCK];
    Digits digits[BLOCK];
    for (Py_ssize_t i = 0; i < count; i++)
        if (!is_special(bits[i]))
            decimals[i] = shortest(bits[i]);
    for (Py_ssize_t i = 0; i < count; i++)
        if (!is_special(bits[i]))
            write_digits(&digits[i], decimals[i]);
    for (Py_ssize_t i = 0; i < count; i++) {
        *out = '-';
        if (is_special(bits[i])) {
            out = write_special(out + (bits[i] == (uint64_t)1 << 63), bits[i]);
        } else {
            out = write_number(out + (bits[i] >> 63), &digits[i]);
        }
        *out++ = ',';
    }
    return out;
}

/* As `write_block`, of any number of float64, which needn't be aligned. */
static char *write_any(char *out, const char *in, Py_ssize_t count)
{
    while (count) {
        uint64_t bits[BLOCK];
        Py_ssize_t length = count < BLOCK ? count : BLOCK;
        memcpy(bits, in, 8 * (size_t)length);
        out = write_block(out, bits, length);
        in += 8 * length;
        count -= length;
    }
    return out;
}

#if defined(__x86_64__) && defined(__SSE2__) && !defined(WITHOUT_AVX512)
#include "_float_text_avx512.h"
#else
#define has_avx512() 0
#define fill_wide_tables() ((void)0)
#define write_wide write_any
#endif

static char *(*write_values)(char *out, const char *in, Py_ssize_t count) = write_any;

/* --- the module ------------------------------------------------------------------------------------------ */

static PyObject *float_array(PyObject *module, PyObject *line)
{
    (void)module;
    Py_buffer values;
    if (PyObject_GetBuffer(line, &values, PyBUF_CONTIG_RO | PyBUF_FORMAT) < 0)
        return NULL;
    const char *format = values.format ? values.format : "B";
    format += *format == '<' || *format == '=' || *format == '@';
    if (values.ndim != 1 || strcmp(format, "d") != 0) {
        PyErr_Format(PyExc_TypeError, "float_array: expected a line of float64, got %d dimensions of '%.64s'",
                     values.ndim, values.format ? values.format : "B");
        PyBuffer_Release(&values);
        return NULL;
    }
    Py_ssize_t count = values.len / 8;
    PyObject *text = PyBytes_FromStringAndSize(NULL, count * (LONGEST + 1) + 2 + SLACK);
    if (text != NULL) {
        char *start = PyBytes_AS_STRING(text), *out = start;
        *out++ = '[';
        out = write_values(out, values.buf, count);
        out -= count > 0;
        *out++ = ']';
        _PyBytes_Resize(&text, out - start);
    }
    PyBuffer_Release(&values);
    return text;
}

static PyMethodDef methods[] = {
    {"float_array", float_array, METH_O, "Return the JSON array of a contiguous line of float64."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    (void)module;
    fill_tables();
    if (has_avx512()) {
        fill_wide_tables();
        write_values = write_wide;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_float_text", "The text of lines of float64.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__float_text(void)
{
    return PyModuleDef_Init(&definition);
}
