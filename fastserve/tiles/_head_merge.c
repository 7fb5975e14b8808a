/* The tiles of a batch merged into the heads of its vector rows.
 *
 * fastserve/tiles/head_merge.py says what is asked for and where the twin is. A key's tiles that count lie side by side
 * in their block; each window takes some neighbours of them. Windows that end together go on one from the other, from
 * the newest tile to older ones, so that a tile is added once for all of them.
 *
 * Invariants
 * 1. What is done is bit by bit what the twin does: the same sums in the same order. Where NumPy's own outcome depends
 *    on how much is reduced at once (zeros of both signs, moments that nothing here has written), it is refused.
 * 2. No word outside of what is given is read or written, whatever stands in it.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>

#include "_words.h"

#if !defined(__SIZEOF_INT128__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs 128-bit integers and little-endian words; the twin in Python runs without"
#endif

__extension__ typedef __int128 int128_t;

enum {
    HEADER_WORDS = 2, HEADER_BYTES = 16, WHOLE_BYTES = 24, WORD_BYTES = 8, WHOLE_WORDS = WHOLE_BYTES / WORD_BYTES,
    BLOCKS = 2,       /* of a key: the previous one, then the current one */
    ITEM_WORDS = 2,   /* of a block that is asked for: its header, a tile's bytes */
    PLACED_WORDS = 2, /* of a block that came: its first word, its tiles */
    BOUND_WORDS = 3,  /* of a window: its number, its start, its end */
    HEAD_WORDS = 2, PLACE_WORDS = 8, GROUP_WORDS = 4,
};

static const int64_t NAN_BITS = 0x7FF8000000000000;

typedef struct {
    Py_buffer view;
    int64_t *words;
    int64_t count;
} Words;

/* A sum in more than 64 bits, and whether a term was null. */
typedef struct {
    int128_t sum;
    int is_spoilt;
} Sum;

typedef struct {
    int64_t op, count, first, step; /* in a window's words: part p of column i at first + p * step + i */
    const int64_t *columns;         /* the words of a tile */
} Group;

typedef struct {
    int64_t tile_words, interval_ns;
    int64_t first, stride, windows; /* where the place's heads begin, how many words each window has */
    int64_t width;                  /* accumulators */
    int64_t groups;
    const int64_t *program; /* of the groups */
    const int64_t *bounds;
} Place;

typedef struct {
    int64_t *words;
    Sum *sums;
} Scratch;

/* --- words ----------------------------------------------------------------------------------------------- */

static inline int64_t sum_bits(double value)
{
    return isnan(value) ? NAN_BITS : as_bits(value);
}

static inline int64_t extreme_bits(double value)
{
    return isnan(value) ? NULL_FLOAT64_BITS : as_bits(value);
}

/* Whether zeros of both signs meet: which of them is the smaller one, NumPy decides by their place in the array. */
static inline int are_unlike_zeros(double one, double other)
{
    return (one == other) & (as_bits(one) != as_bits(other));
}

static inline double lesser(double one, double other)
{
    return one < other || isnan(other) ? one : other;
}

static inline double greater(double one, double other)
{
    return one > other || isnan(other) ? one : other;
}

static inline int64_t sum_word(const Sum *sum)
{
    return sum->is_spoilt || sum->sum <= NULL_INT64 || sum->sum > INT64_MAX ? NULL_INT64 : (int64_t)sum->sum;
}

/* Merge a (time, value) pair into another one, whose parts lie apart. */
static inline void pick(int is_last, int64_t time, int64_t value, int64_t *best_time, int64_t *best_value)
{
    int is_better = is_last ? time > *best_time : time < *best_time;
    int is_value_better = is_last ? value > *best_value : value < *best_value;
    if (is_better | ((time == *best_time) & is_value_better)) {
        *best_time = time;
        *best_value = value;
    }
}

/* --- moments --------------------------------------------------------------------------------------------- */

typedef struct {
    double count, mean, squares;
} Moments;

static inline Moments moments_at(const int64_t *words, int64_t step)
{
    return (Moments){as_float(words[0]), as_float(words[step]), as_float(words[2 * step])};
}

/* Whether they are as tiles of finite values have them: merged with nothing they stay what they are. */
static inline int are_plain(Moments m)
{
    if (as_bits(m.count) == 0)
        return as_bits(m.mean) == NULL_FLOAT64_BITS && as_bits(m.squares) == 0;
    return m.count > 0 && isfinite(m.count) && isfinite(m.mean) && as_bits(m.mean) != NEGATIVE_ZERO_BITS
        && isfinite(m.squares) && !signbit(m.squares);
}

/* Merge so many moments, each `distance` words before the one that comes before it in order (`merge_moments`). */
static void merge_moments(const int64_t *newest, int64_t distance, int64_t step, int64_t count, int64_t *out,
                          int64_t out_step)
{
    double reference = as_float(NULL_FLOAT64_BITS), number = -0.0, weighted = -0.0, squares = -0.0;
    for (int64_t i = 0; i < count; i++)
        reference = greater(moments_at(newest - i * distance, step).mean, reference);
    for (int64_t i = 0; i < count; i++) {
        Moments m = moments_at(newest - i * distance, step);
        number += m.count;
        weighted += m.count * (m.count == 0 ? 0.0 : m.mean - reference);
    }
    double mean_apart = weighted / (number == 0 ? 1.0 : number);
    for (int64_t i = 0; i < count; i++) {
        Moments m = moments_at(newest - i * distance, step);
        double apart = m.mean - reference - mean_apart;
        squares += (m.count == 0 ? 0.0 : apart * apart * m.count) + m.squares;
    }
    out[0] = sum_bits(number);
    out[out_step] = number == 0 ? NULL_FLOAT64_BITS : sum_bits(reference + mean_apart);
    out[2 * out_step] = sum_bits(squares);
}

/* --- the program ----------------------------------------------------------------------------------------- */

static inline Group group_at(const int64_t *program)
{
    return (Group){program[0], program[1], program[2], program[3], program + GROUP_WORDS};
}

static inline const int64_t *behind(Group group)
{
    return group.columns + group.count;
}

static int is_group_within(const Place *place, const int64_t *program, const int64_t *end)
{
    if (end - program < GROUP_WORDS)
        return 0;
    Group group = group_at(program);
    if (group.op < 0 || group.op >= OPERATIONS || group.count < 0 || group.count > end - group.columns)
        return 0;
    int64_t parts = PARTS[group.op];
    if (group.count > place->stride || group.step < group.count || group.step > place->stride || group.first < 0
        || group.first > place->stride - (parts - 1) * group.step - group.count)
        return 0;
    for (int64_t i = 0; i < group.count; i++)
        if (group.columns[i] < 1 || group.columns[i] > place->tile_words - parts)
            return 0;
    return 1;
}

/* Read a place; 0 where it says anything that doesn't fit. */
static int read_place(Place *place, const Words *program, const Words *bounds, int64_t at, int64_t head_words)
{
    const int64_t *end = program->words + program->count;
    if (at < HEAD_WORDS || at > program->count - PLACE_WORDS)
        return 0;
    const int64_t *own = program->words + at;
    *place = (Place){own[0], own[1], own[3], own[4], own[5], 0, own[7], own + PLACE_WORDS, NULL};
    if (place->tile_words < 1 || place->tile_words > INT32_MAX || place->interval_ns < 1 || place->first < 0
        || place->first > head_words || place->stride < 0 || place->stride > head_words || place->windows < 0
        || place->windows > head_words || place->groups < 0
        || place->windows * place->stride > head_words - place->first)
        return 0;
    if (own[6] < 0 || own[6] > bounds->count || place->windows > (bounds->count - own[6]) / BOUND_WORDS)
        return 0;
    place->bounds = bounds->words + own[6];
    for (int64_t i = 0; i < place->windows; i++)
        if (place->bounds[BOUND_WORDS * i] < 0 || place->bounds[BOUND_WORDS * i] >= place->windows)
            return 0;
    const int64_t *group = place->program;
    for (int64_t i = 0; i < place->groups; i++) {
        if (!is_group_within(place, group, end))
            return 0;
        place->width += PARTS[*group] * group[1];
        group = behind(group_at(group));
    }
    return 1;
}

/* --- one window ------------------------------------------------------------------------------------------ */

static const int64_t NEUTRAL[OPERATIONS] = {
    [ADD_F] = NEGATIVE_ZERO_BITS, [MIN_F] = NULL_FLOAT64_BITS, [MAX_F] = NULL_FLOAT64_BITS,
    [MIN_I] = INT64_MAX, [MAX_I] = NULL_INT64, [LAST] = NULL_INT64, [FIRST] = INT64_MAX,
};

static void begin(const Place *place, Scratch scratch)
{
    const int64_t *program = place->program;
    for (int64_t g = 0; g < place->groups; g++) {
        Group group = group_at(program);
        int64_t words = PARTS[group.op] * group.count;
        for (int64_t i = 0; i < words; i++)
            scratch.words[i] = NEUTRAL[group.op];
        if (group.op == ADD_I)
            memset(scratch.sums, 0, (size_t)group.count * sizeof *scratch.sums);
        scratch.words += words;
        scratch.sums += words;
        program = behind(group);
    }
}

/* Add a tile to what the newer ones have made; not 0 if it has to be left to the twin. Moments come later. */
static inline int add_tile(const Place *place, const int64_t *tile, Scratch scratch)
{
    int is_odd = 0;
    const int64_t *program = place->program;
    for (int64_t g = 0; g < place->groups; g++) {
        Group group = group_at(program);
        int64_t *words = scratch.words;
        Sum *sums = scratch.sums;
        const int64_t *columns = group.columns;
        int64_t count = group.count;
        switch (group.op) {
        case ADD_F:
            for (int64_t i = 0; i < count; i++)
                words[i] = as_bits(as_float(words[i]) + as_float(tile[columns[i]]));
            break;
        case ADD_I:
            for (int64_t i = 0; i < count; i++) {
                sums[i].sum += tile[columns[i]];
                sums[i].is_spoilt |= tile[columns[i]] == NULL_INT64;
            }
            break;
        case COUNT:
            for (int64_t i = 0; i < count; i++)
                words[i] = wrapping_sum(words[i], tile[columns[i]]);
            break;
        case MIN_F:
            for (int64_t i = 0; i < count; i++) {
                double value = as_float(tile[columns[i]]), before = as_float(words[i]);
                is_odd |= are_unlike_zeros(value, before);
                words[i] = as_bits(lesser(value, before));
            }
            break;
        case MAX_F:
            for (int64_t i = 0; i < count; i++) {
                double value = as_float(tile[columns[i]]), before = as_float(words[i]);
                is_odd |= are_unlike_zeros(value, before);
                words[i] = as_bits(greater(value, before));
            }
            break;
        case MIN_I:
            for (int64_t i = 0; i < count; i++)
                words[i] = tile[columns[i]] < words[i] ? tile[columns[i]] : words[i];
            break;
        case MAX_I:
            for (int64_t i = 0; i < count; i++)
                words[i] = tile[columns[i]] > words[i] ? tile[columns[i]] : words[i];
            break;
        case MOMENTS:
            for (int64_t i = 0; i < count; i++)
                is_odd |= !are_plain(moments_at(tile + columns[i], 1));
            break;
        default:
            for (int64_t i = 0; i < count; i++)
                pick(group.op == LAST, tile[columns[i]], tile[columns[i] + 1], &words[i], &words[count + i]);
        }
        scratch.words += PARTS[group.op] * count;
        scratch.sums += PARTS[group.op] * count;
        program = behind(group);
    }
    return is_odd;
}

/* Write what a window's tiles have made, of which `newest` is the last one, to its words. */
static void put(const Place *place, const int64_t *newest, int64_t tiles, Scratch scratch, int64_t *out)
{
    const int64_t *program = place->program;
    for (int64_t g = 0; g < place->groups; g++) {
        Group group = group_at(program);
        int64_t *own = out + group.first;
        int64_t count = group.count;
        switch (group.op) {
        case ADD_F:
            for (int64_t i = 0; i < count; i++)
                own[i] = sum_bits(as_float(scratch.words[i]));
            break;
        case ADD_I:
            for (int64_t i = 0; i < count; i++)
                own[i] = sum_word(&scratch.sums[i]);
            break;
        case MIN_F:
        case MAX_F:
            for (int64_t i = 0; i < count; i++)
                own[i] = extreme_bits(as_float(scratch.words[i]));
            break;
        case MOMENTS:
            for (int64_t i = 0; i < count; i++)
                merge_moments(newest + group.columns[i], place->tile_words, 1, tiles, own + i, group.step);
            break;
        default:
            for (int part = 0; part < PARTS[group.op]; part++)
                memcpy(own + part * group.step, scratch.words + part * count, (size_t)count * WORD_BYTES);
        }
        scratch.words += PARTS[group.op] * count;
        scratch.sums += PARTS[group.op] * count;
        program = behind(group);
    }
}

static const int64_t NO_MOMENTS[] = {0, NULL_FLOAT64_BITS, 0};

/* Merge into a window's words moments of a newer block, NULL for none, as those of two tiles: infinite ones don't stay
 * what they are, also with nothing. */
static void join_moments(Group group, const int64_t *newer, int64_t *out)
{
    int64_t step = group.step;
    for (int64_t i = group.first; i < group.first + group.count; i++) {
        int64_t both[6] = {out[i], out[i + step], out[i + 2 * step]};
        for (int part = 0; part < 3; part++)
            both[3 + part] = newer == NULL ? NO_MOMENTS[part] : newer[i + part * step];
        merge_moments(both, -3, 1, BLOCKS, out + i, step);
    }
}

static void join_nothing(const Place *place, int64_t *out)
{
    const int64_t *program = place->program;
    for (int64_t g = 0; g < place->groups; g++) {
        Group group = group_at(program);
        if (group.op == MOMENTS)
            join_moments(group, NULL, out);
        program = behind(group);
    }
}

/* Merge into a window's words those of a newer block; not 0 if it has to be left to the twin. */
static int join(const Place *place, const int64_t *newer, int64_t *out)
{
    int is_odd = 0;
    const int64_t *program = place->program;
    for (int64_t g = 0; g < place->groups; g++) {
        Group group = group_at(program);
        int64_t step = group.step;
        for (int64_t i = 0; i < group.count; i++) {
            const int64_t *from = newer + group.first + i;
            int64_t *own = out + group.first + i;
            double value = as_float(*from), before = as_float(*own);
            switch (group.op) {
            case ADD_F:
                *own = sum_bits(before + value);
                break;
            case ADD_I: {
                Sum sum = {(int128_t)*own + *from, *own == NULL_INT64 || *from == NULL_INT64};
                *own = sum_word(&sum);
                break;
            }
            case COUNT:
                *own = wrapping_sum(*own, *from);
                break;
            case MIN_F:
                is_odd |= are_unlike_zeros(value, before);
                *own = as_bits(lesser(value, before));
                break;
            case MAX_F:
                is_odd |= are_unlike_zeros(value, before);
                *own = as_bits(greater(value, before));
                break;
            case MIN_I:
                *own = *from < *own ? *from : *own;
                break;
            case MAX_I:
                *own = *from > *own ? *from : *own;
                break;
            case MOMENTS:
                break;
            default:
                pick(group.op == LAST, from[0], from[step], &own[0], &own[step]);
            }
        }
        if (group.op == MOMENTS)
            join_moments(group, newer, out);
        program = behind(group);
    }
    return is_odd;
}

/* --- one key --------------------------------------------------------------------------------------------- */

/* Return how many of the tiles from `low` to `high` on, whose starts ascend, start before a time. */
static inline int64_t tiles_before(const int64_t *tiles, int64_t width, int64_t low, int64_t high, int64_t time_ns)
{
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (tiles[middle * width] < time_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Merge a run of tiles into the heads of its key, onto the ones that an older run has made. */
static int merge_run(const Place *place, const int64_t *tiles, int64_t low, int64_t high, int is_second,
                     int64_t *heads, Scratch scratch)
{
    int64_t width = place->tile_words;
    int64_t *beside = scratch.words + place->width; /* a window of the second run */
    int64_t merged_from = 0, merged_to = -1;
    int is_odd = 0;
    for (int64_t i = 0; i < place->windows; i++) {
        const int64_t *bound = place->bounds + BOUND_WORDS * i;
        int64_t from = bound[1] <= tiles[low * width] ? low : tiles_before(tiles, width, low, high, bound[1]);
        int64_t to = bound[2] > tiles[(high - 1) * width] ? high : tiles_before(tiles, width, low, high, bound[2]);
        int64_t *own = heads + bound[0] * place->stride;
        if (from >= to) {
            if (is_second)
                join_nothing(place, own);
            continue;
        }
        if (to != merged_to || from > merged_from) {
            begin(place, scratch);
            merged_from = merged_to = to;
        }
        while (merged_from > from)
            is_odd |= add_tile(place, tiles + --merged_from * width, scratch);
        put(place, tiles + (to - 1) * width, to - from, scratch, is_second ? beside : own);
        if (is_second)
            is_odd |= join(place, beside, own);
    }
    return is_odd;
}

typedef struct {
    const int64_t *words;
    int64_t count, now_ns;
} Tiles;

/* Merge the tiles of a key's blocks that count; 0 where they are left to the twin. */
static int merge_key(const Place *place, Tiles all, const int64_t *placed, int64_t floor_ns, int64_t *heads,
                     int64_t *newest_ns, Scratch scratch)
{
    int64_t width = place->tile_words;
    int is_second = 0;
    for (int block = 0; block < BLOCKS; block++, placed += PLACED_WORDS) {
        int64_t at = placed[0], count = placed[1];
        if (count == 0)
            continue;
        if (at < 0 || at > all.count - HEADER_WORDS || count < 0 || count > (all.count - HEADER_WORDS - at) / width)
            return 0;
        const int64_t *tiles = all.words + at + HEADER_WORDS;
        int64_t low = 0, high = 0, before = INT64_MIN;
        for (int64_t i = 0; i < count; i++) {
            int64_t start = tiles[i * width];
            if (start < before)
                return 0;
            before = start;
            low += start < floor_ns;
            high += start < all.now_ns;
        }
        if (low >= high)
            continue;
        if (merge_run(place, tiles, low, high, is_second, heads, scratch))
            return 0;
        int64_t last = tiles[(high - 1) * width];
        int64_t end_ns;
        if (__builtin_add_overflow(last, place->interval_ns, &end_ns) || end_ns > all.now_ns)
            end_ns = all.now_ns;
        *newest_ns = end_ns;
        is_second = 1;
    }
    return 1;
}

/* --- a batch --------------------------------------------------------------------------------------------- */

typedef struct {
    Words program, bounds, tiles, placed, floors, columns, matrix, newest;
} Batch;

enum { BUFFERS = sizeof(Batch) / sizeof(Words), WRITTEN_FROM = 6 };

typedef enum { FAILED = -1, REFUSED = 0, DONE = 1, UNANSWERED = 2 } Outcome;

/* What doesn't begin as words do holds none, so that it is refused. */
static int get_words(PyObject *object, Words *words, int is_written)
{
    if (PyObject_GetBuffer(object, &words->view, is_written ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0)
        return 0;
    words->words = words->view.buf;
    words->count = (uintptr_t)words->view.buf % WORD_BYTES == 0 ? words->view.len / WORD_BYTES : 0;
    return 1;
}

static void release_words(Words *words, int count)
{
    while (count > 0)
        PyBuffer_Release(&words[--count].view);
}

static int has_room(Scratch *scratch, int64_t *room, const Place *place)
{
    int64_t needed = place->width + place->stride;
    if (needed <= *room)
        return 1;
    PyMem_Free(scratch->words);
    PyMem_Free(scratch->sums);
    scratch->words = PyMem_New(int64_t, (Py_ssize_t)needed);
    scratch->sums = PyMem_New(Sum, (Py_ssize_t)needed);
    *room = needed;
    return scratch->words != NULL && scratch->sums != NULL;
}

typedef struct {
    int64_t places, lines, row, words; /* of floors and of the matrix, by line */
    int64_t first_word, now_ns;
    int is_told;
} Shape;

/* Whether the rows of a place may answer, or are missing where there are no tiles either. */
static Outcome are_answered(const Batch *batch, Shape shape, int64_t number)
{
    int64_t column = batch->columns.words[number], record = batch->program.words[HEAD_WORDS + number];
    if (column < 0 || column >= shape.row || record < 0 || record > batch->program.count - PLACE_WORDS)
        return REFUSED;
    if (shape.is_told)
        return DONE;
    int64_t skew_ns = batch->program.words[1], horizon_ns = batch->program.words[record + 2];
    int64_t latest_ns, oldest_ns;
    if (__builtin_add_overflow(shape.now_ns, skew_ns, &latest_ns)
        || __builtin_sub_overflow(shape.now_ns, horizon_ns, &oldest_ns))
        return UNANSWERED;
    const int64_t *placed = batch->placed.words + number * BLOCKS * PLACED_WORDS;
    for (int64_t line = 0; line < shape.lines; line++, placed += shape.places * BLOCKS * PLACED_WORDS) {
        int64_t as_of_ns = batch->floors.words[line * shape.row + column];
        int is_in_time = oldest_ns <= as_of_ns && as_of_ns <= latest_ns;
        int is_empty = placed[1] == 0 && placed[1 + PLACED_WORDS] == 0;
        if (as_of_ns == NULL_INT64 ? !is_empty : !is_in_time)
            return UNANSWERED;
    }
    return DONE;
}

static Outcome merge_place(const Batch *batch, Shape shape, int64_t number, Scratch *scratch, int64_t *room)
{
    int64_t column = batch->columns.words[number];
    const int64_t *placed = batch->placed.words + number * BLOCKS * PLACED_WORDS;
    Place place;
    if (!read_place(&place, &batch->program, &batch->bounds, batch->program.words[HEAD_WORDS + number],
                    shape.words - shape.first_word))
        return REFUSED;
    if (!has_room(scratch, room, &place)) {
        PyErr_NoMemory();
        return FAILED;
    }
    Tiles tiles = {batch->tiles.words, batch->tiles.count, shape.now_ns};
    for (int64_t line = 0; line < shape.lines; line++) {
        int64_t at = line * shape.row + column;
        int64_t *heads = batch->matrix.words + line * shape.words + shape.first_word + place.first;
        if (!merge_key(&place, tiles, placed, batch->floors.words[at], heads, batch->newest.words + at, *scratch))
            return REFUSED;
        placed += shape.places * BLOCKS * PLACED_WORDS;
    }
    return DONE;
}

static Outcome merge_batch(const Batch *batch, int64_t first_word, int64_t now_ns, int is_told)
{
    int64_t places = batch->columns.count, line_words = places * BLOCKS * PLACED_WORDS;
    if (places == 0 || batch->program.count < HEAD_WORDS + places || batch->program.words[0] != places)
        return REFUSED;
    int64_t lines = batch->placed.count / line_words;
    if (lines == 0 || batch->placed.count != lines * line_words)
        return REFUSED;
    Shape shape = {places, lines, batch->floors.count / lines, batch->matrix.count / lines, first_word, now_ns,
                   is_told};
    if (batch->floors.count != lines * shape.row || batch->newest.count != batch->floors.count
        || batch->matrix.count != lines * shape.words || shape.words > INT32_MAX || first_word < 0
        || first_word > shape.words || batch->program.words[1] < 0)
        return REFUSED;
    for (int64_t i = 0; i < batch->newest.count; i++)
        batch->newest.words[i] = NULL_INT64;
    Scratch scratch = {NULL, NULL};
    int64_t room = 0;
    Outcome outcome = DONE;
    for (int64_t i = 0; i < places && outcome == DONE; i++)
        outcome = are_answered(batch, shape, i);
    for (int64_t i = 0; i < places && outcome == DONE; i++)
        outcome = merge_place(batch, shape, i, &scratch, &room);
    PyMem_Free(scratch.words);
    PyMem_Free(scratch.sums);
    return outcome;
}

static PyObject *merge_heads(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != BUFFERS + 3)
        return PyErr_Format(PyExc_TypeError, "merge_heads: expected %d arguments, got %zd", BUFFERS + 3, count);
    long long first_word = PyLong_AsLongLong(arguments[BUFFERS]);
    long long now_ns = PyLong_AsLongLong(arguments[BUFFERS + 1]);
    int is_told = PyObject_IsTrue(arguments[BUFFERS + 2]);
    if (PyErr_Occurred())
        return NULL;
    union {
        Batch batch;
        Words words[BUFFERS];
    } all;
    int held = 0;
    while (held < BUFFERS && get_words(arguments[held], &all.words[held], held >= WRITTEN_FROM))
        held++;
    Outcome outcome = held < BUFFERS ? FAILED : merge_batch(&all.batch, first_word, now_ns, is_told);
    release_words(all.words, held);
    if (outcome == FAILED)
        return NULL;
    if (outcome == UNANSWERED)
        Py_RETURN_NONE;
    return PyBool_FromLong(outcome);
}

/* --- the blocks ------------------------------------------------------------------------------------------ */

/* Return the tiles of a block of so many words, which begins there; -1 where its header isn't the expected one. */
static int64_t tiles_of(const int64_t *block, int64_t words, const int64_t *item)
{
    uint64_t sizes = (uint64_t)block[1], bytes = (uint64_t)words * WORD_BYTES;
    uint64_t tiles = sizes & UINT32_MAX, wide_bytes = sizes >> 32, tile_bytes = (uint64_t)item[1];
    if (block[0] != item[0] || tile_bytes == 0 || tiles > bytes / tile_bytes)
        return -1;
    uint64_t used = HEADER_BYTES + tiles * tile_bytes + wide_bytes;
    return (used + WHOLE_BYTES - 1) / WHOLE_BYTES * WHOLE_BYTES == bytes ? (int64_t)tiles : -1;
}

/* Write where each block lies and its number of tiles; 0 where one isn't plain, -1 with an exception. */
static int place_blocks(PyObject *const *blocks, Py_ssize_t count, Py_ssize_t whole_units, const Words *items,
                        const Words *words, const Words *placed)
{
    int64_t per_line = items->count / ITEM_WORDS, at = 0, item = 0;
    if (whole_units <= 0 || per_line == 0 || count != placed->count / PLACED_WORDS)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++, item = item + 1 < per_line ? item + 1 : 0) {
        int64_t *own = placed->words + PLACED_WORDS * i;
        own[0] = own[1] = 0;
        if (blocks[i] == Py_None)
            continue;
        if (!PyUnicode_Check(blocks[i]) && !PyBytes_Check(blocks[i]) && !PyMemoryView_Check(blocks[i]))
            return 0;
        Py_ssize_t size = PyObject_Size(blocks[i]);
        if (size < 0)
            return -1;
        int64_t wholes = size / whole_units;
        if (wholes == 0 || size % whole_units != 0 || wholes > (words->count - at) / WHOLE_WORDS)
            return 0;
        own[0] = at;
        own[1] = tiles_of(words->words + at, wholes * WHOLE_WORDS, items->words + ITEM_WORDS * item);
        if (own[1] < 0)
            return 0;
        at += wholes * WHOLE_WORDS;
    }
    return 1;
}

static PyObject *find_blocks(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 5 || !PyList_Check(arguments[0]))
        return PyErr_Format(PyExc_TypeError, "find_blocks: expected a list and 4 more arguments, got %zd", count);
    Py_ssize_t whole_units = PyLong_AsSsize_t(arguments[1]);
    if (whole_units == -1 && PyErr_Occurred())
        return NULL;
    Words all[3];
    int held = 0;
    while (held < 3 && get_words(arguments[2 + held], &all[held], held == 2))
        held++;
    int outcome = -1;
    if (held == 3)
        outcome = place_blocks(PySequence_Fast_ITEMS(arguments[0]), PyList_GET_SIZE(arguments[0]), whole_units,
                               &all[0], &all[1], &all[2]);
    release_words(all, held);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome);
}

/* --- the module ------------------------------------------------------------------------------------------ */

static PyMethodDef methods[] = {
    {"find_blocks", (PyCFunction)(void (*)(void))find_blocks, METH_FASTCALL,
     "Find where each of a batch's blocks lies; False if one isn't plain."},
    {"merge_heads", (PyCFunction)(void (*)(void))merge_heads, METH_FASTCALL,
     "Merge tiles into heads; False if that is left to the twin, None if some rows can't answer."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_head_merge", "Stream tiles merged into heads.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__head_merge(void)
{
    return PyModuleDef_Init(&definition);
}
