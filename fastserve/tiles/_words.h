/* Words as the loops in C over rows and tiles know them: the operations' numbers, nulls, floats as bits.
 *
 * `OPERATION_CODES` in operations.py has the same numbers, layout.py the same nulls.
 */
#ifndef FASTSERVE_TILES_WORDS_H
#define FASTSERVE_TILES_WORDS_H

#include <stdint.h>
#include <string.h>

#define NULL_INT64 INT64_MIN
#define NULL_FLOAT64_BITS 0x7FF86E756C6C0000
#define NEGATIVE_ZERO_BITS INT64_MIN

enum { ADD_F, ADD_I, COUNT, MIN_F, MAX_F, MIN_I, MAX_I, MOMENTS, LAST, FIRST, OPERATIONS };

/* How many words a state of each has. */
static const int PARTS[OPERATIONS] = {1, 1, 1, 1, 1, 1, 1, 3, 2, 2};

static inline double as_float(int64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline int64_t as_bits(double value)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* As NumPy adds int64: without an overflow, which C leaves undefined. */
static inline int64_t wrapping_sum(int64_t one, int64_t other)
{
    return (int64_t)((uint64_t)one + (uint64_t)other);
}

#endif
