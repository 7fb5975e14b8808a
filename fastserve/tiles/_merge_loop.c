/* Merging the slots of rows and finalizing features, for all lines of a batch: the loop of `merge_loop.py`.
 *
 * A program says what is merged; `prepare` checks it once, so that `merge` follows it unchecked. It is a line of
 * int64, of which `merge_loop.py` tells the order. A batch that holds anything out of the ordinary (a row past
 * its horizon, an integer sum beyond int64) is refused as a whole: the twin in NumPy decides about it.
 *
 * Invariants
 * 1. Terms are merged in slot order, the head slot last, by the operations of `operations.py`: floats come out
 *    with the same bits as there, NaNs that aren't null excepted, whose payload is nobody's.
 * 2. Nothing outside of the line, the slots and the columns is read or written, whatever the program says.
 * 3. A program serves one call at a time, for its scratch is its own: Python's lock is held all the while.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>

#include "_words.h"

#define FAR ((int64_t)1 << 61) /* no time or length is as far from zero */
#define MOST INT32_MAX         /* words and columns of a line */

/* `KINDS` of finalize.py, in its order. */
enum { SUM, EXTREME, MEAN, INT_MEAN, PICK_FLOAT, VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP, FLOAT_KINDS };
enum { A_COUNT = FLOAT_KINDS, AN_INT, PICK_INT, KINDS };

typedef struct {
    int64_t column, horizon;
} Place;

typedef struct {
    int64_t place, reach, hop, offset, has_core, tails, heads;
} Window;

/* Components of one operation and window. */
typedef struct {
    int64_t op, window, has_head, count;
} Group;

/* Where a component's first word, and its head's parts, stand in a line, and the cell that it is merged into. */
typedef struct {
    int64_t cell, word, head[3];
} Member;

typedef struct {
    int64_t kind, count;
} Step;

/* The cells from which a feature is made: of its value, the value's second part, its count. */
typedef struct {
    int64_t value, second, count;
} Sources;

#define FIELDS(type) ((Py_ssize_t)(sizeof(type) / sizeof(int64_t)))

typedef struct {
    int64_t width, columns, skew, cells, places, windows, groups, steps;
} Head;

/* The slots of a window that count on one line: core, tails, heads. */
typedef struct {
    int64_t first[3], end[3];
} Runs;

typedef struct {
    Head head;
    int64_t floats, ints;
    const Place *places;
    const Window *windows;
    const int64_t *groups, *steps;
    int64_t *text, *cells, *terms;
    int64_t longest; /* so many terms fit */
    Runs *runs;
} Program;

static inline int64_t slots_of(const Window *window)
{
    return window->has_core + window->tails + window->heads;
}

/* --- one operation --------------------------------------------------------------------------------------- */

#define SUM_OF(a, b) ((a) + (b))
#define LESS_OF(a, b) ((b) < (a) ? (b) : (a)) /* the sum so far where the term is a NaN */
#define MORE_OF(a, b) ((b) > (a) ? (b) : (a))

/* Floats wait for each other, so that four components go side by side. */
#define FOLD_FLOATS(name, start, step)                                                                            \
    static void name(const Group *group, const Member *member, const Runs *runs, const int64_t *line, int64_t *out) \
    {                                                                                                             \
        int64_t left = group->count;                                                                              \
        for (; left >= 4; left -= 4, member += 4) {                                                               \
            const int64_t *a = line + member[0].word, *b = line + member[1].word;                                 \
            const int64_t *c = line + member[2].word, *d = line + member[3].word;                                 \
            double p = start, q = start, r = start, s = start;                                                    \
            for (int run = 0; run < 3; run++)                                                                     \
                for (int64_t i = runs->first[run]; i < runs->end[run]; i++) {                                     \
                    double t = as_float(a[i]), u = as_float(b[i]), v = as_float(c[i]), w = as_float(d[i]);        \
                    p = step(p, t), q = step(q, u), r = step(r, v), s = step(s, w);                               \
                }                                                                                                 \
            if (group->has_head) {                                                                                \
                double t = as_float(line[member[0].head[0]]), u = as_float(line[member[1].head[0]]);              \
                double v = as_float(line[member[2].head[0]]), w = as_float(line[member[3].head[0]]);              \
                p = step(p, t), q = step(q, u), r = step(r, v), s = step(s, w);                                   \
            }                                                                                                     \
            out[member[0].cell] = as_bits(p), out[member[1].cell] = as_bits(q);                                   \
            out[member[2].cell] = as_bits(r), out[member[3].cell] = as_bits(s);                                   \
        }                                                                                                         \
        for (; left > 0; left--, member++) {                                                                      \
            const int64_t *a = line + member->word;                                                               \
            double p = start;                                                                                     \
            for (int run = 0; run < 3; run++)                                                                     \
                for (int64_t i = runs->first[run]; i < runs->end[run]; i++) {                                     \
                    double t = as_float(a[i]);                                                                    \
                    p = step(p, t);                                                                               \
                }                                                                                                 \
            if (group->has_head) {                                                                                \
                double t = as_float(line[member->head[0]]);                                                       \
                p = step(p, t);                                                                                   \
            }                                                                                                     \
            out[member->cell] = as_bits(p);                                                                       \
        }                                                                                                         \
    }

#define FOLD_INTS(name, start, step)                                                                              \
    static void name(const Group *group, const Member *member, const Runs *runs, const int64_t *line, int64_t *out) \
    {                                                                                                             \
        for (int64_t left = group->count; left > 0; left--, member++) {                                           \
            const int64_t *a = line + member->word;                                                               \
            int64_t p = start;                                                                                    \
            for (int run = 0; run < 3; run++)                                                                     \
                for (int64_t i = runs->first[run]; i < runs->end[run]; i++)                                       \
                    p = step(p, a[i]);                                                                            \
            if (group->has_head)                                                                                  \
                p = step(p, line[member->head[0]]);                                                               \
            out[member->cell] = p;                                                                                \
        }                                                                                                         \
    }

FOLD_FLOATS(add_floats, -0.0, SUM_OF)
FOLD_FLOATS(least_floats, INFINITY, LESS_OF)
FOLD_FLOATS(most_floats, -INFINITY, MORE_OF)
FOLD_INTS(count_up, 0, wrapping_sum)
FOLD_INTS(least_ints, INT64_MAX, LESS_OF)
FOLD_INTS(most_ints, INT64_MIN, MORE_OF)

/* Put null where an extreme was made of NaNs alone: it came out as what it was started with. */
static void null_extremes(const Group *group, const Member *member, const Runs *runs, const int64_t *line,
                          int64_t *out, double start)
{
    for (int64_t left = group->count; left > 0; left--, member++) {
        if (as_float(out[member->cell]) != start)
            continue;
        int is_empty = !group->has_head || isnan(as_float(line[member->head[0]]));
        for (int run = 0; run < 3 && is_empty; run++)
            for (int64_t i = runs->first[run]; i < runs->end[run] && is_empty; i++)
                is_empty = isnan(as_float(line[member->word + i]));
        if (is_empty)
            out[member->cell] = NULL_FLOAT64_BITS;
    }
}

/* Return 0 where a term is null or a sum may leave int64 on the way. */
static int add_ints(const Group *group, const Member *member, const Runs *runs, const int64_t *line, int64_t *out)
{
    for (int64_t left = group->count; left > 0; left--, member++) {
        const int64_t *a = line + member->word;
        int64_t sum = 0;
        int is_odd = 0;
        for (int run = 0; run < 3; run++)
            for (int64_t i = runs->first[run]; i < runs->end[run]; i++)
                is_odd |= (a[i] == NULL_INT64) | __builtin_add_overflow(sum, a[i], &sum);
        if (group->has_head) {
            int64_t head = line[member->head[0]];
            is_odd |= (head == NULL_INT64) | __builtin_add_overflow(sum, head, &sum);
        }
        if (is_odd || sum == NULL_INT64)
            return 0;
        out[member->cell] = sum;
    }
    return 1;
}

/* Put a component's terms side by side, each part for itself; return how many they are. */
static int64_t collect(const Program *program, const Group *group, const Member *member, const int64_t *line)
{
    const Runs *runs = &program->runs[group->window];
    int64_t slots = slots_of(&program->windows[group->window]), count = 0;
    for (int part = 0; part < PARTS[group->op]; part++) {
        const int64_t *words = line + member->word + part * slots;
        int64_t *terms = program->terms + part * program->longest;
        count = 0;
        for (int run = 0; run < 3; run++)
            for (int64_t i = runs->first[run]; i < runs->end[run]; i++)
                terms[count++] = words[i];
        if (group->has_head)
            terms[count++] = line[member->head[part]];
    }
    return count;
}

/* The count comes out in the member's cell, the squares in the next one. See `merge_moments` in operations.py. */
static void merge_moments(const Program *program, const Group *group, const Member *member, const int64_t *line)
{
    const int64_t *counts = program->terms, *means = counts + program->longest, *squares = means + program->longest;
    for (int64_t left = group->count; left > 0; left--, member++) {
        int64_t terms = collect(program, group, member, line);
        double reference = NAN, count = 0, weighted = -0.0, spread = -0.0;
        for (int64_t i = 0; i < terms; i++) {
            double mean = as_float(means[i]);
            reference = mean > reference || isnan(reference) ? mean : reference;
            count += as_float(counts[i]);
        }
        for (int64_t i = 0; i < terms; i++) {
            double own = as_float(counts[i]);
            weighted += own * (own == 0 ? 0 : as_float(means[i]) - reference);
        }
        double mean_apart = weighted / (count == 0 ? 1 : count);
        for (int64_t i = 0; i < terms; i++) {
            double own = as_float(counts[i]), apart = as_float(means[i]) - reference - mean_apart;
            spread += (own == 0 ? 0 : apart * apart * own) + as_float(squares[i]);
        }
        program->cells[member->cell] = as_bits(count);
        program->cells[member->cell + 1] = as_bits(spread);
    }
}

static void pick(const Program *program, const Group *group, const Member *member, const int64_t *line)
{
    const int64_t *times = program->terms, *values = times + program->longest;
    int is_last = group->op == LAST;
    for (int64_t left = group->count; left > 0; left--, member++) {
        int64_t terms = collect(program, group, member, line);
        int64_t time = is_last ? INT64_MIN : INT64_MAX, value = time;
        for (int64_t i = 0; i < terms; i++)
            time = is_last ? MORE_OF(time, times[i]) : LESS_OF(time, times[i]);
        for (int64_t i = 0; i < terms; i++)
            if (times[i] == time)
                value = is_last ? MORE_OF(value, values[i]) : LESS_OF(value, values[i]);
        program->cells[member->cell] = !is_last && time == INT64_MAX ? NULL_INT64 : value;
    }
}

static int merge_group(const Program *program, const Group *group, const int64_t *line)
{
    const Member *members = (const Member *)(group + 1);
    const Runs *runs = &program->runs[group->window];
    int64_t *out = program->cells;
    switch (group->op) {
    case ADD_F:
        add_floats(group, members, runs, line, out);
        return 1;
    case ADD_I:
        return add_ints(group, members, runs, line, out);
    case COUNT:
        count_up(group, members, runs, line, out);
        return 1;
    case MIN_F:
        least_floats(group, members, runs, line, out);
        null_extremes(group, members, runs, line, out, INFINITY);
        return 1;
    case MAX_F:
        most_floats(group, members, runs, line, out);
        null_extremes(group, members, runs, line, out, -INFINITY);
        return 1;
    case MIN_I:
        least_ints(group, members, runs, line, out);
        return 1;
    case MAX_I:
        most_ints(group, members, runs, line, out);
        return 1;
    case MOMENTS:
        merge_moments(program, group, members, line);
        return 1;
    default:
        pick(program, group, members, line);
        return 1;
    }
}

/* --- one line -------------------------------------------------------------------------------------------- */

static inline int64_t floor_divided(int64_t value, int64_t by)
{
    int64_t quotient = value / by;
    return quotient - (value % by < 0);
}

static inline int64_t within(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Whether the rows of a line may answer: also those of places without a window here, as wide features alone have. */
static int is_answered(const Program *program, const int64_t *effective, int64_t now)
{
    for (int64_t n = 0; n < program->head.places; n++) {
        const Place *place = &program->places[n];
        int64_t as_of = effective[place->column];
        if (as_of != NULL_INT64 && (as_of < now - place->horizon || as_of > now + program->head.skew))
            return 0;
    }
    return 1;
}

/* Find which slots count on a line whose rows may answer. See `MergePlan.masked`. */
static void find_runs(const Program *program, const int64_t *effective, int64_t now)
{
    for (int64_t n = 0; n < program->head.windows; n++) {
        const Window *window = &program->windows[n];
        int64_t as_of = effective[program->places[window->place].column];
        if (as_of == NULL_INT64)
            as_of = now;
        Runs *runs = &program->runs[n];
        int64_t core = window->has_core, heads_from = core + window->tails, hop = window->hop;
        int64_t starts_then = floor_divided(as_of - window->reach, hop);
        int64_t dropped = floor_divided(now - window->reach, hop) - starts_then;
        dropped = dropped < 0 ? 0 : dropped;
        *runs = (Runs){{0, core + within(dropped, 0, window->tails), heads_from}, {core, heads_from, heads_from}};
        if (window->heads) {
            int64_t ends_then = floor_divided(as_of + window->offset, hop);
            int64_t latest = as_of > now ? as_of : now;
            int64_t come = floor_divided(latest + window->offset, hop) - ends_then;
            runs->first[2] += within(starts_then + dropped - ends_then, 0, window->heads);
            runs->end[2] += within(come, 0, window->heads);
        }
    }
}

static inline double divided(double sum, double count)
{
    return count <= 0 ? as_float(NULL_FLOAT64_BITS) : sum / count;
}

static double float_feature(int64_t kind, const int64_t *cells, const Sources *from)
{
    int64_t bits = cells[from->value];
    double value = as_float(bits);
    switch (kind) {
    case SUM:
        return bits == NEGATIVE_ZERO_BITS ? as_float(NULL_FLOAT64_BITS) : value;
    case EXTREME:
        return isnan(value) ? as_float(NULL_FLOAT64_BITS) : value;
    case MEAN:
        return divided(value, (double)cells[from->count]);
    case INT_MEAN:
        return bits == NULL_INT64 ? as_float(NULL_FLOAT64_BITS) : divided((double)bits, (double)cells[from->count]);
    case PICK_FLOAT:
        return bits == NULL_INT64 ? as_float(NULL_FLOAT64_BITS) : as_float(bits ^ ((bits >> 63) & INT64_MAX));
    default:
        break;
    }
    int is_sample = kind == VAR_SAMP || kind == STDDEV_SAMP;
    double variance = divided(as_float(cells[from->second]), value - is_sample);
    int is_root = kind == STDDEV_POP || kind == STDDEV_SAMP;
    return is_root && as_bits(variance) != NULL_FLOAT64_BITS ? sqrt(variance) : variance;
}

static void finalize(const Program *program, int64_t *floats, int64_t *ints)
{
    const int64_t *at = program->steps, *cells = program->cells;
    for (int64_t n = 0; n < program->head.steps; n++) {
        const Step *step = (const Step *)at;
        const Sources *from = (const Sources *)(step + 1);
        for (int64_t i = 0; i < step->count; i++, from++) {
            if (step->kind < FLOAT_KINDS)
                *floats++ = as_bits(float_feature(step->kind, cells, from));
            else
                *ints++ = step->kind == AN_INT && cells[from->count] == 0 ? NULL_INT64 : cells[from->value];
        }
        at = (const int64_t *)from;
    }
}

static int merge_line(const Program *program, const int64_t *line, const int64_t *effective, int64_t now,
                      int64_t *floats, int64_t *ints)
{
    if (!is_answered(program, effective, now))
        return 0;
    find_runs(program, effective, now);
    const int64_t *at = program->groups;
    for (int64_t n = 0; n < program->head.groups; n++) {
        const Group *group = (const Group *)at;
        if (!merge_group(program, group, line))
            return 0;
        at += FIELDS(Group) + group->count * FIELDS(Member);
    }
    finalize(program, floats, ints);
    return 1;
}

/* --- the program ----------------------------------------------------------------------------------------- */

static inline int is_within(int64_t value, int64_t end)
{
    return 0 <= value && value < end;
}

static inline int is_size(int64_t value)
{
    return 0 < value && value <= MOST;
}

static inline int is_near(int64_t value)
{
    return -FAR < value && value < FAR;
}

static int is_sound_window(const Program *program, const Window *window)
{
    return is_within(window->place, program->head.places) && is_near(window->reach) && is_near(window->hop) &&
           window->hop > 0 && is_near(window->offset) && is_within(window->has_core, 2) &&
           is_within(window->tails, program->head.width) && is_within(window->heads, program->head.width);
}

static int is_sound_member(const Program *program, const Group *group, const Member *member)
{
    const Window *window = &program->windows[group->window];
    int64_t words = PARTS[group->op] * slots_of(window);
    int is_sound = is_within(member->cell, program->head.cells - (group->op == MOMENTS)) &&
                   is_within(member->word, program->head.width + 1) && words <= program->head.width - member->word;
    for (int part = 0; group->has_head && part < PARTS[group->op]; part++)
        is_sound &= is_within(member->head[part], program->head.width);
    return is_sound;
}

/* Take so many fields off the program's text; NULL where they aren't there. */
static const int64_t *take_fields(const int64_t **at, const int64_t *end, int64_t count, Py_ssize_t fields)
{
    const int64_t *here = *at;
    if (count < 0 || count > (end - here) / fields)
        return NULL;
    *at = here + count * fields;
    return here;
}

static int check_groups(Program *program, const int64_t **at, const int64_t *end)
{
    program->groups = *at;
    for (int64_t n = 0; n < program->head.groups; n++) {
        const Group *group = (const Group *)take_fields(at, end, 1, FIELDS(Group));
        if (group == NULL || !is_within(group->op, OPERATIONS) || !is_within(group->window, program->head.windows))
            return 0;
        const Member *members = (const Member *)take_fields(at, end, group->count, FIELDS(Member));
        for (int64_t i = 0; members != NULL && i < group->count; i++)
            if (!is_sound_member(program, group, &members[i]))
                return 0;
        if (members == NULL)
            return 0;
    }
    return 1;
}

static int check_steps(Program *program, const int64_t **at, const int64_t *end)
{
    program->steps = *at;
    for (int64_t n = 0; n < program->head.steps; n++) {
        const Step *step = (const Step *)take_fields(at, end, 1, FIELDS(Step));
        if (step == NULL || !is_within(step->kind, KINDS))
            return 0;
        const int64_t *sources = take_fields(at, end, step->count, FIELDS(Sources));
        for (int64_t i = 0; sources != NULL && i < step->count * FIELDS(Sources); i++)
            if (!is_within(sources[i], program->head.cells))
                return 0;
        if (sources == NULL)
            return 0;
        *(step->kind < FLOAT_KINDS ? &program->floats : &program->ints) += step->count;
    }
    return 1;
}

static int check_program(Program *program, Py_ssize_t length)
{
    const int64_t *at = program->text, *end = at + length;
    const int64_t *head = take_fields(&at, end, 1, FIELDS(Head));
    if (head == NULL)
        return 0;
    memcpy(&program->head, head, sizeof(Head));
    const Head *sizes = &program->head;
    if (!is_size(sizes->width) || !is_size(sizes->columns) || !is_near(sizes->skew) ||
        !is_within(sizes->cells, 2 * length + 1) || sizes->groups < 0 || sizes->steps < 0)
        return 0;
    program->places = (const Place *)take_fields(&at, end, sizes->places, FIELDS(Place));
    program->windows = (const Window *)take_fields(&at, end, sizes->windows, FIELDS(Window));
    if (program->places == NULL || program->windows == NULL)
        return 0;
    for (int64_t n = 0; n < sizes->places; n++)
        if (!is_within(program->places[n].column, sizes->columns) || !is_near(program->places[n].horizon))
            return 0;
    for (int64_t n = 0; n < sizes->windows; n++) {
        if (!is_sound_window(program, &program->windows[n]))
            return 0;
        program->longest = MORE_OF(program->longest, slots_of(&program->windows[n]) + 1);
    }
    return check_groups(program, &at, end) && check_steps(program, &at, end) && at == end;
}

static void forget(Program *program)
{
    PyMem_Free(program->text);
    PyMem_Free(program->cells);
    PyMem_Free(program->terms);
    PyMem_Free(program->runs);
    PyMem_Free(program);
}

#define CAPSULE "fastserve.tiles._merge_loop.Program"

static void forget_capsule(PyObject *capsule)
{
    Program *program = PyCapsule_GetPointer(capsule, CAPSULE);
    if (program != NULL)
        forget(program);
}

/* --- the module ------------------------------------------------------------------------------------------ */

static PyObject *prepare(PyObject *module, PyObject *text)
{
    (void)module;
    Py_buffer words;
    if (PyObject_GetBuffer(text, &words, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t length = words.len / 8;
    Program *program = PyMem_Calloc(1, sizeof(Program));
    int64_t *copy = PyMem_Malloc(length * 8 + 8);
    if (program == NULL || copy == NULL) {
        PyMem_Free(program);
        PyMem_Free(copy);
        PyBuffer_Release(&words);
        return PyErr_NoMemory();
    }
    memcpy(copy, words.buf, length * 8);
    PyBuffer_Release(&words);
    program->text = copy;
    if (!check_program(program, length)) {
        forget(program);
        PyErr_SetString(PyExc_ValueError, "prepare: expected a program as merge_loop.py writes it, got another text");
        return NULL;
    }
    program->cells = PyMem_Calloc(program->head.cells + 1, sizeof(int64_t));
    program->terms = PyMem_Calloc(3 * program->longest + 1, sizeof(int64_t));
    program->runs = PyMem_Calloc(program->head.windows + 1, sizeof(Runs));
    int has_room = program->cells != NULL && program->terms != NULL && program->runs != NULL;
    PyObject *capsule = has_room ? PyCapsule_New(program, CAPSULE, forget_capsule) : PyErr_NoMemory();
    if (capsule == NULL)
        forget(program);
    return capsule;
}

static int is_sound(const Py_buffer *buffer, int64_t lines, int64_t columns)
{
    return (uintptr_t)buffer->buf % 8 == 0 && buffer->len == lines * columns * 8;
}

static int merge_lines(const Program *program, const Py_buffer *buffers, int64_t now)
{
    const Head *head = &program->head;
    int64_t lines = buffers[0].len / (head->width * 8);
    if (!is_sound(&buffers[0], lines, head->width) || !is_sound(&buffers[1], lines, head->columns) ||
        !is_sound(&buffers[2], lines, program->floats) || !is_sound(&buffers[3], lines, program->ints) || !is_near(now))
        return 0;
    const int64_t *line = buffers[0].buf, *effective = buffers[1].buf;
    int64_t *floats = buffers[2].buf, *ints = buffers[3].buf;
    for (; lines > 0; lines--) {
        if (!merge_line(program, line, effective, now, floats, ints))
            return 0;
        line += head->width, effective += head->columns, floats += program->floats, ints += program->ints;
    }
    return 1;
}

static PyObject *merge(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 6) {
        PyErr_Format(PyExc_TypeError, "merge: expected 6 arguments, got %zd", count);
        return NULL;
    }
    const Program *program = PyCapsule_GetPointer(arguments[0], CAPSULE);
    int64_t now = program == NULL ? 0 : PyLong_AsLongLong(arguments[5]);
    if (program == NULL || (now == -1 && PyErr_Occurred()))
        return NULL;
    Py_buffer buffers[4];
    int taken = 0;
    for (; taken < 4; taken++)
        if (PyObject_GetBuffer(arguments[1 + taken], &buffers[taken], taken < 2 ? PyBUF_SIMPLE : PyBUF_WRITABLE) < 0)
            break;
    int is_merged = taken == 4 && merge_lines(program, buffers, now);
    int has_failed = taken < 4;
    while (taken > 0)
        PyBuffer_Release(&buffers[--taken]);
    return has_failed ? NULL : PyBool_FromLong(is_merged);
}

/* Any finite number less itself is 0, without a branch and with two at a time. */
static int are_finite(const char *bytes, Py_ssize_t count)
{
    int64_t rest = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, bytes + 8 * i, 8);
        rest |= as_bits(value - value);
    }
    return rest == 0;
}

static int are_finite_or_null(const char *bytes, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t bits;
        memcpy(&bits, bytes + 8 * i, 8);
        if (!isfinite(as_float(bits)) && bits != NULL_FLOAT64_BITS)
            return 0;
    }
    return 1;
}

static PyObject *has_odd(PyObject *module, PyObject *floats)
{
    (void)module;
    Py_buffer buffer;
    if (PyObject_GetBuffer(floats, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t count = buffer.len / 8;
    int is_odd = !are_finite(buffer.buf, count) && !are_finite_or_null(buffer.buf, count);
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(is_odd);
}

static PyMethodDef methods[] = {
    {"prepare", prepare, METH_O, "Return a program, given its text, for `merge`."},
    {"merge", (PyCFunction)(void (*)(void))merge, METH_FASTCALL,
     "Merge and finalize (program, matrix, effective, floats, ints, now); False if the lines aren't plain."},
    {"has_odd", has_odd, METH_O, "Whether any float is a NaN or an infinity without being null."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_merge_loop", "Merging rows.", 0, methods, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__merge_loop(void)
{
    return PyModuleDef_Init(&definition);
}
