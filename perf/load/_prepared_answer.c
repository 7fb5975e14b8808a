/* A BatchGetItem's answer out of prepared tables, where the request is as plain as a client's requests are.
 *
 * perf/load/prepared_answer.py says what plain is. Any other request is left to `perf.load.operations`, whose answer
 * this one is, byte for byte: the stand-in is beside what is measured, on the same machine, and what it takes to answer
 * is taken from that.
 *
 * Invariants
 * 1. A request that isn't answered here has changed nothing.
 * 2. No byte behind the request's end is read.
 * 3. It may assume: a table's entry is (bytes, a list of bytes or None that isn't empty, its number), and the counts
 *    have TOTALS places and one for each number, of 64 bits.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum {
    MOST_KEYS = 100, /* of a call */
    LONGEST_NAME = 255,
    MOST_BYTES = 16 << 20, /* of an answer: beyond them the service leaves keys unprocessed */
};

enum { KEYS, ABSENT_KEYS, TOTALS }; /* counts, as in prepared_answer.py: those of the tables follow */

#define KEY_START "{\"k\":{\"S\":\""

typedef struct {
    const char *at, *end;
} Reader;

typedef struct {
    const char *text;
    Py_ssize_t length;
    uint32_t crc;
} Key;

/* One table of the request: what stands before its items, its rows, its keys' place among all. */
typedef struct {
    PyObject *entry; /* (start, rows, number), borrowed from the tables */
    int first, count;
} Part;

typedef struct {
    Key keys[MOST_KEYS];
    Part parts[MOST_KEYS]; /* none without a key */
    int key_count, part_count;
} Request;

static uint32_t crc_of_byte[256];

static void make_crcs(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? 0xEDB88320u ^ crc >> 1 : crc >> 1;
        crc_of_byte[byte] = crc;
    }
}

static uint32_t crc_of(const char *text, Py_ssize_t length)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (Py_ssize_t at = 0; at < length; at++)
        crc = crc_of_byte[(crc ^ (unsigned char)text[at]) & 0xFF] ^ crc >> 8;
    return ~crc;
}

/* --- the request: 0 without an exception is "not plain" ---------------------------------------------------- */

static inline int takes(Reader *reader, const char *expected, size_t length)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, expected, length) != 0)
        return 0;
    reader->at += length;
    return 1;
}

#define TAKES(reader, text) takes(reader, text, sizeof(text) - 1)

/* A string's text behind its opening quote: some ASCII that JSON has as it is. Moves behind the closing quote. */
static const char *take_text(Reader *reader, Py_ssize_t *length)
{
    const char *text = reader->at;
    const char *quote = memchr(text, '"', (size_t)(reader->end - text));
    if (quote == NULL || quote == text)
        return NULL;
    for (const char *at = text; at < quote; at++)
        if ((signed char)*at < 0x20 || *at == '\\' || *at == 0x7F)
            return NULL;
    *length = quote - text;
    reader->at = quote + 1;
    return text;
}

/* The keys of one table, none of them twice. */
static int take_keys(Reader *reader, Request *request, int first)
{
    do {
        if (request->key_count == MOST_KEYS || !TAKES(reader, KEY_START))
            return 0;
        Key *key = &request->keys[request->key_count];
        key->text = take_text(reader, &key->length);
        if (key->text == NULL || !TAKES(reader, "}}"))
            return 0;
        key->crc = crc_of(key->text, key->length);
        /* Two keys of one CRC go the slow way, too. */
        for (const Key *other = &request->keys[first]; other < key; other++)
            if (other->crc == key->crc)
                return 0;
        request->key_count++;
    } while (TAKES(reader, ","));
    return TAKES(reader, "]");
}

/* The keys of a table again, where they are those of the table before: a read group's tables have the same. */
static int take_same_keys(Reader *reader, Request *request)
{
    if (request->part_count == 0)
        return 0;
    const Part *before = &request->parts[request->part_count - 1];
    const Key *first = &request->keys[before->first], *last = first + before->count - 1;
    const char *start = first->text - strlen(KEY_START);
    size_t length = (size_t)(last->text + last->length + strlen("\"}}]") - start);
    if (request->key_count + before->count > MOST_KEYS || !takes(reader, start, length))
        return 0;
    memcpy(&request->keys[request->key_count], first, (size_t)before->count * sizeof(Key));
    request->key_count += before->count;
    return 1;
}

static int take_table(Reader *reader, Request *request, PyObject *tables)
{
    Py_ssize_t length;
    const char *name = TAKES(reader, "\"") ? take_text(reader, &length) : NULL;
    if (name == NULL || length > LONGEST_NAME || !TAKES(reader, ":{\"Keys\":["))
        return 0;
    PyObject *text = PyUnicode_FromStringAndSize(name, length);
    PyObject *entry = text == NULL ? NULL : PyDict_GetItemWithError(tables, text);
    Py_XDECREF(text);
    if (entry == NULL)
        return 0;
    for (int part = 0; part < request->part_count; part++)
        if (request->parts[part].entry == entry)
            return 0;
    int first = request->key_count;
    if (!take_same_keys(reader, request) && !take_keys(reader, request, first))
        return 0;
    TAKES(reader, ",\"ConsistentRead\":true");
    request->parts[request->part_count++] = (Part){entry, first, request->key_count - first};
    return TAKES(reader, "}");
}

static int take_request(Reader *reader, Request *request, PyObject *tables)
{
    if (!TAKES(reader, "{\"RequestItems\":{"))
        return 0;
    do {
        if (!take_table(reader, request, tables))
            return 0;
    } while (TAKES(reader, ","));
    return TAKES(reader, "}}") && reader->at == reader->end;
}

/* --- the answer -------------------------------------------------------------------------------------------- */

static const char ITEM[] = "," KEY_START, HEAD[] = "{\"Responses\":{", TAIL[] = "]},\"UnprocessedKeys\":{}}";

static inline PyObject *row_of(const Part *part, const Key *key)
{
    PyObject *rows = PyTuple_GET_ITEM(part->entry, 1);
    return PyList_GET_ITEM(rows, key->crc % (uint32_t)PyList_GET_SIZE(rows));
}

/* At least the body's size: commas and NULs that aren't written are counted. */
static Py_ssize_t size_of(const Request *request)
{
    Py_ssize_t size = sizeof(HEAD) + sizeof(TAIL);
    for (const Part *part = request->parts; part < request->parts + request->part_count; part++) {
        size += PyBytes_GET_SIZE(PyTuple_GET_ITEM(part->entry, 0));
        for (const Key *key = &request->keys[part->first]; key < &request->keys[part->first + part->count]; key++) {
            PyObject *row = row_of(part, key);
            if (row != Py_None)
                size += (Py_ssize_t)sizeof(ITEM) + key->length + 1 + PyBytes_GET_SIZE(row);
        }
    }
    return size;
}

static inline char *put(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

static inline char *put_bytes(char *at, PyObject *bytes, Py_ssize_t skipped)
{
    return put(at, PyBytes_AS_STRING(bytes) + skipped, (size_t)(PyBytes_GET_SIZE(bytes) - skipped));
}

/* Write the body and count what was read; return its end. */
static char *write_answer(char *at, const Request *request, int64_t *counts)
{
    at = put(at, HEAD, sizeof(HEAD) - 1);
    for (const Part *part = request->parts; part < request->parts + request->part_count; part++) {
        /* A table's start begins with what ends the table before; there is none before the first. */
        Py_ssize_t ending = part == request->parts ? (Py_ssize_t)strlen("],") : 0;
        at = put_bytes(at, PyTuple_GET_ITEM(part->entry, 0), ending);
        size_t skipped = 1; /* the comma before the first item */
        for (const Key *key = &request->keys[part->first]; key < &request->keys[part->first + part->count]; key++) {
            PyObject *row = row_of(part, key);
            if (row == Py_None) {
                counts[ABSENT_KEYS]++;
                continue;
            }
            at = put(at, ITEM + skipped, sizeof(ITEM) - 1 - skipped);
            at = put(at, key->text, (size_t)key->length);
            *at++ = '"';
            at = put_bytes(at, row, 0);
            skipped = 0;
        }
        counts[TOTALS + PyLong_AsLong(PyTuple_GET_ITEM(part->entry, 2))] += part->count;
    }
    counts[KEYS] += request->key_count;
    return put(at, TAIL, sizeof(TAIL) - 1);
}

/* --- the module -------------------------------------------------------------------------------------------- */

static PyObject *prepared_answer(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer body, counts;
    PyObject *tables;
    Py_ssize_t room;
    if (!PyArg_ParseTuple(arguments, "y*O!w*n", &body, &PyDict_Type, &tables, &counts, &room))
        return NULL;
    Request request = {.key_count = 0, .part_count = 0};
    Reader reader = {body.buf, (const char *)body.buf + body.len};
    PyObject *answer = NULL;
    Py_ssize_t size = take_request(&reader, &request, tables) ? size_of(&request) : 0;
    if (size > 0 && size <= MOST_BYTES) {
        answer = PyByteArray_FromStringAndSize(NULL, room + size);
        if (answer != NULL) {
            char *start = PyByteArray_AS_STRING(answer);
            char *end = write_answer(start + room, &request, counts.buf);
            if (PyByteArray_Resize(answer, end - start) < 0)
                Py_CLEAR(answer);
        }
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&counts);
    if (answer == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return answer;
}

static PyMethodDef methods[] = {
    {"prepared_answer", prepared_answer, METH_VARARGS, "Return a plain request's answer behind some room, or None."},
    {NULL, NULL, 0, NULL},
};

static int prepare_module(PyObject *module)
{
    (void)module;
    make_crcs();
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, prepare_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_prepared_answer", "Answers out of prepared tables.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__prepared_answer(void)
{
    return PyModuleDef_Init(&definition);
}
